"""A session ends: at logout, after a while, after a longer while without a request, or when its user changes."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from sqlalchemy import select

from matching_platform.access import Access, LoginError, Role, User
from matching_platform.access.log import Event
from matching_platform.access.settings import DeskSettings
from matching_platform.access.tables import METADATA, SESSIONS
from matching_platform.database import connect
from matching_platform_tests.access.people import HOME, OTHER, PASSWORD, Clock, add, lines, opened

LIMITS = DeskSettings(session_hours=2, idle_minutes=30)


def kept_sessions(access: Access) -> list[Any]:
    with access.engine.connect() as connection:
        return list(connection.execute(select(SESSIONS)))


def test_it_ends_after_a_while(tmp_path: Path, clock: Clock) -> None:
    access = opened(tmp_path, clock, settings=LIMITS)
    add(access, "anna")
    key = access.login("anna", PASSWORD, HOME)
    for _ in range(11):
        clock.move(minutes=10)
        assert access.session(key) == User("anna", Role.READER)
    clock.move(minutes=9, seconds=59)
    assert access.session(key)
    clock.move(seconds=1)
    assert access.session(key) is None
    access.engine.dispose()


def test_it_ends_without_a_request(tmp_path: Path, clock: Clock) -> None:
    access = opened(tmp_path, clock, settings=LIMITS)
    add(access, "anna")
    key = access.login("anna", PASSWORD, HOME)
    clock.move(minutes=29)
    assert access.session(key)
    clock.move(minutes=29)
    assert access.session(key)
    clock.move(minutes=30)
    assert access.session(key) is None
    access.engine.dispose()


def test_a_request_is_written_once_a_minute(access: Access, clock: Clock) -> None:
    add(access, "anna")
    key = access.login("anna", PASSWORD, HOME)
    (before,) = kept_sessions(access)
    clock.move(seconds=59)
    assert access.session(key)
    assert kept_sessions(access) == [before]
    clock.move(seconds=1)
    assert access.session(key)
    assert kept_sessions(access)[0].seen == clock.now


def test_it_outlives_a_restart(access: Access, clock: Clock, tmp_path: Path) -> None:
    add(access, "anna")
    key, form = access.login("anna", PASSWORD, HOME), access.form_token("anna")
    again = opened(tmp_path, clock)
    assert again.session(key) == User("anna", Role.READER)
    assert again.form_token("anna") == form
    again.engine.dispose()


def test_every_login_has_a_key_of_its_own(access: Access) -> None:
    add(access, "anna")
    keys = {access.login("anna", PASSWORD, HOME) for _ in range(3)}
    assert len(keys) == 3
    access.logout(keys.pop(), HOME)
    assert [access.session(key) for key in keys] == [User("anna", Role.READER)] * 2
    assert lines(access)[-1] == ("anna", Event.LOGOUT, "anna", HOME)


@pytest.mark.parametrize("key", ["", "unknown", "\0", "ż", "\udcff", "x" * 100_000])
def test_what_is_no_key(access: Access, key: str) -> None:
    assert access.session(key) is None
    access.logout(key)
    assert access.invited(key) is None
    assert access.bearer(key) is None
    assert lines(access) == []


def test_nothing_secret_is_kept(access: Access, tmp_path: Path) -> None:
    add(access, "anna")
    shown = [
        access.login("anna", PASSWORD, HOME),
        access.renew("anna", "root"),
        access.issue_token("erp", Role.READER, "root"),
        PASSWORD,
    ]
    with access.engine.connect() as connection:
        kept = str([connection.execute(select(table)).all() for table in METADATA.sorted_tables])
    assert not [one for one in shown if one in kept]


def test_what_ended_is_cleared_at_the_next_login(access: Access, clock: Clock) -> None:
    add(access, "anna")
    access.login("anna", PASSWORD, HOME)
    clock.move(hours=13)
    access.login("anna", PASSWORD, HOME)
    assert len(kept_sessions(access)) == 1


def test_forms_are_bound_to_whom_they_are_for(access: Access, tmp_path: Path) -> None:
    elsewhere = Access(connect(f"sqlite:///{tmp_path / 'other.sqlite'}"))
    tokens = {access.form_token("anna"), access.form_token("bob"), elsewhere.form_token("anna")}
    assert len(tokens) == 3
    elsewhere.engine.dispose()


class Sessions(RuleBasedStateMachine):
    """Two people log in and out, forget and are changed, in any order: who is in is who should be."""

    keys = Bundle("keys")
    names = st.sampled_from(["anna", "bob"])

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.access = Access(connect("sqlite://"), LIMITS, self.clock)
        self.passwords = dict.fromkeys(("anna", "bob"), PASSWORD)
        self.users = {name: User(add(self.access, name), Role.READER) for name in self.passwords}
        # What should be in: by key, whose it is, when it began and when it was last seen.
        self.open: dict[str, tuple[str, Any, Any]] = {}

    @rule(target=keys, name=names, right=st.booleans())
    def log_in(self, name: str, right: bool) -> Any:
        password = self.passwords[name] if right else "wrong"
        try:
            key = self.access.login(name, password, HOME)
        except LoginError:
            return multiple()
        assert right
        assert self.users[name].active
        assert key not in self.open
        self.open[key] = (name, self.clock.now, self.clock.now)
        return key

    @rule(key=consumes(keys))
    def log_out(self, key: str) -> None:
        self.access.logout(key)
        self.open.pop(key, None)

    @rule(key=keys)
    def use(self, key: str) -> None:
        found = self.access.session(key)
        known = self._known(key)
        assert found == (self.users[known[0]] if known else None)
        if known:
            self.open[key] = (*known[:2], self.clock.now)

    @rule(name=names, role=st.sampled_from(Role))
    def give_role(self, name: str, role: Role) -> None:
        self.access.set_role(name, role, "root")
        self._changed(name, User(name, role, self.users[name].active))

    @rule(name=names, active=st.booleans())
    def activate(self, name: str, active: bool) -> None:
        self.access.set_active(name, active, "root")
        self._changed(name, User(name, self.users[name].role, active))

    @rule(name=names, password=st.sampled_from([PASSWORD, OTHER]))
    def choose_password(self, name: str, password: str) -> None:
        if self.users[name].active:
            self.access.welcome(self.access.renew(name, "root"), password)
            self.passwords[name] = password
            self._end(name)

    @rule(minutes=st.sampled_from([1, 10, 29, 30, 60]))
    def wait(self, minutes: int) -> None:
        self.clock.move(minutes=minutes)

    @invariant()
    def no_more_is_kept_than_is_open(self) -> None:
        if hasattr(self, "access"):
            assert len(kept_sessions(self.access)) <= len(self.open)

    def teardown(self) -> None:
        if hasattr(self, "access"):
            self.access.engine.dispose()

    def _known(self, key: str) -> Any:
        if key not in self.open:
            return None
        _, started, seen = self.open[key]
        over = (self.clock.now - started).total_seconds() >= 7200 or (self.clock.now - seen).total_seconds() >= 1800
        return None if over else self.open[key]

    def _changed(self, name: str, user: User) -> None:
        if user != self.users[name]:
            self.users[name] = user
            self._end(name)

    def _end(self, name: str) -> None:
        self.open = {key: held for key, held in self.open.items() if held[0] != name}


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
