"""One invoice or credit note as XML: UBL 2.1, and CII, which is Factur-X, ZUGFeRD and one kind of XRechnung."""

import re
from dataclasses import dataclass
from typing import Any, Final

from matching_platform.intake.incoming import IntakeError
from matching_platform.intake.xml import local_name, parse

# UNTDID 1001: documents whose amounts count the other way round.
_CREDITS: Final = frozenset({"81", "83", "261", "262", "296", "308", "381", "396", "420", "458", "502", "503", "532"})
# Of the same list: papers that look like invoices, and of which nothing is to be paid.
_NO_CLAIMS: Final = {
    "130": "an invoicing data sheet",
    "325": "a pro-forma invoice",
    "870": "a consular invoice",
    "935": "a customs invoice",
}
_AMOUNT: Final = re.compile(r"\s*[+-]?\d+(\.\d+)?\s*")
_VAT: Final = re.compile(r"[A-Z]{2} ?\w")


@dataclass(frozen=True)
class Party:
    """Who sells or buys."""

    name: str
    tax_id: str | None

    def __str__(self) -> str:
        return f"{self.name} ({self.tax_id})" if self.tax_id else self.name


@dataclass(frozen=True)
class Document:
    """An invoice as its seller wrote it; `amount` in major units is what is to be paid, negative on a credit note, which
    `negative_credit` had a negative one itself. `no_claim` says what it is where nothing of it is to be paid."""

    source: str
    format: str
    number: str
    seller: Party
    buyer: Party
    issued_on: str
    due_on: str | None
    amount: str
    currency: str
    account: str | None
    reference: str | None
    negative_credit: bool = False
    no_claim: str | None = None


@dataclass(frozen=True)
class _Dialect:
    """Where a format keeps what is read: for each field the paths, by local names, the first that leads somewhere counts."""

    format: str
    number: tuple[str, ...]
    kind: tuple[str, ...]
    issued_on: tuple[str, ...]
    due_on: tuple[str, ...]
    currency: tuple[str, ...]
    amount: tuple[str, ...]
    seller: str
    buyer: str
    name: tuple[str, ...]
    tax_id: tuple[str, ...]
    account: tuple[str, ...]
    reference: tuple[str, ...]


_UBL: Final = _Dialect(
    format="UBL",
    number=("ID",),
    kind=("InvoiceTypeCode", "CreditNoteTypeCode"),
    issued_on=("IssueDate",),
    due_on=("DueDate", "PaymentMeans/PaymentDueDate", "PaymentTerms/PaymentDueDate"),
    currency=("DocumentCurrencyCode",),
    amount=("LegalMonetaryTotal/PayableAmount", "LegalMonetaryTotal/TaxInclusiveAmount"),
    seller="AccountingSupplierParty/Party",
    buyer="AccountingCustomerParty/Party",
    name=("PartyLegalEntity/RegistrationName", "PartyName/Name"),
    tax_id=("PartyTaxScheme/CompanyID", "PartyLegalEntity/CompanyID"),
    account=("PaymentMeans/PayeeFinancialAccount/ID",),
    reference=("PaymentMeans/PaymentID",),
)
_CII: Final = _Dialect(
    format="CII",
    number=("ExchangedDocument/ID",),
    kind=("ExchangedDocument/TypeCode",),
    issued_on=("ExchangedDocument/IssueDateTime/DateTimeString",),
    due_on=(
        "SupplyChainTradeTransaction/ApplicableHeaderTradeSettlement/SpecifiedTradePaymentTerms/DueDateDateTime/DateTimeString",
    ),
    currency=("SupplyChainTradeTransaction/ApplicableHeaderTradeSettlement/InvoiceCurrencyCode",),
    amount=tuple(
        "SupplyChainTradeTransaction/ApplicableHeaderTradeSettlement/SpecifiedTradeSettlementHeaderMonetarySummation/"
        + name
        for name in ("DuePayableAmount", "GrandTotalAmount")
    ),
    seller="SupplyChainTradeTransaction/ApplicableHeaderTradeAgreement/SellerTradeParty",
    buyer="SupplyChainTradeTransaction/ApplicableHeaderTradeAgreement/BuyerTradeParty",
    name=("Name",),
    tax_id=("SpecifiedTaxRegistration/ID", "SpecifiedLegalOrganization/ID"),
    account=tuple(
        "SupplyChainTradeTransaction/ApplicableHeaderTradeSettlement/SpecifiedTradeSettlementPaymentMeans/"
        "PayeePartyCreditorFinancialAccount/" + name
        for name in ("IBANID", "ProprietaryID")
    ),
    reference=("SupplyChainTradeTransaction/ApplicableHeaderTradeSettlement/PaymentReference",),
)
# ZUGFeRD 1 is CII of an earlier year, with some names of its own.
_OLDER: Final = {
    "ExchangedDocument/": "HeaderExchangedDocument/",
    "SupplyChainTradeTransaction/": "SpecifiedSupplyChainTradeTransaction/",
    "ApplicableHeaderTradeAgreement": "ApplicableSupplyChainTradeAgreement",
    "ApplicableHeaderTradeSettlement": "ApplicableSupplyChainTradeSettlement",
    "SpecifiedTradeSettlementHeaderMonetarySummation": "SpecifiedTradeSettlementMonetarySummation",
}
_ROOTS: Final = {"Invoice": _UBL, "CreditNote": _UBL, "CrossIndustryInvoice": _CII, "CrossIndustryDocument": _CII}


def is_invoice(root: Any) -> bool:
    return local_name(root) in _ROOTS


def read_document(source: str, content: bytes) -> Document:
    """The invoice in an XML file; IntakeError where it is none, or lacks what an invoice needs."""
    root = parse(source, content)
    kind = local_name(root)
    if kind not in _ROOTS:
        raise IntakeError(source, f"is XML of a kind that is not read here ({kind})", "UBL, CII and camt are")
    return _Reader(source, root, _ROOTS[kind], older=kind == "CrossIndustryDocument").document(kind)


@dataclass(frozen=True)
class _Reader:
    """A dialect and the document in which it is read."""

    source: str
    root: Any
    dialect: _Dialect
    older: bool

    def document(self, kind: str) -> Document:
        dialect = self.dialect
        amount, currency = self.needed("amount", dialect.amount), self.needed("currency", dialect.currency)
        if not _AMOUNT.fullmatch(amount):
            raise self.error("amount", f"'{amount[:40]}' is not an amount")
        paid_in = self.currency_of_amount()
        if paid_in not in (None, currency):
            raise self.error("amount", f"'{amount[:40]}' is in {paid_in}, and the document in {currency}")
        code = self.text(self.root, dialect.kind)
        credit = kind == "CreditNote" or code in _CREDITS
        size = amount.strip().lstrip("+-")
        issued = self.day("issued_on", dialect.issued_on)
        if issued is None:
            raise self.error("issued_on", "is missing")
        account = self.text(self.root, dialect.account)
        return Document(
            source=self.source,
            format=dialect.format,
            number=self.needed("number", dialect.number),
            seller=self.party("seller", dialect.seller),
            buyer=self.party("buyer", dialect.buyer),
            issued_on=issued,
            due_on=self.day("due_on", dialect.due_on),
            amount=f"-{size}" if credit else amount.strip().lstrip("+"),
            currency=currency,
            account=re.sub(r"\s", "", account) if account else None,
            reference=self.text(self.root, dialect.reference),
            negative_credit=credit and amount.strip().startswith("-"),
            no_claim=_NO_CLAIMS.get(code or ""),
        )

    def currency_of_amount(self) -> str | None:
        """What the amount itself says."""
        paths = (self.path(path) for path in self.dialect.amount)
        told = (found for path in paths for found in self.root.findall(path) if (found.text or "").strip())
        amount = next(told, None)
        return None if amount is None else amount.get("currencyID")

    def party(self, side: str, path: str) -> Party:
        found = self.root.find(self.path(path))
        name = None if found is None else self.text(found, self.dialect.name)
        if found is None or name is None:
            raise self.error(side, "has no name")
        ids = [text for one in self.dialect.tax_id for text in self.texts(found, one)]
        return Party(name, next((tax_id for tax_id in ids if _VAT.match(tax_id)), ids[0] if ids else None))

    def day(self, field: str, paths: tuple[str, ...]) -> str | None:
        """As YYYY-MM-DD; CII writes days without hyphens, and UBL some with an offset."""
        text = self.text(self.root, paths)
        if text is None:
            return None
        found = re.fullmatch(r"(\d{4})-?(\d{2})-?(\d{2})([T+Z -].*)?", text)
        if found is None:
            raise self.error(field, f"'{text[:40]}' is not a date")
        return "-".join(found.groups()[:3])

    def needed(self, field: str, paths: tuple[str, ...]) -> str:
        text = self.text(self.root, paths)
        if text is None:
            raise self.error(field, "is missing")
        return text

    def text(self, element: Any, paths: tuple[str, ...]) -> str | None:
        return next((text for path in paths for text in self.texts(element, path)), None)

    def texts(self, element: Any, path: str) -> list[str]:
        return [text for found in element.findall(self.path(path)) if (text := " ".join((found.text or "").split()))]

    def path(self, path: str) -> str:
        """In any namespace."""
        for name, older in _OLDER.items() if self.older else ():
            path = path.replace(name, older)
        return "/".join(f"{{*}}{name}" for name in path.split("/"))

    def error(self, field: str, problem: str) -> IntakeError:
        return IntakeError(self.source, problem, "ask who wrote it for a valid one", field=field)
