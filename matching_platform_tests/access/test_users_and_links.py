"""Users come by a link that works once; what an admin changes holds at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from matching_platform.access import Access, AccessError, LoginError, PasswordError, Role, User
from matching_platform.access.log import Event
from matching_platform.access.users import name_given, role_given
from matching_platform_tests.access.people import HOME, OTHER, PASSWORD, Clock, add, lines


@pytest.mark.parametrize(
    ("has", "needs", "may"),
    [
        ("reader", "reader", True),
        ("reader", "booker", False),
        ("reader", "admin", False),
        ("booker", "reader", True),
        ("booker", "booker", True),
        ("booker", "admin", False),
        ("admin", "reader", True),
        ("admin", "booker", True),
        ("admin", "admin", True),
    ],
)
def test_each_role_may_what_those_before_it_may(has: str, needs: str, may: bool) -> None:
    assert Role(has).covers(Role(needs)) is may


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Anna", "anna"),
        (" anna.nowak@example.com ", "anna.nowak@example.com"),
        ("ŻANETA", "żaneta"),
        ("ａｎｎａ", "anna"),
        ("an\0na\n", "anna"),
        ("x" * 100, "x" * 100),
    ],
)
def test_names_that_differ_by_case_or_form_are_one(given: str, kept: str) -> None:
    assert name_given(given) == kept


@pytest.mark.parametrize("name", ["", " ", "anna nowak", "@anna", "token:erp", "a/b", "local", "Local", "x" * 101])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(AccessError, match="is no name"):
        name_given(name)


def test_what_is_no_role() -> None:
    with pytest.raises(AccessError, match="'boss' is no role; give one of reader, booker, admin"):
        role_given("boss")


def test_an_empty_desk_has_neither_user_nor_password(access: Access) -> None:
    assert access.users() == []
    assert not access.has_users()
    access.invite("anna", Role.ADMIN, "root")
    assert not access.has_users()


def test_a_user_chooses_his_password_by_the_link(access: Access, clock: Clock) -> None:
    key = access.invite("Anna", Role.BOOKER, "root")
    (account,) = access.users()
    assert (account.name, account.role, account.active, account.has_password) == ("anna", Role.BOOKER, True, False)
    assert account.invited_until is not None
    with pytest.raises(LoginError):
        access.login("anna", "", HOME)
    assert access.invited(key) == access.invited(key) == User("anna", Role.BOOKER)
    assert access.welcome(key, PASSWORD, HOME) == User("anna", Role.BOOKER)
    assert access.session(access.login("ANNA", PASSWORD, HOME)) == User("anna", Role.BOOKER)
    assert access.has_users()
    assert lines(access) == [
        ("root", "invited", "anna as booker", ""),
        ("", "login refused", "anna", HOME),
        ("anna", "password set", "anna", HOME),
        ("anna", "login", "anna", HOME),
    ]


def _used(access: Access, clock: Clock, key: str) -> None:
    access.welcome(key, PASSWORD)


def _too_old(access: Access, clock: Clock, key: str) -> None:
    clock.move(hours=24)


def _replaced(access: Access, clock: Clock, key: str) -> None:
    access.renew("anna", "root")


def _deactivated(access: Access, clock: Clock, key: str) -> None:
    access.set_active("anna", False, "root")


def _deactivated_for_a_while(access: Access, clock: Clock, key: str) -> None:
    access.set_active("anna", False, "root")
    access.set_active("anna", True, "root")


@pytest.mark.parametrize("happens", [_used, _too_old, _replaced, _deactivated, _deactivated_for_a_while])
def test_a_link_is_good_once_and_for_a_day(
    access: Access, clock: Clock, happens: Callable[[Access, Clock, str], None]
) -> None:
    key = access.invite("anna", Role.READER, "root")
    happens(access, clock, key)
    assert access.invited(key) is None
    with pytest.raises(AccessError, match="ask an admin for a new one"):
        access.welcome(key, OTHER, HOME)
    assert lines(access)[-1] == ("", Event.LINK_REFUSED, "", HOME)


def test_a_password_that_is_refused_does_not_use_the_link_up(access: Access) -> None:
    key = access.invite("anna", Role.READER, "root")
    with pytest.raises(PasswordError):
        access.welcome(key, "short")
    assert access.welcome(key, PASSWORD).name == "anna"


def test_of_many_who_use_a_link_at_once_one_succeeds(access: Access) -> None:
    key = access.invite("anna", Role.READER, "root")
    chosen = [f"{PASSWORD} number {number}" for number in range(8)]

    def use(password: str) -> str | None:
        try:
            access.welcome(key, password)
        except AccessError:
            return None
        return password

    with ThreadPoolExecutor(8) as threads:
        (set_by,) = [password for password in threads.map(use, chosen) if password]
    assert access.session(access.login("anna", set_by, HOME))
    assert [action for _, action, _, _ in lines(access)].count("password set") == 1


def test_a_new_link_leaves_the_old_password_until_it_is_used(access: Access) -> None:
    add(access, "anna")
    key = access.renew("anna", "root")
    session = access.login("anna", PASSWORD, HOME)
    access.welcome(key, OTHER)
    assert access.session(session) is None
    with pytest.raises(LoginError):
        access.login("anna", PASSWORD, HOME)
    assert access.session(access.login("anna", OTHER, HOME))


def test_whoever_is_deactivated_is_out_at_once(access: Access) -> None:
    add(access, "anna")
    session = access.login("anna", PASSWORD, HOME)
    access.set_active("Anna", False, "bob", HOME)
    assert access.session(session) is None
    with pytest.raises(LoginError):
        access.login("anna", PASSWORD, HOME)
    assert not access.has_users()
    with pytest.raises(AccessError, match="'anna' is deactivated; activate him first"):
        access.renew("anna", "bob")
    access.set_active("anna", True, "bob", HOME)
    assert access.session(session) is None
    assert access.session(access.login("anna", PASSWORD, HOME))
    assert ("bob", "deactivated", "anna", HOME) in lines(access)
    assert ("bob", "activated", "anna", HOME) in lines(access)


def test_another_role_ends_sessions(access: Access) -> None:
    add(access, "anna")
    session = access.login("anna", PASSWORD, HOME)
    access.set_role("anna", Role.READER, "bob")
    assert access.session(session) == User("anna", Role.READER)
    access.set_role("anna", Role.ADMIN, "bob")
    assert access.session(session) is None
    assert access.session(access.login("anna", PASSWORD, HOME)) == User("anna", Role.ADMIN)
    assert lines(access)[-2] == ("bob", "role changed", "anna: reader to admin", "")


@pytest.mark.parametrize(
    "does",
    [
        lambda access: access.renew("nobody", "root"),
        lambda access: access.set_role("nobody", Role.ADMIN, "root"),
        lambda access: access.set_active("nobody", False, "root"),
    ],
)
def test_whoever_is_unknown_is_named(access: Access, does: Callable[[Access], None]) -> None:
    with pytest.raises(AccessError, match="there is no user 'nobody'; invite him first"):
        does(access)


def test_a_name_is_given_once(access: Access) -> None:
    access.invite("anna", Role.READER, "root")
    with pytest.raises(AccessError, match="there is a user 'anna' already"):
        access.invite("Anna", Role.ADMIN, "root")
    assert [one.role for one in access.users()] == [Role.READER]


def test_people_of_a_proxy_are_remembered(access: Access) -> None:
    assert access.proxied("Anna@example.com", Role.READER, HOME) == User("anna@example.com", Role.READER)
    assert access.proxied("anna@example.com", Role.BOOKER, HOME) == User("anna@example.com", Role.BOOKER)
    assert access.proxied("anna@example.com", None, HOME) is None
    access.set_active("anna@example.com", False, "root")
    assert access.proxied("anna@example.com", Role.ADMIN, HOME) is None
    assert [(one.role, one.has_password) for one in access.users()] == [(Role.BOOKER, False)]
    assert [line[1:3] for line in lines(access)] == [
        ("first seen through the proxy", "anna@example.com as reader"),
        ("role changed", "anna@example.com: reader to booker"),
        ("refused through the proxy", "anna@example.com"),
        ("deactivated", "anna@example.com"),
    ]
