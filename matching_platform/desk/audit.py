"""What the desk adds to the audit log: who decided, who took a decision back and who imported a file, and from where.

What was decided and what a file held stands on the record of decisions and on that of imports.
"""

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request

from matching_platform.desk.security import note
from matching_platform.intake.taking import Preview, Taken
from matching_platform.review.decisions import Decision

DECIDED: Final = "decided"
UNDONE: Final = "undone"
IMPORTED: Final = "imported"

_DIGITS: Final = 12  # of a file's hash


def note_decided(request: Request, made: Sequence[Decision]) -> None:
    """A line for decisions made at once."""
    note(request, DECIDED, _named(made))


def note_undone(request: Request, made: Sequence[Decision]) -> None:
    """A line for decisions taken back at once."""
    note(request, UNDONE, _named(made))


def note_imported(request: Request, looked: Preview, taken: Taken) -> None:
    """A line for a file that the user of the request took; none where it was taken before."""
    if looked.taken is None and taken.actor == request.state.user.name:
        note(request, IMPORTED, f"{taken.name} {taken.sha256[:_DIGITS]}")


def _named(made: Sequence[Decision]) -> str:
    return ", ".join(f"{one.transfer_id} #{one.number}" for one in made)
