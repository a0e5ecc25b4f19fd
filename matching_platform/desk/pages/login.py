"""Logging in and out, setting a password by a link, and what is shown to whom the desk does not let in."""

from typing import Annotated, Final
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Depends, FastAPI, Form, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from matching_platform.access import AccessError, LoginError, PasswordError, TooManyError, User
from matching_platform.access.passwords import LONGEST, SHORTEST
from matching_platform.desk.rendering import render, render_instead
from matching_platform.desk.security import (
    ForbiddenError,
    Guard,
    UnknownError,
    address_of,
    close_session,
    guard_of,
    local_path,
    open_session,
    reader,
)

_BODY_BYTES: Final = 16 * 2**10
_LENGTHS: Final = {"shortest": SHORTEST, "longest": LONGEST}

router = APIRouter(max_body_size=_BODY_BYTES)

Text = Annotated[str, Form()]


def install(app: FastAPI) -> None:
    """Adds the login, and what answers those whom `security` refuses."""
    app.include_router(router)
    app.add_exception_handler(UnknownError, _unknown)
    app.add_exception_handler(ForbiddenError, _forbidden)


def own_site(request: Request) -> Guard:
    """The guard, where no other site sent the form: before login there is no session that a form could be bound to."""
    guard = guard_of(request)
    if not guard.is_own(request):
        raise ForbiddenError("this form was sent from another site; open the page anew, and send it again")
    return guard


Own = Annotated[Guard, Depends(own_site)]


@router.get("/login")
def ask(request: Request, next: str = "/", welcome: Annotated[str, Query(max_length=100)] = "") -> Response:  # noqa: A002
    """The login; whoever is logged in goes on. `welcome` is who has just chosen a password."""
    guard = guard_of(request)
    if guard.asker(request):
        return RedirectResponse(local_path(next), 303)
    if guard.settings.proxy:
        return _message(request, "proxy", 401)
    return _login(request, next, name=welcome, saved=bool(welcome), has_users=guard.access.has_users())


@router.post("/login")
def login(request: Request, guard: Own, name: Text = "", password: Text = "", next: Text = "/") -> Response:  # noqa: A002
    """Opens a session, or says that it does not; never which of name and password is wrong."""
    if guard.settings.proxy:
        return _message(request, "proxy", 401)
    try:
        key = guard.access.login(name, password, address_of(request), shared=guard.is_shared(request))
    except TooManyError as error:
        return _login(request, next, 429, {"Retry-After": str(error.wait)}, name=name, wait=error.wait)
    except LoginError:
        return _login(request, next, 401, name=name, wrong=True)
    _end(request, guard)
    response = RedirectResponse(local_path(next), 303)
    open_session(response, guard, key)
    return response


@router.post("/logout")
def logout(request: Request, _: Annotated[User, Depends(reader)]) -> Response:
    """Ends the session."""
    guard = guard_of(request)
    if guard.settings.proxy:
        return _message(request, "proxy_logout")
    _end(request, guard)
    response = RedirectResponse("/login", 303)
    close_session(response, guard)
    return response


@router.get("/welcome")
def invited(request: Request, key: str = "") -> Response:
    """Where the link of an invitation leads: choose a password. Looking at it uses nothing up."""
    guard = guard_of(request)
    user = None if guard.settings.proxy else guard.access.invited(key)
    return _welcome(request, key, user) if user else _message(request, "link", 410)


@router.post("/welcome")
def welcome(request: Request, guard: Own, key: Text = "", password: Text = "", again: Text = "") -> Response:
    """Sets the password; then he logs in with it."""
    user = None if guard.settings.proxy else guard.access.invited(key)
    if user is None:
        return _message(request, "link", 410)
    if password != again:
        return _welcome(request, key, user, "again")
    try:
        guard.access.welcome(key, password, address_of(request))
    except PasswordError as error:
        return _welcome(request, key, user, error.reason)
    except AccessError:
        return _message(request, "link", 410)
    return RedirectResponse(f"/login?{urlencode({'welcome': user.name})}", 303)


def _login(
    request: Request,
    after: str,
    status: int = 200,
    headers: dict[str, str] | None = None,
    *,
    name: str = "",
    wait: int = 0,
    wrong: bool = False,
    saved: bool = False,
    has_users: bool = True,
) -> HTMLResponse:
    shown = {"name": name, "wait": wait, "wrong": wrong, "saved": saved, "has_users": has_users}
    response = render(request, "access/login.html", status, next=local_path(after), **shown)
    response.headers.update(headers or {})
    return response


def _welcome(request: Request, key: str, user: User, problem: str = "") -> HTMLResponse:
    status = 400 if problem else 200
    return render(request, "access/welcome.html", status, key=key, invited=user, problem=problem, **_LENGTHS)


def _message(request: Request, reason: str, status: int = 200) -> HTMLResponse:
    return render(request, "access/message.html", status, reason=reason, told="")


def _end(request: Request, guard: Guard) -> None:
    if key := request.cookies.get(guard.cookie):
        guard.access.logout(key, address_of(request))


def _unknown(request: Request, _: Exception) -> Response:
    """The way to the login, with the way back."""
    if guard_of(request).settings.proxy:
        return _message(request, "proxy", 401)
    address = f"/login?{urlencode({'next': _after(request)})}"
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": address})
    return RedirectResponse(address, 303)


def _forbidden(request: Request, error: Exception) -> Response:
    assert isinstance(error, ForbiddenError)
    return render_instead(request, "access/message.html", 403, reason=error.reason, told=str(error.detail))


def _after(request: Request) -> str:
    """Where a person wanted to go, as far as it can be gone to."""
    htmx = "hx-request" in request.headers and "hx-boosted" not in request.headers
    if request.method == "GET" and not htmx:
        return local_path(request.url.path + (f"?{request.url.query}" if request.url.query else ""))
    try:
        shown = urlsplit(request.headers.get("hx-current-url") or request.headers.get("referer") or "/")
    except ValueError:
        return "/"
    return local_path(shown.path + (f"?{shown.query}" if shown.query else ""))
