"""A statement's file becomes rows of `transfers`: recognised by what it holds, added up, with ids that last."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

import polars as pl

from matching_platform.intake.incoming import SKIPPED, Incoming, IntakeError, incoming
from matching_platform.intake.statements.bookings import (
    Booking,
    Part,
    Statement,
    StatementError,
    disagreements,
    money,
)
from matching_platform.intake.statements.camt import read_camt
from matching_platform.intake.statements.encodings import text_of
from matching_platform.intake.statements.swift import is_swift, read_swift
from matching_platform.intake.xml import parse
from matching_platform.ledger.money import CURRENCIES
from matching_platform.ledger.schema import TRANSFERS

LARGEST: Final = 64 * 2**20  # bytes of a file
_KINDS: Final = "an MT940, MT942, camt.052, camt.053 or camt.054 file"
# What may stand before the first sign of XML: byte order marks, zero bytes of UTF-16, and blanks.
_BEFORE_XML: Final = b"\xef\xbb\xbf\xfe\xff\x00 \t\r\n"
# Currencies that the euro replaced: statements of their time hold them, and no invoice is open in them.
_REPLACED: Final = frozenset("ATS BEF CYP DEM EEK ESP FIM FRF GRD IEP ITL LTL LUF LVL MTL NLG PTE SIT SKK".split())

_Row = dict[str, object]
_Left = tuple[str, str, str]


def read_statement(name: str, content: bytes) -> Incoming:
    """The transfers that a bank statement tells of, and where it contradicts the balances and totals in it; IntakeError
    where the file is none or is damaged."""
    try:
        kind, statements, notes = _statements(name, content)
        statements, repeated = _once(statements)
        notes += repeated
        for statement in statements:
            notes += _checked(statement)
        contradictions = tuple(told for statement in statements for told in _contradictions(statement))
        statements = _told_once(statements)
        rows, places, left = _rows(statements)
    except StatementError as error:
        raise IntakeError(name, error.problem, error.advice, where=error.where, field=error.field) from error
    frame = pl.DataFrame(rows, schema=dict.fromkeys(TRANSFERS.schema, pl.String))
    skipped = pl.DataFrame(left, schema=SKIPPED, orient="row")
    notes += _figures(statements)
    read = incoming(name, kind, "transfers", frame, tuple(notes), skipped, pl.Series(places, dtype=pl.String))
    return replace(read, contradictions=contradictions)


def booking_of(transfer_ids: pl.Series) -> pl.Series:
    """The key of each transfer's booking, which a batch's transfers share."""
    return transfer_ids.str.replace(r"\.[0-9]+$", "")


def other_forms(transfer_ids: pl.Series) -> pl.Series:
    """Ids under which another file may have told the same bookings: a batch as one transfer, or the first of its own."""
    whole = booking_of(transfer_ids)
    both = pl.concat([whole, whole + ".1"]).unique(maintain_order=True)
    return both.filter(~both.is_in(transfer_ids.implode()))


def _statements(name: str, content: bytes) -> tuple[str, list[Statement], list[str]]:
    """The file's format, its statements, and notes on how it was read."""
    if len(content) > LARGEST:
        problem = f"the file has {len(content) / 2**20:,.0f} MiB, which is more than {LARGEST // 2**20}"
        raise StatementError(problem, "export a shorter period")
    if not content.strip():
        raise StatementError("the file is empty", f"choose {_KINDS}")
    if _is_xml(content):
        return *read_camt(parse(name, content)), []
    if not is_swift(content):
        raise StatementError("the file is no bank statement", f"choose {_KINDS}")
    text, notes = text_of(content)
    return *read_swift(text), list(notes)


def _is_xml(content: bytes) -> bool:
    return content[:64].translate(None, _BEFORE_XML).startswith(b"<")


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
        "amount": f"{abs(part.amount) // 100}.{abs(part.amount) % 100:02d}",
        "currency": booking.currency,
        "direction": "in" if part.amount > 0 else "out",
        "counterparty_name": part.name,
        "counterparty_account": part.account or None,
        "title": part.title,
    }


def _told_once(statements: Iterable[Statement]) -> list[Statement]:
    """The statements, with what interim reports tell again left out: by the bank's reference and equal in all."""
    seen: set[tuple[str, Booking]] = set()
    once = []
    for statement in statements:
        bookings = []
        for booking in statement.bookings:
            again = (statement.account, booking) in seen
            seen |= {(statement.account, booking)} if statement.interim and booking.reference else set()
            bookings.append(replace(booking, left_out="it was told before in this file") if again else booking)
        once.append(replace(statement, bookings=tuple(bookings)))
    return once


def _keyed(statements: Iterable[Statement]) -> Iterator[tuple[Booking, str]]:
    """Each booking with its key.

    The key is a digest of account, day, amount and the bank's reference; where the bank gave none, or gave it to
    several alike, also of names, accounts and titles, and of how many equal ones came before. So a report of the day
    and the statement after it, or a file that is exported twice, give the same keys.
    """
    bookings = [(statement, booking) for statement in statements for booking in statement.bookings]
    short = [_short(statement, booking) for statement, booking in bookings]
    shared = Counter(key for key, (_, booking) in zip(short, bookings, strict=True) if not booking.left_out)
    before = Counter[tuple[object, ...]]()
    for (_, booking), key in zip(bookings, short, strict=True):
        told = key if booking.reference and shared[key] == 1 else (*key, *map(_content, booking.parts))
        yield booking, _digest(*told, *((before[told],) if before[told] else ()))
        before[told] += not booking.left_out


def _short(statement: Statement, booking: Booking) -> tuple[object, ...]:
    ours = re.sub(r"[^A-Z0-9]", "", statement.account.upper())
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
        opening, closing = theirs[0].opening, theirs[-1].closing
        if opening and closing:
            told.append(f"balance {money(opening.amount)} to {money(closing.amount)} {currency}")
        came = [booking.amount for booking in booked if booking.amount > 0]
        went = [-booking.amount for booking in booked if booking.amount < 0]
        told.append(f"{len(came)} in ({money(sum(came))} {currency})")
        told.append(f"{len(went)} out ({money(sum(went))} {currency})")
        if reversals := sum(booking.reversal for booking in booked):
            told.append(f"{reversals} of them reversals")
        yield ", ".join(told)
