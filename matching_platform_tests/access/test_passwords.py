"""Which passwords are taken, and how they are kept."""

from unicodedata import normalize

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.profiles import RFC_9106_LOW_MEMORY
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from matching_platform.access import Access, LoginError, PasswordError, Role, passwords
from matching_platform.access.tables import USERS
from matching_platform_tests.access.people import HOME, PASSWORD, QUICK, add


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", "length"),
        ("elevenchars", "length"),
        ("x1y2" * 51, "length"),
        ("anna.kowalska", "name"),
        ("Anna-Kowalska-1984", "name"),
        ("annakowalska.annakowalska", "name"),
        ("123456789012", "common"),
        ("210987654321", "common"),
        ("aaaaaaaaaaaa", "common"),
        ("abababababab", "common"),
        ("Password1234", "common"),
        ("passwordpassword", "common"),
        ("P-a-s-s-w-o-r-d!", "common"),
        ("qwertyuiop12", "common"),
        ("Welcome2024!", "common"),
        ("correct-horse-battery-staple", "common"),
    ],
)
def test_what_is_refused(password: str, reason: str) -> None:
    with pytest.raises(PasswordError, match=r"choose another") as refused:
        passwords.check(password, "anna.kowalska@example.com")
    assert refused.value.reason == reason
    assert password == "" or password not in str(refused.value)


@pytest.mark.parametrize("password", ["twelve chars", "hasło, którego nikt nie zna", "8372 9165 0387 x", "x1y2z" * 40])
def test_what_is_taken(password: str) -> None:
    passwords.check(password, "anna")


def test_how_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    kept = passwords.hashed(PASSWORD)
    assert kept.startswith("$argon2id$")
    parameters = extract_parameters(kept)
    assert parameters.memory_cost >= RFC_9106_LOW_MEMORY.memory_cost
    assert parameters.time_cost >= RFC_9106_LOW_MEMORY.time_cost
    assert kept != passwords.hashed(PASSWORD)


@given(st.text(max_size=10), st.text(max_size=10))
def test_only_the_password_itself_is_right(chosen: str, typed: str) -> None:
    kept = passwords.hashed(chosen)
    assert passwords.verify(kept, chosen)
    assert passwords.verify(kept, typed) is (normalize("NFKC", chosen) == normalize("NFKC", typed))


def test_where_nothing_is_kept_nothing_is_right() -> None:
    assert not passwords.verify(None, "")
    assert not passwords.verify(None, PASSWORD)
    assert not passwords.verify("no hash", PASSWORD)


def test_every_login_hashes_once(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the time that an answer takes, nobody learns who is a user."""
    add(access, "anna")
    access.invite("bob", Role.READER, "root")
    add(access, "eve")
    access.set_active("eve", False, "root")
    passwords.verify(None, "")

    class Counting:
        hashes = 0

        def __getattr__(self, name: str) -> object:
            return getattr(QUICK, name)

        def verify(self, *given: str) -> bool:
            self.hashes += 1
            return QUICK.verify(*given)

    for name, password in [
        ("anna", "wrong"),
        ("anna", "x" * 5000),
        ("bob", ""),
        ("eve", PASSWORD),
        ("nobody", "wrong"),
    ]:
        counting = Counting()
        monkeypatch.setattr(passwords, "_HASHER", counting)
        with pytest.raises(LoginError, match="the name or the password is wrong"):
            access.login(name, password, HOME)
        assert counting.hashes == 1, name


def test_a_login_renews_a_hash_that_is_weaker_than_today(access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    add(access, "anna")

    def kept() -> str:
        with access.engine.connect() as connection:
            return str(connection.scalar(select(USERS.c.password)))

    before = kept()
    access.login("anna", PASSWORD, HOME)
    assert kept() == before
    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    session = access.login("anna", PASSWORD, HOME)
    assert extract_parameters(kept()).memory_cost == 16
    assert access.session(session)
    assert access.session(access.login("anna", PASSWORD, HOME))
