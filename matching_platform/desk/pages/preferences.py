"""Language, colours and keys, as a reader likes them."""

from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse

from matching_platform.desk.pages.common import Sent, see, text_of
from matching_platform.desk.preferences import CHOICES
from matching_platform.desk.security import ForbiddenError, guard_of, local_path

router = APIRouter()

_YEAR_SECONDS: Final = 365 * 24 * 3600


@router.post("/preferences")
def choose(request: Request, form: Sent) -> RedirectResponse:
    """Keeps what was chosen in the browser, and goes back. It needs no login."""
    guard = guard_of(request)
    if not guard.is_own(request):
        raise ForbiddenError("preferences are changed at the desk itself")
    response = see(local_path(text_of(form, "back")))
    for name, choices in CHOICES.items():
        if (chosen := text_of(form, name)) in choices:
            response.set_cookie(name, chosen, _YEAR_SECONDS, httponly=True, samesite="lax", secure=guard.encrypted)
    return response
