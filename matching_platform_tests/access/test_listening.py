"""Where the desk listens, and what it needs before it listens to others."""

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from matching_platform.access import Access, AccessError, Role
from matching_platform.access.listening import base_url, host_of, is_local, is_loopback, link_of, local_url, may_listen
from matching_platform.access.settings import DeskSettings, ProxySettings
from matching_platform_tests.access.people import Clock

PROXY = ProxySettings(addresses=(ip_network("10.0.0.0/8"),))
HTTPS = "https://desk.example.com"
TOKEN = "matching-platform tokens issue"
URL = "DESK__URL, the address"
ENCRYPTED = "DESK__URL that begins with https://"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("desk.example.com", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("", False),
    ],
)
def test_what_is_the_machine_itself(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("given", "token", "missing"),
    [
        ({}, False, []),
        ({"host": "localhost"}, False, []),
        ({"host": "::1"}, False, []),
        ({"url": "http://localhost:3457"}, False, []),
        ({"url": HTTPS}, False, []),
        ({"proxy": PROXY}, False, []),
        ({"url": "http://desk.example.com"}, False, [ENCRYPTED]),
        ({"url": "http://desk.example.com", "proxy": PROXY}, False, []),
        ({"host": "0.0.0.0"}, False, [URL, TOKEN]),
        ({"host": "0.0.0.0"}, True, [URL]),
        ({"host": "10.0.0.1", "url": HTTPS}, False, [TOKEN]),
        ({"host": "10.0.0.1", "url": HTTPS}, True, []),
        ({"host": "10.0.0.1", "url": "http://desk.example.com"}, True, [ENCRYPTED]),
        ({"host": "10.0.0.1", "url": "http://desk.example.com", "proxy": PROXY}, True, []),
        ({"host": "10.0.0.1", "proxy": PROXY}, True, [URL]),
        ({"host": "::", "url": HTTPS, "proxy": PROXY}, False, [TOKEN]),
    ],
)
def test_what_listening_needs(access: Access, given: dict[str, Any], token: bool, missing: list[str]) -> None:
    if token:
        access.issue_token("erp", Role.READER, "root")
    settings = DeskSettings(**given)
    if not missing:
        may_listen(access, settings)
        return
    with pytest.raises(AccessError, match="the desk does not listen") as refused:
        may_listen(access, settings)
    assert [one for one in (URL, TOKEN, ENCRYPTED) if one in str(refused.value)] == missing


def test_a_token_that_ended_lets_nobody_listen(access: Access, clock: Clock, tmp_path: Path) -> None:
    settings = DeskSettings(host="0.0.0.0", url=HTTPS)
    access.issue_token("erp", Role.READER, "root", days=1)
    may_listen(access, settings)
    clock.move(days=1)
    with pytest.raises(AccessError, match=TOKEN):
        may_listen(access, settings)
    access.issue_token("bi", Role.READER, "root")
    may_listen(access, settings)
    access.revoke_token("bi", "root")
    with pytest.raises(AccessError, match=TOKEN):
        may_listen(access, settings)


@pytest.mark.parametrize(
    "url", ["desk.example.com", "ftp://desk", "https://", "https://desk/below", "https://desk?x", "http://[::1", ""]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(AccessError, match="DESK__URL is"):
        host_of(url)


@pytest.mark.parametrize(
    ("given", "local"),
    [
        ({}, True),
        ({"url": "http://127.0.0.1:3457/"}, True),
        ({"url": "https://localhost"}, True),
        ({"url": HTTPS}, False),
        ({"proxy": PROXY}, False),
        ({"host": "0.0.0.0", "url": "http://localhost:3457"}, False),
    ],
)
def test_who_can_reach_it(given: dict[str, Any], local: bool) -> None:
    assert is_local(DeskSettings(**given)) is local


@pytest.mark.parametrize(
    ("given", "people", "machine"),
    [
        ({}, "http://127.0.0.1:3457", "http://127.0.0.1:3457"),
        ({"host": "::1", "port": 80}, "http://[::1]:80", "http://[::1]:80"),
        ({"host": "localhost"}, "http://localhost:3457", "http://localhost:3457"),
        ({"host": "0.0.0.0", "url": HTTPS}, HTTPS, "http://127.0.0.1:3457"),
        ({"host": "::", "url": f"{HTTPS}/"}, HTTPS, "http://[::1]:3457"),
        ({"host": "10.0.0.1", "url": HTTPS}, HTTPS, "http://10.0.0.1:3457"),
    ],
)
def test_where_it_is_reached(given: dict[str, Any], people: str, machine: str) -> None:
    settings = DeskSettings(**given)
    assert (base_url(settings), local_url(settings)) == (people, machine)
    assert link_of(settings, "K") == f"{people}/welcome?key=K"
