"""Archives of invoices and documents in envelopes: what is there twice or only beside an invoice is left out and told."""

import pytest

from matching_platform.intake.incoming import IntakeError
from matching_platform.intake.invoices.containers import read_documents
from matching_platform.intake.invoices.documents import read_document
from matching_platform_tests.intake.zipped import zipped

INVOICE = """<Invoice xmlns="urn:oasis:names:specification:ubl:schema:xsd:Invoice-2">
<ID>{}</ID><IssueDate>2024-01-15</IssueDate>
<DocumentCurrencyCode>EUR</DocumentCurrencyCode>
<AccountingSupplierParty><Party><PartyName><Name>Acme</Name></PartyName></Party></AccountingSupplierParty>
<AccountingCustomerParty><Party><PartyName><Name>Wir</Name></PartyName></Party></AccountingCustomerParty>
<LegalMonetaryTotal><PayableAmount currencyID="EUR">10.00</PayableAmount></LegalMonetaryTotal></Invoice>"""
ENVELOPE = (
    '<StandardBusinessDocument xmlns="http://www.unece.org/cefact/namespaces/StandardBusinessDocumentHeader">'
    "<StandardBusinessDocumentHeader/>{}</StandardBusinessDocument>"
)


def test_copies_and_attachments_are_left_out() -> None:
    one, two = INVOICE.format("1"), INVOICE.format("2")
    documents, skipped = read_documents(
        "a.zip", zipped({"1.xml": one, "c/1.xml": one, "1.pdf": "%PDF-1", "2.xml": two})
    )
    assert [document.number for document in documents] == ["1", "2"]
    assert skipped.select("where", "reason").rows() == [
        ("c/1.xml", "is a copy of 1.xml"),
        ("1.pdf", "is no PDF that can be read (PdfStreamError)"),
    ]


def test_an_archive_of_attachments_alone_is_refused() -> None:
    with pytest.raises(IntakeError, match=r"a\.zip/1\.pdf: is no PDF that can be read"):
        read_documents("a.zip", zipped({"1.pdf": "%PDF-1"}))


def test_a_document_in_an_envelope_is_read() -> None:
    inside = read_document("a.xml", ENVELOPE.format(INVOICE.format("7")).encode())
    assert inside == read_document("a.xml", INVOICE.format("7").encode())
    with pytest.raises(IntakeError, match="StandardBusinessDocument"):
        read_document("a.xml", b"<StandardBusinessDocument/>")
