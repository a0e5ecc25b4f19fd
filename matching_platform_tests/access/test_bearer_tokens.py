"""Tokens of programs: shown once, revoked at once."""

import pytest

from matching_platform.access import Access, AccessError, Role, User
from matching_platform_tests.access.people import HOME, Clock, lines


def test_a_token_is_good_until_it_is_revoked(access: Access, clock: Clock) -> None:
    token = access.issue_token("ERP", Role.BOOKER, "anna", address=HOME)
    other = access.issue_token("bi", Role.READER, "anna", address=HOME)
    assert token.startswith("mp_")
    assert token != other
    clock.move(days=3000)
    assert access.bearer(token, HOME) == User("token:erp", Role.BOOKER)
    access.revoke_token("erp", "bob")
    assert access.bearer(token, HOME) is None
    assert access.bearer(token, HOME) is None
    assert access.bearer(other) == User("token:bi", Role.READER)
    assert lines(access) == [
        ("anna", "token issued", "erp as booker", HOME),
        ("anna", "token issued", "bi as reader", HOME),
        ("bob", "token revoked", "erp", ""),
        ("token:erp", "token refused", "erp", HOME),
    ]


def test_a_token_may_end_by_itself(access: Access, clock: Clock) -> None:
    token = access.issue_token("erp", Role.READER, "anna", days=7)
    clock.move(days=7, seconds=-1)
    assert access.bearer(token)
    clock.move(seconds=1)
    assert access.bearer(token) is None
    again = access.issue_token("erp", Role.READER, "anna", days=0.5)
    assert access.bearer(again)


@pytest.mark.parametrize("days", [0, -1, 4000, float("nan"), float("inf")])
def test_how_long_a_token_may_last(access: Access, days: float) -> None:
    with pytest.raises(AccessError, match="a token lasts more than 0 and at most 3660 days"):
        access.issue_token("erp", Role.READER, "anna", days)
    assert not access.any_token()


def test_a_name_is_of_one_good_token(access: Access, clock: Clock) -> None:
    first = access.issue_token("erp", Role.READER, "anna")
    with pytest.raises(AccessError, match="there is a token 'erp' already; revoke it first"):
        access.issue_token("Erp", Role.ADMIN, "anna")
    access.revoke_token("erp", "anna")
    clock.move(seconds=1)
    second = access.issue_token("erp", Role.BOOKER, "anna")
    assert access.bearer(first) is None
    assert access.bearer(second) == User("token:erp", Role.BOOKER)
    assert [(one.role, one.revoked is None) for one in access.tokens()] == [(Role.BOOKER, True), (Role.READER, False)]


@pytest.mark.parametrize("name", ["bi", "erp"])
def test_what_cannot_be_revoked(access: Access, name: str) -> None:
    access.issue_token("erp", Role.READER, "anna")
    access.revoke_token("erp", "anna")
    with pytest.raises(AccessError, match=f"there is no token '{name}' that could be revoked"):
        access.revoke_token(name, "anna")


def test_one_that_was_ever_issued_is_remembered(access: Access) -> None:
    assert not access.any_token()
    access.issue_token("erp", Role.READER, "anna")
    access.revoke_token("erp", "anna")
    assert access.any_token()


def test_when_it_was_last_used(access: Access, clock: Clock) -> None:
    token = access.issue_token("erp", Role.READER, "anna")
    assert access.tokens()[0].last_used is None
    used = clock.now
    access.bearer(token)
    clock.move(seconds=59)
    access.bearer(token)
    assert access.tokens()[0].last_used == used
    clock.move(seconds=1)
    access.bearer(token)
    assert access.tokens()[0].last_used == clock.now
