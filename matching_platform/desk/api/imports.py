"""Imports: a file is shown, or taken as a whole, and what was taken."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from matching_platform.desk.api.access import BOOKER, READER
from matching_platform.desk.api.errors import responses
from matching_platform.desk.api.shapes import TEXT, Imports, Look
from matching_platform.desk.dependencies import Booker, Intaking
from matching_platform.desk.security import address_of, guard_of
from matching_platform.intake.audit import note_imported
from matching_platform.intake.incoming import IntakeError
from matching_platform.intake.taking import LARGEST, Preview
from matching_platform.ledger.months import beyond

router = APIRouter(tags=["imports"], responses=responses(400, 401, 403, 503))


@router.get("/imports", response_model=Imports, dependencies=READER)
def imports(intake: Intaking) -> Any:
    """All imports, the first one first."""
    return {"imports": intake.history()}


@router.post(
    "/imports",
    response_model=Look,
    dependencies=BOOKER,
    max_body_size=LARGEST,
    responses=responses(413),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The file as it is",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def look_or_take(
    request: Request,
    intake: Intaking,
    booker: Booker,
    name: Annotated[str, Query(min_length=1, max_length=200, pattern=TEXT, description="The file's name")],
    take: Annotated[bool, Query(description="Take it, and not only look at it")] = False,
    unbalanced: Annotated[
        bool, Query(description="Take a statement although `contradictions` are found in it")
    ] = False,
) -> Any:
    """What is in a bank statement, an invoice, or a table whose columns were mapped before; with `take`, it is taken as a
    whole and once only. A file that was taken before is not taken again: `taken` says when that was."""
    content = await request.body()
    preview = await run_in_threadpool(intake.look, name, content)
    settings = request.app.state.platform.settings
    unseen = beyond(preview.months, settings.first_month, settings.last_month)
    if not take:
        return Look.of(preview, unseen, preview.taken)
    _check_mapping(preview)
    taken = await run_in_threadpool(intake.take, preview, booker.name, unbalanced=unbalanced)
    await run_in_threadpool(note_imported, guard_of(request).access, preview, taken, booker.name, address_of(request))
    return Look.of(preview, unseen, taken)


def _check_mapping(preview: Preview) -> None:
    """IntakeError where columns were only guessed, and nobody could see the guess."""
    if not (preview.confirmed or preview.problem or preview.taken):
        advice = "take such a file once on the desk's page of imports, where its columns are shown; they are remembered"
        raise IntakeError(preview.name, "nobody has confirmed yet which of its columns is which", advice)
