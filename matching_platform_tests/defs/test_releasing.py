"""The way forward and the way back over several models, with real records and places that are stood in for."""

from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest

from matching_platform.defs import releasing
from matching_platform.defs.common import note
from matching_platform.defs.gate import hurdles
from matching_platform.defs.releasing import (
    BENTOS,
    Candidate,
    candidate,
    release,
    remember,
    roll_back,
    roll_out,
    way_back,
    withdraw,
)
from matching_platform.delivery.serving.place import CandidateError, Deployment, Release, RolloutError
from matching_platform.environment import DEFAULTS, Platform, Settings
from matching_platform.learning import gate
from matching_platform.learning.gate import Verdict
from matching_platform.matching.matcher import ModelError
from matching_platform.store.record import LostRaceError
from matching_platform.store.registry import MODELS, RegistryError
from matching_platform.store.versions import Version


@dataclass
class Stage:
    """A place that serves what it is given, but for bentos that are broken, or while it is down."""

    name: str
    broken: set[str] = field(default_factory=set)
    down: bool = False
    served: list[str] = field(default_factory=list)
    url: str = "http://127.0.0.1:1"
    model: str | None = None

    def serving(self) -> str | None:
        return self.model

    def deploy(self, release: Release) -> Deployment:
        if self.down:
            raise RolloutError("nobody is there")
        bento = (release.bento / "bento").read_text()
        if bento in self.broken:
            raise CandidateError(f"{bento} does not come up")
        changed = self.served[-1:] != [bento]
        self.served.append(bento)
        self.model = release.model
        return Deployment(self.name, release.model, None, self.url, changed)


@dataclass
class Theatre:
    """A platform whose models are called by letters, with bentos such as `a1`, `a2`."""

    platform: Platform
    stages: dict[str, Stage]
    refused: set[str] = field(default_factory=set)
    models: dict[str, Version] = field(default_factory=dict)

    def promote(self, letter: str) -> None:
        """A model passes the gate, and is packed."""
        store = self.platform.store
        if letter not in self.models:
            self.models[letter] = store.put_bytes(MODELS, "card.json", letter.encode())
        self.platform.registry.promote(self.models[letter], store.put_bytes("evaluations", "e", b"e"), "gate", "better")
        self.pack(letter, 1)

    def pack(self, letter: str, number: int) -> None:
        version = self.platform.store.put_bytes(BENTOS, "bento", f"{letter}{number}".encode())
        note(self.platform, BENTOS, version, self.models[letter])

    def stage(self, letter: str, *, good: bool = True) -> list[str]:
        """Staging accepts a model, or refuses it."""
        chosen = candidate(self.platform, self.models[letter])
        if not good:
            return withdraw(self.platform, "staging", chosen, "refused")
        remember(self.platform, "staging", "deploy", chosen, reason="accepted")
        return []

    def deploy(self, letter: str) -> list[str]:
        """What the asset `deployment` does with an accepted model."""
        chosen = candidate(self.platform, self.models[letter])
        try:
            roll_out(self.platform, "production", chosen)
        except CandidateError as error:
            return withdraw(self.platform, "production", chosen, str(error))
        return []

    def ship(self, *letters: str) -> None:
        for letter in letters:
            self.promote(letter)
            self.stage(letter)
            self.deploy(letter)

    def examined(self, _: Platform, chosen: Candidate) -> list[Verdict]:
        letter = next(letter for letter, model in self.models.items() if model == chosen.model)
        return [Verdict("answers", letter not in self.refused, f"staging saw {letter}")]

    def back(self, **options: str | int) -> None:
        roll_back(self.platform, actor="Ada", reason="wrong bookings", **options)

    @property
    def champion(self) -> str:
        champion = self.platform.registry.champion()
        return next(letter for letter, model in self.models.items() if champion and model == champion.model)

    @property
    def state(self) -> tuple[str, str]:
        """The champion, and the bento that production serves."""
        return self.champion, self.stages["production"].served[-1]


@pytest.fixture
def theatre(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Theatre:
    settings = Settings(**{**DEFAULTS["local"], "store": str(tmp_path / "store"), "warehouse": tmp_path / "w.duckdb"})
    stages = {name: Stage(name) for name in ("staging", "production")}
    monkeypatch.setattr(Platform, "place", lambda _, name: stages[name])
    monkeypatch.setattr(releasing.probe, "answers", lambda _: [])
    theatre = Theatre(Platform(settings), stages)
    monkeypatch.setattr(releasing, "examine", theatre.examined)
    return theatre


def test_back_and_further_back(theatre: Theatre) -> None:
    theatre.ship("a", "b", "c")
    assert theatre.state == ("c", "c1")
    theatre.back()
    assert theatre.state == ("b", "b1")
    theatre.back()
    assert theatre.state == ("a", "a1")
    with pytest.raises(RegistryError, match="there is no earlier champion"):
        theatre.back()
    theatre.back(to=theatre.models["c"].name[:8])
    assert theatre.state == ("c", "c1")


def test_back_leads_to_the_bento_that_served_well(theatre: Theatre) -> None:
    """The same model packed anew does not come up: what serves again is what it was packed as before."""
    theatre.ship("a")
    theatre.pack("a", 2)
    theatre.stages["production"].broken.add("a2")
    theatre.deploy("a")
    assert theatre.state == ("a", "a1")


def test_the_same_model_packed_anew_is_rolled_back_as_well(theatre: Theatre) -> None:
    theatre.ship("a")
    theatre.pack("a", 2)
    theatre.deploy("a")
    assert theatre.state == ("a", "a2")
    theatre.back()
    assert theatre.state == ("a", "a1")


def test_nothing_leads_to_what_staging_refuses(theatre: Theatre) -> None:
    theatre.promote("a")
    assert theatre.stage("a", good=False) == []
    assert theatre.champion == "a"
    theatre.ship("b")
    theatre.refused.add("a")
    for options in ({}, {"to": theatre.models["a"].name}):
        with pytest.raises(
            RolloutError, match="never served in production, and staging refuses it: answers: staging saw a"
        ):
            theatre.back(**options)
    assert theatre.state == ("b", "b1")


def test_what_never_served_is_examined_first(theatre: Theatre) -> None:
    theatre.promote("a")
    theatre.ship("b")
    theatre.back()
    assert theatre.state == ("a", "a1")
    assert theatre.platform.releases("production").current().action == "rollback"


def test_a_refusal_does_not_lead_to_what_was_never_staged(theatre: Theatre) -> None:
    theatre.ship("a")
    theatre.promote("b")
    theatre.promote("c")
    told = theatre.stage("c", good=False)
    assert told == [f"{theatre.models['a'].name} is champion again"]
    assert theatre.state == ("a", "a1")


def test_what_fails_in_production_is_taken_back(theatre: Theatre) -> None:
    theatre.ship("a")
    theatre.stages["production"].broken.add("b1")
    theatre.ship("b")
    assert theatre.state == ("a", "a1")
    assert way_back(theatre.platform) is None


def test_staging_made_again_leaves_what_serves_well(theatre: Theatre) -> None:
    theatre.ship("z", "a")
    assert theatre.stage("a", good=False) == []
    assert theatre.state == ("a", "a1")
    theatre.back()
    assert theatre.state == ("z", "z1")


def test_where_a_place_is_down_the_champion_is_taken_back_all_the_same(theatre: Theatre) -> None:
    theatre.ship("a")
    theatre.promote("b")
    theatre.stage("b")
    theatre.stages["production"].down = True
    chosen = candidate(theatre.platform, theatre.models["b"])
    told = withdraw(theatre.platform, "production", chosen, "too many errors")
    assert told == [
        "production could not be taken back: nobody is there",
        f"{theatre.models['a'].name} is champion again",
    ]


def test_a_model_that_does_not_load_is_told_and_production_is_safe(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    theatre.ship("a", "b")

    def broken(_: Path) -> None:
        raise ModelError("the weights are missing")

    monkeypatch.setattr(releasing.probe, "answers", broken)
    with pytest.raises(ModelError):
        theatre.back()
    assert theatre.state == ("b", "a1")


def test_a_rollback_that_was_cut_short_is_finished(theatre: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    theatre.ship("z", "a", "b")
    with monkeypatch.context() as patch:
        patch.setattr(theatre.platform.registry, "rollback", lambda **_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            theatre.back()
    assert theatre.state == ("b", "a1")
    theatre.back()
    assert theatre.state == ("a", "a1")


def test_a_deployment_that_was_cut_short_before_it_was_noted(theatre: Theatre) -> None:
    theatre.ship("a")
    theatre.promote("b")
    theatre.stages["production"].served.append("b1")
    theatre.back()
    assert theatre.state == ("a", "a1")


def test_what_fails_is_left_whoever_is_champion(theatre: Theatre) -> None:
    theatre.ship("a", "b")
    theatre.promote("c")
    theatre.back(instead_of=theatre.platform.releases("production").current().number)
    assert theatre.state == ("a", "a1")


def test_what_fails_and_was_never_noted_is_left_for_what_is_noted(theatre: Theatre) -> None:
    theatre.ship("a")
    theatre.promote("b")
    production = theatre.stages["production"]
    production.deploy(release(theatre.platform, candidate(theatre.platform, theatre.models["b"])))
    theatre.back(instead_of=theatre.platform.releases("production").current().number)
    assert theatre.state == ("a", "a1")


def test_a_request_that_came_too_late_does_nothing(theatre: Theatre) -> None:
    theatre.ship("z", "a", "b")
    number = theatre.platform.releases("production").current().number
    theatre.back()
    assert theatre.state == ("a", "a1")
    theatre.back(instead_of=number)
    assert theatre.state == ("a", "a1")


def test_the_gate_does_not_take_back_what_was_withdrawn(theatre: Theatre, tmp_path: Path) -> None:
    theatre.ship("a", "b")
    theatre.back()
    again = gate.Candidate("e" * 64, theatre.models["b"].digest, "t" * 64, "s" * 64, 3)
    with dg.DagsterInstance.ephemeral() as instance:
        found = hurdles(theatre.platform, instance, again)
        by_hand = hurdles(theatre.platform, instance, again, by_hand=True)
        other = hurdles(theatre.platform, instance, gate.Candidate("e" * 64, "9" * 64, "t" * 64, "s" * 64, 3))
    assert found[-1].startswith("it was taken out of service on ")
    assert "by Ada (wrong bookings)" in found[-1]
    assert found[:-1] == by_hand
    assert not any("taken out of service" in one for one in other)
    theatre.promote("b")
    assert theatre.platform.registry.withdrawn(theatre.models["b"]) is None


@pytest.mark.parametrize(("served", "state"), [(True, ("a", "a1")), (False, ("d", "b1"))])
def test_a_promotion_during_a_rollback_has_the_last_word(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch, served: bool, state: tuple[str, str]
) -> None:
    """What served well serves again; what never served leaves production as it is until its own rollout."""
    theatre.ship("a", "b", "c")
    number = theatre.platform.registry.champion().number
    monkeypatch.setattr(releasing.probe, "answers", lambda _: theatre.promote("a" if served else "d"))
    with pytest.raises(LostRaceError):
        theatre.back(to=theatre.models["b"].name, expected_last=number)
    assert theatre.state == state
    assert theatre.platform.registry.history()[-1].action == "promote"
