"""XML of strangers: without document types, entities or network."""

from typing import Any, Final

from lxml import etree

from matching_platform.intake.incoming import IntakeError

# Each element, attribute and text takes far more memory than the signs in the file.
_MARKUP: Final = (b"<", b"=")
_MOST: Final = 2_000_000
_ENVELOPE: Final = "StandardBusinessDocument"  # of Peppol: a header and then the document
_LARGEST: Final = 32 * 2**20  # bytes


def parse(source: str, content: bytes) -> Any:
    """The root element, of a document in an envelope the document's; IntakeError where this is no XML, or declares a
    document type, in which entities would hide."""
    if len(content) > _LARGEST:
        raise IntakeError(source, f"has more than {_LARGEST // 2**20} MiB, too much for XML", "split it")
    if sum(map(content.count, _MARKUP)) > _MOST:
        raise IntakeError(source, f"has more than {_MOST:,} elements and attributes", "split it")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(content.lstrip(), parser)
    except etree.XMLSyntaxError as error:
        where = f"line {error.lineno}" if error.lineno else None
        told = error.msg or "nothing is in it"
        raise IntakeError(source, f"is no XML ({told})", "export it again", where=where) from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise IntakeError(source, "declares a document type, which is never read", "export it without")
    return root[-1] if local_name(root) == _ENVELOPE and len(root) else root


def local_name(element: Any) -> str:
    """A name without its namespace."""
    return str(etree.QName(element).localname)
