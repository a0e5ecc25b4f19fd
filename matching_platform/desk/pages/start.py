"""What a first visit says: what is there already, and what to do next."""

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse

from matching_platform.desk.i18n import mark
from matching_platform.desk.pages.common import READER, Reviewing
from matching_platform.desk.rendering import render
from matching_platform.environment import Platform

router = APIRouter()


@dataclass(frozen=True)
class Step:
    """What must be there before anything can be reviewed; `ways` are a text and a command or a page each."""

    title: str
    about: str
    done: bool
    ways: tuple[tuple[str, str], ...]


_DATA: Final = (
    (mark("See it with a sample company"), "make demo"),
    (mark("Bring statements and invoices"), "/imports"),
    (mark("Load a folder of tables, with what was tagged"), "matching-platform load FOLDER"),
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
    months = platform.catalog.months("transfers")
    champion = platform.registry.champion()
    return [
        Step(
            mark("Data"),
            mark("Bank transfers and invoices, and for the past what finance tagged."),
            bool(months),
            _DATA,
        ),
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
