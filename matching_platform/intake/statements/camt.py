"""camt.052, camt.053 and camt.054 of any version: elements are found by their local names."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final

from lxml import etree

from matching_platform.intake.statements.bookings import (
    Balance,
    Booking,
    Part,
    Statement,
    StatementError,
    Total,
    account_of,
    day,
    minor,
)
from matching_platform.intake.statements.details import joined, other_side
from matching_platform.intake.xml import local_name

_MESSAGES: Final = {
    "BkToCstmrAcctRpt": ("camt.052", "Rpt"),
    "BkToCstmrStmt": ("camt.053", "Stmt"),
    "BkToCstmrDbtCdtNtfctn": ("camt.054", "Ntfctn"),
}
_ADVICE: Final = "ask the bank for the file again"
_SIGNS: Final = {"CRDT": 1, "DBIT": -1}
_OPENING: Final = ("OPBD", "PRCD")
_CLOSING: Final = ("CLBD",)
_INTERIM: Final = "ITBD"
_NO_REFERENCE: Final = ("", "NOTPROVIDED", "NONREF")
# Where the amount of one of several transactions stands: the first that is in the account's currency is taken.
_AMOUNTS: Final = ("Amt", "AmtDtls/TxAmt/Amt", "AmtDtls/CntrValAmt/Amt", "AmtDtls/InstdAmt/Amt")
_CHARGES: Final = ("Chrgs/TtlChrgsAndTaxAmt", "Chrgs/Rcrd/Amt", "Chrgs/Amt")
_TOTALS: Final = (
    ("TtlNtries", "entries"),
    ("TtlCdtNtries", "entries in"),
    ("TtlDbtNtries", "entries out"),
)
_USTRD: Final = (140,)  # the length at which an unstructured text is cut
_NAMES: Final = ("Nm", "Pty/Nm", "Agt/FinInstnId/Nm")
_ACCOUNTS: Final = ("Id/IBAN", "Id/Othr/Id")


@dataclass(frozen=True)
class _Owner:
    """Whose statement it is, which the parties of an entry are told from."""

    account: str
    name: str

    def is_named(self, name: str, account: str) -> bool:
        return account == self.account if account else bool(self.name) and name.casefold() == self.name.casefold()


def read_camt(root: Any) -> tuple[str, list[Statement]]:
    """The format ('camt.053' and so on) and the statements below an XML root; StatementError where it cannot be read."""
    for element in root.iter(etree.Element):
        element.tag = local_name(element)
    message = next(root.iter(*_MESSAGES), None)
    if message is None:
        problem = f"the file's XML holds '{root.tag}' and no camt.052, camt.053 or camt.054"
        advice = "of XML, bank statements are read as camt and invoices as UBL, CII, Factur-X or ZUGFeRD"
        raise StatementError(problem, advice)
    kind, name = _MESSAGES[message.tag]
    found = message.findall(name)
    if not found:
        raise StatementError("the message holds no statement", _ADVICE, where=_at(message), field=name)
    return kind, [_statement(element, kind) for element in found]


def _at(element: Any) -> str:
    return f"line {element.sourceline}"


def _text(element: Any, *paths: str) -> str:
    """The text under the first of `paths` that has one."""
    for path in paths:
        text = " ".join((element.findtext(path) or "").split())
        if text:
            return text
    return ""


def _statement(element: Any, kind: str) -> Statement:
    number = _text(element, "ElctrncSeqNb", "LglSeqNb", "Id") or "1"
    account = _text(element, "Acct/Id/IBAN", "Acct/Id/Othr/Id", "Acct/Id/PrtryAcct/Id", "Acct/Id/BBAN")
    if not account:
        raise StatementError("the statement names no account", _ADVICE, where=_at(element), field="Acct/Id/IBAN")
    entries = element.findall("Ntry")
    opening, closing = _balances(element)
    currency = _text(element, "Acct/Ccy") or _first_currency(element)
    ours = _Owner(account_of(account), _text(element, "Acct/Ownr/Nm"))
    booked = [_booking(entry, f"{_at(entry)}, entry {place}", ours) for place, entry in enumerate(entries, start=1)]
    for place, booking in enumerate(booked):
        if booking.currency != currency:
            problem = f"the entry is in {booking.currency}, the account in {currency}"
            # What the bank tells before it books may be in the money that came.
            if kind == "camt.053":
                raise StatementError(problem, _ADVICE, where=booking.where, field="Ntry/Amt/@Ccy")
            booked[place] = replace(booking, left_out=problem)
    return Statement(
        where=_at(element),
        number=number,
        account=ours.account,
        currency=currency,
        bookings=tuple(booked),
        opening=opening,
        closing=closing,
        totals=tuple(_totals(element)),
        interim=kind != "camt.053",
    )


def _first_currency(element: Any) -> str:
    amount = next((found for path in ("Bal/Amt", "Ntry/Amt") for found in element.iterfind(path)), None)
    return "" if amount is None else amount.get("Ccy", "")


def _balances(element: Any) -> tuple[Balance | None, Balance | None]:
    """The opening and the closing balance of what is booked; of a page of a statement they are interim ones."""
    opening, closing, interim = None, None, []
    for found in element.findall("Bal"):
        code = _text(found, "Tp/CdOrPrtry/Cd", "Tp/Cd")
        if code in _OPENING:
            opening = opening or _balance(found)
        elif code in _CLOSING:
            closing = _balance(found)
        elif code == _INTERIM:
            interim.append(_balance(found))
    if interim and not opening and closing:
        opening = interim[0]
    if interim and not closing and opening:
        closing = interim[-1]
    return (opening, closing) if opening and closing else (None, None)


def _balance(element: Any) -> Balance:
    where = _at(element)
    amount, currency = _amount(element, where, "Bal")
    on = day(_text(element, "Dt/Dt", "Dt/DtTm"), where=where, field="Bal/Dt")
    return Balance(on, _sign(element, where, "Bal") * amount, currency)


def _amount(element: Any, where: str, field: str) -> tuple[int, str]:
    found = element.find("Amt")
    text = "" if found is None else (found.text or "").strip()
    amount = minor(text, where=where, field=f"{field}/Amt")
    return amount, "" if found is None else found.get("Ccy", "")


def _sign(element: Any, where: str, field: str) -> int:
    mark = _text(element, "CdtDbtInd")
    if mark not in _SIGNS:
        raise StatementError(f"'{mark}' is not CRDT or DBIT", _ADVICE, where=where, field=f"{field}/CdtDbtInd")
    return _SIGNS[mark]


def _totals(element: Any) -> Iterator[Total]:
    for name, of in _TOTALS:
        total = element.find(f"TxsSummry/{name}")
        if total is not None:
            count, amount = _text(total, "NbOfNtries"), _text(total, "Sum")
            field = f"TxsSummry/{name}"
            yield Total(
                of,
                _count(count, _at(total), f"{field}/NbOfNtries") if count else None,
                minor(amount, where=_at(total), field=f"{field}/Sum") if amount else None,
            )


def _count(text: str, where: str, field: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise StatementError(f"'{text[:40]}' is not a number of entries", _ADVICE, where=where, field=field)
    return int(text)


def _booking(entry: Any, where: str, ours: _Owner) -> Booking:
    amount, currency = _amount(entry, where, "Ntry")
    amount *= _sign(entry, where, "Ntry")
    status = _text(entry, "Sts/Cd", "Sts/Prtry", "Sts") or "BOOK"
    transactions = entry.findall("NtryDtls/TxDtls")
    reference = _text(entry, "AcctSvcrRef")
    if len(transactions) == 1 and reference in _NO_REFERENCE:
        reference = _text(transactions[0], "Refs/AcctSvcrRef")
    _count_of_batch(entry, amount, currency, where)
    parts = tuple(_parts(entry, transactions, amount, currency, where, ours))
    return Booking(
        where=where,
        booked_on=_booked_on(entry, where),
        amount=amount,
        currency=currency,
        parts=parts,
        charges=_charges(entry, transactions, currency, where) if len(parts) > 1 else 0,
        reference="" if reference in _NO_REFERENCE else reference,
        reversal=_reversed(entry),
        left_out="" if status == "BOOK" else f"its status is {status}: it is not booked",
    )


def _booked_on(entry: Any, where: str) -> date:
    told = _text(entry, "BookgDt/Dt", "BookgDt/DtTm", "ValDt/Dt", "ValDt/DtTm")
    if not told:
        raise StatementError("the entry has no date", _ADVICE, where=where, field="Ntry/BookgDt")
    return day(told, where=where, field="Ntry/BookgDt")


def _reversed(entry: Any) -> bool:
    return _text(entry, "RvslInd") in ("true", "1")


def _count_of_batch(entry: Any, amount: int, currency: str, where: str) -> None:
    """StatementError where a batch holds some of its transactions; none are held, or one that speaks of all, where the bank
    tells them elsewhere."""
    for details in entry.findall("NtryDtls"):
        told, held = _text(details, "Btch/NbOfTxs"), details.findall("TxDtls")
        of_all = len(held) == 1 and _of_all(held[0], amount, currency, where)
        if told and held and not of_all and _count(told, where, "NtryDtls/Btch/NbOfTxs") != len(held):
            problem = f"the batch says that it has {told} transactions, and holds {len(held)}"
            raise StatementError(problem, _ADVICE, where=where, field="NtryDtls/Btch/NbOfTxs")


def _of_all(transaction: Any, amount: int, currency: str, where: str) -> bool:
    """Whether what stands as one transaction speaks of the whole amount, or of none."""
    return not _own_amount(transaction, currency) or _part_of(transaction, amount, currency, where) == amount


def _parts(
    entry: Any,
    transactions: list[Any],
    amount: int,
    currency: str,
    where: str,
    ours: _Owner,
) -> Iterator[Part]:
    """The transactions of an entry; an entry is one where it names none, or tells none of their amounts in its currency."""
    returned = _reversed(entry)
    if not transactions:
        yield Part(amount, title=_text(entry, "AddtlNtryInf"))
        return
    if len(transactions) == 1:
        amounts = [amount]
    elif not any(_own_amount(found, currency) for found in transactions):
        yield Part(amount, title=" ".join(dict.fromkeys(_title(found, entry) for found in transactions)))
        return
    else:
        amounts = [_part_of(found, amount, currency, where) for found in transactions]
    for found, part in zip(transactions, amounts, strict=True):
        name, account = _party(found, ours, incoming=part >= 0, returned=returned or found.find("RtrInf") is not None)
        yield Part(part, name, account, _title(found, entry))


def _own_amount(transaction: Any, currency: str) -> tuple[str, str] | None:
    """Where the amount in the account's currency stands, and its text."""
    for path in _AMOUNTS:
        found = transaction.find(path)
        if found is not None and found.get("Ccy") == currency:
            return path, (found.text or "").strip()
    return None


def _part_of(transaction: Any, amount: int, currency: str, where: str) -> int:
    sign = _sign(transaction, where, "TxDtls") if transaction.find("CdtDbtInd") is not None else 1 if amount > 0 else -1
    told = _own_amount(transaction, currency)
    if told is None:
        problem = f"one of its transactions has no amount in {currency}"
        raise StatementError(problem, _ADVICE, where=where, field="TxDtls/Amt")
    path, text = told
    return sign * minor(text, where=where, field=f"TxDtls/{path}")


def _charges(entry: Any, transactions: list[Any], currency: str, where: str) -> int:
    """What the bank kept of a batch, in minor units: told of the entry, or of each transaction."""
    return _charged(entry, currency, where) or sum(_charged(found, currency, where) for found in transactions)


def _charged(element: Any, currency: str, where: str) -> int:
    for path in _CHARGES:
        amounts = [found for found in element.findall(path) if found.get("Ccy") == currency]
        if amounts:
            return sum(minor((found.text or "").strip(), where=where, field=path) for found in amounts)
    return 0


def _party(transaction: Any, ours: _Owner, *, incoming: bool, returned: bool) -> tuple[str, str]:
    """Name and account of the other side; what comes back keeps the roles that it had on its way out."""
    sides = ("Dbtr", "Cdtr") if incoming != returned else ("Cdtr", "Dbtr")
    for side in sides:
        name = _name(transaction, side)
        account = account_of(_text(transaction, *(f"RltdPties/{side}Acct/{path}" for path in _ACCOUNTS)))
        if (name or account) and not ours.is_named(name, account):
            return name, account
    return "", ""


def _name(transaction: Any, side: str) -> str:
    holder = _text(transaction, *(f"RltdPties/{side}/{path}" for path in _NAMES))
    return other_side(holder, _text(transaction, *(f"RltdPties/Ultmt{side}/{path}" for path in _NAMES)))


def _title(transaction: Any, entry: Any) -> str:
    """What the payer wrote, then the references and invoice numbers given apart; else what the bank says."""
    written = joined((found.text or "" for found in transaction.iterfind("RmtInf/Ustrd")), _USTRD)
    told = [written, *(text for text in _structured(transaction) if not _stands_in(text, written))]
    title = " ".join(text for text in dict.fromkeys(told) if text)
    reference = _text(transaction, "Refs/EndToEndId")
    return (
        title
        or _text(transaction, "AddtlTxInf")
        or ("" if reference in _NO_REFERENCE else reference)
        or _text(entry, "AddtlNtryInf")
    )


def _stands_in(text: str, written: str) -> bool:
    """Whether it is there as a whole, and not as a part of another number."""
    return re.search(rf"(?<![\w/-]){re.escape(text)}(?![\w/-])", written) is not None


def _structured(transaction: Any) -> Iterable[str]:
    for structured in transaction.iterfind("RmtInf/Strd"):
        for path in ("CdtrRefInf/Ref", "CdtrRefInf/CdtrRef", "RfrdDocInf/Nb", "AddtlRmtInf"):
            yield from (" ".join((found.text or "").split()) for found in structured.iterfind(path))
