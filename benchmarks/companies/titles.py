"""What payers write, and what their banks leave of it."""

import re
import unicodedata
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from benchmarks.companies.billing import Invoice
from benchmarks.companies.parties import KEEPS, Purse, one_of, pick
from benchmarks.companies.paying import Clock, Payment
from benchmarks.companies.spec import Company

# A way of writing → its templates; a payer keeps to one. {inv} {ref} {vague} … are the words of its language.
TITLES: Final[dict[str, tuple[str, ...]]] = {
    "reference": ("{refs}",),
    "named reference": ("{ref} {refs}", "{ref}: {refs}", "{ref}{refs}"),
    "reference and number": ("{refs} {inv} {numbers}", "{inv} {numbers} {ref} {refs}"),
    "number": ("{inv} {numbers}", "{numbers}", "{inv}: {numbers}", "{numbers} {payer}"),
    "dated number": ("{inv} {numbers} / {date}", "{inv} {numbers} v. {date}", "{numbers} {amount}"),
    "order and number": ("PO {serial} {inv} {numbers}", "{numbers} / {payer} / {serial6}"),
    "customer and number": ("K{customer} {inv} {numbers}", "{customer} {numbers}", "{numbers} / {customer}"),
    "vague": ("{vague}", "{vague} {vague2}"),
    "period": ("{vague} {period}", "{period}"),
    "name": ("{payer}", "{payer} {vague}"),
    "empty": ("",),
    "bank only": ("{serial}", "TRF{serial}", "/ROC/{serial}"),
    "neft": ("NEFT CR-{ifsc}-{payer}-{serial12}", "RTGS/{ifsc}/{payer}/{serial12}", "IMPS-{serial12}-{payer}-{ifsc}"),
    "neft number": ("NEFT CR-{ifsc}-{payer}-{numbers}-{serial12}", "BY TRANSFER-{ifsc}-{payer}-{numbers}"),
    "furikomi": ("振込 {payer}", "ﾌﾘｺﾐ {payer}", "{payer}", "ﾌﾘｺﾐ"),
    "giro": ("GIRO {payer}", "FAST PAYMENT {payer} OTHR", "INWARD TT {serial} {payer}", "MEPS RECEIPT {serial}"),
    "tt": ("INWARD REMITTANCE {serial} B/O {payer} {numbers}", "TT {serial} {numbers} LESS CHGS"),
    "ach": ("ACH CR {serial7} INV {numbers}", "ACH CREDIT {payer} PPD ID: {serial} {numbers}",
            "CCD+ {serial7} RMR*IV*{numbers}"),
    "cheque": ("LOCKBOX {serial6} CHK {serial4} INV {numbers}", "LBX DEP CK#{serial4} {numbers}",
               "CHECK {serial4} {payer} {numbers}"),
    "era": ("HCCLAIMPMT TRN*1*{serial}*{refs}", "EFT {serial} CLAIMS {refs}", "{payer} HCCLAIMPMT {serial7} CLM {refs}"),
    "card": ("ZELLE {payer} {serial}", "ONLINE PMT {payer}", "WEB PAY {serial}"),
    "centre": ("PAYRUN {serial7} {numbers}", "{serial} RMT {numbers}", "SSC {period} {numbers}"),
    "account": ("{account}", "{account} {payer}"),
}  # fmt: skip
PAYOUTS: Final = (
    "PAYOUT {from_day}..{day}",
    "SETTLEMENT {serial} {from_day} - {day}",
    "BATCH {serial7} MERCHANT {merchant}",
    "{merchant} PAYOUT {day} TX{count}",
    "Stlmt ID {serial12} / {from_dmy}-{dmy} / {merchant}",
)
PAYOUT_OF_ONE: Final = "TRANSFER {refs}"
VAGUE: Final = frozenset({"vague", "period", "name", "empty", "bank only", "neft", "furikomi", "giro", "card"})

FORMS: Final[dict[str, Callable[[Invoice], str]]] = {
    "printed": lambda invoice: invoice.number,
    "squeezed": lambda invoice: re.sub(r"[^0-9A-Za-z]", "", invoice.number),
    "digits": lambda invoice: re.sub(r"\D", "", invoice.number),
    "dashed": lambda invoice: re.sub(r"[^0-9A-Za-z]+", "-", invoice.number),
    "spaced": lambda invoice: re.sub(r"[^0-9A-Za-z]+", " ", re.sub(r"(?<=[A-Za-z])(?=\d)", " ", invoice.number)),
    "running": lambda invoice: invoice.running,
    "stripped": lambda invoice: invoice.running.lstrip("0") or invoice.running,
    "former": lambda invoice: invoice.former,
    "last year": lambda invoice: re.sub(r"20\d\d", lambda year: str(int(year[0]) - 1), invoice.number, count=1),
}
_DOUBTFUL: Final = frozenset({"former", "last year"})
_UNDECOMPOSED: Final = {ord(sign): plain for sign, plain in zip("øØæÆłßđ", "o O ae AE l ss d".split(), strict=True)}
_CREDITS: Final = frozenset({"printed", "squeezed", "digits", "dashed", "spaced"})


def entitle(rng: np.random.Generator, company: Company, payment: Payment, clock: Clock) -> str:
    """The title of `payment` as the bank reports it."""
    if payment.kind == "payout":
        return _payout(rng, company, payment, clock)
    habit, favourites = payment.hand.habit, payment.hand.favourites
    style = favourites["title"] if rng.random() < KEEPS else pick(rng, habit.titles)
    named = [title for title in habit.titles if title not in VAGUE]
    if payment.kind == "account":
        style = "account"
    elif style in VAGUE and not payment.plain:
        style = named[favourites["said"] % len(named)] if named else "number"
    template = TITLES[style][favourites["said"] % len(TITLES[style])]
    title = template.format(**_fields(rng, payment, clock))
    if len(payment.lines) > 1 and rng.random() < habit.glued:
        title = re.sub(r"(?<=\d)[ ,;+/]+(?=\w)", "", title)
    # What cannot be told from whole amounts is at least written out.
    cut = int(favourites["cut"]) if style not in VAGUE and _told_by_amount(payment) else 140
    title = title if rng.random() > company.upper * (favourites["said"] % 3 > 0) else plain_letters(title).upper()
    return title[:cut].strip()


def shown(rng: np.random.Generator, company: Company, payment: Payment) -> str:
    """The payer's name as the bank reports it."""
    purse = payment.purse
    names = payment.lines[0][0].party.hand(0).own.names if rng.random() < purse.under else purse.names
    favourite = payment.hand.favourites["name"] % len(names)
    return as_reported(rng, company, names[favourite] if rng.random() < 0.9 else one_of(rng, names))


def as_reported(rng: np.random.Generator, company: Company, name: str) -> str:
    """`name` in the bank's letters and length."""
    return (
        plain_letters(name).upper()[: 27 if rng.random() < 0.15 else 35].strip()
        if rng.random() < company.upper
        else name
    )


def plain_letters(text: str) -> str:
    """`text` without diacritics; other scripts stay as they are."""
    swapped = text.translate(_UNDECOMPOSED)
    if any(sign > "\u3000" for sign in swapped):
        return swapped
    return "".join(sign for sign in unicodedata.normalize("NFKD", swapped) if not unicodedata.combining(sign))


def mistyped(rng: np.random.Generator, text: str) -> str:
    """`text` with one slip among its digits, where it has three or more."""
    places = [place for place, sign in enumerate(text) if sign.isdigit()]
    if len(places) < 3:
        return text
    at = int(one_of(rng, places[1:]))
    before = places[places.index(at) - 1]
    match int(rng.integers(5)):
        case 0 if text[at] != text[before]:  # Transposed.
            signs = list(text)
            signs[at], signs[before] = signs[before], signs[at]
            return "".join(signs)
        case 1:
            return text[:at] + text[at + 1 :]
        case 2:
            return text[:at] + text[at] + text[at:]
        case 3:
            return text[:at] + " " + text[at:]
        case _:
            return text[:at] + str((int(text[at]) + int(rng.integers(1, 10))) % 10) + text[at + 1 :]


def _told_by_amount(payment: Payment) -> bool:
    whole = all(abs(amount) == abs(invoice.amount) for invoice, amount in payment.lines)
    return len(payment.lines) == 1 or (whole and payment.currency == payment.lines[0][0].party.currency)


def _payout(rng: np.random.Generator, company: Company, payment: Payment, clock: Clock) -> str:
    """An acquirer has one template, and tells by it which sales are in."""
    fields = _fields(rng, payment, clock)
    if payment.purse.terms and len(payment.lines) <= 2 and fields["refs"]:
        return PAYOUT_OF_ONE.format(**fields)
    names = [payer.name for payers in company.payers.values() for payer in payers]
    return PAYOUTS[names.index(payment.purse.names[0]) % len(PAYOUTS)].format(**fields)


def _fields(rng: np.random.Generator, payment: Payment, clock: Clock) -> dict[str, Any]:
    """What templates may name."""
    habit, favourites = payment.hand.habit, payment.hand.favourites
    first = payment.lines[0][0]
    country, said = first.party.country, favourites["said"]

    def say(what: str, shift: int = 0) -> str:
        ways = country.say(what)
        return str(ways[(said + shift) % len(ways)])

    purse: Purse = payment.purse
    serials = {f"serial{width or ''}": _serial(rng, width or 10) for width in (0, 4, 6, 7, 12)}
    on, joiner = clock.on(payment.day), favourites["joiner"]
    last_sale = max(invoice.day for invoice, _ in payment.lines)
    named = _named(rng, payment)
    written = [_written(rng, payment, invoice, say("credit")) for invoice in named]
    refs = [_referenced(rng, habit.typos, invoice, said) for invoice in named if invoice.amount > 0]
    part = f" {say('part')}" if payment.part and said % 2 and payment.kind == "bank" else ""
    return {
        **serials,
        "numbers": joiner.join(written) + part,
        "refs": (joiner if len(joiner) < 3 else ",").join(refs),
        "inv": say("invoice"),
        "ref": say("reference"),
        "vague": say("vague"),
        "vague2": say("vague", 1),
        "account": say("account"),
        "customer": 10_000 + 13 * first.party.serial,
        "payer": purse.names[favourites["name"] % len(purse.names)],
        "period": f"{clock.on(first.day):%m/%Y}",
        "date": f"{clock.on(first.day):%d.%m.%Y}",
        "amount": f"{payment.amount / 100:.2f}",
        "ifsc": f"{('HDFC', 'ICIC', 'SBIN', 'UTIB')[said % 4]}000{said:04}",
        "from_day": clock.on(payment.since).isoformat(),
        "day": clock.on(last_sale).isoformat(),
        "from_dmy": f"{clock.on(payment.since):%d%m}",
        "dmy": f"{clock.on(last_sale):%d%m%y}",
        "merchant": "M" + "".join(sign for sign in purse.account if sign.isdigit())[-7:],
        "count": len(payment.lines),
        "year": on.year,
    }


def _named(rng: np.random.Generator, payment: Payment) -> list[Invoice]:
    """The invoices that the title names: those that are paid, or the one before where an old title was copied."""
    first, before = payment.lines[0][0], payment.lines[0][0].previous
    lone = payment.plain and len(payment.lines) == 1 and not payment.part
    if lone and before and before.closed and before.closed < payment.day and rng.random() < payment.hand.habit.stale:
        return [before]
    return [first, *(invoice for invoice, _ in payment.lines[1:])]


def _serial(rng: np.random.Generator, width: int) -> str:
    return str(int(rng.integers(10 ** (width - 1), 10**width)))


def _written(rng: np.random.Generator, payment: Payment, invoice: Invoice, credit: str) -> str:
    habit, favourites = payment.hand.habit, payment.hand.favourites
    form = favourites["form"] if rng.random() < KEEPS else pick(rng, habit.forms)
    if invoice.amount < 0:
        return f"{credit} {FORMS[form if form in _CREDITS else 'printed'](invoice)}"
    if form in _DOUBTFUL and not payment.plain:
        form = "printed"
    text = FORMS[form](invoice)
    return mistyped(rng, text) if rng.random() < habit.typos else text


def _referenced(rng: np.random.Generator, typos: float, invoice: Invoice, said: int) -> str:
    """The machine reference as it is keyed in, or the number where there is none."""
    text = invoice.reference or invoice.number
    if rng.random() < typos:
        return mistyped(rng, text)
    if invoice.reference and invoice.party.country.code == "DK" and text.isdigit():
        return f"+71<{text:0>15}+8{1_000_000 + said * 7_001}<"
    if invoice.reference and said % 4 == 0 and (text.isdigit() or text.startswith("RF")):
        width = 5 if text.isdigit() else 4
        return " ".join(text[at : at + width] for at in range(0, len(text), width))
    return text
