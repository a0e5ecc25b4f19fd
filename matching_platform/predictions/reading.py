"""The log as it is read: one file a day once the day is over, kept for a stated time, with what is missing told.

`requests/<day>/` holds the parts that servers write, `days/<day>/` what was made of them. A file of `days` never
changes; parts that came late make another one. A day is all its files together, each request once, so that nothing is lost
or doubled wherever one is killed between writing a file and removing the parts that it was made of.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from io import BytesIO
from typing import Final

import polars as pl

from matching_platform.predictions import states
from matching_platform.predictions.headers import ASKED
from matching_platform.predictions.log import IDLE_SECONDS, REQUESTS
from matching_platform.predictions.served import SCHEMA
from matching_platform.predictions.states import State
from matching_platform.store.files import PARALLEL, CorruptError, Files, StoreError, side_by_side

DAYS: Final = "days"
# A server that has said nothing for so long is gone.
SILENT: Final = timedelta(seconds=10 * IDLE_SECONDS)
# What is read, sorted and written at a time; busy days make more than one file of it.
_FILE_BYTES: Final = 64 * 2**20
# How many files are held as they lie in the store, and how many small ones become one frame: by itself, a frame takes
# forty times the memory of a request in it.
_SIDE_BY_SIDE: Final = PARALLEL
_TOGETHER: Final = 256
_ATTEMPTS: Final = 3


class CompactionError(StoreError):
    """Somebody else is at the same day."""


@dataclass(frozen=True)
class Report:
    """Whether the log is whole: servers that write it, that ended without closing it, and that dropped requests."""

    open: int
    lost: tuple[State, ...]
    dropping: tuple[State, ...]

    @property
    def dropped(self) -> int:
        """Requests that were not written because too many waited."""
        return sum(state.dropped for state in self.dropping)

    @property
    def problems(self) -> list[str]:
        """What is missing, in words; empty where the log is whole."""
        dropped = [f"the server {state.server} dropped {state.dropped} requests" for state in self.dropping]
        return [*(state.told for state in self.lost), *dropped]


def days(files: Files) -> list[str]:
    """The days of which there are requests, YYYY-MM-DD in UTC, in order."""
    return sorted({*files.names(REQUESTS), *files.names(DAYS)})


def finished(files: Files) -> dict[str, list[str]]:
    """The days of which there are files that never change, and the names of these."""
    return {day: names for day in files.names(DAYS) if (names := files.names(f"{DAYS}/{day}"))}


def piece(files: Files, day: str, name: str) -> pl.DataFrame:
    """The requests in one file of a day that is over; no other file of the day holds them too."""
    return _frame(files, f"{DAYS}/{day}/{name}")


def read(files: Files, day: str) -> pl.DataFrame:
    """The requests of a day, each once, in the order in which they came; see `served.SCHEMA`."""
    for _ in range(_ATTEMPTS):
        try:
            # Parts first: whoever makes a file of them writes it before he removes them.
            names = [*_names(files, f"{REQUESTS}/{day}"), *_names(files, f"{DAYS}/{day}")]
            return _ordered(side_by_side(lambda name: _frame(files, name), names))
        except FileNotFoundError:
            continue
    raise CompactionError(f"the files of {day} change while they are read; read them again")


def compact(files: Files, day: str) -> None:
    """Makes a file of the parts of a day that is over, and removes them; CompactionError where somebody else does."""
    parts = _names(files, f"{REQUESTS}/{day}")
    kept = _names(files, f"{DAYS}/{day}")
    seen = [_frame(files, name).select("request_id") for name in kept] if parts else []
    number = len(kept)
    try:
        for names, frames in _groups(files, parts):
            fresh = _ordered(frames).join(pl.concat(seen), on="request_id", how="anti") if seen else _ordered(frames)
            if fresh.height:
                number += 1
                files.create(f"{DAYS}/{day}/{number:04d}.parquet", _written(fresh))
                seen.append(fresh.select("request_id"))
            side_by_side(files.remove, names)
    except (FileExistsError, FileNotFoundError) as error:
        raise CompactionError(f"somebody else makes files of {day} too; run this again") from error


def compact_before(files: Files, today: date) -> None:
    """Makes files of all days that are over."""
    for day in files.names(REQUESTS):
        if day < str(today):
            compact(files, day)


def forget_before(files: Files, first: date) -> None:
    """Removes the days before `first`, and what is known of servers that had ended by then."""
    for folder in (REQUESTS, DAYS):
        for day in files.names(folder):
            if day < str(first):
                side_by_side(files.remove, [f"{folder}/{day}/{name}" for name in files.names(f"{folder}/{day}")])
    for state in states.load(files, states.names(files)):
        if state.said_at.date() < first:
            states.forget(files, state.server)


def report(files: Files, now: datetime, since: datetime) -> Report:
    """What is known of the servers that wrote the log since `since`; those that have fallen silent are noted as lost."""
    known = [state for state in states.load(files, states.names(files)) if state.said_at >= since]
    judged = [_judged(files, state, now) for state in known]
    return Report(
        open=sum(state.end == "open" for state in judged),
        lost=tuple(state for state in judged if state.end == "lost"),
        dropping=tuple(state for state in judged if state.dropped),
    )


def nothing() -> pl.DataFrame:
    """A day without requests."""
    return pl.DataFrame(schema=SCHEMA)


def asked(requests: pl.DataFrame) -> pl.DataFrame:
    """Those for which somebody waited: no copies for a challenger, no probes of a rollout."""
    return requests.filter(purpose=ASKED)


def proposed(requests: pl.DataFrame) -> pl.DataFrame:
    """A row for each proposal (see `tables.PUBLISHED`), with what was told of its transfer."""
    kept = ["request_id", "received_on", "received_at", "model", "milliseconds", "booked_from", "open_invoices"]
    dated = requests.with_columns(
        received_on=pl.col("received_at").dt.date(), open_invoices=pl.col("invoices").list.len().cast(pl.Int64)
    )
    transfers = _rows_of(dated.select(*kept, "transfers"), "transfers").rename({"amount": "transfer_amount"})
    proposals = _rows_of(requests.select("request_id", "proposals"), "proposals").drop("evidence")
    return transfers.join(proposals, on=["request_id", "transfer_id"], maintain_order="left")


def _rows_of(requests: pl.DataFrame, nested: str) -> pl.DataFrame:
    """A row for each row of a nested table."""
    return requests.filter(pl.col(nested).list.len() > 0).explode(nested).unnest(nested)


def _judged(files: Files, state: State, now: datetime) -> State:
    silent = state.end == "open" and now - state.said_at > SILENT
    return states.mark_lost(files, state) if silent else state


def _names(files: Files, folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in files.names(folder) if name.endswith(".parquet")]


def _frame(files: Files, name: str) -> pl.DataFrame:
    return _decoded(files, name, files.read(name))


def _decoded(files: Files, name: str, data: bytes) -> pl.DataFrame:
    try:
        return pl.read_parquet(BytesIO(data))
    except pl.exceptions.PolarsError as error:
        raise CorruptError(files.path(name), "cannot be read; bring it back from a backup, or remove it") from error


def _groups(files: Files, names: Sequence[str]) -> Iterator[tuple[list[str], list[pl.DataFrame]]]:
    """The files, and what they hold, as many at a time as fit one file; no more than one beyond that is decoded."""
    group: list[str] = []
    frames: list[pl.DataFrame] = []
    size = 0.0
    for name, data in _contents(files, names):
        group.append(name)
        frames.append(_decoded(files, name, data))
        size += frames[-1].estimated_size()
        if len(group) % _TOGETHER == 0:
            frames[-_TOGETHER:] = [pl.concat(frames[-_TOGETHER:], how="diagonal", rechunk=True)]
        if size >= _FILE_BYTES:
            yield group, frames
            group, frames, size = [], [], 0.0
    if group:
        yield group, frames


def _contents(files: Files, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Each file as it lies in the store, a few of them read at a time."""
    for start in range(0, len(names), _SIDE_BY_SIDE):
        some = names[start : start + _SIDE_BY_SIDE]
        yield from zip(some, side_by_side(files.read, some), strict=True)


def _ordered(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The requests of files, each once."""
    together = pl.concat([nothing(), *frames], how="diagonal")
    return together.unique("request_id", keep="first", maintain_order=True).sort("received_at", "request_id")


def _written(frame: pl.DataFrame) -> bytes:
    file = BytesIO()
    frame.write_parquet(file)
    return file.getvalue()
