import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from matching_platform.store.files import CorruptError, StoreError
from matching_platform.store.record import LostRaceError
from matching_platform.store.registry import Registry, RegistryError
from matching_platform.store.versions import Store, UnknownVersionError, Version
from matching_platform_tests.emulators.cloud_storage import Server

SIGNED = {"actor": "alice", "reason": "a test"}


def answers(folder: Path) -> None:
    assert (folder / "weights.bin").read_bytes()


def store_model(store: Store, name: str) -> Version:
    return store.put_bytes("models", "weights.bin", name.encode())


@pytest.fixture
def evaluation(store: Store) -> Version:
    return store.put_bytes("evaluations", "figures.json", b"{}")


def promote_all(store: Store, evaluation: Version, names: str) -> dict[str, Version]:
    models = {name: store_model(store, name) for name in dict.fromkeys(names)}
    for name in names:
        Registry(store).promote(models[name], evaluation, **SIGNED)
    return models


class Promotions(RuleBasedStateMachine):
    """A registry beside a pile of champions: promoting puts one on top, rolling back takes some off."""

    base: str | None = None

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        root = f"{self.base}/{uuid4().hex}" if self.base else self.folder.name
        store = Store(root, cache=Path(self.folder.name, "cache"))
        self.registry = Registry(store)
        self.evaluation = store.put_bytes("evaluations", "figures.json", b"{}")
        self.models = [store_model(store, name) for name in "abcd"]
        self.pile: list[Version] = []
        self.promoted: list[Version] = []

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def rollback(self, to: str | None, expected: Version) -> None:
        checked: list[Path] = []
        promotion = self.registry.rollback(**SIGNED, check=checked.append, to=to)
        self.promoted.append(expected)
        assert (promotion.action, promotion.model, promotion.evaluation) == ("rollback", expected, self.evaluation)
        assert [folder.name for folder in checked] == [expected.name]

    @rule(index=st.integers(0, 3))
    def promote(self, index: int) -> None:
        model = self.models[index]
        self.registry.promote(model, self.evaluation, **SIGNED)
        if self.pile[-1:] != [model]:
            self.pile.append(model)
            self.promoted.append(model)

    @rule()
    def go_back(self) -> None:
        if len(self.pile) > 1:
            self.pile.pop()
            self.rollback(None, self.pile[-1])
        else:
            with pytest.raises(RegistryError, match="there is no earlier champion"):
                self.rollback(None, self.models[0])

    @rule(index=st.integers(0, 3))
    def go_back_to(self, index: int) -> None:
        model = self.models[index]
        if model not in self.promoted:
            with pytest.raises(UnknownVersionError, match="is no name of a model that was champion"):
                self.rollback(model.name, model)
        elif model == self.pile[-1]:
            with pytest.raises(RegistryError, match="is the champion already"):
                self.rollback(model.name, model)
        else:
            while model in self.pile and self.pile[-1] != model:
                self.pile.pop()
            self.pile += [model] if model not in self.pile else []
            self.rollback(model.name, model)

    @invariant()
    def the_top_of_the_pile_is_champion(self) -> None:
        champion = self.registry.champion()
        assert (champion and champion.model) == (self.pile[-1] if self.pile else None)
        assert [promotion.model for promotion in self.registry.history()] == self.promoted
        status = {model.manifest.version: model.status for model in self.registry.models()}
        former = dict.fromkeys(self.promoted, "former champion")
        top = dict.fromkeys(self.pile[-1:], "champion")
        assert status == {**dict.fromkeys(self.models, "never promoted"), **former, **top}


TestPromotions = Promotions.TestCase
TestPromotions.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


@pytest.mark.cloud
def test_promotions_on_google_cloud(cloud: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Promotions, "base", cloud.bucket("registries"))
    run_state_machine_as_test(Promotions, settings=settings(max_examples=5, stateful_step_count=8, deadline=None))


def test_a_promotion_says_what_who_and_why(store: Store, evaluation: Version) -> None:
    model = store_model(store, "a")
    registry = Registry(store)
    assert registry.champion() is None
    promotion = registry.promote(model, evaluation, "alice", "better on the frozen test")
    assert registry.champion() == promotion
    assert (promotion.number, promotion.action, promotion.model) == (1, "promote", model)
    assert (promotion.actor, promotion.reason) == ("alice", "better on the frozen test")
    assert promotion.evaluation == evaluation
    assert registry.show(model.name[:6]).promotions == [promotion]


def test_promoting_the_champion_again_changes_nothing(store: Store, evaluation: Version) -> None:
    promote_all(store, evaluation, "aa")
    assert len(Registry(store).history()) == 1


def test_going_back_twice_goes_back_two_champions(store: Store, evaluation: Version) -> None:
    models, registry = promote_all(store, evaluation, "abc"), Registry(store)
    for expected in "ba":
        assert registry.rollback(**SIGNED, check=answers).model == models[expected]
    with pytest.raises(RegistryError, match="there is no earlier champion to go back to"):
        registry.rollback(**SIGNED, check=answers)
    assert registry.rollback(**SIGNED, check=answers, to=models["c"].name).model == models["c"], "forward again"


def test_a_model_that_does_not_answer_does_not_become_champion(store: Store, evaluation: Version) -> None:
    def refuses(folder: Path) -> None:
        raise ValueError("no answer")

    models, registry = promote_all(store, evaluation, "ab"), Registry(store)
    with pytest.raises(ValueError, match="no answer"):
        registry.rollback(**SIGNED, check=refuses)
    assert registry.champion().model == models["b"]
    assert len(registry.history()) == 2


@pytest.mark.parametrize("root", ["disk", pytest.param("google cloud", marks=pytest.mark.cloud)], indirect=True)
def test_of_many_promotions_at_once_one_wins(store: Store, evaluation: Version) -> None:
    models = [store_model(store, name) for name in "abcdefgh"]
    start = Barrier(len(models))

    def promote(model: Version) -> bool:
        start.wait()
        try:
            Registry(store).promote(model, evaluation, **SIGNED, expected_last=0)
        except LostRaceError:
            return False
        return True

    with ThreadPoolExecutor(len(models)) as pool:
        won = list(pool.map(promote, models))
    assert won.count(True) == 1
    assert [promotion.model for promotion in Registry(store).history()] == [models[won.index(True)]]


def test_a_damaged_model_does_not_become_champion(store: Store, evaluation: Version) -> None:
    models, registry = promote_all(store, evaluation, "ab"), Registry(store)
    fresh = store_model(store, "c")
    for version in (models["a"], fresh):
        store.files.fs.pipe_file(store.files.path(f"{version.folder}/weights.bin"), b"x")
    with pytest.raises(CorruptError, match=r"weights\.bin: is not what was written"):
        registry.rollback(**SIGNED, check=answers)
    with pytest.raises(CorruptError, match=r"weights\.bin: is not what was written"):
        registry.promote(fresh, evaluation, **SIGNED)
    assert registry.champion().model == models["b"]


def test_damage_elsewhere_does_not_keep_from_going_back(store: Store, evaluation: Version) -> None:
    models, registry = promote_all(store, evaluation, "ab"), Registry(store)
    other = store_model(store, "c")
    store.files.fs.pipe_file(store.files.path(f"{other.folder}/.version.json"), b"{")
    assert registry.rollback(**SIGNED, check=answers, to=models["a"].name).model == models["a"]


def test_a_promotion_while_another_was_decided_loses(store: Store, evaluation: Version) -> None:
    models, registry = promote_all(store, evaluation, "ab"), Registry(store)
    with pytest.raises(LostRaceError, match="ends with entry 2, not with 1"):
        registry.promote(store_model(store, "c"), evaluation, **SIGNED, expected_last=1)
    assert registry.champion().model == models["b"]


def test_a_promotion_during_the_check_of_a_rollback_stays(store: Store, evaluation: Version) -> None:
    promote_all(store, evaluation, "ab")
    registry, newest = Registry(store), store_model(store, "c")
    with pytest.raises(LostRaceError, match="look at it again"):
        registry.rollback(**SIGNED, check=lambda _: registry.promote(newest, evaluation, **SIGNED))
    assert registry.champion().model == newest


def test_a_rollback_of_a_champion_that_is_another_by_now_loses(store: Store, evaluation: Version) -> None:
    models, registry = promote_all(store, evaluation, "abc"), Registry(store)
    with pytest.raises(LostRaceError, match="ends with entry 3, not with 2"):
        registry.rollback(**SIGNED, check=answers, to=models["a"].name, expected_last=2)
    assert registry.champion().model == models["c"]
    assert registry.rollback(**SIGNED, check=answers, to=models["a"].name, expected_last=3).model == models["a"]


@pytest.mark.parametrize(
    ("changes", "error", "problem"),
    [
        ({"actor": " "}, RegistryError, "the actor is empty"),
        ({"reason": ""}, RegistryError, "the reason is empty"),
        ({"model": Version("models", "0" * 64)}, UnknownVersionError, "there is no version models/0000000000000000"),
        ({"evaluation": Version("evaluations", "0" * 64)}, UnknownVersionError, "there is no version evaluations/0000"),
        ({"model": Version("images", "0" * 64)}, RegistryError, "images/0000000000000000 is no model"),
    ],
)
def test_promotions_refused(
    store: Store, evaluation: Version, changes: dict[str, object], error: type[StoreError], problem: str
) -> None:
    asked = {"model": store_model(store, "a"), "evaluation": evaluation, **SIGNED, **changes}
    with pytest.raises(error, match=problem):
        Registry(store).promote(**asked)
    assert Registry(store).history() == []
