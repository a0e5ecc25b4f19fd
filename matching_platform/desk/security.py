"""Who asks, whether he may, and what keeps other sites out: of every page and every address of the API.

Pages and the API take the dependencies `reader`, `booker` and `admin`; each gives the user. A person is known by his
session, or by the headers of a proxy; a program by its bearer token. What a person's browser sends must carry the form's
token, unless it only reads: another site can neither read that token nor guess it.
"""

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from typing import Final, Literal
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matching_platform.access import Access, AccessError, Role, User
from matching_platform.access.keys import TOKEN_PREFIX
from matching_platform.access.listening import LOOPBACK, host_of, is_local, is_loopback
from matching_platform.access.log import Event
from matching_platform.access.settings import DeskSettings, ProxySettings
from matching_platform.access.users import LOCAL

API: Final = "/api/"
FIELD: Final = "csrf_token"
# Of a form: as many as the page of proposals alike may send.
MOST_FIELDS: Final = 20_000
HEADER: Final = "X-CSRF-Token"

_STATIC: Final = "/static/"
_PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_COOKIE: Final = "desk_session"
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# Left by proxies: who sends one of them does not ask from this machine itself.
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_YEAR_SECONDS: Final = 365 * 24 * 3600


class UnknownError(HTTPException):
    """401: nobody knows who asks."""

    def __init__(self, told: str) -> None:
        super().__init__(401, told, {"WWW-Authenticate": "Bearer"})


class ForbiddenError(HTTPException):
    """403: his role or groups do not let him, or it was not he who asked but another site."""

    def __init__(self, told: str, reason: Literal["role", "group", "form"] = "form") -> None:
        super().__init__(403, told)
        self.reason = reason


@dataclass(frozen=True)
class Asker:
    """Who asks, and what his forms must carry; None where no browser can be misled to send them."""

    user: User
    form: str | None = None


@dataclass(frozen=True)
class Guard:
    """Who is let in where the desk has these settings."""

    access: Access
    settings: DeskSettings

    @property
    def encrypted(self) -> bool:
        return (self.settings.url or "").startswith("https://")

    @property
    def cookie(self) -> str:
        """The name of the session's cookie; with the prefix, browsers take it from this host alone, and encrypted."""
        return f"__Host-{_COOKIE}" if self.encrypted else _COOKIE

    @cached_property
    def hosts(self) -> list[str]:
        """The names by which the desk is reached; others are refused, so that no name can be rebound to it."""
        own = {self.settings.host, *LOOPBACK} | ({host_of(self.settings.url)} if self.settings.url else set())
        return sorted(f"[{host}]" if ":" in host else host for host in own)

    def asker(self, request: Request) -> Asker | None:
        """Who asks; None where nobody knows. UnknownError for a token that is not good."""
        given = request.headers.get("authorization", "")
        scheme, _, token = given.partition(" ")
        if is_api(request) and scheme.lower() == "bearer" and token.startswith(TOKEN_PREFIX):
            user = self.access.bearer(token.strip(), address_of(request))
            if user is None:
                raise UnknownError("this token is unknown, expired or revoked; ask an admin for a new one")
            return Asker(user)
        person = self._person(request)
        if person or not is_api(request) or given:
            return person
        return Asker(LOCAL) if self._is_of_this_machine(request) else None

    def is_shared(self, request: Request) -> bool:
        """Whether everybody comes from the address of the request: that of a proxy before the desk, which encrypts."""
        url = self.settings.url
        return bool(url and not is_loopback(host_of(url)) and is_loopback(address_of(request)))

    def is_own(self, request: Request) -> bool:
        """Whether no other site made the browser send this; who is no browser does not say."""
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return False
        origin = request.headers.get("origin")
        return origin is None or origin.lower() in self._origins(request)

    async def check_form(self, request: Request, wanted: str) -> None:
        """ForbiddenError where a request that changes something is not from a form of ours, with `wanted` in it."""
        if request.method in _READS:
            return
        given = request.headers.get(HEADER)
        if given is None:
            given = (await request.form(max_fields=MOST_FIELDS)).get(FIELD, "")  # type: ignore[assignment]
        if not (self.is_own(request) and hmac.compare_digest(str(given).encode(), wanted.encode())):
            raise ForbiddenError("this form is not of your login any more; open the page anew, and send it again")

    def _person(self, request: Request) -> Asker | None:
        if self.settings.proxy:
            return self._proxied(request, self.settings.proxy)
        key = request.cookies.get(self.cookie)
        user = self.access.session(key) if key else None
        return Asker(user, self.access.form_token(f"session:{key}")) if user else None

    def _proxied(self, request: Request, proxy: ProxySettings) -> Asker | None:
        if not _is_within(address_of(request), proxy):
            return None
        headers = (proxy.user_header, proxy.groups_header)
        # The proxy sends each once: where there are two lines, one may be the client's own.
        if several := [header for header in headers if len(request.headers.getlist(header)) > 1]:
            about = f"{several[0]} came more than once"
            self.access.refused("", Event.PROXY_REFUSED, about, address_of(request))
            return None
        name, groups = (request.headers.get(header, "").strip() for header in headers)
        if not name:
            return None
        try:
            user = self.access.proxied(name, _role(groups, proxy), address_of(request))
        except AccessError as error:
            raise ForbiddenError(str(error), "group") from error
        if user is None:
            raise ForbiddenError("none of your groups may use this desk; ask an admin to put you into one", "group")
        return Asker(user, self.access.form_token(f"person:{user.name}"))

    def _is_of_this_machine(self, request: Request) -> bool:
        return (
            is_local(self.settings)
            and is_loopback(address_of(request))
            and is_loopback(request.url.hostname or "")
            and not any(name in request.headers for name in _FORWARDED)
            and self.is_own(request)
            and not self.access.any_token()
        )

    def _origins(self, request: Request) -> set[str]:
        own = {_origin(self.settings.url)} if self.settings.url else set()
        here = f"http://{request.headers.get('host', '')}".lower()
        return own | {here} if is_loopback(request.url.hostname or "") else own


def protect(app: FastAPI, access: Access, settings: DeskSettings) -> None:
    """Puts access in front of an application, as its outermost layer: call it after other middleware is added."""
    guard = Guard(access, settings)
    app.state.access, app.state.guard = access, guard
    app.add_middleware(KnownHosts, allowed_hosts=guard.hosts, www_redirect=False)
    app.add_middleware(SecurityHeaders, encrypted=guard.encrypted)


class KnownHosts(TrustedHostMiddleware):
    """Refuses requests for hosts that the desk is not; a cluster's probes know it by its address alone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in _PROBES:
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


@dataclass(frozen=True)
class SecurityHeaders:
    """Headers by which browsers hold pages to what they are; static files may be kept, nothing else."""

    app: ASGIApp
    encrypted: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if self.encrypted:
                    headers.setdefault("Strict-Transport-Security", f"max-age={_YEAR_SECONDS}")
                if not scope["path"].startswith(_STATIC):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, with_headers)


def _at_least(needed: Role) -> Callable[[Request], Awaitable[User]]:
    async def asking(request: Request) -> User:
        guard = guard_of(request)
        asker = await run_in_threadpool(guard.asker, request)
        if asker is None:
            raise UnknownError(_NEEDED if is_api(request) else "log in first")
        request.state.user = asker.user
        if asker.form is not None:
            request.state.csrf = asker.form
            await guard.check_form(request, asker.form)
        if not asker.user.role.covers(needed):
            about = f"{request.method} {_template(request)}: needs {needed}"
            await run_in_threadpool(guard.access.refused, asker.user.name, Event.REFUSED, about, address_of(request))
            raise ForbiddenError(f"this needs the role {needed}, and you are {asker.user.role}; ask an admin", "role")
        return asker.user

    return asking


_NEEDED: Final = (
    "the API needs a token, in the header Authorization: Bearer TOKEN; make one with `matching-platform tokens issue`"
)

reader: Final = _at_least(Role.READER)
booker: Final = _at_least(Role.BOOKER)
admin: Final = _at_least(Role.ADMIN)


def csrf_token(request: Request) -> str:
    """What a form of the page carries, in the field csrf_token or the header X-CSRF-Token; empty before login."""
    return str(getattr(request.state, "csrf", ""))


def guard_of(request: Request) -> Guard:
    guard: Guard = request.app.state.guard
    return guard


def address_of(request: Request) -> str:
    """Where the connection comes from, whatever its headers say; empty for a socket without addresses."""
    return request.client.host if request.client else ""


def is_api(request: Request) -> bool:
    return str(request.scope["path"]).startswith(API)


def local_path(text: str) -> str:
    """`text` where it is a path of this desk, else '/': a link to the login leads nowhere else."""
    plain = text.isascii() and text.isprintable() and not set(text) & {"\\", " "}
    return text if plain and text.startswith("/") and not text.startswith("//") else "/"


def open_session(response: Response, guard: Guard, key: str) -> None:
    """Gives the browser the key of its session."""
    response.set_cookie(
        guard.cookie,
        key,
        max_age=int(guard.settings.session_hours * 3600),
        secure=guard.encrypted,
        httponly=True,
        samesite="lax",
    )


def close_session(response: Response, guard: Guard) -> None:
    response.delete_cookie(guard.cookie, secure=guard.encrypted, httponly=True, samesite="lax")


def _template(request: Request) -> str:
    """The path of what was asked for, as the application names it: who varies a name in it asks for the same."""
    scope = request.scope
    return f"{scope.get('root_path', '')}{scope['route'].path_format}"


def _role(listed: str, proxy: ProxySettings) -> Role | None:
    """The highest role that the groups give, listed with commas between them."""
    groups = {name.strip() for name in listed.split(",")}
    given = {Role.ADMIN: proxy.admins, Role.BOOKER: proxy.bookers, Role.READER: proxy.readers}
    return next((role for role, its in given.items() if its & groups), None)


def _is_within(address: str, proxy: ProxySettings) -> bool:
    try:
        peer = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    peer = getattr(peer, "ipv4_mapped", None) or peer
    return any(peer in network for network in proxy.addresses)


def _origin(url: str) -> str:
    parts = urlsplit(url.lower())
    usual = {"http": ":80", "https": ":443"}[parts.scheme]
    return f"{parts.scheme}://{parts.netloc.removesuffix(usual)}"
