"""MT940 and MT942: the fields of a message become bookings and balances.

The tags of mt-940 read what stands in a field. Its collection of fields is not used: it joins an entry without a type
to the one before, adds the statement's own `:86:` to the last entry, and knows no line.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Final

from mt940 import tags

from matching_platform.intake.statements.bookings import (
    Balance,
    Booking,
    Part,
    Statement,
    StatementError,
    Total,
    account_of,
    looks_like_iban,
    minor,
    wrong_day,
)
from matching_platform.intake.statements.details import Details, details, non_swift

# The tags that there are: text within a field may begin a line alike, as a time of day does.
_TAG: Final = re.compile(r":(20|21|25P?|28C?|13D?|34F|6[0-5][FM]?|86|90[CD]|NS):")
_FIELDS_OF_ALL: Final = re.compile(rb"(?:^|\r|\n):(20|25P?|28C?|60[FM]|61|62[FM]):")
_END: Final = re.compile(r"-(?:\}.*|XXX)?\s*$")
# The start of a message on the wire, which some write on the line of its first field.
_FRAME: Final = re.compile(r"\{1:.*\{4:(?=:)")
# What frames a message on the wire, and hyphens that came as soft ones.
_CONTROLS: Final = dict.fromkeys([0, 1, 2, 3, 4, 26, 0xFEFF]) | {0xAD: "-"}
_OPENING: Final = ("60F", "60M", "60")
_CLOSING: Final = ("62F", "62M", "62")
# After one of these, `:86:` tells of the statement and not of an entry.
_AFTER_ENTRIES: Final = (*_CLOSING, "64", "65", "90D", "90C")
# What stands at the head of a statement; the next one of the same message may leave some of it out.
_HEAD: Final = ("20", "25", "25P", "28", "28C")
_DETAILS: Final = ("86", "NS")
_ONLY_INTERIM: Final = ("34F", "13D", "13", "90D", "90C")
_NO_REFERENCE: Final = ("", "NONREF", "NOTPROVIDED")
_AGAIN: Final = "export the statement again as a whole"
_CORRECT: Final = "correct it or ask the bank for the file again"


class _Balance(tags.BalanceBase):
    """The library's balance takes the digits of an amount for a currency where a bank left the currency out."""

    pattern = r"""^(?P<status>[DC])(?P<day>[0-9]{6})(?P<currency>[A-Z]{3})?(?P<amount>[0-9,]+)\s*$"""


# A line as SWIFT has it, and one whose reference is longer than that.
_LINES: Final = (tags.Statement().re, tags.StatementGLS().re)
_BALANCE: Final = _Balance().re
_TOTAL: Final = tags.SumEntries().re
_FLOOR: Final = tags.FloorLimitIndicator().re
_EXPECTED: Final = re.compile(r"^(\d{6}(?:\d{4}|\s{4})?)E(?=[DC])")
# The pieces of a line in order, by which the first one that cannot be read is named.
_PIECES: Final = (
    ("value date", r"[0-9]{6}"),
    ("entry date", r"(?:[0-9]{4}|\s{4})?"),
    ("debit or credit mark", r"[RE]?[DC][A-Z]?"),
    ("amount", r"[\n ]?[0-9,]{1,15}(?![0-9,]|[.'][0-9])"),
)
_AMOUNT_GOES_ON: Final = re.compile(r"[.']?[0-9]")


@dataclass(frozen=True)
class _Field:
    tag: str
    lines: tuple[str, ...]
    line: int

    @property
    def where(self) -> str:
        return f"line {self.line}"

    @property
    def name(self) -> str:
        return f":{self.tag}:"

    @property
    def first(self) -> str:
        return self.lines[0].strip()


def is_swift(content: bytes) -> bool:
    """Whether `content` holds an MT940 or MT942 message, or a part of one."""
    return len(set(_FIELDS_OF_ALL.findall(content))) > 1


def read_swift(text: str) -> tuple[str, list[Statement]]:
    """The format ('MT940' or 'MT942') and the statements of `text`; StatementError where it cannot be read."""
    fields = list(_fields(text.translate(_CONTROLS)))
    if not fields or fields[0].tag != "20":
        raise StatementError("the file begins within a statement", _AGAIN, where="line 1", field=":20:")
    statements = [_statement(theirs, heads) for theirs, heads in _grouped(fields)]
    return "MT942" if all(statement.interim for statement in statements) else "MT940", statements


def _fields(text: str) -> Iterator[_Field]:
    tag, line, lines, opened = "", 0, [""], False
    for number, framed in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        written = _FRAME.sub("", framed)
        begun = _TAG.match(written)
        # Before the closing balance a hyphen alone is text.
        ended = _END.match(written) and not (opened and written.strip() == "-")
        if begun or ended:
            if tag:
                yield _Field(tag, tuple(lines), line)
            tag, line, lines = (begun[1], number, [written[begun.end() :]]) if begun else ("", 0, [""])
            opened = tag in _OPENING or (opened and tag not in ("", "20", *_CLOSING))
        else:
            lines.append(written)
    if tag:
        yield _Field(tag, tuple(lines), line)


def _grouped(fields: list[_Field]) -> Iterator[tuple[list[_Field], dict[str, _Field]]]:
    """The fields of each statement, and the head that holds for it: one message may hold several accounts or days."""
    starts, closed = [], False
    for place, found in enumerate(fields):
        ends = found.tag in _AFTER_ENTRIES
        told_of = closed and found.tag in _DETAILS
        if found.tag == "20" or (closed and not ends and not told_of):
            starts.append(place)
        closed = ends or told_of
    heads: dict[str, _Field] = {}
    for start, end in pairwise([*starts, len(fields)]):
        own = {found.tag[:2]: found for found in reversed(fields[start:end]) if found.tag in _HEAD}
        heads = own if "20" in own else heads | own
        yield fields[start:end], heads


def _statement(fields: list[_Field], heads: dict[str, _Field]) -> Statement:
    """The statement of its fields, in a message with these `heads`, by the digits of their tags."""
    first, by_tag = fields[0], {found.tag: found for found in reversed(fields)}
    named = heads.get("25")
    if not named or not named.first:
        raise StatementError("the statement names no account", _AGAIN, where=first.where, field=":25:")
    opening, closing = _first(by_tag, _OPENING), _first(by_tag, _CLOSING)
    interim = opening is None and closing is None and any(tag in by_tag for tag in _ONLY_INTERIM)
    if not interim:
        _whole(first, opening, closing)
    balances = [_balance(found) for found in (opening, closing) if found]
    currency = _currency(balances, by_tag, first)
    begin, end = (Balance(on, amount, currency) for on, amount, _ in balances) if balances else (None, None)
    return Statement(
        where=first.where,
        number=heads["28" if "28" in heads else "20"].first,
        account=_own_account(named.first, currency),
        currency=currency,
        bookings=tuple(_booking(line, more, currency) for line, more in _entries(fields)),
        opening=begin,
        closing=end,
        totals=tuple(_totals(by_tag)),
        interim=interim,
    )


def _first(by_tag: dict[str, _Field], wanted: Iterable[str]) -> _Field | None:
    return next((by_tag[tag] for tag in wanted if tag in by_tag), None)


def _whole(first: _Field, opening: _Field | None, closing: _Field | None) -> None:
    for found, name, what in ((opening, ":60F:", "opening"), (closing, ":62F:", "closing")):
        if found is None:
            problem = f"the statement has no {what} balance, so the file is cut"
            raise StatementError(problem, _AGAIN, where=first.where, field=name)


def _balance(found: _Field) -> tuple[date, int, str | None]:
    read = _BALANCE.match(found.first)
    if not read:
        raise StatementError(f"'{found.first[:40]}' is not a balance", _CORRECT, where=found.where, field=found.name)
    amount = minor(read["amount"], where=found.where, field=found.name)
    on = _six_digits(read["day"], found)
    return on, -amount if read["status"].upper() == "D" else amount, read["currency"]


def _six_digits(text: str, found: _Field) -> date:
    try:
        return date(2000 + int(text[:2]), int(text[2:4]), int(text[4:]))
    except ValueError:
        wrong_day(text, where=found.where, field=found.name)


def _currency(balances: list[tuple[date, int, str | None]], by_tag: dict[str, _Field], first: _Field) -> str:
    """The account's currency: that of its balances, or of an interim report's floor limit or sums."""
    told = [currency for _, _, currency in balances if currency]
    for tag, pattern in (("34F", _FLOOR), ("90C", _TOTAL), ("90D", _TOTAL)):
        read = pattern.match(by_tag[tag].first) if tag in by_tag else None
        told += [read["currency"]] if read else []
    if not told:
        raise StatementError("the statement names no currency", _CORRECT, where=first.where, field=":60F:")
    return told[0].upper()


def _own_account(text: str, currency: str) -> str:
    return account_of(text.removesuffix(currency).strip().removeprefix("/"))


def _totals(by_tag: dict[str, _Field]) -> Iterator[Total]:
    for tag, of in (("90D", "entries out"), ("90C", "entries in")):
        if tag in by_tag:
            found = by_tag[tag]
            read = _TOTAL.match(found.first)
            if not read or not read["number"].isascii():
                problem = f"'{found.first[:40]}' is not a number and sum of entries"
                raise StatementError(problem, _CORRECT, where=found.where, field=found.name)
            amount = minor(read["amount"], where=found.where, field=found.name)
            yield Total(of, int(read["number"]) if read["number"] else None, amount)


def _entries(fields: list[_Field]) -> Iterator[tuple[_Field, list[_Field]]]:
    """Each `:61:` with the fields that tell of it."""
    line: _Field | None = None
    more: list[_Field] = []
    for found in fields:
        if found.tag == "61" or found.tag in _AFTER_ENTRIES:
            if line:
                yield line, more
            line, more = found if found.tag == "61" else None, []
            if found.tag in _AFTER_ENTRIES:
                return
        # Before the first entry they tell of the statement.
        elif found.tag in _DETAILS and line:
            more.append(found)
    if line:
        yield line, more


def _booking(line: _Field, more: list[_Field], currency: str) -> Booking:
    value = "\n".join([line.lines[0], " ".join(" ".join(line.lines[1:]).split())]).strip()
    expected = _EXPECTED.search(value)
    read = _read_line(_EXPECTED.sub(r"\1", value), line)
    amount = minor(read["amount"], where=line.where, field=":61: amount")
    mark = read["status"].upper()
    incoming = mark in ("C", "RD")
    told = _told(read, more, incoming=incoming)
    reference = (read["bank_reference"] or "").strip()
    return Booking(
        where=line.where,
        booked_on=_booked_on(read, line),
        amount=amount if incoming else -amount,
        currency=currency,
        parts=(Part(amount if incoming else -amount, told.name, told.account, told.title),),
        reference="" if reference in _NO_REFERENCE else reference,
        reversal=mark.startswith("R"),
        left_out="it is expected and not booked yet" if expected else "",
    )


def _read_line(value: str, line: _Field) -> re.Match[str]:
    read = _LINES[0].match(value)
    if not read or _goes_on(read):
        read = _LINES[1].match(value)
    if read and not _AMOUNT_GOES_ON.match(value, read.end("amount")):
        return read
    place = 0
    for name, pattern in _PIECES:
        piece = re.compile(pattern).match(value, place)
        if not piece:
            problem = f"'{' '.join(value[place:].split())[:40]}' cannot be read as {name}"
            raise StatementError(problem, _CORRECT, where=line.where, field=f":61: {name}")
        place = piece.end()
    raise StatementError("the entry cannot be read", _CORRECT, where=line.where, field=":61:")


def _goes_on(read: re.Match[str]) -> bool:
    """Whether the reference was cut in the middle of a word, where SWIFT allows no more of it."""
    start, end = read.span("customer_reference")
    after = read.string[end : end + 1]
    return end - start == 16 and not read.string[end - 1].isspace() and after.isalnum()


def _booked_on(read: re.Match[str], line: _Field) -> date:
    """The entry date, in the year that brings it nearest to the value date; the value date where there is none."""
    # Interest is reckoned in months of thirty days, and its value date may be a day that February does not have.
    text = f"{read['year']}{read['month']}{read['day']}"
    if read["month"] == "02" and read["day"] in ("29", "30"):
        valued = _six_digits(f"{read['year']}0301", line) - timedelta(days=1)
    else:
        valued = _six_digits(text, line)
    entered = f"{read['entry_month'] or ''}{read['entry_day'] or ''}".strip()
    if not entered:
        return valued
    days = [_day_of(valued.year + step, entered) for step in (-1, 0, 1)]
    near = [entry for entry in days if entry]
    if not near:
        wrong_day(entered, where=line.where, field=":61: entry date")
    return min(near, key=lambda entry: abs(entry - valued))


def _day_of(year: int, entered: str) -> date | None:
    try:
        return date(year, int(entered[:2]), int(entered[2:]))
    except ValueError:
        return None


def _told(read: re.Match[str], more: list[_Field], *, incoming: bool) -> Details:
    """Counterparty and title: what the details tell, and what the line itself tells beside them."""
    reference, extra = read["customer_reference"].strip(), (read["extra_details"] or "").strip()
    written = [line for found in more if found.tag == "86" for line in found.lines]
    extended = [line for found in more if found.tag == "NS" for line in found.lines]
    told = non_swift(extended) if extended else details(written, incoming=incoming)
    name, account = "", ""
    on_the_same_line = extra and read.string[read.start("extra_details") - 1] != "\n"
    if looks_like_iban(reference) or on_the_same_line:
        name = extra
        account = reference if re.search(r"[0-9]", reference) else ""
    elif looks_like_iban(extra):
        account = extra
    return Details(told.name or name, account_of(told.account or account), told.title or ("" if name else extra))
