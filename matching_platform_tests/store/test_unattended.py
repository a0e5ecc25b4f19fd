import math
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from matching_platform.store.record import LostRaceError, Record
from matching_platform.store.unattended import NEVER, RECORD, Change, Permission, Unattended, UnattendedError
from matching_platform.store.versions import Store
from matching_platform_tests.store.racing import race

ADA = {"actor": "Ada", "reason": "wrong bookings"}
CONFIDENCES = st.sampled_from([0.9, 0.95, 0.99, 1.0, NEVER])
MODELS = st.sampled_from("mn")


class InForce(RuleBasedStateMachine):
    """The record beside what should be in force, through two people of whom one may be behind."""

    @initialize()
    def start(self) -> None:
        self.store = Store(f"memory://{uuid4().hex}")
        self.record, self.freezes, self.thresholds, self.count = Unattended(self.store), 0, {}, 0
        self.known = []

    @rule()
    def freeze(self) -> None:
        self.record.freeze(**ADA)
        self.freezes, self.count = self.freezes + 1, self.count + 1

    @rule()
    def unfreeze(self) -> None:
        if not self.freezes:
            with pytest.raises(UnattendedError, match="nothing is frozen"):
                self.record.unfreeze(**ADA)
            return
        self.record.unfreeze(**ADA)
        self.freezes, self.count = 0, self.count + 1

    @rule(model=MODELS, auto_from=CONFIDENCES)
    def book_from(self, model: str, auto_from: float) -> None:
        before = self.thresholds.get(model, 0.0)
        change = self.record.book_from(model, auto_from, **ADA)
        self.count += auto_from > before
        self.thresholds[model] = max(before, auto_from)
        assert (change.model, change.auto_from) == (model, self.thresholds[model])

    @rule(model=MODELS)
    def book_from_own(self, model: str) -> None:
        if model not in self.thresholds:
            with pytest.raises(UnattendedError, match="no threshold"):
                self.record.book_from_own(model, **ADA)
            return
        self.record.book_from_own(model, **ADA)
        del self.thresholds[model]
        self.count += 1

    @invariant()
    def what_is_in_force(self) -> None:
        permission = self.record.permission()
        assert (len(permission.freezes), permission.thresholds) == (self.freezes, self.thresholds)
        assert bool(permission.told) is bool(permission.frozen) is (self.freezes > 0)
        self.known = self.record.history(self.known)
        assert self.known == self.record.history()
        assert [change.number for change in self.known] == list(range(1, self.count + 1))


TestInForce = InForce.TestCase
TestInForce.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)


@given(st.floats(0, 1), st.dictionaries(MODELS, st.floats(0, NEVER)), MODELS)
def test_nothing_in_the_record_goes_below_a_models_own_threshold(
    own: float, thresholds: dict[str, float], model: str
) -> None:
    assert Permission(None, thresholds).auto_from(model, own) >= own


@pytest.mark.parametrize("auto_from", [0.0, -1.0, 1.01, 1.2, math.nan, math.inf])
def test_a_threshold_that_is_no_confidence_is_refused(disk: Store, auto_from: float) -> None:
    with pytest.raises(UnattendedError, match="is no confidence"):
        Unattended(disk).book_from("m", auto_from, **ADA)
    assert Unattended(disk).history() == []


@pytest.mark.parametrize("unsigned", [{"actor": " "}, {"reason": ""}])
def test_a_change_says_who_made_it_and_why(disk: Store, unsigned: dict[str, str]) -> None:
    with pytest.raises(UnattendedError, match="is empty"):
        Unattended(disk).freeze(**{**ADA, **unsigned})


def test_what_is_frozen_is_told_with_every_reason(disk: Store) -> None:
    record = Unattended(disk)
    first = record.freeze(**ADA)
    record.freeze(actor="Bob", reason="a strange month")
    permission = record.permission()
    assert permission.frozen == first
    assert "by Ada (wrong bookings) and" in permission.told
    assert "by Bob (a strange month): lift it with `matching-platform unfreeze" in permission.told
    assert permission.auto_from("m", 0.9) == NEVER


class Meanwhile(Unattended):
    """What another process appends between looking and appending."""

    def __init__(self, store: Store, *acts: str) -> None:
        super().__init__(store)
        self.other, self.acts = Unattended(store), list(acts)

    def history(self, known=()):
        found = super().history(known)
        if self.acts and (act := self.acts.pop(0)):
            {
                "freeze": lambda: self.other.freeze(actor="Bob", reason="another reason"),
                "unfreeze": lambda: self.other.unfreeze(actor="Bob", reason="seen to"),
                "raise": lambda: self.other.book_from("m", 0.99, actor="Bob", reason="doubts"),
            }[act]()
        return found


@pytest.mark.parametrize("when", [0, 1])
@pytest.mark.parametrize(
    ("act", "told", "freezes"),
    [("freeze", "frozen again on .* by Bob", 2), ("unfreeze", "nothing is frozen", 0), ("raise", None, 0)],
)
def test_who_lifts_a_freeze_lifts_what_he_could_know_of(
    disk: Store, act: str, told: str | None, freezes: int, when: int
) -> None:
    Unattended(disk).freeze(**ADA)
    record = Meanwhile(disk, *[""] * when, act)
    if told is None:
        record.unfreeze(**ADA)
    else:
        with pytest.raises(UnattendedError, match=told):
            record.unfreeze(**ADA)
    permission = record.permission()
    assert len(permission.freezes) == freezes
    assert permission.thresholds == ({"m": 0.99} if act == "raise" else {})


def test_exactly_the_freezes_that_were_read_are_lifted(disk: Store) -> None:
    record = Unattended(disk)
    nothing = record.permission()
    record.freeze(**ADA)
    one = record.permission()
    record.freeze(actor="Bob", reason="another reason")
    for known in (nothing, one):
        with pytest.raises(UnattendedError, match=r"frozen again on .* by Bob"):
            record.unfreeze(known, **ADA)
    assert len(record.permission().freezes) == 2
    record.unfreeze(record.permission(), **ADA)
    assert record.permission().freezes == []


@pytest.mark.parametrize(("wanted", "in_force"), [(0.95, 0.99), (0.999, 0.999)])
def test_of_two_thresholds_at_once_the_more_careful_is_in_force(disk: Store, wanted: float, in_force: float) -> None:
    assert Meanwhile(disk, "raise").book_from("m", wanted, **ADA).auto_from == in_force
    assert Unattended(disk).permission().thresholds == {"m": in_force}


def test_a_threshold_that_nobody_saw_is_not_taken_back(disk: Store) -> None:
    Unattended(disk).book_from("m", 0.95, **ADA)
    with pytest.raises(LostRaceError, match="look at it again"):
        Meanwhile(disk, "raise").book_from_own("m", **ADA)
    assert Unattended(disk).permission().thresholds == {"m": 0.99}


def test_what_a_later_version_wrote_is_not_ignored(disk: Store) -> None:
    Record(disk, RECORD).append({"action": "freeze everything but m"}, actor="Ada", reason="later")
    with pytest.raises(UnattendedError, match=r"entry 1 .* of another version"):
        Unattended(disk).permission()


def test_a_record_that_has_lost_what_is_known_is_an_error(disk: Store, tmp_path: Path) -> None:
    record = Unattended(disk)
    known = [record.freeze(**ADA)]
    with pytest.raises(UnattendedError, match="ends with entry 0, and went on to 1"):
        Unattended(Store(tmp_path / "empty")).history(known)


RACER = """
import json, sys
from matching_platform.store.unattended import Unattended, UnattendedError
from matching_platform.store.versions import Store

root, me, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
record, done = Unattended(Store(root)), []
print("ready", flush=True)
sys.stdin.readline()
for number in range(rounds):
    done.append(record.freeze(actor=me, reason=f"freeze {number}").number)
    wanted = 0.9 + number / 1000
    change = record.book_from("m", wanted, actor=me, reason=f"raise {number}")
    assert change.auto_from >= wanted, change
    done += [change.number] if change.actor == me else []
    try:
        done.append(record.unfreeze(actor=me, reason=f"lift {number}").number)
    except UnattendedError:
        pass
print(json.dumps(done))
"""


def test_two_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    rounds = 15
    said = race(RACER, tmp_path, rounds)
    history = Unattended(Store(tmp_path)).history()
    for me, done in said.items():
        assert sorted(set(done)) == [change.number for change in history if change.actor == me]
    thresholds = [change.auto_from for change in history if change.action == "threshold"]
    assert thresholds == sorted(set(thresholds))
    assert Unattended(Store(tmp_path)).permission().thresholds == {"m": 0.9 + (rounds - 1) / 1000}


def test_an_empty_record_is_told_from_none(disk: Store) -> None:
    record = Unattended(disk)
    with pytest.raises(UnattendedError, match=r"there is no record at .*records/unattended; .*mounted"):
        record.check()
    for _ in range(2):
        record.open()
        record.check()
    assert record.history() == []


@pytest.mark.parametrize("change", [Unattended.freeze, lambda record, **who: record.book_from("m", 0.9, **who)])
def test_who_changes_something_makes_the_record(disk: Store, change: Callable[..., Change]) -> None:
    record = Unattended(disk)
    change(record, **ADA)
    record.check()
    assert [one.number for one in record.history()] == [1]
