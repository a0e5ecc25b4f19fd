"""The audit log only grows, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from matching_platform.access import Access, Role, TooManyError
from matching_platform.database import connect
from matching_platform_tests.access.people import HOME, PASSWORD, Clock, add, lines, opened
from matching_platform_tests.desk import postgres


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres.server() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Access]:
    """People in either database."""
    if request.param == "sqlite":
        found = opened(tmp_path, clock)
    else:
        found = Access(connect(postgres.new_database(request.getfixturevalue("server"))), clock=clock)
    yield found
    found.engine.dispose()


_OTHER = "INSERT INTO audit SELECT number, at, 'nobody', action, about, address FROM audit WHERE number = 1"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit SET actor = 'nobody'",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE number = 1",
        f"{_OTHER} ON CONFLICT (number) DO UPDATE SET actor = 'nobody'",
    ],
)
def test_no_line_is_changed(either: Access, change: str) -> None:
    either.note("anna", "decided", "T1", HOME)
    with (
        either.engine.connect() as connection,
        pytest.raises(DBAPIError, match="rows of audit are never changed or deleted"),
    ):
        connection.execute(text(change))
        connection.commit()
    assert lines(either) == [("anna", "decided", "T1", HOME)]


@pytest.mark.parametrize("number", ["1", "'1'", "1.0"])
def test_no_line_is_replaced(access: Access, number: str) -> None:
    access.note("anna", "decided", "T1", HOME)
    replace = _OTHER.replace("INSERT", "INSERT OR REPLACE").replace("SELECT number", f"SELECT {number}")
    with access.engine.connect() as connection, pytest.raises(DBAPIError, match="rows of audit are never changed"):
        connection.execute(text(replace))
        connection.commit()
    access.note("bob", "decided", "T2", HOME)
    assert [one.actor for one in access.audit()] == ["bob", "anna"]


def test_the_whole_way_in(either: Access, clock: Clock) -> None:
    """Each statement, once, in either database."""
    add(either, "anna", Role.ADMIN)
    key = either.login("anna", PASSWORD, HOME)
    clock.move(minutes=2)
    assert either.session(key)
    token = either.issue_token("erp", Role.READER, "anna", 5)
    assert either.bearer(token)
    either.revoke_token("erp", "anna")
    assert either.bearer(token, HOME) is None
    for name in ["nobody", "an\0na"] * 5:
        with pytest.raises(ValueError, match=r"wrong|too many"):
            either.login(name, "wrong\0", HOME)
    with pytest.raises(TooManyError):
        either.login("anna", PASSWORD, HOME)
    either.renew("anna", "root")
    either.set_role("anna", Role.BOOKER, "root")
    either.set_active("anna", False, "root")
    either.proxied("bob@example.com", Role.READER, HOME)
    either.proxied("bob@example.com", Role.ADMIN, HOME)
    either.logout(key)
    assert either.form_token("anna") == either.form_token("anna")
    assert [one.name for one in either.users()] == ["anna", "bob@example.com"]
    assert not either.has_users()
    assert len(either.tokens()) == 1
    assert [one.number for one in either.audit()] == list(range(len(either.audit()), 0, -1))
    assert {one.at.tzinfo for one in either.audit()} == {clock.now.tzinfo}
    assert Access(either.engine).any_token()


def test_it_is_read_page_by_page(access: Access) -> None:
    for number in range(1, 26):
        access.note("anna", "decided", f"T{number}", HOME)
    first = access.audit(limit=10)
    second = access.audit(before=first[-1].number, limit=10)
    assert [one.about for one in first + second] == [f"T{number}" for number in range(25, 5, -1)]
    assert access.audit(before=1) == []


@pytest.mark.parametrize(
    ("searched", "found"),
    [("ANNA", 1), ("import", 1), ("10.1.2", 2), ("%", 1), ("_", 0), ("T1", 1), ("nothing", 0), ("\0bob", 1)],
)
def test_it_is_searched(access: Access, searched: str, found: int) -> None:
    access.note("anna", "decided", "T1", HOME)
    access.note("bob", "import", "100%.csv", HOME)
    assert len(access.audit(searched)) == found


def test_what_is_too_long_is_cut(access: Access) -> None:
    access.note("anna", "decided", "x" * 10_000 + "\0", HOME)
    access.refused("anna", "refused", "y" * 10_000, HOME)
    access.refused("anna", "refused", "y" * 10_000, HOME)
    assert [len(one.about) for one in access.audit()] == [300, 300]


def test_a_refusal_that_repeats_is_written_once_an_hour(access: Access, clock: Clock) -> None:
    for address in (HOME, HOME, "10.0.0.9", HOME):
        access.refused("anna", "refused", "/admin", address)
    assert len(lines(access)) == 2
    clock.move(hours=1)
    access.refused("anna", "refused", "/admin", HOME)
    assert len(lines(access)) == 3
