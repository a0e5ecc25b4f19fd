"""What the audit log says of imports: who took a file. What it held stands on the record of imports."""

from typing import Final

from matching_platform.access import Access
from matching_platform.intake.taking import Preview, Taken

IMPORTED: Final = "imported"

_DIGITS: Final = 12  # of a file's hash


def note_imported(access: Access, looked: Preview, taken: Taken, actor: str, address: str = "") -> None:
    """A line for a file that `actor` took; none where it was taken before."""
    if looked.taken is None and taken.actor == actor:
        access.note(actor, IMPORTED, f"{taken.name} {taken.sha256[:_DIGITS]}", address)
