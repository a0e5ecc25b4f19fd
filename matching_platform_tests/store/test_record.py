from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from matching_platform.store.files import CorruptError, StoreError
from matching_platform.store.record import LostRaceError, Record, whoami
from matching_platform.store.versions import Store
from matching_platform_tests.emulators.cloud_storage import Server
from matching_platform_tests.store.racing import race

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


class AppendOnly(RuleBasedStateMachine):
    """A record beside the list that it should equal, through two writers of which one may be behind."""

    base = "memory:/"

    @initialize()
    def start(self) -> None:
        store = Store(f"{self.base}/{uuid4().hex}")
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


@pytest.mark.cloud
def test_append_only_on_google_cloud(cloud: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AppendOnly, "base", cloud.bucket("records"))
    run_state_machine_as_test(AppendOnly, settings=settings(max_examples=8, stateful_step_count=10, deadline=None))


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
from matching_platform_tests.emulators.cloud_storage import Server

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


@pytest.mark.parametrize("root", ["disk", pytest.param("google cloud", marks=pytest.mark.cloud)], indirect=True)
def test_of_two_processes_that_want_a_number_exactly_one_gets_it(root: str, tmp_path: Path) -> None:
    rounds = 30 if root.startswith("gs:") else 100
    won = race(RACER, root, rounds)
    assert sorted(won["a"] + won["b"]) == list(range(1, rounds + 1))
    entries = Record(Store(root), "promotions").entries()
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
    monkeypatch.setattr(store.files.fs, "ls", fail)
    with pytest.raises((OSError, StoreError), match="503"):
        record.last()


@pytest.mark.parametrize("name", ["", "/x", "../x", "a//b", "a/", "a b"])
def test_a_record_cannot_lie_elsewhere(disk: Store, name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a record"):
        Record(disk, name)


def test_who_makes_an_entry_is_told_also_where_nobody_knows_his_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "eve")
    assert whoami() == "eve"

    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", unknown)
    monkeypatch.setattr("os.getuid", lambda: 1234)
    assert whoami().startswith("user 1234 on ")
