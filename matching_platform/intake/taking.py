"""Taking a file: it is looked at first, and then taken as a whole or not at all, and once only.

Rows go to the warehouse, and then a line to the record of imports. Whoever is killed between the two, or meets somebody
who takes the same, looks again: rows that are there already with equal content are not added twice.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import polars as pl

from matching_platform.intake.archives import ZIP
from matching_platform.intake.followed import Followed
from matching_platform.intake.incoming import SKIPPED, Incoming, Incomings, IntakeError
from matching_platform.intake.invoices.containers import PDF, is_xml, read_documents
from matching_platform.intake.invoices.documents import Document, is_invoice
from matching_platform.intake.invoices.sides import Ourselves, read_invoices
from matching_platform.intake.lookalikes import lookalikes
from matching_platform.intake.mapping import ColumnMapping, Mappings, propose
from matching_platform.intake.packed import read_packed
from matching_platform.intake.rows import UntoldError, plain_tax_id, read_rows, settled
from matching_platform.intake.sheets import Sheet, is_workbook, read_sheet
from matching_platform.intake.statements import NUMBERED, as_there, booking_of, other_forms, read_statement
from matching_platform.intake.statements.swift import is_swift
from matching_platform.intake.xml import parse
from matching_platform.ledger.money import to_decimal
from matching_platform.ledger.months import month_of
from matching_platform.ledger.schema import TABLES, TRANSFERS
from matching_platform.ledger.validation import LedgerError, validate
from matching_platform.store.record import Entry, LostRaceError
from matching_platform.store.versions import Store
from matching_platform.warehouse.tables import raw_name
from matching_platform.warehouse.warehouse import HeldError, Warehouse, WarehouseError

RECORD: Final = "imports"
LARGEST: Final = 64 * 2**20  # bytes of a file
ATTEMPTS: Final = 20  # against others who take files at the same time
_NAMED: Final = 3  # rows in a note

# A value of a file that differs from what is there under the same id.
CONFLICTS: Final = pl.Schema(
    {"where": pl.String(), "id": pl.String(), "column": pl.String(), "there": pl.String(), "here": pl.String()}
)

# What may differ of a row that is there already: a report of the day and the statement after it name things differently.
_WORDING: Final[dict[str, list[str]]] = {"transfers": ["counterparty_name", "title"], "invoices": []}


@dataclass(frozen=True)
class Taken:
    """An import: when (UTC), who, and what; `rows` are those of the file, of which it added `new`. It has `contradictions`
    where it was taken although it does not add up."""

    number: int
    at: datetime
    actor: str
    name: str
    format: str
    table: Incomings
    rows: int
    new: int
    months: tuple[str, ...]
    sha256: str
    contradictions: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"taken on {self.at:%Y-%m-%d %H:%M} UTC by {self.actor} as '{self.name}'"


@dataclass(frozen=True, eq=False)
class Preview:
    """What a file holds, and what taking it would do.

    `frame` has the schema of `table`, amounts in minor units; `fresh` those rows of it that are not there yet; `months` are
    those of the fresh ones. `conflicts` (schema CONFLICTS) names values that differ from what is there. A table that people
    made has `headers`, `first_rows` as they came and a `mapping`, which is `confirmed` once it was given or taken before.
    Where a statement does not add up to its own balances and totals, `contradictions` say so: it is taken only knowingly.
    `problem` says why the file cannot be taken so; where that is for want of columns, `missing` names them. `taken` is the
    last import of the very same file, where all its rows are still there.
    """

    name: str
    content: bytes = field(repr=False)
    sha256: str
    format: str
    table: Incomings
    frame: pl.DataFrame
    fresh: pl.DataFrame
    conflicts: pl.DataFrame
    notes: tuple[str, ...]
    skipped: pl.DataFrame
    headers: tuple[str, ...] = ()
    first_rows: pl.DataFrame = field(default_factory=pl.DataFrame)
    mapping: ColumnMapping | None = None
    confirmed: bool = True
    problem: IntakeError | None = None
    missing: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()
    taken: Taken | None = None

    @property
    def rows(self) -> int:
        return self.frame.height

    @property
    def new(self) -> int:
        return self.fresh.height

    @property
    def known(self) -> int:
        """Rows that are there already, with the same content."""
        return self.rows - self.new - self.conflicts["id"].n_unique()

    @property
    def months(self) -> tuple[str, ...]:
        days = self.fresh.select(month_of(TABLES[self.table].partitioned_by).unique())
        return tuple(sorted(days.to_series()))


@dataclass(frozen=True)
class _Read:
    """A file as it was read, with what taking it will have taught."""

    incoming: Incoming | None
    table: Incomings
    format: str
    sheet: Sheet | None = None
    mapping: ColumnMapping | None = None
    confirmed: bool = True
    problem: IntakeError | None = None
    documents: tuple[Document, ...] = ()


class Intake:
    """The way in for files, with the record of all that came; threads and processes may share store and warehouse."""

    def __init__(self, store: Store, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._imports = Followed(store, RECORD)
        self._mappings, self._ourselves = Mappings(store), Ourselves(store)

    def look(self, name: str, content: bytes, mapping: ColumnMapping | None = None) -> Preview:
        """What is in a file; nothing is changed. IntakeError where that cannot be told.

        `mapping` says which columns are which, and by its constant 'direction' on which side of documents this company is.
        """
        digest = hashlib.sha256(content).hexdigest()
        _check_size(name, content)
        before = next((one for one in reversed(self.history()) if one.sha256 == digest), None)
        read = self._read(name, content, mapping)
        incoming = read.incoming or Incoming(name, read.format, read.table, TABLES[read.table].schema.to_frame())
        sheet = read.sheet
        if incoming.table == "transfers" and not sheet:
            incoming = self._without_other_forms(self._as_there(incoming))
        fresh, differing = self._compared(incoming)
        conflicts, notes = _weighed(incoming.table, differing)
        taken = before if fresh.is_empty() else None
        if before and not taken:
            notes = (*notes, f"this very file was {before}, but rows of it are missing since; they are added again")
        return Preview(
            name=name,
            content=content,
            sha256=digest,
            format=incoming.format,
            table=incoming.table,
            frame=incoming.frame,
            fresh=fresh,
            conflicts=conflicts,
            notes=(*incoming.notes, *notes, *self._lookalikes(incoming, fresh)),
            skipped=incoming.skipped,
            headers=sheet.headers if sheet else (),
            first_rows=sheet.frame.select(sheet.headers).head(10) if sheet else pl.DataFrame(),
            mapping=read.mapping,
            confirmed=read.confirmed,
            problem=read.problem or _differing(incoming, conflicts),
            missing=read.problem.columns if isinstance(read.problem, UntoldError) else (),
            contradictions=incoming.contradictions,
            taken=taken,
        )

    def take(self, preview: Preview, actor: str, *, unbalanced: bool = False) -> Taken:
        """Takes a file that was looked at, whole or not at all; its mapping is remembered. A file that was taken already is
        not taken again: the answer is what was recorded then. Where rows of it were lost since, they are added again.

        IntakeError where there is a problem, or was one by the time others had finished, and where the file does not add up
        and nobody said that it may be taken `unbalanced`; nothing was changed then.
        """
        new, began = 0, len(self._imports.entries())
        for _ in range(ATTEMPTS):
            last = len(self._imports.entries())
            now = self.look(preview.name, preview.content, preview.mapping)
            # What was recorded before does not tell of the rows that this call has added.
            if now.taken and (not new or now.taken.number > began):
                return now.taken
            if now.problem:
                raise now.problem
            if now.contradictions and not unbalanced:
                advice = "export it again, or take it although it does not add up"
                raise IntakeError(now.name, now.contradictions[0], advice)
            try:
                if now.new:
                    self._warehouse.add_rows(now.table, now.fresh.with_columns(to_decimal("amount")))
                new += now.new
                self._learn(now, actor)
                return self._record(now, new, actor, last)
            except (HeldError, LostRaceError):
                continue
        raise IntakeError(preview.name, "others take files all the time", "take it again later")

    def history(self) -> list[Taken]:
        """All imports, the first one first."""
        return [_taken(entry) for entry in self._imports.entries()]

    def _record(self, preview: Preview, new: int, actor: str, last: int) -> Taken:
        payload = {
            "name": preview.name,
            "format": preview.format,
            "table": preview.table,
            "rows": preview.rows,
            "new": new,
            "months": preview.frame.select(month_of(TABLES[preview.table].partitioned_by).unique().sort())
            .to_series()
            .to_list(),
            "sha256": preview.sha256,
            "contradictions": list(preview.contradictions),
        }
        return _taken(self._imports.record.append(payload, expected_last=last, actor=actor))

    def _learn(self, preview: Preview, actor: str) -> None:
        if preview.mapping is None:
            return
        if preview.headers:
            sheet = read_sheet(preview.name, preview.content)
            if self._mappings.of(sheet.fingerprint) != preview.mapping:
                self._mappings.remember(sheet.fingerprint, settled(sheet, preview.mapping), actor)
        elif direction := preview.mapping.constants.get("direction"):
            documents, _ = read_documents(preview.name, preview.content)
            self._ourselves.learn(documents, direction, actor)

    def _read(self, name: str, content: bytes, mapping: ColumnMapping | None) -> _Read:
        if content.startswith(ZIP) and not is_workbook(content):
            packed = read_packed(name, content)
            return _of(packed) if packed else self._documents(name, content, mapping)
        if content.startswith(PDF):
            return self._documents(name, content, mapping)
        if is_xml(content):
            root = parse(name, content)
            return self._documents(name, content, mapping) if is_invoice(root) else _of(read_statement(name, root))
        if is_swift(content):
            return _of(read_statement(name, content))
        return self._sheet(name, content, mapping)

    def _documents(self, name: str, content: bytes, mapping: ColumnMapping | None) -> _Read:
        documents, skipped = read_documents(name, content)
        given = mapping.constants.get("direction") if mapping else None
        incoming, problem = _tried(lambda: read_invoices(name, documents, skipped, self._ourselves.known(), given))
        formats = " and ".join(sorted({one.format for one in documents}))
        return _Read(incoming, "invoices", formats, mapping=mapping, problem=problem)

    def _sheet(self, name: str, content: bytes, given: ColumnMapping | None) -> _Read:
        sheet = read_sheet(name, content)
        known = given or self._mappings.of(sheet.fingerprint)
        mapping = known or propose(sheet)
        incoming, problem = _tried(lambda: read_rows(sheet, mapping))
        return _Read(incoming, mapping.table, sheet.format, sheet, mapping, known is not None, problem)

    def _as_there(self, statement: Incoming) -> Incoming:
        """With entries that share a reference under the ids of those that are there and equal them."""
        shared = statement.frame["transfer_id"].filter(statement.frame["transfer_id"].str.contains(NUMBERED))
        if shared.is_empty():
            return statement
        return replace(statement, frame=as_there(statement.frame, self._there(statement)))

    def _without_other_forms(self, statement: Incoming) -> Incoming:
        """Without bookings that are there in parts and come as a whole, or the other way round."""
        ids = statement.frame["transfer_id"]
        if ids.is_empty():
            return statement
        there = self._warehouse.rows_with("transfers", other_forms(ids))["transfer_id"].str.strip_chars()
        again = booking_of(ids).is_in(booking_of(there).implode())
        told = ("booked_on", to_decimal("amount"), "currency", "counterparty_name", "title")
        left = (
            statement.frame.with_row_index("at")
            .filter(again)
            .select(
                pl.col("at").map_elements(statement.place, return_dtype=pl.String).alias("where"),
                pl.concat_str(*told, separator=" ").alias("text"),
                pl.lit("this booking was taken before in another form").alias("reason"),
            )
        )
        return replace(
            statement,
            frame=statement.frame.filter(~again),
            skipped=pl.concat([statement.skipped, left.cast(SKIPPED)]),
            places=None if statement.places is None else statement.places.filter(~again),
        )

    def _lookalikes(self, incoming: Incoming, fresh: pl.DataFrame) -> Iterator[str]:
        """A note on new transfers that look as if another file had brought them."""
        if incoming.table != "transfers" or fresh.is_empty():
            return
        parts = [TRANSFERS.schema.to_frame()]
        for month in self._months_near(fresh):
            try:
                parts.append(validate("transfers", self._warehouse.read_month("transfers", month)))
            except LedgerError as error:
                yield f"nothing was compared with what is there of {month}, which is not valid ({error.problem})"
        there = pl.concat(parts).join(incoming.frame, on="transfer_id", how="anti")
        found = lookalikes(fresh, there)
        if not found.is_empty():
            told = ("booked_on", to_decimal("amount"), "currency", "counterparty_name")
            first = found.head(_NAMED).select(pl.concat_str(*told, separator=" ").str.strip_chars()).to_series()
            named = "; ".join([*first, "…"] if found.height > _NAMED else first)
            yield f"{found.height:,} of {fresh.height:,} new rows look as if another file had brought them before: {named}"

    def _months_near(self, fresh: pl.DataFrame) -> list[str]:
        """The months that are there of the days of `fresh` rows and the days beside them."""
        days = pl.concat([fresh["booked_on"].dt.offset_by(by) for by in ("-1d", "1d")]).dt.strftime("%Y-%m")
        try:
            return sorted(self._warehouse.months().get("transfers", {}).keys() & set(days))
        except WarehouseError:
            # There is none yet: what else hinders reading it was told when its rows were read.
            return []

    def _there(self, incoming: Incoming) -> pl.DataFrame:
        """The rows that are there under the ids of the file."""
        table = TABLES[incoming.table]
        try:
            return validate(table.name, self._warehouse.rows_with(table.name, incoming.frame[str(table.key)]))
        except LedgerError as error:
            problem = f"{raw_name(table.name)} holds ids of this file in rows that are not valid ({error.problem})"
            raise IntakeError(incoming.source, problem, "correct these rows first", field=error.column) from error

    def _compared(self, incoming: Incoming) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The rows that are not there yet, and the values that differ from what is there."""
        table = TABLES[incoming.table]
        key = str(table.key)
        if incoming.frame.is_empty():
            return incoming.frame, CONFLICTS.to_frame().with_columns(told=pl.lit(True))
        there = self._there(incoming)
        both = incoming.frame.with_row_index("at").join(there, on=key, suffix=" there", maintain_order="left")
        differing = [
            both.filter(_differs(name)).select(
                "at",
                pl.col(key).alias("id"),
                pl.lit(name).alias("column"),
                _is_told(name).alias("told"),
                _shown(name, f"{name} there").alias("there"),
                _shown(name, name).alias("here"),
            )
            for name in table.schema
            if name != key
        ]
        conflicts = pl.concat(differing).sort("at", maintain_order=True)
        where = conflicts["at"].map_elements(incoming.place, return_dtype=pl.String).alias("where")
        conflicts = conflicts.with_columns(where).select(*CONFLICTS, "told")
        return incoming.frame.join(there.select(key), on=key, how="anti", maintain_order="left"), conflicts


def _of(incoming: Incoming) -> _Read:
    return _Read(incoming, incoming.table, incoming.format)


def _check_size(name: str, content: bytes) -> None:
    if not content:
        raise IntakeError(name, "is empty", "export it again")
    if len(content) > LARGEST:
        raise IntakeError(name, f"has more than {LARGEST // 2**20} MiB", "split it")


def _tried(read: Callable[[], Incoming]) -> tuple[Incoming | None, IntakeError | None]:
    """What was read, or why not; a person may still say what is wanting."""
    try:
        return read(), None
    except IntakeError as error:
        return None, error


def _weighed(table: str, differing: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The differences for which a file is refused, and a note on rows of which only the wording differs."""
    worded = pl.col("column").is_in(_WORDING[table]) | ~pl.col("told")
    conflicts = differing.filter(~worded.all().over("id")).drop("told")
    rows = differing["id"].n_unique() - conflicts["id"].n_unique()
    note = f"{rows:,} {'row is' if rows == 1 else 'rows are'} there already, worded differently; what is there is kept"
    return conflicts, (note,) if rows else ()


def _differing(incoming: Incoming, conflicts: pl.DataFrame) -> IntakeError | None:
    """The first value that differs from what is there."""
    if conflicts.is_empty():
        return None
    first = conflicts.row(0, named=True)
    rows = conflicts["id"].n_unique()
    more = f" ({rows} rows differ)" if rows > 1 else ""
    return IntakeError(
        incoming.source,
        f"{first['id']} is there already with '{first['there']}', and here it has '{first['here']}'{more}",
        "nothing was taken; correct one of them",
        where=first["where"],
        field=first["column"],
    )


def _is_told(name: str) -> pl.Expr:
    """Whether a value stands on both sides: what only one of them tells is no difference."""
    return pl.col(name).is_not_null() & pl.col(f"{name} there").is_not_null()


def _differs(name: str) -> pl.Expr:
    """Whether a value is another than what is there; a tax id may be written in another way."""
    here, there = pl.col(name), pl.col(f"{name} there")
    if name == "counterparty_tax_id":
        return plain_tax_id(name).ne_missing(plain_tax_id(f"{name} there"))
    if name == "counterparty_id":
        made = here.eq_missing(plain_tax_id("counterparty_tax_id"))
        return here.ne_missing(there) & ~(made & here.eq_missing(plain_tax_id(f"{name} there")))
    return here.ne_missing(there)


def _shown(name: str, column: str) -> pl.Expr:
    value = to_decimal(column) if name == "amount" else pl.col(column)
    return value.cast(pl.String).fill_null("")


def _taken(entry: Entry) -> Taken:
    lists = {name: tuple(value) for name, value in entry.payload.items() if isinstance(value, list)}
    payload: dict[str, Any] = {**entry.payload, **lists}
    return Taken(number=entry.number, at=entry.time, actor=entry.actor, **payload)
