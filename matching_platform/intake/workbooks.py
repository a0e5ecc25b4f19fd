"""Workbooks, read in a process of their own: a small file can say that its table is as large as all memory."""

import io
import json
import logging
import os
import resource
import subprocess
import sys
from threading import Lock
from typing import Any, Final

import polars as pl

from matching_platform.intake.archives import ZIP, members
from matching_platform.intake.incoming import IntakeError

COLUMNS: Final = 300  # of a table
CELLS: Final = 5_000_000

_FILES: Final = 10_000  # of which a workbook is made
_UNPACKED: Final = 256 * 2**20  # bytes
_TEXT: Final = 128 * 2**20  # bytes of all cells
_MEMORY: Final = 2**30  # bytes that reading may take
_SECONDS: Final = 60  # of a processor
_WAIT: Final = 120  # seconds
_TOLD: Final = 2_000  # characters of what went wrong
_ADVICE: Final = "split it, or delete what stands far from the table"
_HEAD: Final = 60  # rows of other sheets, by which their headers are found
# One at a time, so that the memory of all together is bounded, too.
_READING: Final = Lock()
_log = logging.getLogger(__name__)


def check_extent(source: str, rows: int, columns: int) -> None:
    """IntakeError where a table is larger than any that people book from."""
    if columns > COLUMNS or rows * columns > CELLS:
        problem = f"reaches over {rows:,} rows and {columns:,} columns, more than {COLUMNS} columns or {CELLS:,} cells"
        raise IntakeError(source, problem, _ADVICE)


def read_workbook(source: str, content: bytes) -> tuple[str, int, pl.DataFrame, dict[str, pl.DataFrame]]:
    """The first visible sheet with a table: its name, how many visible sheets there are, its cells as text, and the first
    rows of the others by their names; IntakeError where there is none, or where reading takes more memory or time than there
    is for it."""
    paths = os.pathsep.join(filter(None, sys.path))
    try:
        with _READING:
            done = subprocess.run(
                [sys.executable, "-m", __name__],
                input=content,
                capture_output=True,
                check=True,
                timeout=_WAIT,
                env={**os.environ, "PYTHONPATH": paths},
            )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        _log.warning("reading %s: %s: %s", source, error, (error.stderr or b"").decode(errors="replace")[-_TOLD:])
        raise IntakeError(source, "takes too much memory or time to be read", _ADVICE) from error
    answer = io.BytesIO(done.stdout)
    told = json.loads(answer.readline())
    if "problem" in told:
        raise IntakeError(source, told["problem"], told["advice"])
    grid = pl.read_ipc_stream(answer)
    grid.columns = [str(number) for number in range(grid.width)]
    others = {name: _table(rows) for name, rows in told["others"].items()}
    return told["sheet"], 1 + len(others), grid.cast(pl.String), others


def _table(rows: list[list[str | None]]) -> pl.DataFrame:
    width = max(map(len, rows), default=0)
    return pl.DataFrame(rows, {str(number): pl.String for number in range(width)}, orient="row")


def _first_table(content: bytes) -> tuple[str, Any, dict[str, list[list[str | None]]]]:
    """The name, the cells as a record batch, and the first rows of the other visible sheets."""
    import fastexcel

    if content.startswith(ZIP):
        for _ in members("", content, _FILES, _UNPACKED, _UNPACKED):
            pass
    try:
        reader = fastexcel.read_excel(content)
        name, grid = "", None
        others: dict[str, list[list[str | None]]] = {}
        for one in reader.sheet_names:
            sheet = reader.load_sheet(one, header_row=None, dtypes="string", n_rows=_HEAD if name else None)
            if sheet.visible != "visible":
                continue
            if not name and sheet.height > 1 and sheet.width > 1:
                check_extent("", sheet.height, sheet.width)
                name, grid = one, sheet.to_arrow()
            else:
                columns = sheet.to_arrow().slice(0, _HEAD).to_pydict().values() if 0 < sheet.width <= COLUMNS else []
                others[one] = [list(row) for row in zip(*columns, strict=True)]
        if grid is None:
            raise IntakeError("", "has no sheet with a table", "put the table on a sheet of its own")
    # What reads workbooks panics on damaged ones, which is no Exception.
    except (fastexcel.FastExcelError, pl.exceptions.PanicException) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise IntakeError("", f"is no workbook that can be read ({told})", "save it again as .xlsx") from error
    if grid.nbytes > _TEXT:
        raise IntakeError("", f"holds more than {_TEXT // 2**20} MiB of text", "split it")
    return name, grid, others


def _limit(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (allowed, allowed))


def _say(what: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(what).encode() + b"\n")
    sys.stdout.buffer.flush()


def _answer() -> None:
    """A line that says what was found, and then the cells."""
    import pyarrow as pa

    for what, most in {resource.RLIMIT_DATA: _MEMORY, resource.RLIMIT_CPU: _SECONDS, resource.RLIMIT_CORE: 0}.items():
        _limit(what, most)
    try:
        sheet, grid, others = _first_table(sys.stdin.buffer.read())
    except IntakeError as error:
        _say({"problem": error.problem, "advice": error.advice})
        return
    _say({"sheet": sheet, "others": others})
    with pa.ipc.new_stream(sys.stdout.buffer, grid.schema) as stream:
        stream.write_batch(grid)


if __name__ == "__main__":
    _answer()
