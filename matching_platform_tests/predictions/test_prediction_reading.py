"""Days become files, and no request is lost or doubled, wherever one is killed."""

from collections.abc import Sequence
from datetime import date, timedelta
from io import BytesIO
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matching_platform.predictions import reading, states
from matching_platform.predictions.headers import COPY, PROBE
from matching_platform.predictions.reading import CompactionError
from matching_platform.predictions.served import Served, rows
from matching_platform.predictions.states import State
from matching_platform.store.files import CorruptError, Files
from matching_platform.warehouse.tables import publishable
from matching_platform_tests.predictions.made import NOON, PLAIN, TRANSFERS, served
from matching_platform_tests.predictions.memory import in_a_process

DAY = f"{NOON:%Y-%m-%d}"


def write_part(files: Files, number: int, requests: Sequence[str], day: str = DAY) -> None:
    files.create(f"requests/{day}/server-{number:08d}.parquet", encoded([served(one) for one in requests]))


def encoded(requests: Sequence[Served]) -> bytes:
    file = BytesIO()
    rows(requests, "server", PLAIN).write_parquet(file)
    return file.getvalue()


def ids(files: Files, day: str = DAY) -> list[str]:
    return reading.read(files, day)["request_id"].to_list()


def pieces(files: Files, day: str = DAY) -> list[str]:
    """The requests in the files of a day that is over, as often as they are there."""
    names = reading.finished(files).get(day, [])
    return sorted(one for name in names for one in reading.piece(files, day, name)["request_id"])


# Parts of a day, and after which of them somebody made files of what was there; a part may repeat what is kept already,
# as one that was not removed in time does.
PARTS = st.lists(
    st.tuples(st.lists(st.integers(0, 30), min_size=1, max_size=5, unique=True), st.booleans()), max_size=6
)


@settings(max_examples=40, deadline=None)
@given(parts=PARTS, small=st.booleans())
def test_every_request_is_there_once(parts: list[tuple[list[int], bool]], small: bool) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_FILE_BYTES", 1 if small else 2**26)
        patch.setattr(reading, "_SIDE_BY_SIDE", 2)
        files, given_ids = Files(folder), set()
        for number, (requests, compacted) in enumerate(parts):
            write_part(files, number, [f"{one}" for one in requests])
            given_ids |= {f"{one}" for one in requests}
            assert sorted(ids(files)) == sorted(given_ids)
            if compacted:
                reading.compact(files, DAY)
                assert sorted(ids(files)) == sorted(given_ids) == pieces(files)
                assert files.names(f"requests/{DAY}") == []


def test_only_days_that_are_over_become_files(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    write_part(files, 1, ["one"])
    reading.compact_before(files, NOON.date())
    assert reading.finished(files) == {}
    reading.compact_before(files, NOON.date() + timedelta(days=1))
    assert reading.finished(files) == {DAY: ["0001.parquet"]}
    reading.compact_before(files, NOON.date() + timedelta(days=1))
    assert reading.finished(files) == {DAY: ["0001.parquet"]}


class Killed(BaseException):
    """Nothing that runs after it is run."""


class MortalFiles(Files):
    """Files on this disk whose user is killed before so many of the writing steps; what they do is whole or not at all."""

    def __init__(self, root: Path, steps: int) -> None:
        super().__init__(str(root))
        self.left = steps

    def create(self, name: str, data: bytes) -> None:
        self._step()
        super().create(name, data)

    def remove(self, name: str) -> None:
        self._step()
        super().remove(name)

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


def test_killed_between_any_two_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_FILE_BYTES", 1)
    monkeypatch.setattr(reading, "_SIDE_BY_SIDE", 2)
    wanted = [f"{number}" for number in range(6)]
    for steps in count():
        files = Files(str(tmp_path / str(steps)))
        for number in range(3):
            write_part(files, number, wanted[2 * number : 2 * number + 2])
        try:
            reading.compact(MortalFiles(tmp_path / str(steps), steps), DAY)
            killed = False
        except Killed:
            killed = True
        assert sorted(ids(files)) == wanted
        reading.compact(files, DAY)
        assert sorted(ids(files)) == pieces(files) == wanted
        assert files.names(f"requests/{DAY}") == []
        if not killed:
            break
    assert steps >= 5


def test_somebody_who_makes_the_same_files_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, written = Files(str(tmp_path)), reading._written
    write_part(files, 1, ["one"])

    def be_overtaken(frame: pl.DataFrame) -> bytes:
        monkeypatch.setattr(reading, "_written", written)
        reading.compact(files, DAY)
        return written(frame)

    monkeypatch.setattr(reading, "_written", be_overtaken)
    with pytest.raises(CompactionError, match="run this again"):
        reading.compact(files, DAY)
    assert ids(files) == pieces(files) == ["one"]


def test_a_reader_meets_somebody_who_removes_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, names = Files(str(tmp_path)), reading._names
    write_part(files, 1, ["one"])

    def removed_meanwhile(some: Files, folder: str) -> list[str]:
        found = names(some, folder)
        monkeypatch.setattr(reading, "_names", names)
        reading.compact(some, DAY)
        return found

    monkeypatch.setattr(reading, "_names", removed_meanwhile)
    assert ids(files) == ["one"]


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    files.create(f"requests/{DAY}/server-1.parquet", b"no parquet")
    with pytest.raises(CorruptError, match=rf"{DAY}/server-1.parquet: cannot be read"):
        reading.read(files, DAY)


def test_what_is_too_old_is_forgotten(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    for number, day in enumerate(("2024-05-01", "2024-05-02", "2024-05-03")):
        write_part(files, number, [day], day)
        if number != 1:
            reading.compact(files, day)
        said = NOON.replace(day=number + 1)
        states.save(files, State(f"s{number}", "host", 1, 0.0, said, said, said, 1, 0, "closed"))
    reading.forget_before(files, date(2024, 5, 3))
    assert [day for day in reading.days(files) if ids(files, day)] == ["2024-05-03"]
    assert states.names(files) == ["s2"]


@pytest.mark.parametrize(
    ("parts", "transfers"), [pytest.param(4000, 1, id="many small parts"), pytest.param(24, 20_000, id="large parts")]
)
def test_files_of_a_day_are_made_in_little_memory(tmp_path: Path, parts: int, transfers: int) -> None:
    files, many = tmp_path / "requests" / DAY, pl.concat([TRANSFERS] * transfers).head(transfers)
    files.mkdir(parents=True)
    made = [encoded([served(f"{number}", transfers=many)]) for number in range(24)]
    for number in range(parts):
        (files / f"server-{number:08d}.parquet").write_bytes(made[number % len(made)])
    (grown,) = in_a_process("compaction", tmp_path, 4 * 2**20)
    assert grown < 200 * 2**20


AGO = {"now": timedelta(), "long ago": timedelta(hours=1)}


@pytest.mark.parametrize(
    ("end", "said", "lost"),
    [("open", "now", 0), ("open", "long ago", 1), ("closed", "long ago", 0), ("lost", "now", 1)],
)
def test_how_a_server_ended_is_told(tmp_path: Path, end: states.End, said: str, lost: int) -> None:
    files, at = Files(str(tmp_path)), NOON - AGO[said]
    states.save(files, State("server", "host", 1, 0.0, at, at, at, 5, 0, end))
    report = reading.report(files, NOON, NOON - timedelta(days=1))
    assert len(report.lost) == lost
    assert report.open == (end == "open" and not lost)
    told = f"requests after {at:%Y-%m-%d %H:%M:%S} UTC may be missing, those of its last second"
    assert [told in problem for problem in report.problems] == [True] * lost
    assert reading.report(files, NOON, NOON + timedelta(hours=1)).problems == []


def test_dropped_requests_are_told(tmp_path: Path) -> None:
    files = Files(str(tmp_path))
    states.save(files, State("server", "host", 1, 0.0, NOON, NOON, NOON, 5, 3, "closed"))
    report = reading.report(files, NOON, NOON)
    assert (report.dropped, report.problems) == (3, ["the server server dropped 3 requests"])


def test_proposals_become_a_table() -> None:
    asked = [served("one"), served("two", purpose=COPY), served("three", purpose=PROBE)]
    asked.append(served("four", transfers=TRANSFERS.head(0)))
    requests = reading.asked(rows(asked, "server", PLAIN))
    assert requests["request_id"].to_list() == ["one", "four"]
    table = publishable("predictions", reading.proposed(requests))
    assert table["request_id"].unique().to_list() == ["one"]
    assert table["transfer_id"].to_list() == TRANSFERS["transfer_id"].to_list()
    assert (table["transfer_amount"] * 100).cast(pl.Int64).to_list() == TRANSFERS["amount"].to_list()
    assert table["received_on"].unique().to_list() == [NOON.date()]
    assert publishable("predictions", reading.proposed(reading.nothing())).height == 0
