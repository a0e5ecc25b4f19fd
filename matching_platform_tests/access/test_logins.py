"""Failed logins are counted in the database: the next one waits, longer each time, whoever and wherever counts."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from matching_platform.access import Access, LoginError, TooManyError
from matching_platform.access.attempts import FIRST_WAIT, FREE, LONGEST_WAIT, wait_after
from matching_platform.access.tables import ATTEMPTS
from matching_platform_tests.access.people import HOME, PASSWORD, Clock, add, lines, opened

NAME, ADDRESS = FREE["name"], FREE["address"]


def fail(access: Access, name: str = "anna", address: str = HOME, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(LoginError, match="the name or the password is wrong"):
            access.login(name, "wrong", address)


def waits(access: Access, name: str = "anna", address: str = HOME, password: str = PASSWORD) -> int:
    with pytest.raises(TooManyError) as refused:
        access.login(name, password, address)
    return refused.value.wait


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0), (4, 0), (5, 30), (6, 60), (7, 120), (9, 480), (10, 900), (11, 900), (10_000, 900)]
)
def test_waits_double_up_to_a_limit(failures: int, seconds: int) -> None:
    assert wait_after("name:", failures) == timedelta(seconds=seconds)


@pytest.mark.parametrize("name", ["anna", "nobody"])
def test_whoever_fails_too_often_waits_whether_he_is_known_or_not(access: Access, clock: Clock, name: str) -> None:
    add(access, "anna")
    fail(access, name, times=NAME)
    assert waits(access, name) == FIRST_WAIT.total_seconds()
    clock.move(seconds=29)
    assert waits(access, name) == 1
    clock.move(seconds=1)
    fail(access, name)
    assert waits(access, name) == 2 * FIRST_WAIT.total_seconds()


def test_who_waits_is_not_counted_again(access: Access, clock: Clock) -> None:
    add(access, "anna")
    fail(access, times=NAME)
    for _ in range(50):
        waits(access)
    clock.move(seconds=FIRST_WAIT.total_seconds())
    assert access.login("anna", PASSWORD, HOME)
    fail(access, times=NAME)
    assert waits(access) == FIRST_WAIT.total_seconds()


def test_a_name_is_guarded_from_everywhere(access: Access) -> None:
    add(access, "anna")
    for number in range(NAME):
        fail(access, address=f"10.0.0.{number}")
    assert waits(access, address="10.9.9.9")


def test_an_address_is_held_to_a_limit_over_all_names(access: Access, clock: Clock) -> None:
    add(access, "anna")
    add(access, "bob")
    for number in range(ADDRESS - 1):
        fail(access, f"name{number}")
    assert access.login("bob", PASSWORD, HOME)
    fail(access, "one-more")
    assert waits(access, "bob") == FIRST_WAIT.total_seconds()
    assert access.login("bob", PASSWORD, "10.7.7.7")


def test_an_address_that_everybody_shares_is_not_counted(access: Access) -> None:
    """Else outsiders hold the login shut for all; each name keeps its limit."""
    add(access, "anna")
    for number in range(2 * ADDRESS):
        with pytest.raises(LoginError, match="wrong"):
            access.login(f"name{number}", "wrong", HOME, shared=True)
    for _ in range(NAME):
        assert access.login("anna", PASSWORD, HOME, shared=True)
        with pytest.raises(LoginError, match="wrong"):
            access.login("bob", "wrong", HOME, shared=True)
    with pytest.raises(TooManyError):
        access.login("bob", "wrong", HOME, shared=True)
    fail(access)


def test_a_customer_of_ipv6_has_one_address(access: Access) -> None:
    for number in range(ADDRESS):
        fail(access, f"name{number}", f"2001:db8:1:2::{number:x}")
    assert waits(access, "another", "2001:db8:1:2:ffff::1")
    fail(access, "another", "2001:db8:1:3::1")


def test_own_logins_do_not_forgive_guesses_of_others(access: Access) -> None:
    add(access, "anna")
    add(access, "eve")
    for number in range(ADDRESS):
        fail(access, f"name{number}")
        if number < ADDRESS - 1:
            access.login("eve", PASSWORD, HOME)
    assert waits(access, "eve")


def test_a_day_forgets(access: Access, clock: Clock) -> None:
    fail(access, times=NAME)
    clock.move(seconds=LONGEST_WAIT.total_seconds())
    fail(access)
    clock.move(days=1, seconds=1)
    fail(access, times=NAME)
    with access.engine.connect() as connection:
        assert set(connection.scalars(select(ATTEMPTS.c.failures))) == {NAME}


def test_it_outlives_a_restart(access: Access, clock: Clock, tmp_path: Path) -> None:
    fail(access, times=NAME)
    again = opened(tmp_path, clock)
    assert waits(again) == FIRST_WAIT.total_seconds()
    again.engine.dispose()


def test_many_at_once_are_no_way_around(access: Access) -> None:
    add(access, "anna")

    def guess(number: int) -> type[Exception]:
        with pytest.raises(LoginError) as refused:
            access.login("anna", f"guess {number}", f"10.0.1.{number}")
        return refused.type

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(guess, range(24)))
    assert found.count(LoginError) == NAME
    assert found.count(TooManyError) == 24 - NAME


GUESSER = """
import sys
from matching_platform.access import Access, TooManyError, LoginError
from matching_platform.database import connect

access, looked_at = Access(connect(sys.argv[1])), 0
for number in range(10):
    try:
        access.login("anna", f"guess {number}", sys.argv[2])
    except TooManyError:
        continue
    except LoginError:
        looked_at += 1
print(looked_at)
"""


def test_processes_count_together(access: Access) -> None:
    add(access, "anna")
    command = [sys.executable, "-c", GUESSER, str(access.engine.url)]
    guessing = [
        subprocess.Popen([*command, f"10.0.2.{number}"], stdout=subprocess.PIPE, text=True) for number in range(2)
    ]
    looked_at = [int(one.communicate(timeout=120)[0]) for one in guessing]
    assert sum(looked_at) == NAME


def test_no_typed_name_is_kept(access: Access) -> None:
    """Somebody types his password where the name belongs."""
    fail(access, "my secret password")
    with access.engine.connect() as connection:
        kept = str(connection.execute(select(ATTEMPTS)).all())
    assert "secret" not in kept + str(lines(access))


def test_what_is_written_of_it(access: Access, clock: Clock) -> None:
    add(access, "anna")
    fail(access, times=NAME)
    for _ in range(10):
        waits(access)
    clock.move(minutes=61)
    access.login("anna", PASSWORD, HOME)
    assert lines(access)[2:] == [
        *[("", "login refused", "anna", HOME)] * NAME,
        ("", "login delayed", "anna", HOME),
        ("anna", "login", "anna", HOME),
    ]


def test_guesses_at_names_that_nobody_has_fill_no_log(access: Access, clock: Clock) -> None:
    for number in range(ADDRESS):
        fail(access, f"name{number}")
    assert lines(access) == [("", "login refused", "", HOME)]
    clock.move(hours=1)
    fail(access, "another")
    assert len(lines(access)) == 2
