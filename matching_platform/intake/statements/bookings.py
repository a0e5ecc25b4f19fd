"""What a statement says, whatever wrote it: an account's bookings, the balances around them, and whether they add up."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Final, NoReturn

_AMOUNT: Final = re.compile(r"(?=[.,]?[0-9])([0-9]{0,13})(?:[.,]([0-9]{0,2})0*)?")
_ISO_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# Which bookings a total speaks of: what came, what went, or both.
_SIGNS: Final = {"entries": (1, -1), "entries in": (1,), "entries out": (-1,)}
_NATIONAL_OF_GERMANY: Final = re.compile(r"([0-9]{8})/([0-9]{1,10})")
_BEHIND_BIC: Final = re.compile(r"[A-Z]{6}[A-Z0-9]{2}(?:[A-Z0-9]{3})?([A-Z]{2}[0-9]{2}[A-Z0-9]{11,30})")
_BBAN_OF_POLAND: Final = re.compile(r"[0-9]{26}")


class StatementError(ValueError):
    """A place of a statement that cannot be read; what takes the file tells it with the file's name."""

    def __init__(self, problem: str, advice: str, *, where: str | None = None, field: str | None = None) -> None:
        super().__init__(problem)
        self.problem, self.advice, self.where, self.field = problem, advice, where, field


@dataclass(frozen=True)
class Balance:
    """Money on the account on a day: `amount` in minor units, negative where the account owes it."""

    on: date
    amount: int
    currency: str


@dataclass(frozen=True)
class Part:
    """One transaction of a booking: `amount` in minor units, below zero where it left the account."""

    amount: int
    name: str = ""
    account: str = ""
    title: str = ""


@dataclass(frozen=True)
class Booking:
    """One entry of a statement: `amount` in minor units, below zero where it left the account; a batch has several parts.

    `reference` is the bank's own, empty where it gave none; `charges` is what the bank kept of a batch; `left_out` says why
    it is no transfer, where it is none.
    """

    where: str = field(compare=False)
    booked_on: date
    amount: int
    currency: str
    parts: tuple[Part, ...]
    reference: str = ""
    reversal: bool = False
    left_out: str = ""
    charges: int = 0

    @property
    def away(self) -> int:
        """By how much its transactions come to more than what was booked."""
        return sum(part.amount for part in self.parts) - self.amount


@dataclass(frozen=True)
class Total:
    """What a statement itself says of some of its bookings: how many they are and the sum of their amounts, unsigned."""

    of: str
    count: int | None
    amount: int | None


@dataclass(frozen=True)
class Statement:
    """The bookings of one account in one statement; an interim one may tell again what another told."""

    where: str = field(compare=False)
    number: str
    account: str
    currency: str
    bookings: tuple[Booking, ...]
    opening: Balance | None = None
    closing: Balance | None = None
    totals: tuple[Total, ...] = ()
    interim: bool = False


def minor(text: str, *, where: str, field: str) -> int:
    """Minor units of an amount written with a comma or a point; StatementError where it is none."""
    whole = _AMOUNT.fullmatch(text)
    if not whole:
        problem = f"'{text[:40]}' is not an amount with at most two decimal places"
        raise StatementError(problem, "correct it or ask the bank for the file again", where=where, field=field)
    return int(whole[1] or 0) * 100 + int((whole[2] or "").ljust(2, "0"))


def day(text: str, *, where: str, field: str) -> date:
    """The day with which an ISO date or time begins; StatementError where there is none."""
    try:
        found = _ISO_DAY.match(text)
        return date.fromisoformat(found[0] if found else text)
    except ValueError:
        wrong_day(text, where=where, field=field)


def wrong_day(text: str, *, where: str, field: str) -> NoReturn:
    """Raises StatementError: there is no such day."""
    advice = "correct it or ask the bank for the file again"
    raise StatementError(f"'{text[:40]}' is not a day", advice, where=where, field=field) from None


def money(amount: int) -> str:
    """An amount in minor units for people."""
    return f"{'-' if amount < 0 else ''}{abs(amount) // 100:,}.{abs(amount) % 100:02d}"


def account_of(text: str) -> str:
    """An account as it is written, an IBAN and a Polish number without blanks, the latter as an IBAN, and an IBAN without
    the BIC before it."""
    squeezed = re.sub(r"[\s/-]+", "", text).upper()
    if behind := _BEHIND_BIC.fullmatch(squeezed):
        return behind[1]
    if _BBAN_OF_POLAND.fullmatch(squeezed) and int(f"{squeezed[2:]}2521{squeezed[:2]}") % 97 == 1:
        return f"PL{squeezed}"
    return squeezed if looks_like_iban(squeezed) else " ".join(text.split()).strip("/")


def iban_of(account: str) -> str:
    """The IBAN of an account, where it is one of Germany written as bank and number; else the account as it is."""
    national = _NATIONAL_OF_GERMANY.fullmatch(account)
    if not national:
        return account
    bban = national[1] + national[2].zfill(10)
    return f"DE{98 - int(f'{bban}131400') % 97:02d}{bban}"


def looks_like_iban(text: str) -> bool:
    """Whether `text` has an IBAN's form; its check digits may be wrong."""
    return re.fullmatch(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", text) is not None


def disagreements(statement: Statement) -> Iterator[str]:
    """What does not add up, in words: transactions against their booking, bookings against the balances around them and
    against the statement's own totals."""
    booked = [booking for booking in statement.bookings if not booking.left_out]
    for booking in booked:
        if booking.away not in (0, booking.charges):
            parts = money(sum(part.amount for part in booking.parts))
            whole = f"{money(booking.amount)} {booking.currency}"
            yield f"the transactions of {booking.where} come to {parts}, the entry to {whole}"
    opening, closing = statement.opening, statement.closing
    if opening and closing:
        reached = opening.amount + sum(booking.amount for booking in booked)
        if reached != closing.amount:
            yield (
                f"{money(opening.amount)} and {len(booked)} entries come to {money(reached)}, "
                f"but the closing balance is {money(closing.amount)} {statement.currency}, "
                f"{money(abs(closing.amount - reached))} away"
            )
    for total in statement.totals:
        # Banks differ in whether they count what is not booked yet.
        counted = [_counted(total, rows) for rows in (booked, statement.bookings)]
        counts, sums = zip(*counted, strict=True)
        if total.count is not None and total.count not in counts:
            yield f"it says that the number of its {total.of} is {total.count}, and it is {counts[0]}"
        if total.amount is not None and total.amount not in sums:
            yield f"it says that the sum of its {total.of} is {money(total.amount)}, and it is {money(sums[0])}"


def _counted(total: Total, bookings: Iterable[Booking]) -> tuple[int, int]:
    amounts = [row.amount for row in bookings if (-1 if row.amount < 0 else 1) in _SIGNS[total.of]]
    return len(amounts), sum(abs(amount) for amount in amounts)
