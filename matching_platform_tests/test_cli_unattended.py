"""The commands that freeze, lift and set a threshold: what they say, record and refuse."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from matching_platform import cli
from matching_platform.environment import Platform, load
from matching_platform.store.registry import MODELS
from matching_platform.store.unattended import NEVER, Permission, Unattended

Command = Callable[..., tuple[int, str, str]]

OWN = 0.95


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A store with a champion that books from OWN on by itself."""
    monkeypatch.setenv("MATCHING_PLATFORM_WAREHOUSE", str(tmp_path / "w.duckdb"))
    monkeypatch.setenv("MATCHING_PLATFORM_STORE", str(tmp_path / "store"))
    platform, folder = Platform(load()), tmp_path / "model"
    folder.mkdir()
    (folder / "calibration.json").write_text(json.dumps({"auto_from": OWN}))
    (folder / "card.json").write_text(json.dumps({"trained_until": "2024-03"}))
    model = platform.store.put(MODELS, folder)
    evaluation = platform.store.put_bytes("evaluations", "figures.json", b"{}")
    platform.registry.promote(model, evaluation, "Ada", "the first one")
    return platform


@pytest.fixture
def command(platform: Platform, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command; its exit code, and what it said on both channels."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["matching-platform", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_freeze_and_lift(command: Command, platform: Platform) -> None:
    name = platform.registry.champion().model.name
    assert command("unattended")[:2] == (0, f"Automation is not frozen.\nThe champion {name} books from 0.95 on.\n")
    assert command("freeze", "--reason", "odd bookings", "--actor", "Ada")[0] == 0
    assert command("freeze", "--reason", "a strange month", "--actor", "Bob")[0] == 0
    code, said, _ = command("unattended")
    assert code == 0
    assert "Automation is frozen since" in said
    assert "by Ada (odd bookings) and" in said
    assert f"The champion {name} books nothing (its own threshold: 0.95)." in said
    assert "a strange month" in said
    assert "Nothing is promoted: automation is frozen" in command("models", "list")[1]
    code, said, _ = command("unfreeze", "--reason", "seen to")
    assert (code, said.count("Lifted: ")) == (0, 2)
    assert "Nothing is promoted" not in command("models", "list")[1]
    assert platform.unattended.permission().frozen is None
    code, _, told = command("unfreeze", "--reason", "again")
    assert (code, told.count("\n")) == (2, 1)
    assert "nothing is frozen" in told


def test_a_threshold_by_hand(command: Command, platform: Platform) -> None:
    name = platform.registry.champion().model.name
    code, said, _ = command("unattended", "--book-from", "0.999", "--reason", "audit", "--actor", "Ada")
    assert code == 0
    assert f"The champion {name} books from 0.999 on (its own threshold: 0.95)." in said
    assert "Raised for" not in said, "that is said already"
    assert platform.unattended.permission().auto_from(name, OWN) == 0.999
    code, said, _ = command("unattended", "--book-from", "own", "--reason", "audit is over")
    assert code == 0
    assert f"The champion {name} books from 0.95 on." in said
    assert [change.auto_from for change in platform.unattended.history()] == [0.999, None]


@pytest.mark.parametrize("wanted", ["0.99999", "0.99805"])
def test_a_threshold_is_shown_with_all_its_places(command: Command, wanted: str) -> None:
    code, said, _ = command("unattended", "--book-from", wanted, "--reason", "audit")
    assert (code, said.count(f"books from {wanted} on")) == (0, 2), "in force, and in the history"


def test_what_is_in_force_already_is_not_recorded_again(command: Command, platform: Platform) -> None:
    first = command("unattended", "--book-from", "0.999", "--reason", "audit", "--actor", "Ada")[1]
    assert "nothing was recorded" not in first
    code, said, _ = command("unattended", "--book-from", "0.999", "--reason", "another audit", "--actor", "Bob")
    assert code == 0
    (change,) = platform.unattended.history()
    assert f"already in force since {change.signed}; nothing was recorded." in said


def test_thresholds_that_the_champions_line_does_not_tell_are_told(command: Command, platform: Platform) -> None:
    name = platform.registry.champion().model.name
    platform.unattended.book_from(name, 0.999, actor="Ada", reason="doubts")
    platform.unattended.book_from("another", NEVER, actor="platform", reason="it is bad")
    said = command("unattended")[1]
    assert "Raised for another: it books nothing.\n" in said
    assert f"Raised for {name}" not in said
    platform.unattended.freeze(actor="Ada", reason="odd bookings")
    assert f"Raised for {name}: it books from 0.999 on at the earliest.\n" in command("unattended")[1]


def test_a_freeze_that_came_after_the_look_is_not_lifted(
    command: Command, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.unattended.freeze(actor="Ada", reason="odd bookings")
    look, late = Unattended.permission, ["a strange month"]

    def and_then_bob(record: Unattended) -> Permission:
        seen = look(record)
        while late:
            record.freeze(actor="Bob", reason=late.pop())
        return seen

    monkeypatch.setattr(Unattended, "permission", and_then_bob)
    code, said, told = command("unfreeze", "--reason", "seen to")
    assert (code, said) == (2, "")
    assert "by Bob (a strange month)" in told
    assert len(platform.unattended.permission().freezes) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--book-from", "0.9", "--reason", "r"], "books from 0.95 on by itself"),
        (["--book-from", "0.95", "--reason", "r"], "books from 0.95 on by itself"),
        (["--book-from", "0.97", "--reason", "r"], "books from 0.99 on since"),
        (["--book-from", "1.1", "--reason", "r"], "'1.1' is no confidence to book from"),
        (["--book-from", "99%", "--reason", "r"], "'99%' is no confidence to book from"),
        (["--book-from", "nan", "--reason", "r"], "'nan' is no confidence to book from"),
        (["--book-from", "0.999"], "needs a --reason"),
        (["--book-from", "0.999", "--reason", " "], "the reason is empty"),
        (["--reason", "r"], "go with --book-from"),
    ],
)
def test_what_makes_no_sense_is_refused(command: Command, platform: Platform, arguments: list[str], told: str) -> None:
    platform.unattended.book_from(platform.registry.champion().model.name, 0.99, actor="Ada", reason="doubts")
    code, _, said = command("unattended", *arguments)
    assert (code, said.count("\n")) == (2, 1)
    assert told in said
    assert len(platform.unattended.history()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["freeze"], "Missing option '--reason'"),
        (["freeze", "--reason", ""], "the reason is empty"),
        (["unattended", "--book-from", "own", "--reason", "r"], "no threshold of"),
    ],
)
def test_a_change_that_cannot_be_made_is_told_in_one_line(command: Command, arguments: list[str], told: str) -> None:
    code, _, said = command(*arguments)
    assert (code, said.count("\n")) == (2, 1)
    assert told in said


def test_without_a_champion_there_is_no_threshold_to_set(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATCHING_PLATFORM_STORE", str(tmp_path / "empty"))
    assert command("unattended")[1] == "Automation is not frozen.\n"
    code, _, said = command("unattended", "--book-from", "0.999", "--reason", "r")
    assert code == 2
    assert "there is no champion" in said


def test_the_doctor_shows_a_freeze_and_does_not_mind(command: Command, platform: Platform) -> None:
    assert "automation: is not frozen" in command("doctor")[1]
    platform.unattended.freeze(actor="Ada", reason="odd bookings")
    (line,) = (line for line in command("doctor")[1].splitlines() if "automation" in line)
    assert line.startswith("ok")
    assert "by Ada (odd bookings)" in line
