"""What a first visit says: what is there already, and what to do next."""

import logging
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse

from matching_platform.desk.dependencies import Reviewing
from matching_platform.desk.i18n import mark
from matching_platform.desk.pages.common import READER
from matching_platform.desk.rendering import render
from matching_platform.environment import Platform
from matching_platform.ledger.months import beyond
from matching_platform.warehouse.warehouse import WarehouseError

router = APIRouter()

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """What must be there before anything can be reviewed; `ways` are a text and a command or a page each."""

    title: str
    about: str
    done: bool
    ways: tuple[tuple[str, str], ...]
    wanting: str = mark("missing")


_DATA: Final = (
    (mark("See it with a sample company"), "make demo"),
    (mark("Bring statements and invoices"), "/imports"),
    (mark("Load a folder of tables, with what was tagged"), "matching-platform load FOLDER"),
)
_UNREAD: Final = ((mark("Start Dagster, which reads and checks each month; it shows why one is refused"), "make dev"),)
_BEYOND: Final = (
    (
        mark("Set the months to work on, and start Dagster"),
        "MATCHING_PLATFORM_FIRST_MONTH, MATCHING_PLATFORM_LAST_MONTH",
    ),
)
_CHAMPION: Final = (
    (mark("Open Dagster, accept the months and train"), "make dev"),
    (mark("See the models, and why one was not promoted"), "matching-platform models list"),
)
_PROPOSALS: Final = ((mark("Open Dagster, and make the month's proposals"), "make dev"),)


@router.get("/start", dependencies=READER)
def start(request: Request, review: Reviewing) -> HTMLResponse:
    """The steps up to the first proposals."""
    return render(request, "start.html", steps=_steps(request.app.state.platform, bool(review.months())))


def _steps(platform: Platform, proposed: bool) -> list[Step]:
    champion = platform.registry.champion()
    return [
        _data(platform),
        Step(
            mark("A model"),
            mark("It learns from months that finance has tagged, and becomes champion once it passes the gate."),
            champion is not None,
            _CHAMPION,
        ),
        Step(
            mark("Proposals"), mark("The champion says for each transfer which invoices it pays."), proposed, _PROPOSALS
        ),
    ]


def _data(platform: Platform) -> Step:
    """Months that were accepted, else those that lie in the warehouse, else how some come there."""
    title, about = mark("Data"), mark("Bank transfers and invoices, and for the past what finance tagged.")
    if platform.catalog.months("transfers"):
        return Step(title, about, True, _DATA)
    months = _unread(platform)
    if not months:
        return Step(title, about, False, _DATA)
    settings = platform.settings
    if len(beyond(months, settings.first_month, settings.last_month)) == len(months):
        return Step(title, about, False, _BEYOND, mark("in the warehouse, but outside the configured months"))
    return Step(title, about, False, _UNREAD, mark("in the warehouse, not read yet"))


def _unread(platform: Platform) -> list[str]:
    """The months of the warehouse's transfers; none where it cannot be asked now."""
    try:
        return sorted(platform.warehouse.months().get("transfers", ()))
    except WarehouseError as error:
        _LOG.info("the warehouse cannot tell what it has: %s", error)
        return []
