"""Invoices as documents: what UBL, CII and their containers say, whose they are, and what is refused."""

import io
import zipfile
from datetime import date
from pathlib import Path

import pytest
from facturx import generate_from_binary
from pypdf import PdfWriter

from matching_platform.intake.incoming import Incoming, IntakeError
from matching_platform.intake.invoices.containers import read_documents
from matching_platform.intake.invoices.documents import read_document
from matching_platform.intake.invoices.sides import Ourselves, read_invoices
from matching_platform.intake.rows import UntoldError
from matching_platform.store.record import Record
from matching_platform.store.versions import Store

US, OTHER = "DE111111111", "PL5260001246"
UBL_NAMES = """xmlns="urn:oasis:names:specification:ubl:schema:xsd:{kind}-2"
 xmlns:cac="urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2"
 xmlns:cbc="urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2" """


def _ubl_party(name: str, tax_id: str) -> str:
    return f"""<cac:Party><cac:PartyName><cbc:Name>trading as {name}</cbc:Name></cac:PartyName>
      <cac:PartyTaxScheme><cbc:CompanyID>201/123/40</cbc:CompanyID><cac:TaxScheme><cbc:ID>FC</cbc:ID></cac:TaxScheme>
      </cac:PartyTaxScheme><cac:PartyTaxScheme><cbc:CompanyID>{tax_id}</cbc:CompanyID><cac:TaxScheme><cbc:ID>VAT</cbc:ID>
      </cac:TaxScheme></cac:PartyTaxScheme>
      <cac:PartyLegalEntity><cbc:RegistrationName>{name}</cbc:RegistrationName></cac:PartyLegalEntity></cac:Party>"""


def ubl(
    number: str = "RE-1", seller: str = US, buyer: str = OTHER, kind: str = "Invoice", amount: str = "119.00"
) -> bytes:
    due = "<cbc:DueDate>2024-03-01</cbc:DueDate>" if kind == "Invoice" else ""
    code = {"Invoice": "380", "CreditNote": "381"}[kind]
    return f"""<?xml version="1.0" encoding="UTF-8"?>
    <{kind} {UBL_NAMES.format(kind=kind)}>
      <cbc:ID>{number}</cbc:ID><cbc:IssueDate>2024-02-01</cbc:IssueDate>{due}<!-- a comment -->
      <cbc:{kind}TypeCode>{code}</cbc:{kind}TypeCode><cbc:DocumentCurrencyCode>EUR</cbc:DocumentCurrencyCode>
      <cac:AccountingSupplierParty>{_ubl_party(f"Seller {seller}", seller)}</cac:AccountingSupplierParty>
      <cac:AccountingCustomerParty>{_ubl_party(f"Buyer {buyer}", buyer)}</cac:AccountingCustomerParty>
      <cac:PaymentMeans><cbc:PaymentMeansCode>58</cbc:PaymentMeansCode><cbc:PaymentID>RF18539007547034</cbc:PaymentID>
      <cac:PayeeFinancialAccount><cbc:ID>DE89 3704 0044 0532 0130 00</cbc:ID></cac:PayeeFinancialAccount></cac:PaymentMeans>
      <cac:LegalMonetaryTotal><cbc:TaxInclusiveAmount currencyID="EUR">119.00</cbc:TaxInclusiveAmount>
      <cbc:PayableAmount currencyID="EUR">{amount}</cbc:PayableAmount></cac:LegalMonetaryTotal>
    </{kind}>""".encode()


def _cii_party(side: str, tax_id: str) -> str:
    return f"""<ram:{side}TradeParty><ram:Name>{side} {tax_id}</ram:Name><ram:PostalTradeAddress><ram:CountryID>DE
      </ram:CountryID></ram:PostalTradeAddress><ram:SpecifiedTaxRegistration><ram:ID schemeID="VA">{tax_id}</ram:ID>
      </ram:SpecifiedTaxRegistration></ram:{side}TradeParty>"""


def cii(number: str = "RE-2", kind: str = "380", seller: str = US, buyer: str = OTHER) -> bytes:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
    <rsm:CrossIndustryInvoice xmlns:rsm="urn:un:unece:uncefact:data:standard:CrossIndustryInvoice:100"
     xmlns:ram="urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100"
     xmlns:udt="urn:un:unece:uncefact:data:standard:UnqualifiedDataType:100">
      <rsm:ExchangedDocumentContext><ram:GuidelineSpecifiedDocumentContextParameter><ram:ID>urn:factur-x.eu:1p0:basicwl</ram:ID>
      </ram:GuidelineSpecifiedDocumentContextParameter></rsm:ExchangedDocumentContext>
      <rsm:ExchangedDocument><ram:ID>{number}</ram:ID><ram:TypeCode>{kind}</ram:TypeCode><ram:IssueDateTime>
      <udt:DateTimeString format="102">20240201</udt:DateTimeString></ram:IssueDateTime></rsm:ExchangedDocument>
      <rsm:SupplyChainTradeTransaction><ram:ApplicableHeaderTradeAgreement>{_cii_party("Seller", seller)}
      {_cii_party("Buyer", buyer)}</ram:ApplicableHeaderTradeAgreement><ram:ApplicableHeaderTradeDelivery/>
      <ram:ApplicableHeaderTradeSettlement><ram:PaymentReference>RF18539007547034</ram:PaymentReference>
      <ram:InvoiceCurrencyCode>EUR</ram:InvoiceCurrencyCode><ram:SpecifiedTradeSettlementPaymentMeans>
      <ram:TypeCode>58</ram:TypeCode><ram:PayeePartyCreditorFinancialAccount><ram:IBANID>DE89370400440532013000</ram:IBANID>
      </ram:PayeePartyCreditorFinancialAccount></ram:SpecifiedTradeSettlementPaymentMeans><ram:SpecifiedTradePaymentTerms>
      <ram:DueDateDateTime><udt:DateTimeString format="102">20240301</udt:DateTimeString></ram:DueDateDateTime>
      </ram:SpecifiedTradePaymentTerms><ram:SpecifiedTradeSettlementHeaderMonetarySummation>
      <ram:LineTotalAmount>100.00</ram:LineTotalAmount><ram:TaxBasisTotalAmount>100.00</ram:TaxBasisTotalAmount>
      <ram:TaxTotalAmount currencyID="EUR">19.00</ram:TaxTotalAmount><ram:GrandTotalAmount>119.00</ram:GrandTotalAmount>
      <ram:DuePayableAmount>119.00</ram:DuePayableAmount></ram:SpecifiedTradeSettlementHeaderMonetarySummation>
      </ram:ApplicableHeaderTradeSettlement></rsm:SupplyChainTradeTransaction>
    </rsm:CrossIndustryInvoice>""".encode()


def zugferd_1() -> bytes:
    """The same in the names of 2014."""
    older = {
        "CrossIndustryInvoice:100": "CrossIndustryDocument:invoice:1p0",
        "rsm:CrossIndustryInvoice": "rsm:CrossIndustryDocument",
        "rsm:ExchangedDocument>": "rsm:HeaderExchangedDocument>",
        "rsm:SupplyChainTradeTransaction": "rsm:SpecifiedSupplyChainTradeTransaction",
        "ApplicableHeaderTradeAgreement": "ApplicableSupplyChainTradeAgreement",
        "ApplicableHeaderTradeSettlement": "ApplicableSupplyChainTradeSettlement",
        "SettlementHeaderMonetary": "SettlementMonetary",
    }
    text = cii().decode()
    for new, old in older.items():
        text = text.replace(new, old)
    return text.encode()


def pdf(xml: bytes | None) -> bytes:
    writer, file = PdfWriter(), io.BytesIO()
    writer.add_blank_page(200, 200)
    writer.write(file)
    if xml is None:
        return file.getvalue()
    return generate_from_binary(file.getvalue(), xml, check_xsd=False, flavor="factur-x", level="basicwl")


def packed(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def read(content: bytes, ours: frozenset[str] = frozenset({US}), given: str | None = None) -> Incoming:
    documents, skipped = read_documents("file", content)
    return read_invoices("file", documents, skipped, ours, given)


@pytest.mark.parametrize(
    ("content", "kind", "number", "amount"),
    [
        pytest.param(ubl(), "UBL", "RE-1", 11900, id="UBL"),
        pytest.param(ubl(kind="CreditNote"), "UBL", "RE-1", -11900, id="UBL credit note"),
        pytest.param(ubl(kind="CreditNote", amount="-5.00"), "UBL", "RE-1", -500, id="a credit note with a minus"),
        pytest.param(cii(), "CII", "RE-2", 11900, id="CII"),
        pytest.param(cii(kind="381"), "CII", "RE-2", -11900, id="CII credit note"),
        pytest.param(zugferd_1(), "CII", "RE-2", 11900, id="ZUGFeRD 1"),
        pytest.param(pdf(cii()), "CII", "RE-2", 11900, id="Factur-X"),
        pytest.param(cii().decode().replace("UTF-8", "UTF-16").encode("utf-16"), "CII", "RE-2", 11900, id="UTF-16"),
    ],
)
def test_a_sale(content: bytes, kind: str, number: str, amount: int) -> None:
    incoming = read(content)
    assert (incoming.table, incoming.format) == ("invoices", kind)
    (row,) = incoming.frame.rows(named=True)
    assert (row["number"], row["amount"], row["currency"]) == (number, amount, "EUR")
    assert (row["direction"], row["counterparty_tax_id"], row["counterparty_id"]) == (
        "sale",
        OTHER,
        OTHER.removeprefix("PL"),
    )
    assert row["counterparty_name"] == f"Buyer {OTHER}"
    assert row["counterparty_account"] is None, "the payee's account is our own"
    assert row["reference"] == "RF18539007547034"
    assert row["issued_on"] == date(2024, 2, 1)
    assert row["due_on"] == date(2024, 2, 1) if "CreditNote" in content.decode("utf-8", "ignore") else date(2024, 3, 1)


@pytest.mark.parametrize("content", [ubl(seller=OTHER, buyer=US), cii(seller=OTHER, buyer=US)])
def test_a_purchase_has_the_payees_account(content: bytes) -> None:
    (row,) = read(content).frame.rows(named=True)
    assert (row["direction"], row["counterparty_tax_id"]) == ("purchase", OTHER)
    assert row["counterparty_account"] == "DE89370400440532013000"


def test_whose_invoice_it_is_is_asked_once(tmp_path: Path) -> None:
    ourselves = Ourselves(Store(tmp_path))
    with pytest.raises(UntoldError, match=f"Seller {US} .* sells to Buyer {OTHER} .*nothing tells") as untold:
        read(ubl(), ourselves.known())
    assert untold.value.columns == ("direction",)
    documents, _ = read_documents("a.xml", ubl())
    ourselves.learn(documents, "sale", "Ada")
    assert read(ubl(buyer="FR1"), ourselves.known()).frame["direction"].to_list() == ["sale"]
    assert read(ubl(seller="FR1", buyer=US), ourselves.known()).frame["direction"].to_list() == ["purchase"]
    assert read(ubl(), ourselves.known(), "purchase").frame["direction"].to_list() == ["purchase"], (
        "a person corrects it"
    )
    ourselves.learn(documents, "purchase", "Bob")
    assert ourselves.known() == {OTHER.removeprefix("PL")}


def test_an_archive() -> None:
    content = packed(
        **{"a.xml": ubl("1"), "b/c.pdf": pdf(cii("2")), "readme.txt": b"hello", "d.xml": ubl("3", amount="0.00")}
    )
    incoming = read(content)
    assert incoming.format == "CII and UBL"
    assert incoming.frame["number"].to_list() == ["1", "2"]
    assert sorted(incoming.skipped["reason"]) == ["is neither XML nor PDF", "nothing of it is left to pay"]
    with pytest.raises(IntakeError, match=r"field invoice_id: .* appears more than once"):
        read(packed(**{"a.xml": ubl(), "b.xml": ubl(amount="118.00")}))


ENTITIES = b'<!DOCTYPE Invoice [<!ENTITY a "x"><!ENTITY b "&a;&a;"><!ENTITY file SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(ubl()[:900], "is no XML", id="cut"),
        pytest.param(ubl().replace(b"<Invoice", ENTITIES + b"<Invoice", 1), "declares a document type", id="entities"),
        pytest.param(b"<html><body/></html>", "is XML of a kind that is not read here", id="another kind"),
        pytest.param(
            ubl().replace(b"2024-02-01", b"yesterday"), "field issued_on: 'yesterday' is not a date", id="date"
        ),
        pytest.param(ubl().replace(b"2024-02-01", b"2024-02-31"), "issued_on", id="no such day"),
        pytest.param(ubl(amount="1,00"), "field amount: '1,00' is not an amount", id="amount"),
        pytest.param(ubl(amount="1.005"), "amount: '1.005' is not an amount with at most two", id="a tenth of a cent"),
        pytest.param(
            ubl().replace(b'PayableAmount currencyID="EUR"', b'PayableAmount currencyID="PLN"'),
            "field amount: '119.00' is in PLN, and the document in EUR",
            id="amount in another currency",
        ),
        pytest.param(
            cii(kind="325"), "is a pro-forma invoice, which claims nothing; import the invoice itself", id="325"
        ),
        pytest.param(packed(a=cii(kind="325")), "holds no invoice", id="an archive of a pro-forma invoice"),
        pytest.param(ubl(number=" "), "field number: is missing", id="number"),
        pytest.param(ubl().replace(b"EUR", b"XXX"), "is not an ISO 4217 currency", id="currency"),
        pytest.param(
            ubl().replace(b"RegistrationName", b"Nothing").replace(b"cbc:Name", b"cbc:No"), "has no name", id="name"
        ),
        pytest.param(pdf(None), "is a PDF that carries no invoice", id="a plain PDF"),
        pytest.param(pdf(cii())[:500], "is no PDF that can be read|carries no invoice", id="half a PDF"),
        pytest.param(packed(readme=b"nothing"), "holds no invoice", id="an archive of nothing"),
        pytest.param(packed(a=ubl())[:-30], "is no archive", id="half an archive"),
        pytest.param(packed(a=ubl(), b=b"<broken"), "file/b: .*is no XML", id="one of two is broken"),
    ],
)
def test_what_is_no_invoice(content: bytes, problem: str) -> None:
    with pytest.raises(IntakeError, match=problem) as refused:
        read(content)
    assert "\n" not in str(refused.value)
    assert "root:" not in str(refused.value)


def test_an_archive_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matching_platform.intake.invoices.containers._FILE", 10_000)
    bomb = packed(a=b"<" + b"a" * 20_000)
    assert len(bomb) < 1000
    with pytest.raises(IntakeError, match="too large when unpacked"):
        read(bomb)
    at = bomb.index(b"PK\x01\x02")
    lying = bomb[: at + 24] + (100).to_bytes(4, "little") + bomb[at + 28 :]
    with pytest.raises(IntakeError, match="too large when unpacked"):
        read(lying)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_unpacks_without_bounds_is_refused(method: int) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a.xml", ubl())
    with pytest.raises(IntakeError, match=r"no archive that can be read \(a\.xml\); pack it again"):
        read(file.getvalue())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            b"<Invoice>" + b"<a/>" * 2_000_000 + b"</Invoice>",
            "has more than 2,000,000 elements and attributes; split it",
        ),
        (b"<Invoice>" + b" " * 2**25 + b"</Invoice>", "has more than 32 MiB, too much for XML; split it"),
    ],
    ids=["elements", "bytes"],
)
def test_xml_that_would_fill_the_memory_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(IntakeError, match=problem):
        read(content)


@pytest.mark.parametrize(
    "content", [ubl(kind="CreditNote", amount="-5.00"), cii(kind="381").replace(b">119", b">-119")]
)
def test_a_credit_note_with_a_minus_is_a_credit_and_noted(content: bytes) -> None:
    incoming = read(content)
    assert incoming.frame["amount"][0] < 0
    assert [note for note in incoming.notes if "has a negative amount, and is read as a credit" in note]
    assert not any("negative amount" in note for note in read(cii(kind="381")).notes)


def test_what_is_no_claim_is_left_out_of_an_archive() -> None:
    incoming = read(packed(**{"a.xml": ubl("1"), "b.xml": cii("2", kind="325")}))
    assert incoming.frame["number"].to_list() == ["1"]
    assert incoming.skipped.rows() == [("b.xml", "2", "is a pro-forma invoice, which claims nothing")]


@pytest.mark.parametrize("written", ["5260001246", "PL 526-000-12-46"])
def test_a_party_is_one_however_its_tax_id_is_written(tmp_path: Path, written: str) -> None:
    (same,) = read(ubl(seller=OTHER, buyer=US)).frame["invoice_id"]
    alone = ubl(seller=written, buyer=US).replace(b"201/123/40", written.encode(), 1)
    assert read(alone).frame["invoice_id"].to_list() == [same]
    store = Store(tmp_path)
    Record(store, "imports/ourselves").append({"party": OTHER, "ours": True}, actor="Ada")
    known = Ourselves(store).known()
    assert read(ubl(seller=OTHER, buyer="FR1"), known).frame["direction"].to_list() == ["sale"]
    sold = ubl(seller=written, buyer="FR1").replace(b"201/123/40", b"")
    assert read(sold, known).frame["direction"].to_list() == ["sale"]


def test_a_party_is_named_with_its_tax_id() -> None:
    assert str(read_document("a.xml", ubl()).seller) == f"Seller {US} ({US})"
