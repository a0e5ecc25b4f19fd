"""For admins: who may log in and what he may do, tokens for programs, and the audit log."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Form, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from matching_platform.access import Access, AccessError, Role, User
from matching_platform.access.listening import is_local, link_of
from matching_platform.access.log import Event
from matching_platform.access.users import folded, role_given
from matching_platform.desk.audit import DECIDED, UNDONE
from matching_platform.desk.i18n import mark
from matching_platform.desk.rendering import render
from matching_platform.desk.security import Guard, address_of, admin, guard_of
from matching_platform.intake.audit import IMPORTED

_BODY_BYTES: Final = 16 * 2**10
_LINES: Final = 100
_LARGEST: Final = 2**31 - 1
# What is shown of access in the reader's language.
ROLES: Final = (mark("reader"), mark("booker"), mark("admin"))
EVENTS: Final[dict[str, str]] = {
    Event.LOGIN: mark("login"),
    Event.LOGIN_REFUSED: mark("login refused"),
    Event.LOGIN_DELAYED: mark("login delayed"),
    Event.LOGOUT: mark("logout"),
    Event.INVITED: mark("invited"),
    Event.LINK_RENEWED: mark("new link"),
    Event.LINK_REFUSED: mark("link refused"),
    Event.PASSWORD_SET: mark("password set"),
    Event.ROLE_CHANGED: mark("role changed"),
    Event.DEACTIVATED: mark("deactivated"),
    Event.ACTIVATED: mark("activated"),
    Event.PROXY_PERSON: mark("first seen through the proxy"),
    Event.PROXY_REFUSED: mark("refused through the proxy"),
    Event.TOKEN_ISSUED: mark("token issued"),
    Event.TOKEN_REVOKED: mark("token revoked"),
    Event.TOKEN_REFUSED: mark("token refused"),
    Event.REFUSED: mark("refused"),
    DECIDED: mark("decision made"),
    UNDONE: mark("decision taken back"),
    IMPORTED: mark("file imported"),
}

router = APIRouter(prefix="/admin", max_body_size=_BODY_BYTES, dependencies=[Depends(admin)])

Admin = Annotated[User, Depends(admin)]
Text = Annotated[str, Form()]
Guarded = Annotated[Guard, Depends(guard_of)]


@router.get("/users")
def users(request: Request, guard: Guarded) -> HTMLResponse:
    """Who may log in."""
    return _users(request, guard)


@router.post("/users")
def invite(request: Request, guard: Guarded, user: Admin, name: Text = "", role: Text = "") -> HTMLResponse:
    """A new user, and his link, which is shown this once."""
    try:
        _check_passwords(guard)
        key = guard.access.invite(name, role_given(role), user.name, address_of(request))
    except AccessError as error:
        return _users(request, guard, problem=str(error))
    return _users(request, guard, link=link_of(guard.settings, key), linked=folded(name))


@router.post("/users/{name}/link")
def renew(request: Request, guard: Guarded, user: Admin, name: str) -> HTMLResponse:
    """A new link for a user, which is shown this once."""
    try:
        _check_passwords(guard)
        key = guard.access.renew(name, user.name, address_of(request))
    except AccessError as error:
        return _users(request, guard, problem=str(error))
    return _users(request, guard, link=link_of(guard.settings, key), linked=folded(name))


@router.post("/users/{name}/role")
def change_role(request: Request, guard: Guarded, user: Admin, name: str, role: Text = "") -> Response:
    """What a user may do from now on."""
    try:
        _check_other(user, name)
        _check_passwords(guard)
        guard.access.set_role(name, role_given(role), user.name, address_of(request))
    except AccessError as error:
        return _users(request, guard, problem=str(error))
    return RedirectResponse("/admin/users", 303)


@router.post("/users/{name}/active")
def change_active(request: Request, guard: Guarded, user: Admin, name: str, active: Text = "") -> Response:
    """Whether a user may log in."""
    try:
        _check_other(user, name)
        guard.access.set_active(name, active == "yes", user.name, address_of(request))
    except AccessError as error:
        return _users(request, guard, problem=str(error))
    return RedirectResponse("/admin/users", 303)


@router.get("/tokens")
def tokens(request: Request, guard: Guarded) -> HTMLResponse:
    """The tokens of programs."""
    return _tokens(request, guard)


@router.post("/tokens")
def issue(
    request: Request, guard: Guarded, user: Admin, name: Text = "", role: Text = "", days: Text = ""
) -> HTMLResponse:
    """A new token, which is shown this once."""
    try:
        lasting = _days(days)
        token = guard.access.issue_token(name, role_given(role), user.name, lasting, address_of(request))
    except AccessError as error:
        return _tokens(request, guard, problem=str(error))
    return _tokens(request, guard, token=token, issued=folded(name))


@router.post("/tokens/{name}/revoke")
def revoke(request: Request, guard: Guarded, user: Admin, name: str) -> Response:
    """Ends a token at once."""
    try:
        guard.access.revoke_token(name, user.name, address_of(request))
    except AccessError as error:
        return _tokens(request, guard, problem=str(error))
    return RedirectResponse("/admin/tokens", 303)


@router.get("/audit")
def audit(
    request: Request,
    guard: Guarded,
    text: Annotated[str, Query(max_length=100)] = "",
    before: Annotated[int | None, Query(ge=1, le=_LARGEST)] = None,
) -> HTMLResponse:
    """The audit log, the last line first."""
    found = guard.access.audit(text.strip(), before, _LINES + 1)
    entries, more = found[:_LINES], found[_LINES:]
    older = entries[-1].number if more else None
    shown = {"entries": entries, "events": EVENTS, "text": text.strip(), "before": before, "older": older}
    return render(request, "access/audit.html", **shown)


def _users(request: Request, guard: Guard, problem: str = "", link: str = "", linked: str = "") -> HTMLResponse:
    shown = {"link": link, "linked": linked, "proxied": guard.settings.proxy is not None}
    return _page(request, "access/users.html", problem, users=guard.access.users(), **shown)


def _tokens(request: Request, guard: Guard, problem: str = "", token: str = "", issued: str = "") -> HTMLResponse:
    access: Access = guard.access
    known = {"tokens": access.tokens(), "now": access.clock()}
    is_open = is_local(guard.settings) and not known["tokens"]
    return _page(request, "access/tokens.html", problem, token=token, issued=issued, open=is_open, **known)


def _page(request: Request, template: str, problem: str, **shown: Any) -> HTMLResponse:
    return render(request, template, 400 if problem else 200, problem=problem, all_roles=tuple(Role), **shown)


def _check_other(user: User, name: str) -> None:
    # Else the last admin could lock the desk behind himself.
    if folded(name) == user.name:
        raise AccessError("nobody changes his own role or deactivates himself; ask another admin")


def _check_passwords(guard: Guard) -> None:
    if guard.settings.proxy:
        raise AccessError("people log in at the proxy; give them a group there that this desk knows")


def _days(text: str) -> float | None:
    if not text.strip():
        return None
    if not text.strip().isdecimal():
        raise AccessError(f"'{text}' is no number of days; give a whole number, or nothing")
    return float(text)
