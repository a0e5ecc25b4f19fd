"""A statement's file becomes rows of `transfers`: recognised by what it holds, added up, with ids that last."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final

import polars as pl

from matching_platform.intake.incoming import SKIPPED, Incoming, IntakeError, incoming
from matching_platform.intake.statements.bookings import (
    Booking,
    Part,
    Statement,
    StatementError,
    disagreements,
    iban_of,
    money,
)
from matching_platform.intake.statements.camt import read_camt
from matching_platform.intake.statements.encodings import text_of
from matching_platform.intake.statements.swift import read_swift
from matching_platform.ledger.money import CURRENCIES, decimal
from matching_platform.ledger.schema import TRANSFERS

_AGAIN: Final = "it was told before in this file"
# An id, what numbers it among those that share a reference, and the number of a batch's part.
NUMBERED: Final = r"-[0-9]+(\.[0-9]+)?$"
_CONTENT: Final = ("counterparty_name", "counterparty_account", "title")
# Currencies that the euro replaced: statements of their time hold them, and no invoice is open in them.
_REPLACED: Final = frozenset("ATS BEF CYP DEM EEK ESP FIM FRF GRD IEP ITL LTL LUF LVL MTL NLG PTE SIT SKK".split())

_Row = dict[str, object]
_Left = tuple[str, str, str]


@dataclass(frozen=True)
class _File:
    """What one file tells."""

    kind: str
    statements: list[Statement]
    rows: list[_Row]
    places: list[str]
    left: list[_Left]
    notes: list[str]


def read_statement(name: str, content: Any) -> Incoming:
    """The transfers that a bank statement tells of, and where it contradicts the balances and totals in it; `content` is the
    root element of camt, or the bytes of MT940 or MT942. IntakeError where it is damaged."""
    return _incoming(name, [_file(name, content)])


def read_statements(source: str, files: Iterable[tuple[str, Any]], left: Iterable[_Left] = ()) -> Incoming:
    """The transfers of several files of one archive, each with its name; what a later one tells again is left out, and so
    is what is `left` already."""
    read = []
    for name, content in files:
        file = _file(f"{source}/{name}", content)
        places = [f"{name}, {place}" for place in file.places]
        told = [(f"{name}, {where}", text, reason) for where, text, reason in file.left]
        read.append(replace(file, places=places, left=told))
    return _incoming(source, read, left)


def _file(name: str, content: Any) -> _File:
    try:
        if isinstance(content, bytes):
            text, read_as = text_of(content)
            kind, statements = read_swift(text)
        else:
            read_as = ()
            kind, statements = read_camt(content)
        statements, repeated = _once(statements)
        notes = [*read_as, *repeated, *(note for statement in statements for note in _checked(statement))]
        statements = _told_once(statements)
        return _File(kind, statements, *_rows(statements), notes)
    except StatementError as error:
        raise IntakeError(name, error.problem, error.advice, where=error.where, field=error.field) from error


def _incoming(source: str, files: Sequence[_File], left: Iterable[_Left] = ()) -> Incoming:
    rows: dict[object, _Row] = {}
    places = []
    skipped = [*left, *(told for file in files for told in file.left)]
    for file in files:
        for row, place in zip(file.rows, file.places, strict=True):
            if row["transfer_id"] in rows:
                told = (row[name] for name in ("booked_on", "amount", "currency", "counterparty_name", "title"))
                skipped.append((place, " ".join(str(text) for text in told if text), _AGAIN))
            else:
                rows[row["transfer_id"]] = row
                places.append(place)
    statements = [statement for file in files for statement in file.statements]
    notes = dict.fromkeys([*(note for file in files for note in file.notes), *_figures(statements)])
    frame = pl.DataFrame(list(rows.values()), schema=dict.fromkeys(TRANSFERS.schema, pl.String))
    kinds = " and ".join(sorted({file.kind for file in files}))
    left_out = pl.DataFrame(skipped, schema=SKIPPED, orient="row")
    read = incoming(source, kinds, "transfers", frame, tuple(notes), left_out, pl.Series(places, dtype=pl.String))
    contradictions = (told for statement in statements for told in _contradictions(statement))
    return replace(read, contradictions=tuple(dict.fromkeys(contradictions)))


def booking_of(transfer_ids: pl.Series) -> pl.Series:
    """The key of each transfer's booking, which a batch's transfers share."""
    return transfer_ids.str.replace(r"\.[0-9]+$", "")


def as_there(frame: pl.DataFrame, there: pl.DataFrame) -> pl.DataFrame:
    """The rows of `frame`, of which those that share a reference and an amount have the ids of those which they equal in
    `there`, whatever their order in the file."""
    group = pl.col("transfer_id").str.replace(NUMBERED, "$1")
    rows = frame.with_row_index("at").with_columns(group=group)
    shared = rows.filter(pl.col("group").is_duplicated())
    equal = ["group", "nth", *_CONTENT]
    nth = pl.int_range(pl.len()).over("group", *_CONTENT).alias("nth")
    held = there.with_columns(group=group).with_columns(nth).select("transfer_id", *equal)
    fixed = shared.with_columns(nth).join(held, on=equal, nulls_equal=True, suffix=" there")
    left = shared.join(fixed, on="at", how="anti").sort("group", maintain_order=True)
    free = shared.filter(~pl.col("transfer_id").is_in(fixed["transfer_id there"].implode()))
    free = free.sort("group", maintain_order=True)
    ids = pl.concat([fixed.select("at", id="transfer_id there"), left.select("at", id=free["transfer_id"])])
    given = rows.join(ids, on="at", how="left", maintain_order="left")
    return given.with_columns(transfer_id=pl.coalesce("id", "transfer_id")).select(frame.columns)


def other_forms(transfer_ids: pl.Series) -> pl.Series:
    """Ids under which another file may have told the same bookings: a batch as one transfer, or the first of its own."""
    whole = booking_of(transfer_ids)
    both = pl.concat([whole, whole + ".1"]).unique(maintain_order=True)
    return both.filter(~both.is_in(transfer_ids.implode()))


def _once(statements: list[Statement]) -> tuple[list[Statement], list[str]]:
    """The statements without those that are there twice."""
    seen: dict[Statement, Statement] = {}
    notes = []
    for statement in statements:
        first = seen.setdefault(statement, statement)
        if first is not statement:
            notes.append(
                f"statement {statement.number} is there twice ({first.where}, {statement.where}) and read once"
            )
    return list(seen.values()), notes


def _checked(statement: Statement) -> list[str]:
    """A note where nothing can be checked; StatementError where the currency is none."""
    named = f"statement {statement.number} of {statement.account}"
    if statement.currency not in CURRENCIES | _REPLACED:
        problem = f"'{statement.currency}' is not an ISO 4217 currency"
        advice, where = "correct it or ask the bank for the file again", f"{statement.where}, {named}"
        raise StatementError(problem, advice, where=where, field="currency")
    if statement.opening or statement.totals:
        return []
    return [f"{named} has neither balances nor totals: nothing shows whether entries are missing"]


def _contradictions(statement: Statement) -> Iterator[str]:
    for problem in disagreements(statement):
        yield f"statement {statement.number} of {statement.account} does not add up: {problem}"


def _rows(statements: Iterable[Statement]) -> tuple[list[_Row], list[str], list[_Left]]:
    """Rows of `transfers` as text, where each stands, and what is no transfer: where, its text and why it is none."""
    rows: list[_Row] = []
    places: list[str] = []
    left: list[_Left] = []
    for booking, key in _keyed(statements):
        reason = _left_out(booking)
        for number, part in enumerate(booking.parts, start=1):
            if reason or not part.amount:
                told = f"{booking.booked_on} {money(part.amount)} {booking.currency} {part.name} {part.title}"
                left.append((booking.where, " ".join(told.split()), reason or "its amount is zero"))
            else:
                rows.append(_row(booking, part, f"{key}.{number}" if len(booking.parts) > 1 else key))
                places.append(booking.where)
    return rows, places, left


def _left_out(booking: Booking) -> str:
    if booking.left_out or booking.currency in CURRENCIES:
        return booking.left_out
    return f"{booking.currency} was replaced by the euro"


def _row(booking: Booking, part: Part, transfer_id: str) -> _Row:
    return {
        "transfer_id": transfer_id,
        "booked_on": booking.booked_on.isoformat(),
        "amount": decimal(abs(part.amount)),
        "currency": booking.currency,
        "direction": "in" if part.amount > 0 else "out",
        "counterparty_name": part.name,
        "counterparty_account": part.account or None,
        "title": part.title,
    }


def _told_once(statements: Iterable[Statement]) -> list[Statement]:
    """The statements, with what interim reports tell again left out: by the bank's reference and equal in all, as often as
    one of the reports before told it."""
    seen = Counter[tuple[str, Booking]]()
    once = []
    for statement in statements:
        here = Counter[tuple[str, Booking]]()
        bookings = []
        for booking in statement.bookings:
            told = (statement.account, booking)
            here[told] += 1
            bookings.append(replace(booking, left_out=_AGAIN) if here[told] <= seen[told] else booking)
        if statement.interim:
            seen |= Counter({told: times for told, times in here.items() if told[1].reference})
        once.append(replace(statement, bookings=tuple(bookings)))
    return once


def _keyed(statements: Iterable[Statement]) -> Iterator[tuple[Booking, str]]:
    """Each booking with its key.

    The key is a digest of account, day, amount and the bank's reference, and of names, accounts and titles where the bank
    gave none; to it belongs how many equal ones came before. So a report of the day and the statement after it, or a file
    that is exported twice, give the same keys, whatever else is in them.
    """
    before = Counter[tuple[object, ...]]()
    for statement in statements:
        for booking in statement.bookings:
            short = _short(statement, booking)
            told = short if booking.reference else (*short, *map(_content, booking.parts))
            if booking.reference:
                yield booking, _digest(*told) + (f"-{before[told] + 1}" if before[told] else "")
            else:
                yield booking, _digest(*told, *((before[told],) if before[told] else ()))
            before[told] += not booking.left_out


def _short(statement: Statement, booking: Booking) -> tuple[object, ...]:
    ours = re.sub(r"[^A-Z0-9]", "", iban_of(statement.account).upper())
    return ours, booking.booked_on, booking.amount, booking.currency, booking.reference


def _content(part: Part) -> tuple[str, ...]:
    return part.name, part.account, part.title


def _digest(*values: object) -> str:
    return hashlib.blake2b(repr(tuple(map(str, values))).encode(), digest_size=12).hexdigest()


def _figures(statements: Iterable[Statement]) -> Iterator[str]:
    """A sentence for each account: its period, its balances, and what came and went."""
    by_account: dict[tuple[str, str], list[Statement]] = {}
    for statement in statements:
        by_account.setdefault((statement.account, statement.currency), []).append(statement)
    for (account, currency), theirs in by_account.items():
        booked = [booking for statement in theirs for booking in statement.bookings if not booking.left_out]
        days = [booking.booked_on for booking in booked]
        days += [balance.on for statement in theirs for balance in (statement.opening, statement.closing) if balance]
        told = [f"account {account}"]
        if days:
            told.append(f"{min(days)} to {max(days)}")
        theirs = sorted(theirs, key=lambda statement: statement.opening.on if statement.opening else date.min)
        opening, closing = theirs[0].opening, theirs[-1].closing
        if opening and closing:
            told.append(f"balance {money(opening.amount)} to {money(closing.amount)} {currency}")
        came = [booking.amount for booking in booked if booking.amount > 0]
        went = [-booking.amount for booking in booked if booking.amount < 0]
        told.append(f"{len(came)} in ({money(sum(came))} {currency})")
        told.append(f"{len(went)} out ({money(sum(went))} {currency})")
        if kept := [booking.charges for booking in booked if booking.away]:
            told.append(f"{money(sum(kept))} {currency} of charges kept by the bank")
        if reversals := sum(booking.reversal for booking in booked):
            told.append(f"{reversals} of them reversals")
        yield ", ".join(told)
