"""The invoices that a person ticks for a transfer, and how their sum meets its amount, to the cent. Minor units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from babel import Locale

from matching_platform.desk.formats import AmountError, amount
from matching_platform.desk.i18n import mark
from matching_platform.review.cases import Case, OpenInvoice, Row, Settles
from matching_platform.review.decisions import Allocation

# What becomes of what is missing: it stays open, or it is a discount or a fee and the invoice is closed.
Rest = Literal["part", "full"]


@dataclass(frozen=True)
class Line:
    """A ticked invoice. `typed` is what the person wrote, '' for all that is open; `error` is marked for translation."""

    invoice: OpenInvoice
    typed: str
    amount: int
    error: str = ""

    @property
    def left(self) -> int:
        """What stays open."""
        return self.invoice.open - self.amount


@dataclass(frozen=True)
class Converted:
    """What amounts in other currencies come to in a transfer's, `sum`, about, at `rates`: units of it for one of each other.
    None where a rate is not known."""

    sum: int | None
    rates: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Chosen:
    """What was ticked. `difference` is the transfer's amount less the sum; None where currencies differ."""

    lines: tuple[Line, ...]
    sum: int
    difference: int | None

    @property
    def allocations(self) -> tuple[Allocation, ...]:
        return tuple(Allocation(line.invoice.invoice_id, line.amount) for line in self.lines)

    @property
    def errors(self) -> bool:
        return any(line.error for line in self.lines)


def choose(
    row: Row,
    ticked: Sequence[OpenInvoice],
    typed: Mapping[str, str],
    rest: Rest,
    locale: Locale,
    seen: Mapping[str, int] | None = None,
) -> Chosen:
    """What `ticked` settle with the amounts `typed` by invoice; those without one share what the transfer brings.

    `seen` is what was open by invoice when the person looked: he chose that, whatever is open now.
    """
    lines = [
        _line(one, typed.get(one.invoice_id, "").strip(), (seen or {}).get(one.invoice_id), locale) for one in ticked
    ]
    comparable = all(line.invoice.currency == row.currency for line in lines)
    if comparable and rest == "part":
        lines = _cut(lines, sum(line.amount for line in lines) - row.amount)
    total = sum(line.amount for line in lines)
    return Chosen(tuple(lines), total, row.amount - total if comparable else None)


def convert(parts: Sequence[Line | Settles], case: Case) -> Converted:
    """What parts of invoices in several currencies come to in that of the transfer."""
    others = sorted({part.invoice.currency for part in parts} - {case.row.currency})
    rates = {**case.rates, case.row.currency: 1.0}
    if not rates.keys() >= set(others):
        return Converted(None, ())
    total = sum(rates[part.invoice.currency] * part.amount for part in parts)
    return Converted(round(total), tuple((name, rates[name]) for name in others))


def _line(invoice: OpenInvoice, typed: str, seen: int | None, locale: Locale) -> Line:
    shown = invoice.open if seen is None else seen
    try:
        settled = amount(typed, locale) if typed else shown
    except AmountError as error:
        return Line(invoice, typed, 0, str(error))
    problem = _impossible(invoice, settled, max(abs(invoice.open), abs(shown)))
    return Line(invoice, typed, 0 if problem else settled, problem)


def _impossible(invoice: OpenInvoice, settled: int, most: int) -> str:
    """Why nothing can settle so much of an invoice; `most` is open, whatever its sign."""
    if not settled:
        return mark("Nothing of the invoice would be settled; untick it.")
    if (settled > 0) != (invoice.amount > 0):
        return (
            mark("A credit note is settled by an amount below 0.")
            if invoice.amount < 0
            else mark("Of this invoice, only an amount above 0 can be settled.")
        )
    return mark("Only %(open)s of the invoice is open.") if abs(settled) > most else ""


def _cut(lines: list[Line], excess: int) -> list[Line]:
    """`lines` without what the transfer does not bring: taken from the last ones for which nothing was typed."""
    cut = []
    for line in reversed(lines):
        taken = 0 if line.typed else min(max(excess, 0), max(line.amount, 0))
        excess -= taken
        error = line.error if line.amount != taken else mark("The amount is used up before this invoice; untick it.")
        cut.append(replace(line, amount=line.amount - taken, error=line.error or error if taken else line.error))
    return cut[::-1]
