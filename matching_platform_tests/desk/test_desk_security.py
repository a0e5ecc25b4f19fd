"""Who is let in to pages and the API, what is asked of forms, and what browsers are told."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Form, Request
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.access import Access, Role, User, passwords
from matching_platform.access.settings import DeskSettings, ProxySettings
from matching_platform.desk.security import address_of, admin, booker, csrf_token, local_path, protect, reader
from matching_platform_tests.access.people import HOME, PASSWORD, QUICK, add, lines, opened
from matching_platform_tests.desk.asking import asking
from matching_platform_tests.waiting import until

LOCAL = "127.0.0.1"
PROXY = "10.1.0.7"
PROXIED = DeskSettings(
    url="https://desk.example.com",
    proxy=ProxySettings(
        addresses=(ip_network("10.1.0.0/24"), ip_network("fd00::/64")),
        readers=frozenset({"finance", "audit"}),
        bookers=frozenset({"bookkeeping"}),
        admins=frozenset({"it"}),
    ),
)
HTTPS = DeskSettings(url="https://desk.example.com")


@pytest.fixture(autouse=True)
def hashes_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_HASHER", QUICK)


@pytest.fixture
def access(tmp_path: Path) -> Iterator[Access]:
    found = opened(tmp_path)
    yield found
    found.engine.dispose()


Ask = Callable[..., httpx.Client]


def app_of(access: Access, settings: DeskSettings) -> FastAPI:
    """A page and an address of the API for each role; they answer who asks, and the token of his forms."""
    app = FastAPI()
    for path in ("", "/api"):
        for name, needed in {"reader": reader, "booker": booker, "admin": admin}.items():

            def answer(request: Request, user: Annotated[User, Depends(needed)]) -> dict[str, str]:
                return {"name": user.name, "role": user.role, "csrf": csrf_token(request)}

            app.add_api_route(f"{path}/{name}", answer, methods=["GET", "POST"])
            app.add_api_route(f"{path}/{name}/{{about}}", answer, methods=["GET"])

    @app.post("/form")
    def form(request: Request, user: Annotated[User, Depends(booker)], field: Annotated[str, Form()]) -> str:
        access.note(user.name, "sent", field, address_of(request))
        return f"{user.name}: {field}"

    @app.get("/static/x.css")
    def static() -> str:
        return ""

    protect(app, access, settings)
    return app


@pytest.fixture
def ask(access: Access) -> Iterator[Ask]:
    """A client of the desk with those settings, from an address."""
    clients = []

    def opened(settings: DeskSettings = DeskSettings(), peer: str = LOCAL, base: str | None = None) -> httpx.Client:  # noqa: B008
        base = base or settings.url or "http://127.0.0.1:3457"
        client = asking(app_of(access, settings), base, peer)
        clients.append(client)
        return client

    yield opened
    for client in clients:
        client.close()


def log_in(client: httpx.Client, access: Access, name: str, role: Role = Role.BOOKER) -> str:
    """Gives the client the cookie of a new user's session; the token of his forms."""
    add(access, name, role)
    key = access.login(name, PASSWORD, HOME)
    secure = str(client.base_url).startswith("https")
    client.cookies.set("__Host-desk_session" if secure else "desk_session", key)
    return str(client.get("/reader").json()["csrf"])


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("needed", Role)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_pages_want_a_login_and_a_role(ask: Ask, access: Access, role: Role, needed: Role, method: str) -> None:
    client = ask()
    assert client.request(method, f"/{needed}").status_code == 401
    csrf = log_in(client, access, "anna", role)
    answer = client.request(method, f"/{needed}", headers={"X-CSRF-Token": csrf})
    assert answer.status_code == (200 if role.covers(needed) else 403)
    if answer.status_code == 403:
        assert answer.json()["detail"] == f"this needs the role {needed}, and you are {role}; ask an admin"
        assert lines(access)[-1] == ("anna", "refused", f"{method} /{needed}: needs {needed}", LOCAL)


@pytest.mark.parametrize("path", ["/booker", "/api/booker"])
def test_whoever_varies_a_path_fills_no_log(ask: Ask, access: Access, path: str) -> None:
    client = ask()
    log_in(client, access, "anna", Role.READER)
    for about in ("T1", "T2", "x%0aadmin granted%1b"):
        assert client.get(f"{path}/{about}").status_code == 403
    assert lines(access)[3:] == [("anna", "refused", f"GET {path}/{{about}}: needs booker", LOCAL)]


@pytest.mark.parametrize("cookie", ["", "unknown", "ż".encode(), b"\xff", "x" * 10_000])
def test_a_cookie_that_is_none_of_ours(ask: Ask, cookie: Any) -> None:
    sent = cookie if isinstance(cookie, bytes) else cookie.encode()
    assert ask().get("/reader", headers=[(b"cookie", b"desk_session=" + sent)]).status_code == 401


# Forms


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1:3457"}, 200),
        ({"Origin": "http://127.0.0.1:3457", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://127.0.0.1:8000"}, 403),
        ({"Origin": "http://localhost:3457"}, 403),
        ({"Origin": "https://127.0.0.1:3457"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_no_other_site_sends_a_form(ask: Ask, access: Access, headers: dict[str, str], status: int) -> None:
    client = ask()
    csrf = log_in(client, access, "anna")
    assert client.post("/form", data={"field": "x", "csrf_token": csrf}, headers=headers).status_code == status
    assert client.post("/form", data={"field": "x"}, headers=headers | {"X-CSRF-Token": csrf}).status_code == status


def test_a_form_carries_the_token_of_its_session(ask: Ask, access: Access) -> None:
    client, other = ask(), ask()
    csrf, of_other = log_in(client, access, "anna"), log_in(other, access, "bob")
    assert csrf != of_other
    for wrong in ["", of_other, csrf[:-1], csrf.upper(), "ż"]:
        assert client.post("/form", data={"field": "x", "csrf_token": wrong}).status_code == 403
        assert client.post("/form", data={"field": "x"}, headers={"X-CSRF-Token": wrong.encode()}).status_code == 403
    assert client.post("/form", data={"field": "x"}).status_code == 403
    assert client.post("/form", json={"field": "x", "csrf_token": csrf}).status_code == 403
    assert client.post("/form", files={"csrf_token": b"x"}, data={"field": "x"}).status_code == 403
    assert client.post("/form", files={"other": b"x"}, data={"field": "x", "csrf_token": csrf}).json() == "anna: x"
    assert [line for line in lines(access) if line[1] == "sent"] == [("anna", "sent", "x", LOCAL)]
    # Reading changes nothing.
    assert client.get("/reader", headers={"Origin": "https://evil.example"}).status_code == 200


def test_a_token_of_an_earlier_login_is_not_good(ask: Ask, access: Access) -> None:
    client = ask()
    before = log_in(client, access, "anna")
    client.cookies.set("desk_session", access.login("anna", PASSWORD, HOME))
    assert client.post("/form", data={"field": "x", "csrf_token": before}).status_code == 403


def test_behind_encryption_the_form_comes_from_the_url(ask: Ask, access: Access) -> None:
    client = ask(HTTPS)
    csrf = log_in(client, access, "anna")
    for origin, status in [
        ("https://desk.example.com", 200),
        ("http://desk.example.com", 403),
        ("https://evil.com", 403),
    ]:
        answer = client.post("/form", data={"field": "x", "csrf_token": csrf}, headers={"Origin": origin})
        assert answer.status_code == status, origin


# The API


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_the_api_of_a_laptop_answers_programs_of_the_laptop(ask: Ask) -> None:
    client = ask()
    assert client.get("/api/booker").json() == {"name": "local", "role": "booker", "csrf": ""}
    assert client.post("/api/booker").status_code == 200
    assert client.get("/api/admin").status_code == 403
    assert client.get("/booker").status_code == 401


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("settings", "peer", "base", "headers"),
    [
        ({}, "10.0.0.9", None, {}),
        ({}, "::ffff:10.0.0.9", None, {}),
        ({}, "testclient", None, {}),
        ({}, LOCAL, None, {"Origin": "https://evil.example"}),
        ({}, LOCAL, None, {"Origin": "http://localhost:8000"}),
        ({}, LOCAL, None, {"Origin": "null"}),
        ({}, LOCAL, None, {"Sec-Fetch-Site": "cross-site"}),
        ({}, LOCAL, None, {"X-Forwarded-For": "127.0.0.1"}),
        ({}, LOCAL, None, {"X-Real-IP": "127.0.0.1"}),
        ({}, LOCAL, None, {"Forwarded": "for=127.0.0.1"}),
        ({}, LOCAL, None, {"Via": "1.1 proxy"}),
        ({}, LOCAL, None, {"Authorization": "Bearer unknown"}),
        ({}, LOCAL, None, {"Authorization": "Bearer mp_unknown"}),
        ({}, LOCAL, None, {"Authorization": "Basic YTpi"}),
        ({"host": "10.0.0.1"}, LOCAL, None, {}),
        ({"url": "https://desk.example.com"}, LOCAL, "http://127.0.0.1:3457", {}),
        ({"url": "https://desk.example.com"}, LOCAL, None, {}),
        ({"proxy": PROXIED.proxy}, LOCAL, None, {}),
    ],
)
def test_whom_the_api_does_not_answer_without_a_token(
    ask: Ask, settings: dict[str, Any], peer: str, base: str | None, headers: dict[str, str], method: str
) -> None:
    answer = ask(DeskSettings(**settings), peer, base).request(method, "/api/reader", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/api/reader", "/reader", "/static/x.css"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:3457", "127.0.0.1.evil.example", "localhost.", "a@b", ""]
)
def test_no_other_name_is_rebound_to_the_desk(ask: Ask, host: str, path: str) -> None:
    assert ask().get(path, headers={"Host": host}).status_code == 400


def test_probes_know_the_desk_by_its_address_alone(ask: Ask) -> None:
    for settings in (DeskSettings(), HTTPS, PROXIED):
        client = ask(settings, "10.4.0.1", "http://10.4.0.17:3457")
        assert [client.get(path).status_code for path in ("/healthz", "/readyz", "/metrics")] == [404] * 3
        assert client.get("/healthz/x").status_code == 400


@pytest.mark.parametrize("base", ["http://localhost:3457", "http://[::1]:3457", "http://127.0.0.1"])
def test_names_of_the_machine_itself(ask: Ask, base: str) -> None:
    assert ask(base=base, peer="::1").get("/api/reader").json()["name"] == "local"


def test_with_the_first_token_the_api_wants_one_for_ever(ask: Ask, access: Access) -> None:
    client = ask()
    assert client.get("/api/reader").status_code == 200
    token = access.issue_token("erp", Role.READER, "root")
    refused = client.get("/api/reader")
    assert refused.status_code == 401
    assert "Authorization: Bearer TOKEN" in refused.json()["detail"]
    assert client.get("/api/reader", headers=bearer(token)).json()["name"] == "token:erp"
    assert client.post("/api/reader", headers=bearer(token)).status_code == 200
    assert client.get("/api/booker", headers=bearer(token)).status_code == 403
    assert client.get("/reader", headers=bearer(token)).status_code == 401
    access.revoke_token("erp", "root")
    revoked = client.get("/api/reader", headers=bearer(token))
    assert revoked.status_code == 401
    assert "unknown, expired or revoked" in revoked.json()["detail"]
    assert client.get("/api/reader").status_code == 401


@pytest.mark.parametrize("settings", [HTTPS, PROXIED])
def test_a_token_is_good_from_anywhere(ask: Ask, access: Access, settings: DeskSettings) -> None:
    token = access.issue_token("erp", Role.BOOKER, "root")
    answer = ask(settings, "203.0.113.5").post("/api/booker", headers=bearer(token))
    assert answer.json() == {"name": "token:erp", "role": "booker", "csrf": ""}


def test_people_who_are_logged_in_may_use_the_api(ask: Ask, access: Access) -> None:
    client = ask()
    csrf = log_in(client, access, "anna")
    assert client.get("/api/reader").json()["name"] == "anna"
    assert client.post("/api/reader", json={}).status_code == 403
    assert client.post("/api/reader", json={}, headers={"X-CSRF-Token": csrf}).json()["name"] == "anna"


# A proxy that logs people in


def proxied(name: str = "Anna@example.com", *groups: str) -> list[tuple[str, str]]:
    return [("X-Forwarded-Email", name), ("X-Forwarded-Groups", ",".join(groups))]


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        (["finance"], "reader"),
        (["audit", "everybody"], "reader"),
        (["finance", "bookkeeping"], "booker"),
        (["finance", " it ", "bookkeeping"], "admin"),
    ],
)
@pytest.mark.parametrize("peer", [PROXY, "::ffff:10.1.0.7", "fd00::5"])
def test_a_person_of_the_proxy_has_the_highest_role_of_his_groups(
    ask: Ask, peer: str, groups: list[str], role: str
) -> None:
    answer = ask(PROXIED, peer).get("/reader", headers=proxied("Anna@example.com", *groups)).json()
    assert (answer["name"], answer["role"]) == ("anna@example.com", role)
    assert answer["csrf"]


@pytest.mark.parametrize("header", ["X-Forwarded-Groups", "X-Forwarded-Email", "x-forwarded-groups"])
@pytest.mark.parametrize("path", ["/reader", "/api/reader"])
def test_a_header_that_comes_twice_lets_nobody_in(ask: Ask, access: Access, header: str, path: str) -> None:
    """One of the two lines is the client's own."""
    client = ask(PROXIED, PROXY)
    for headers in ([(header, "it"), *proxied("anna", "finance")], [*proxied("anna", "finance"), (header, "")]):
        assert client.get(path, headers=headers).status_code == 401
    assert access.users() == []
    (line,) = lines(access)
    assert line[:2] == ("", "refused through the proxy")
    assert line[2].lower() == f"{header.lower()} came more than once"


@pytest.mark.parametrize("peer", ["10.1.1.7", "127.0.0.1", "203.0.113.5", "::1", "fd00:0:0:1::5", "testclient"])
def test_headers_from_elsewhere_are_ignored(ask: Ask, access: Access, peer: str) -> None:
    headers = [*proxied("anna", "it"), ("X-Forwarded-For", PROXY), ("Forwarded", f"for={PROXY}")]
    client = ask(PROXIED, peer)
    for path in ("/reader", "/api/reader"):
        assert client.get(path, headers=headers).status_code == 401
    assert access.users() == []


def test_without_a_proxy_its_headers_say_nothing(ask: Ask) -> None:
    assert ask(HTTPS, PROXY).get("/reader", headers=proxied("anna", "it")).status_code == 401
    assert ask().get("/reader", headers=proxied("anna", "it")).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (proxied("anna"), 403),
        (proxied("anna", "others"), 403),
        (proxied("anna", "financ"), 403),
        (proxied("", "it"), 401),
        ([("X-Forwarded-Groups", "it")], 401),
        ([*proxied("anna", "finance"), ("X-Forwarded-Email", "root")], 401),
        (proxied("an na", "it"), 403),
        (proxied("local", "it"), 403),
        (proxied("token:erp", "it"), 403),
    ],
)
def test_whom_the_proxy_sends_in_vain(ask: Ask, headers: list[tuple[str, str]], status: int) -> None:
    assert ask(PROXIED, PROXY).get("/reader", headers=headers).status_code == status


def test_passwords_let_nobody_in_where_a_proxy_does(ask: Ask, access: Access) -> None:
    client = ask(PROXIED, PROXY)
    add(access, "anna", Role.ADMIN)
    client.cookies.set("__Host-desk_session", access.login("anna", PASSWORD, HOME))
    assert client.get("/reader").status_code == 401


def test_forms_of_proxied_people_carry_a_token(ask: Ask) -> None:
    client, headers = ask(PROXIED, PROXY), proxied("anna", "bookkeeping")
    csrf = client.get("/reader", headers=headers).json()["csrf"]
    of_bob = client.get("/reader", headers=proxied("bob", "it")).json()["csrf"]
    assert client.post("/form", data={"field": "x", "csrf_token": csrf}, headers=headers).status_code == 200
    assert client.post("/form", data={"field": "x", "csrf_token": of_bob}, headers=headers).status_code == 403
    assert client.post("/form", data={"field": "x"}, headers=headers).status_code == 403


def test_whoever_is_deactivated_stays_out(ask: Ask, access: Access) -> None:
    client = ask(PROXIED, PROXY)
    assert client.get("/admin", headers=proxied("anna", "it")).status_code == 200
    access.set_active("anna", False, "root")
    assert client.get("/reader", headers=proxied("anna", "it")).status_code == 403


# What browsers are told


def test_headers_of_every_answer(ask: Ask) -> None:
    client = ask()
    for path, headers in [("/reader", {}), ("/nowhere", {}), ("/api/reader", {}), ("/reader", {"Host": "evil"})]:
        told = client.get(path, headers=headers).headers
        policy = dict(part.split(" ", 1) for part in told["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
        assert "unsafe" not in told["Content-Security-Policy"]
        assert told["X-Content-Type-Options"] == "nosniff"
        assert told["Referrer-Policy"] == "same-origin"
        assert told["Cross-Origin-Opener-Policy"] == "same-origin"
        assert told["Cache-Control"] == "no-store"
        assert "Strict-Transport-Security" not in told
    assert "Cache-Control" not in client.get("/static/x.css").headers
    assert "Strict-Transport-Security" in ask(HTTPS).get("/reader").headers


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/", "/"),
        ("/months/2024-03?show=all&text=a%20b#x", "/months/2024-03?show=all&text=a%20b#x"),
        ("", "/"),
        ("months", "/"),
        ("//evil.example", "/"),
        ("///evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/a\\b", "/"),
        ("\\\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/\t/evil.example", "/"),
        ("/a\r\nSet-Cookie: x=y", "/"),
        (" /", "/"),
        ("/ż", "/"),
    ],
)
def test_a_login_leads_nowhere_else(text: str, path: str) -> None:
    assert local_path(text) == path


@given(st.text())
def test_a_path_stays_here(text: str) -> None:
    resolved = httpx.URL("http://desk.example").join(local_path(text))
    assert (resolved.scheme, resolved.host) == ("http", "desk.example")


SERVER = """
import sys
import uvicorn
from matching_platform.access import Access
from matching_platform.access.settings import DeskSettings
from matching_platform.database import connect
from matching_platform_tests.desk.test_desk_security import PROXIED, app_of

settings = DeskSettings() if sys.argv[3] == "local" else PROXIED
access = Access(connect(sys.argv[1]))
uvicorn.run(app_of(access, settings), port=int(sys.argv[2]), proxy_headers=False, log_level="warning")
"""


@pytest.mark.parametrize("kind", ["local", "proxied"])
def test_a_real_server_knows_its_peer(access: Access, kind: str) -> None:
    """What a header says of the address changes nothing, also on the wire."""
    with socket.socket() as free:
        free.bind((LOCAL, 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVER, str(access.engine.url), str(port), kind]
    server = subprocess.Popen(command, env=os.environ | {"FORWARDED_ALLOW_IPS": "*"})
    try:
        at = f"http://{LOCAL}:{port}"
        until(lambda: httpx.get(f"{at}/static/x.css", trust_env=False).status_code == 200)
        spoofed = [*proxied("anna", "it"), ("X-Forwarded-For", PROXY)]
        assert httpx.get(f"{at}/reader", headers=spoofed, trust_env=False).status_code == 401
        assert httpx.get(f"{at}/api/reader", headers=spoofed, trust_env=False).status_code == 401
        plain = httpx.get(f"{at}/api/reader", trust_env=False)
        assert plain.status_code == (200 if kind == "local" else 401)
    finally:
        server.terminate()
        server.wait(60)
