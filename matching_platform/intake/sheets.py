"""Tables as people export them, from a CSV file or a workbook: the row of headers is found, and all cells are text."""

import csv
import hashlib
import io
import zipfile
from collections import Counter
from dataclasses import dataclass
from typing import Final

import polars as pl

from matching_platform.intake.archives import ZIP
from matching_platform.intake.incoming import IntakeError
from matching_platform.intake.statements.encodings import text_of
from matching_platform.intake.workbooks import check_extent, read_workbook
from matching_platform.matching.text import folded

OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# Holds each row's number in the file, counted from 1 as a spreadsheet does.
ROW: Final = "\x00row"

_DELIMITERS: Final = ";\t,|"
_HEAD: Final = 200_000  # characters in which the delimiter shows
_SEARCHED: Final = 60  # rows among which the headers are
_WORDY: Final = 0.8  # share of a header row's cells that hold a letter
_WIDE: Final = 0.7  # a header row has so large a share of the cells of the widest row
_LETTER: Final = r"\p{L}"
# Dates, amounts and accounts, which are no headers.
_DATA: Final = "|".join(
    (
        r"^\d{1,4}[-./ ](\d{1,2}|\p{L}{3,9})[-./ ]\d{2,4}\b",
        r"^[-+]?\d[\d.,' ]*[.,]\d{2}$",
        r"^[A-Z]{2}\d{2} ?[A-Z0-9]{4}[A-Z0-9 ]{6,}$",
    )
)


@dataclass(frozen=True)
class Sheet:
    """A table below one row of headers: a text column for each, in their order, and ROW."""

    source: str
    format: str
    frame: pl.DataFrame
    notes: tuple[str, ...]

    @property
    def headers(self) -> tuple[str, ...]:
        return tuple(name for name in self.frame.columns if name != ROW)

    @property
    def fingerprint(self) -> str:
        """Of the row of headers: files of one program share it."""
        return hashlib.sha256("\x1f".join(folding(list(self.headers))).encode()).hexdigest()


def is_workbook(content: bytes) -> bool:
    """Whether this is an Excel file, of either kind."""
    if content.startswith(OLE):
        return True
    return content.startswith(ZIP) and any(name.startswith("xl/") for name in _names(content))


def read_sheet(source: str, content: bytes) -> Sheet:
    """The table in a CSV file or a workbook; IntakeError where there is none."""
    kind, grid, notes = _workbook(source, content) if is_workbook(content) else _csv(source, content)
    texts = grid.select(_stripped(name) for name in grid.columns).with_row_index(ROW, offset=1)
    at = _header_row(source, texts)
    names = _unique(texts.drop(ROW).row(at))
    body = texts.slice(at + 1)
    body = body.rename(dict(zip(grid.columns, names, strict=True)))
    used = [name for name in names if not name.startswith("column ") or body[name].null_count() < body.height]
    body = body.select(*used, ROW).filter(~pl.all_horizontal(pl.col(used).is_null()))
    if body.is_empty():
        raise IntakeError(source, "holds no rows below its headers", "export it again with rows in it")
    return Sheet(source, kind, body, notes)


def folding(texts: list[str]) -> list[str]:
    """Upper case without diacritics and punctuation, words apart by one space."""
    words = folded(pl.col("text")).str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars()
    return pl.DataFrame({"text": texts}, schema={"text": pl.String}).select(words).to_series().to_list()


def _stripped(name: str) -> pl.Expr:
    text = pl.col(name).str.strip_chars().str.strip_chars("\ufeff\u00a0 ")
    return pl.when(text != "").then(text).alias(name)


def _csv(source: str, content: bytes) -> tuple[str, pl.DataFrame, tuple[str, ...]]:
    text, notes = text_of(content)
    if "\x00" in text:
        raise IntakeError(source, "is neither text nor a format that is read here", "give it as CSV or Excel")
    delimiter, width = _delimiter(source, text[:_HEAD])
    check_extent(source, text.count("\n") + 1, width)
    schema = {str(number): pl.String for number in range(width)}
    try:
        grid = pl.read_csv(
            text.encode(),
            separator=delimiter,
            has_header=False,
            schema=schema,
            missing_columns="insert",
            encoding="utf8-lossy",
        )
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        rows = _with_stray_quotes(text, delimiter)
        if rows is None:
            told = (str(error).splitlines() or [type(error).__name__])[0]
            raise IntakeError(source, f"is no table ({told})", "export it again as CSV, with text in quotes") from error
        grid = pl.DataFrame([(*row, *[None] * (width - len(row))) for row in rows], schema, orient="row")
    return "CSV", grid, notes


def _with_stray_quotes(text: str, delimiter: str) -> list[list[str]] | None:
    """The rows of a table in which quotes stand within texts; None where they may have joined lines or cells."""
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    widths = Counter(len(row) for row in rows if len(row) > 1)
    usual = max(widths, key=lambda width: (widths[width], width), default=0)
    joined = any("\n" in cell or (delimiter in cell and len(row) != usual) for row in rows for cell in row)
    return rows if usual and max(widths) == usual and not joined else None


def _delimiter(source: str, head: str) -> tuple[str, int]:
    """What parts the cells, by how many lines it makes equally wide, and the cells of the widest line."""
    found = []
    for delimiter in _DELIMITERS:
        try:
            widths = [len(row) for row in csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)]
        except csv.Error:
            continue
        usual = Counter(width for width in widths if width > 1).most_common(1)
        if usual:
            (width, lines) = usual[0]
            found.append((lines, width, delimiter, max(widths)))
    if not found:
        raise IntakeError(source, "is no table: nothing parts its lines", "export it as CSV with ';' or ','")
    _, _, delimiter, widest = max(found)
    return delimiter, widest


def _workbook(source: str, content: bytes) -> tuple[str, pl.DataFrame, tuple[str, ...]]:
    name, sheets, grid, others = read_workbook(source, content)
    headers = _headers_of(source, grid)
    for other, head in others.items():
        if headers and _headers_of(source, head) == headers:
            problem = f"the sheets '{name}' and '{other}' have the same columns, and only one of them would be read"
            raise IntakeError(source, problem, "save each as a file of its own, or hide what is not to be read")
    notes = (f"only the sheet '{name}' was read, of {sheets}",) if sheets > 1 else ()
    return "Excel", grid, notes


def _headers_of(source: str, grid: pl.DataFrame) -> list[str]:
    """The row of headers, if there is one with rows below it."""
    if grid.is_empty():
        return []
    texts = grid.select(_stripped(name) for name in grid.columns).with_row_index(ROW, offset=1)
    try:
        at = _header_row(source, texts)
    except IntakeError:
        return []
    return [cell for cell in texts.drop(ROW).row(at) if cell] if at + 1 < texts.height else []


def _names(content: bytes) -> list[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return []


def _header_row(source: str, texts: pl.DataFrame) -> int:
    """The first wide row in which nearly every cell is a word, and none a value."""
    cells = texts.drop(ROW).head(_SEARCHED)
    filled = cells.select(pl.sum_horizontal(pl.all().is_not_null())).to_series()
    wordy = cells.select(pl.sum_horizontal(pl.all().str.contains(_LETTER).fill_null(False))).to_series()
    widest = max(filled.to_list(), default=0)
    valued = cells.select(pl.any_horizontal(pl.all().str.contains(_DATA).fill_null(False))).to_series()
    fits = (filled >= max(2, _WIDE * widest)) & (wordy >= _WORDY * filled) & ~valued
    if not fits.any():
        raise IntakeError(source, "has no row of headers", "export it with the names of its columns in the first row")
    return int(fits.arg_true()[0])


def _unique(cells: tuple[str | None, ...]) -> list[str]:
    """The headers, each once: an empty one is called by its column's number, a repeated one gets a number behind it."""
    names: list[str] = []
    for number, cell in enumerate(cells, 1):
        name = " ".join(cell.split()) if cell else f"column {number}"
        names.append(name if name not in names else f"{name} ({number})")
    return names
