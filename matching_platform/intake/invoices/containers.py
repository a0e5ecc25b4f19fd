"""Files that hold invoices as documents: XML itself, a PDF with an XML attached, and an archive of both."""

import io
import logging
from typing import Final

import polars as pl

from matching_platform.intake.archives import ZIP, members, with_copies
from matching_platform.intake.incoming import SKIPPED, IntakeError
from matching_platform.intake.invoices.documents import Document, read_document

PDF: Final = b"%PDF-"

_FILES: Final = 10_000  # of an archive
_FILE: Final = 32 * 2**20  # bytes of one, unpacked
_ALL: Final = 512 * 2**20
_ADVICE: Final = "ask for the invoice as UBL, CII, ZUGFeRD or Factur-X, or enter it in a table"

# Of what it meets in a file it says more than people here need.
logging.getLogger("factur-x").setLevel(logging.CRITICAL)
logging.getLogger("pypdf").setLevel(logging.CRITICAL)


class AttachmentError(IntakeError):
    """A PDF in which no invoice can be read: in an archive of invoices it is an attachment of one."""


def is_xml(content: bytes) -> bool:
    """Whether this begins as XML does, in UTF-8 or UTF-16."""
    return content[:200].replace(b"\x00", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").startswith(b"<")


def read_documents(source: str, content: bytes) -> tuple[list[Document], pl.DataFrame]:
    """The invoices of a file, and what else it holds (schema SKIPPED); IntakeError where one cannot be read."""
    if content.startswith(ZIP):
        return _archive(source, content)
    document = _document(source, content)
    if document.no_claim:
        raise IntakeError(source, f"is {document.no_claim}, which claims nothing", "import the invoice itself")
    return [document], SKIPPED.to_frame()


def _document(source: str, content: bytes) -> Document:
    return read_document(source, _attached(source, content) if content.startswith(PDF) else content)


def _attached(source: str, content: bytes) -> bytes:
    from facturx import get_xml_from_pdf

    try:
        _, found = get_xml_from_pdf(io.BytesIO(content), check_xsd=False)
    # What reads PDF fails in as many ways as there are damaged files.
    except Exception as error:
        raise AttachmentError(source, f"is no PDF that can be read ({type(error).__name__})", _ADVICE) from error
    if not found:
        raise AttachmentError(source, "is a PDF that carries no invoice as XML", _ADVICE)
    return bytes(found)


def _archive(source: str, content: bytes) -> tuple[list[Document], pl.DataFrame]:
    documents, skipped, attachments = [], [], []
    for name, data, first in with_copies(members(source, content, _FILES, _FILE, _ALL)):
        if first:
            skipped.append({"where": name, "text": "", "reason": f"is a copy of {first}"})
        elif data.startswith(PDF) or is_xml(data):
            try:
                document = _document(f"{source}/{name}", data)
            except AttachmentError as error:
                attachments.append(error)
                skipped.append({"where": name, "text": "", "reason": error.problem})
                continue
            if document.no_claim:
                reason = f"is {document.no_claim}, which claims nothing"
                skipped.append({"where": name, "text": document.number, "reason": reason})
            else:
                documents.append(document)
        else:
            skipped.append({"where": name, "text": "", "reason": "is neither XML nor PDF"})
    if not documents and attachments:
        raise attachments[0]
    if not documents:
        raise IntakeError(source, "holds no invoice", "put UBL, CII or Factur-X files into it")
    return documents, pl.DataFrame(skipped, schema=SKIPPED)
