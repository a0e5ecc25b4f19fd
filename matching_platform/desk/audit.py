"""What the audit log says of reviewing: who decided and who took a decision back, and from where.

What was decided stands on the record of decisions.
"""

from collections.abc import Sequence
from functools import partial
from textwrap import shorten
from typing import Final

from sqlalchemy import Connection
from starlette.requests import Request

from matching_platform.access import log
from matching_platform.access.log import LONGEST
from matching_platform.desk.security import address_of, guard_of
from matching_platform.review.decider import Also
from matching_platform.review.decisions import Decision

DECIDED: Final = "decided"
UNDONE: Final = "undone"


def deciding(request: Request) -> Also:
    """Writes a line for decisions made at once, with them."""
    return partial(_write, request, DECIDED)


def undoing(request: Request) -> Also:
    """Writes a line for decisions taken back at once, with what takes them back."""
    return partial(_write, request, UNDONE)


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
