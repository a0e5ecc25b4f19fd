"""Archives of bank statements, as banks offer them for a longer period."""

from typing import Any, Final

from matching_platform.intake.archives import members, with_copies
from matching_platform.intake.incoming import Incoming, IntakeError
from matching_platform.intake.invoices.containers import is_xml
from matching_platform.intake.invoices.documents import is_invoice
from matching_platform.intake.statements import read_statements
from matching_platform.intake.statements.swift import is_swift
from matching_platform.intake.xml import parse

_FILES: Final = 10_000  # of an archive
_FILE: Final = 32 * 2**20  # bytes of one, unpacked
_ALL: Final = 256 * 2**20


def read_packed(source: str, content: bytes) -> Incoming | None:
    """The transfers that an archive's statements tell of; None where an invoice comes first or there is no statement.
    IntakeError where one cannot be read."""
    statements: list[tuple[str, Any]] = []
    left: list[tuple[str, str, str]] = []
    for name, data, first in with_copies(members(source, content, _FILES, _FILE, _ALL)):
        if first:
            left.append((name, "", f"is a copy of {first}"))
        elif is_xml(data):
            root = parse(f"{source}/{name}", data)
            if is_invoice(root):
                if not statements:
                    return None
                raise IntakeError(source, "holds statements and invoices", "pack them apart")
            statements.append((name, root))
        elif is_swift(data):
            statements.append((name, data))
        else:
            left.append((name, "", "is no bank statement"))
    return read_statements(source, statements, left) if statements else None
