"""The commands on users, tokens and the audit log: what they say, do and refuse."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from matching_platform import cli
from matching_platform.access import Access, Role, User
from matching_platform.cli import shared
from matching_platform.environment import Platform, load
from matching_platform_tests.access.people import HOME, PASSWORD

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Access:
    """Those of the desk on which the commands work."""
    monkeypatch.setenv("MATCHING_PLATFORM_WAREHOUSE", str(tmp_path / "w.duckdb"))
    return Access(Platform(load()).database)


@pytest.fixture
def command(people: Access, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command; its exit code, and what it said on both channels."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["matching-platform", *arguments])
        # The console may have been made while another test had narrower columns.
        monkeypatch.setattr(shared.out, "_width", 200)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_the_first_admin(command: Command, people: Access) -> None:
    code, said, _ = command("users", "invite", "Anna", "--role", "admin", "--actor", "root")
    assert code == 0
    address, _, key = said.splitlines()[-1].partition("?key=")
    assert address == "http://127.0.0.1:3457/welcome"
    assert people.welcome(key, PASSWORD) == User("anna", Role.ADMIN)
    assert "anna" in command("users", "list")[1]


def test_a_lost_password(command: Command, people: Access) -> None:
    command("users", "invite", "anna", "--role", "reader")
    said = command("users", "link", "anna")[1]
    people.welcome(said.strip().partition("?key=")[2], PASSWORD)
    assert people.session(people.login("anna", PASSWORD, HOME))


def test_role_and_activity(command: Command, people: Access) -> None:
    people.invite("anna", Role.READER, "root")
    assert command("users", "role", "anna", "booker")[:2] == (0, "anna is booker from now on.\n")
    assert command("users", "deactivate", "anna")[0] == 0
    assert [(one.role, one.active) for one in people.users()] == [(Role.BOOKER, False)]
    assert "deactivated" in command("users", "list")[1]
    assert command("users", "activate", "anna")[0] == 0
    assert people.users()[0].active


def test_tokens(command: Command, people: Access) -> None:
    token = command("tokens", "issue", "erp", "--role", "booker", "--days", "30")[1].strip()
    assert people.bearer(token) == User("token:erp", Role.BOOKER)
    listed = command("tokens", "list")[1]
    assert "active" in listed
    assert token not in listed
    assert command("tokens", "revoke", "erp")[:2] == (0, "The token erp is revoked.\n")
    assert people.bearer(token) is None
    assert "revoked" in command("tokens", "list")[1]


def test_audit(command: Command, people: Access) -> None:
    people.note("anna", "decided", "T1", HOME)
    people.note("", "login refused", "bob", HOME)
    said = command("audit")[1].splitlines()
    assert [line.split()[0] for line in said[1:]] == ["1", "2"]
    assert "unknown" in said[2]
    assert [line.split()[0] for line in command("audit", "decided")[1].splitlines()[1:]] == ["1"]
    assert [line.split()[0] for line in command("audit", "--lines", "1")[1].splitlines()[1:]] == ["2"]


def test_what_is_listed_commands_no_terminal(command: Command, people: Access) -> None:
    people.note("anna", "import", "za\x1b[2Jpłata\n\u202e.csv", HOME)
    people.issue_token("erp", Role.READER, "root\x1b]0;x\x07")
    said = command("audit")[1] + command("tokens", "list")[1]
    assert r"za\x1b[2Jpłata\n\u202e.csv" in said
    assert r"root\x1b]0;x\x07" in said
    assert not {"\x1b", "\x07", "\u202e"} & set(said)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["users", "invite", "anna", "--role", "boss"], "'boss' is no role"),
        (["users", "invite", "an na", "--role", "reader"], "'an na' is no name"),
        (["users", "link", "anna"], "there is no user 'anna'; invite him first"),
        (["users", "role", "anna", "reader"], "there is no user 'anna'"),
        (["tokens", "revoke", "erp"], "there is no token 'erp'"),
        (["tokens", "issue", "erp", "--role", "reader", "--days", "0"], "a token lasts more than 0"),
    ],
)
def test_refusals_are_one_line(command: Command, arguments: list[str], told: str) -> None:
    code, said, error = command(*arguments)
    assert (code, said, error.count("\n")) == (2, "", 1)
    assert told in error


def test_where_a_proxy_logs_people_in_nobody_is_invited(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATCHING_PLATFORM_DESK__PROXY__ADDRESSES", '["10.0.0.0/8"]')
    code, _, error = command("users", "invite", "anna", "--role", "reader")
    assert code == 2
    assert "people log in at the proxy, MATCHING_PLATFORM_DESK__PROXY" in error


def test_a_database_that_cannot_be_used(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("no database " * 1000)
    wrong = {
        f"postgresql://desk:secret@/desk?host={tmp_path}": "No such file or directory",
        "mysql://desk:secret@db/desk": "mysql is not read here; the address of a database is sqlite:///PATH or",
        "garbage secret": "the address of a database is sqlite:///PATH or postgresql://USER@HOST/NAME",
        f"sqlite:///{tmp_path}/typo/desk.sqlite": f"{tmp_path}/typo, where desk.sqlite would lie, is not there",
        f"sqlite:///{tmp_path}/page.html": "file is not a database",
    }
    for address, told in wrong.items():
        monkeypatch.setenv("MATCHING_PLATFORM_DESK__DATABASE", address)
        for arguments in (["users", "list"], ["desk"]):
            code, said, error = command(*arguments)
            assert (code, said, error.count("\n")) == (2, "", 1)
            assert error.startswith("error: the desk's database: ")
            assert told in error
            assert error.endswith("; see MATCHING_PLATFORM_DESK__DATABASE\n")
            assert "secret" not in error
    assert not (tmp_path / "typo").exists()
