import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from matching_platform.store.files import CorruptError
from matching_platform.store.record import LostRaceError, Record
from matching_platform.store.versions import Store

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


class AppendOnly(RuleBasedStateMachine):
    """A record beside the list that it should equal, through two writers of which one may be behind."""

    @initialize()
    def start(self) -> None:
        store = Store(f"memory://{uuid4().hex}")
        self.record, self.expected, self.seen = Record(store, "a/b"), [], 0

    @rule()
    def look(self) -> None:
        self.seen = self.record.count()

    @rule(payload=st.dictionaries(st.text(), JSON, max_size=3), actor=st.text(), reason=st.text())
    def append(self, payload: dict, actor: str, reason: str) -> None:
        entry = self.record.append(payload, actor=actor, reason=reason)
        assert (entry.payload, entry.actor, entry.reason) == (payload, actor, reason)
        assert entry.time.utcoffset().total_seconds() == 0
        self.expected.append(entry)

    @rule()
    def append_to_what_was_seen(self) -> None:
        if self.seen == len(self.expected):
            self.expected.append(self.record.append({}, self.seen))
        else:
            with pytest.raises(LostRaceError, match="look at it again"):
                self.record.append({}, self.seen)

    @invariant()
    def entries_are_those_appended(self) -> None:
        assert self.record.entries() == self.expected
        assert [entry.number for entry in self.expected] == list(range(1, len(self.expected) + 1))
        assert self.record.last() == (self.expected[-1] if self.expected else None)


TestAppendOnly = AppendOnly.TestCase
TestAppendOnly.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)


def test_a_writer_between_looking_and_writing_wins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = Record(store, "promotions"), Record(store, "promotions")
    quick.append({"who": "first"})
    monkeypatch.setattr(slow, "count", lambda: 0)
    with pytest.raises(LostRaceError, match="entry 1 from somebody else"):
        slow.append({"who": "slow"}, 0)
    assert [entry.payload for entry in quick.entries()] == [{"who": "first"}]


RACER = """
import sys
from matching_platform.store.record import LostRaceError, Record
from matching_platform.store.versions import Store

root, me, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
record = Record(Store(root), "promotions")
won = []
print("ready", flush=True)
sys.stdin.readline()
for last in range(rounds):
    try:
        won.append(record.append({"who": me}, last).number)
    except LostRaceError:
        pass
    while record.count() <= last:
        pass
print(won)
"""


def test_of_two_processes_that_want_a_number_exactly_one_gets_it(tmp_path: Path) -> None:
    rounds = 100
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path), me, str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for me in "ab"
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = {me: json.loads(racer.communicate(timeout=120)[0]) for me, racer in zip("ab", racers, strict=True)}
    assert sorted(won["a"] + won["b"]) == list(range(1, rounds + 1))
    entries = Record(Store(tmp_path), "promotions").entries()
    assert {me: [e.number for e in entries if e.payload["who"] == me] for me in "ab"} == won


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [("alice", "mallory", "is not what was written"), ("}", "", "cannot be read"), ('": 2', '": 3', "is not what was")],
)
def test_a_changed_entry_is_found_and_named(disk: Store, old: str, new: str, problem: str) -> None:
    record = Record(disk, "promotions")
    for _ in range(3):
        record.append({"model": "m"}, actor="alice")
    path = Path(disk.files.root, "records/promotions/00000002.json")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(CorruptError, match=f"00000002.json: {problem}"):
        record.entries()


def test_a_missing_entry_is_found_and_named(store: Store) -> None:
    record = Record(store, "promotions")
    for _ in range(3):
        record.append({})
    store.files.fs.rm(store.files.path("records/promotions/00000002.json"))
    with pytest.raises(CorruptError, match=r"promotions/00000002\.json: is missing"):
        record.last()


def test_a_listing_that_fails_is_no_empty_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("503")

    record = Record(store, "promotions")
    record.append({})
    monkeypatch.setattr(type(store.files.fs), "ls", fail)
    with pytest.raises(OSError, match="503"):
        record.last()


@pytest.mark.parametrize("name", ["", "/x", "../x", "a//b", "a/", "a b"])
def test_a_record_cannot_lie_elsewhere(disk: Store, name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a record"):
        Record(disk, name)
