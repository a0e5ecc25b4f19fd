"""What the audit log says of reviewing: who decided, who took a decision back and who imported a file, and from where.

What was decided and what a file held stands on the record of decisions and on that of imports.
"""

from collections.abc import Sequence
from functools import partial
from textwrap import shorten
from typing import Final

from sqlalchemy import Connection
from starlette.requests import Request

from matching_platform.access import Access, log
from matching_platform.access.log import LONGEST
from matching_platform.desk.security import address_of, guard_of
from matching_platform.intake.taking import Preview, Taken
from matching_platform.review.decider import Also
from matching_platform.review.decisions import Decision

DECIDED: Final = "decided"
UNDONE: Final = "undone"
IMPORTED: Final = "imported"

_DIGITS: Final = 12  # of a file's hash


def deciding(request: Request) -> Also:
    """Writes a line for decisions made at once, with them."""
    return partial(_write, request, DECIDED)


def undoing(request: Request) -> Also:
    """Writes a line for decisions taken back at once, with what takes them back."""
    return partial(_write, request, UNDONE)


def note_imported(access: Access, looked: Preview, taken: Taken, actor: str, address: str = "") -> None:
    """A line for a file that `actor` took; none where it was taken before."""
    if looked.taken is None and taken.actor == actor:
        access.note(actor, IMPORTED, f"{taken.name} {taken.sha256[:_DIGITS]}", address)


def _write(request: Request, action: str, connection: Connection, made: Sequence[Decision]) -> None:
    access = guard_of(request).access
    log.write(connection, access.clock(), request.state.user.name, action, _named(made), address_of(request))


def _named(made: Sequence[Decision]) -> str:
    """Decisions made together, whose numbers are in a row; of many, the transfers as far as a line takes them."""
    if len(made) == 1:
        return f"{made[0].transfer_id} #{made[0].number}"
    transfers = ", ".join(one.transfer_id for one in made)
    return shorten(
        f"#{made[0].number}–#{made[-1].number}, {len(made)} decisions: {transfers}", LONGEST, placeholder=" …"
    )
