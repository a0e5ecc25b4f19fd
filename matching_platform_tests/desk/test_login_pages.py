"""The pages of login and of admins, as a browser without scripts would use them; and the desk as a whole."""

import re
from collections.abc import Iterator
from html import unescape
from ipaddress import ip_network
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Mount

from matching_platform.access import Access, Role, User, passwords
from matching_platform.access.attempts import FREE
from matching_platform.access.log import Event
from matching_platform.access.settings import DeskSettings, ProxySettings
from matching_platform.access.users import folded
from matching_platform.desk import errors
from matching_platform.desk.pages import admin, login
from matching_platform.desk.security import protect
from matching_platform_tests.access.people import HOME, OTHER, PASSWORD, QUICK, Clock, add, lines, opened
from matching_platform_tests.desk.asking import asking

HERE = "http://127.0.0.1:3457"
HTTPS = DeskSettings(url="https://desk.example.com")
PROXIED = DeskSettings(proxy=ProxySettings(addresses=(ip_network("127.0.0.1/32"),), admins=frozenset({"it"})))
AS_ADMIN = {"X-Forwarded-Email": "anna@example.com", "X-Forwarded-Groups": "it"}


@pytest.fixture(autouse=True)
def hashes_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_HASHER", QUICK)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(tmp_path: Path, clock: Clock) -> Iterator[Access]:
    found = opened(tmp_path, clock)
    yield found
    found.engine.dispose()


def browser(access: Access, settings: DeskSettings | None = None, peer: str = "127.0.0.1") -> httpx.Client:
    """Somebody at the pages of access."""
    settings = settings or DeskSettings()
    app = FastAPI()
    errors.handle(app)
    login.install(app)
    app.include_router(admin.router)
    protect(app, access, settings)
    return asking(app, settings.url or HERE, peer)


@pytest.fixture
def client(access: Access) -> Iterator[httpx.Client]:
    with browser(access) as found:
        yield found


def logged_in(client: httpx.Client, access: Access, role: Role = Role.ADMIN, name: str = "anna") -> str:
    """Logs a new user in by the form; the token of his forms."""
    add(access, name, role)
    assert client.post("/login", data={"name": name, "password": PASSWORD}).status_code == 303
    return csrf_of(client, "/admin/users") if role is Role.ADMIN else ""


def csrf_of(client: httpx.Client, page: str) -> str:
    found = re.search(r'name="csrf_token" value="(\w+)"', client.get(page).text)
    assert found
    return found[1]


def heading(answer: httpx.Response) -> str:
    found = re.search(r"<h1[^>]*>(.*?)</h1>", answer.text)
    assert found, answer.text
    return unescape(found[1])


def alert(answer: httpx.Response) -> str:
    found = re.search(r'role="alert"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    return unescape(found[1]).strip() if found else ""


# Login


def test_an_empty_desk_says_how_the_first_admin_is_made(client: httpx.Client, access: Access) -> None:
    command = "matching-platform users invite NAME --role admin"
    assert command in client.get("/login").text
    add(access, "anna")
    assert command not in client.get("/login").text


def test_login_and_logout(client: httpx.Client, access: Access) -> None:
    add(access, "anna", Role.ADMIN)
    asked = client.get("/admin/users?text=x")
    assert (asked.status_code, asked.headers["Location"]) == (303, "/login?next=%2Fadmin%2Fusers%3Ftext%3Dx")
    page = client.get(asked.headers["Location"])
    assert heading(page) == "Log in"
    assert 'name="next" value="/admin/users?text=x"' in page.text
    answer = client.post("/login", data={"name": "Anna", "password": PASSWORD, "next": "/admin/users?text=x"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/users?text=x")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("desk_session=")
    assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=43200"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert client.get("/admin/users").status_code == 200
    assert client.get("/login?next=/admin/audit").headers["Location"] == "/admin/audit"
    assert client.post("/logout").status_code == 403
    out = client.post("/logout", data={"csrf_token": csrf_of(client, "/admin/users")})
    assert (out.status_code, out.headers["Location"]) == (303, "/login")
    key = cookie.partition("=")[2].partition(";")[0]
    assert access.session(key) is None
    assert client.get("/admin/users").status_code == 303
    assert [line[:2] for line in lines(access)[2:]] == [("anna", "login"), ("anna", "logout")]


def test_encrypted_the_cookie_is_bound_to_the_host(access: Access) -> None:
    with browser(access, HTTPS) as client:
        add(access, "anna")
        cookie = client.post("/login", data={"name": "anna", "password": PASSWORD}).headers["Set-Cookie"]
    assert cookie.startswith("__Host-desk_session=")
    assert {"HttpOnly", "SameSite=lax", "Path=/", "Secure"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


@pytest.mark.parametrize("name", ["anna", "nobody", "", "ą\0", "x" * 5000])
def test_a_refusal_does_not_say_who_is_a_user(client: httpx.Client, access: Access, name: str) -> None:
    add(access, "anna")
    answer = client.post("/login", data={"name": name, "password": "wrong"})
    assert answer.status_code == 401
    assert alert(answer) == "The name or the password is wrong."
    assert "Set-Cookie" not in answer.headers
    assert 'wrong"' not in answer.text


def test_fields_may_be_missing(client: httpx.Client) -> None:
    assert client.post("/login").status_code == 401
    assert client.post("/welcome").status_code == 410


def test_too_many_failures(client: httpx.Client, access: Access) -> None:
    add(access, "anna")
    for _ in range(FREE["name"]):
        assert client.post("/login", data={"name": "anna", "password": "wrong"}).status_code == 401
    answer = client.post("/login", data={"name": "anna", "password": PASSWORD})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "30")
    assert alert(answer) == "Too many failed logins. Try again in 30 seconds."


@pytest.mark.parametrize(
    ("settings", "peer", "waits"),
    [
        (HTTPS, "127.0.0.1", False),
        (HTTPS, "::1", False),
        (HTTPS, "10.0.0.9", True),
        (DeskSettings(), "127.0.0.1", True),
        (DeskSettings(url=HERE), "127.0.0.1", True),
    ],
)
def test_behind_a_proxy_that_encrypts_nobody_waits_for_others(
    access: Access, settings: DeskSettings, peer: str, waits: bool
) -> None:
    add(access, "anna")
    with browser(access, settings, peer) as client:
        for number in range(FREE["address"]):
            assert client.post("/login", data={"name": f"name{number}", "password": "wrong"}).status_code == 401
        answer = client.post("/login", data={"name": "anna", "password": PASSWORD})
    assert answer.status_code == (429 if waits else 303)


@pytest.mark.parametrize("path", ["/login", "/welcome"])
@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_no_other_site_logs_anybody_in(
    client: httpx.Client, access: Access, path: str, headers: dict[str, str]
) -> None:
    add(access, "anna")
    answer = client.post(path, data={"name": "anna", "password": PASSWORD}, headers=headers)
    assert (answer.status_code, heading(answer)) == (403, "Nothing was done")
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("after", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_a_login_leads_nowhere_else(client: httpx.Client, access: Access, after: str) -> None:
    add(access, "anna")
    assert 'name="next" value="/"' in client.get("/login", params={"next": after}).text
    answer = client.post("/login", data={"name": "anna", "password": PASSWORD, "next": after})
    assert answer.headers["Location"] == "/"


def test_a_login_is_a_new_session_and_ends_the_one_before(client: httpx.Client, access: Access) -> None:
    logged_in(client, access)
    before = client.cookies["desk_session"]
    client.post("/login", data={"name": "anna", "password": PASSWORD})
    assert client.cookies["desk_session"] != before
    assert access.session(before) is None


def test_what_is_typed_is_text(client: httpx.Client) -> None:
    assert "<script>" not in client.post("/login", data={"name": '"><script>', "next": "/<script>"}).text


@pytest.mark.parametrize("path", ["/login", "/welcome", "/admin/users"])
def test_a_form_is_small(client: httpx.Client, access: Access, path: str) -> None:
    csrf = logged_in(client, access)
    answer = client.post(path, data={"name": "x" * 20_000, "csrf_token": csrf})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        ({"HX-Request": "true", "HX-Boosted": "true"}, "/login?next=%2Fadmin%2Faudit%3Ftext%3Da"),
        (
            {"HX-Request": "true", "HX-Current-URL": f"{HERE}/months/2024-03?page=2"},
            "/login?next=%2Fmonths%2F2024-03%3Fpage%3D2",
        ),
        ({"HX-Request": "true", "HX-Current-URL": "https://evil.example//x"}, "/login?next=%2F"),
        ({"HX-Request": "true"}, "/login?next=%2F"),
    ],
)
def test_a_part_of_a_page_sends_the_whole_page_to_the_login(
    client: httpx.Client, headers: dict[str, str], after: str
) -> None:
    answer = client.get("/admin/audit?text=a", headers=headers)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, after)


@pytest.mark.parametrize("header", ["Referer", "HX-Current-URL"])
@pytest.mark.parametrize("address", ["http://[x]y/", "http://[", "//[::1/x", "http://a]/"])
def test_a_header_that_is_no_address_leads_to_the_first_page(client: httpx.Client, header: str, address: str) -> None:
    answer = client.post("/logout", headers={header: address})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=%2F")


def test_whoever_may_not_is_told_so(client: httpx.Client, access: Access) -> None:
    logged_in(client, access, Role.BOOKER)
    for path in ("/admin/users", "/admin/tokens", "/admin/audit"):
        answer = client.get(path)
        assert (answer.status_code, heading(answer)) == (403, "You may not do that")
        assert "anna with the role booker" in answer.text
    assert client.get("/admin/users", headers={"HX-Request": "true"}).headers["HX-Retarget"] == "body"
    assert ("anna", Event.REFUSED, "GET /admin/audit: needs admin", "127.0.0.1") in lines(access)


# Invitations


def test_an_invitation_from_the_page_to_the_login(client: httpx.Client, access: Access) -> None:
    csrf = logged_in(client, access)
    answer = client.post("/admin/users", data={"name": "Bob", "role": "booker", "csrf_token": csrf})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    link = re.search(rf'value="{re.escape(HERE)}(/welcome\?key=[\w-]+)"', answer.text)
    assert link
    assert "/welcome" not in client.get("/admin/users").text
    with browser(access) as bob:
        for _ in range(2):
            page = bob.get(link[1])
            assert heading(page) == "Choose a password"
            assert "You log in as bob." in page.text
        key = link[1].partition("=")[2]
        for password, again, problem in [
            (PASSWORD, OTHER, "The two passwords differ; type both again."),
            ("short", "short", "The password needs 12 to 200 characters."),
            ("bob" * 4, "bob" * 4, "The password is one of the commonest; choose another."),
        ]:
            answer = bob.post("/welcome", data={"key": key, "password": password, "again": again})
            assert (answer.status_code, alert(answer)) == (400, problem)
            assert f'value="{password}' not in answer.text
        chosen = {"key": key, "password": PASSWORD, "again": PASSWORD}
        saved = bob.post("/welcome", data=chosen).headers["Location"]
        assert saved == "/login?welcome=bob"
        page = bob.get(saved)
        assert "Your password is saved. Log in with it now." in page.text
        assert 'name="name" value="bob"' in page.text
        gone = bob.get(link[1])
        assert (gone.status_code, heading(gone)) == (410, "This link is not good any more")
        assert bob.post("/welcome", data=chosen).status_code == 410
    assert access.invited(key) is None


def test_admins_change_roles_and_links(client: httpx.Client, access: Access) -> None:
    csrf = logged_in(client, access)
    add(access, "bob@example.com", Role.READER)
    at, form = "/admin/users/bob%40example.com", {"csrf_token": csrf}
    assert client.post(f"{at}/role", data=form | {"role": "booker"}).status_code == 303
    assert client.post(f"{at}/active", data=form | {"active": "no"}).status_code == 303
    assert client.post(f"{at}/link", data=form).status_code == 400
    assert client.post(f"{at}/active", data=form | {"active": "yes"}).status_code == 303
    answer = client.post(f"{at}/link", data=form)
    assert "/welcome?key=" in answer.text
    account = access.users()[1]
    assert (account.role, account.active, account.invited_until is not None) == (Role.BOOKER, True, True)
    assert {line[3] for line in lines(access)[-4:]} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("path", "sent", "told"),
    [
        ("/admin/users", {"name": "an na", "role": "reader"}, "'an na' is no name"),
        ("/admin/users", {"name": "bob", "role": "boss"}, "'boss' is no role"),
        ("/admin/users", {"name": "anna", "role": "reader"}, "there is a user 'anna' already"),
        ("/admin/users", {}, "'' is no role"),
        ("/admin/users/Anna/role", {"role": "reader"}, "nobody changes his own role"),
        ("/admin/users/anna/active", {"active": "no"}, "nobody changes his own role or deactivates himself"),
        ("/admin/users/nobody/role", {"role": "reader"}, "there is no user 'nobody'"),
        ("/admin/users/nobody/link", {}, "there is no user 'nobody'"),
        ("/admin/users/%00/active", {"active": "no"}, "there is no user"),
        ("/admin/tokens", {"name": "a/b", "role": "reader"}, "'a/b' is no name"),
        ("/admin/tokens", {"name": "erp", "role": "reader", "days": "soon"}, "'soon' is no number of days"),
        ("/admin/tokens", {"name": "erp", "role": "reader", "days": "9" * 400}, "a token lasts more than 0"),
        ("/admin/tokens/erp/revoke", {}, "there is no token 'erp'"),
    ],
)
def test_what_admins_are_refused(
    client: httpx.Client, access: Access, path: str, sent: dict[str, str], told: str
) -> None:
    csrf = logged_in(client, access)
    before = access.users(), access.tokens()
    answer = client.post(path, data=sent | {"csrf_token": csrf})
    assert answer.status_code == 400
    assert told.lower() in alert(answer).lower()
    assert (access.users(), access.tokens()) == before


def test_no_admin_page_is_open(client: httpx.Client, access: Access) -> None:
    logged_in(client, access, Role.BOOKER, "bob")
    tried = 0
    for route in admin.router.routes:
        assert isinstance(route, APIRoute)
        path = route.path.replace("{name}", "bob")
        for method in route.methods:
            assert client.request(method, path).status_code == 403, path
            tried += 1
    assert tried >= 9


# Tokens and the audit log


def test_tokens_from_the_page(client: httpx.Client, access: Access) -> None:
    csrf = logged_in(client, access)
    assert "No token was ever issued" in client.get("/admin/tokens").text
    answer = client.post("/admin/tokens", data={"name": "ERP", "role": "reader", "days": "30", "csrf_token": csrf})
    found = re.search(r'value="(mp_[\w-]+)"', answer.text)
    assert found
    assert access.bearer(found[1]) == User("token:erp", Role.READER)
    page = client.get("/admin/tokens").text
    assert found[1] not in page
    assert "No token was ever issued" not in page
    assert client.post("/admin/tokens/erp/revoke", data={"csrf_token": csrf}).status_code == 303
    assert access.bearer(found[1]) is None
    assert "revoked" in client.get("/admin/tokens").text


def test_the_audit_log_is_read_and_searched(client: httpx.Client, access: Access) -> None:
    logged_in(client, access)
    for number in range(150):
        access.note("bob", "100% <b>", f"T{number}", HOME)
    page = client.get("/admin/audit").text
    assert page.count("<tr>") == 101
    assert "100% &lt;b&gt;" in page
    older = re.search(r'href="(/admin/audit\?text=&amp;before=\d+)"', page)
    assert older
    assert client.get(unescape(older[1])).text.count("<tr>") == 54
    assert client.get("/admin/audit?text=T149").text.count("<tr>") == 2
    assert "Nothing here holds “%s”." in client.get("/admin/audit?text=%25s").text


# Behind a proxy


def test_behind_a_proxy_there_are_no_passwords(access: Access) -> None:
    key = access.invite("bob", Role.READER, "root")
    add(access, "anna")
    with browser(access, PROXIED) as client:
        outside = [
            client.get("/login"),
            client.get("/admin/users"),
            client.post("/login", data={"name": "anna", "password": PASSWORD}),
        ]
        assert {(one.status_code, heading(one)) for one in outside} == {(401, "The proxy did not say who you are")}
        assert client.get(f"/welcome?key={key}").status_code == 410
        assert client.post("/welcome", data={"key": key, "password": PASSWORD, "again": PASSWORD}).status_code == 410
        client.headers.update(AS_ADMIN)
        page = client.get("/admin/users")
        assert page.status_code == 200
        assert "Invite somebody" not in page.text
        assert "People log in at the proxy" in page.text
        form = {"csrf_token": csrf_of(client, "/admin/users")}
        for path in ("/admin/users", "/admin/users/bob/link", "/admin/users/bob/role"):
            answer = client.post(path, data=form | {"name": "eve", "role": "admin"})
            assert answer.status_code == 400
            assert "People log in at the proxy" in alert(answer)
        assert client.post("/admin/users/bob/active", data=form | {"active": "no"}).status_code == 303
        assert heading(client.post("/logout", data=form)) == "Log out at the proxy"
        assert client.get("/login").status_code == 303


def test_without_a_group_a_page_says_so(access: Access) -> None:
    with browser(access, PROXIED) as client:
        for path in ("/admin/users", "/login"):
            answer = client.get(path, headers=AS_ADMIN | {"X-Forwarded-Groups": "others"})
            assert (answer.status_code, heading(answer)) == (403, "You may not use this desk")
    assert lines(access) == [("anna@example.com", "refused through the proxy", "anna@example.com", "127.0.0.1")]


# In both languages


@pytest.mark.parametrize("language", ["en", "pl"])
@pytest.mark.parametrize("path", ["/login", "/welcome?key=x", "/admin/users", "/admin/tokens", "/admin/audit?text=%25"])
def test_pages_are_of_the_readers_language(client: httpx.Client, access: Access, language: str, path: str) -> None:
    if path.startswith("/admin"):
        logged_in(client, access)
    answer = client.get(path, headers={"Accept-Language": language})
    assert answer.status_code in (200, 410)
    assert f'<html lang="{language}"' in answer.text


def test_every_event_has_its_words() -> None:
    assert {event: event.value for event in Event}.items() <= admin.EVENTS.items()
    assert tuple(role.value for role in Role) == admin.ROLES


def test_names_are_compared_as_they_are_kept() -> None:
    assert folded(" ANNA ") == "anna"


# The desk as a whole


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FastAPI]:
    """The whole desk, over a platform in which there is nothing yet."""
    from matching_platform.desk.app import create_app
    from matching_platform.environment import Platform, load

    monkeypatch.setenv("MATCHING_PLATFORM_WAREHOUSE", str(tmp_path / "w.duckdb"))
    monkeypatch.setenv("MATCHING_PLATFORM_STORE", str(tmp_path / "store"))
    app = create_app(Platform(load()))
    yield app
    app.state.access.engine.dispose()


def test_every_page_of_the_desk_wants_a_login(desk: FastAPI) -> None:
    """Whoever adds a page and forgets to ask who reads it is told so here."""
    addresses, open_to_all = _addresses(desk), set()
    with asking(desk) as client:
        for method, path in addresses:
            answer = client.request(method, path)
            if (answer.status_code, answer.headers.get("Location", "")[:12]) != (303, "/login?next="):
                open_to_all.add(path)
            assert "Content-Security-Policy" in answer.headers
    assert len(addresses) > 20
    assert open_to_all == {"/login", "/welcome", "/preferences"}


def test_every_address_of_the_api_wants_a_token(desk: FastAPI) -> None:
    """From elsewhere always; on the machine itself as soon as one was issued."""
    (api,) = (one.app for one in desk.routes if isinstance(one, Mount) and one.path == "/api")
    assert isinstance(api, FastAPI)
    addresses = [(method, f"/api{path}") for method, path in _addresses(api)]
    assert len(addresses) > 5
    with asking(desk, peer="10.0.0.9") as elsewhere, asking(desk) as here:
        for method, path in addresses:
            assert elsewhere.request(method, path).status_code == 401, path
        token = desk.state.access.issue_token("erp", Role.READER, "root")
        for method, path in addresses:
            assert here.request(method, path).status_code == 401, path
            answer = here.request(method, path, headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code != 401, path
            assert "Content-Security-Policy" in answer.headers


def _addresses(app: FastAPI) -> list[tuple[str, str]]:
    """Methods and paths, each name in a path replaced by an x."""
    described = app.openapi()["paths"].items()
    return [(method.upper(), re.sub(r"{[^}]*}", "x", path)) for path, methods in described for method in methods]
