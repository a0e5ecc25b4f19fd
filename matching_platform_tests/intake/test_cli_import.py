"""`matching-platform import`: files are shown, asked for and taken; bad ones end with one line and exit code 2."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from matching_platform import cli
from matching_platform.access import Access
from matching_platform.environment import Platform, load

Command = Callable[..., tuple[int, str, str]]

BANK = """Buchungstag;Empfänger;Verwendungszweck;Betrag;Währung
01.02.2024;Müller;RE 1;-1.234,50;EUR
02.02.2024;Groß;RE 2;7,00;EUR
"""
CUT = """:20:X
:25:DE89370400440532013000
:28C:7
:60F:C240301EUR100,00
:61:2403050305C10,00NTRFNONREF//B1
:62F:C240331EUR120,00
-
"""
INVOICES = 'Invoice number,Customer,Invoice date,Gross\n1,Acme,03/04/2024,"1,234"\nTotal,,,"1,234"\n'


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `import` in a folder of its own; its exit code, and what it said on both channels."""
    monkeypatch.setenv("MATCHING_PLATFORM_WAREHOUSE", str(tmp_path / "w.duckdb"))
    monkeypatch.setenv("MATCHING_PLATFORM_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["matching-platform", "import", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def months() -> dict[str, dict[str, str]]:
    return Platform(load()).warehouse.months()


def audited() -> list[tuple[str, str, str, str]]:
    """The audit log: who, what, which file, from where."""
    platform = Platform(load())
    entries = Access(platform.database, platform.settings.desk).audit()
    return [(one.actor, one.action, one.about.split()[0], one.address) for one in entries]


def test_a_file_is_shown_and_taken(command: Command, tmp_path: Path) -> None:
    (tmp_path / "bank.csv").write_text(BANK)
    code, said, _ = command("bank.csv", "--dry-run")
    assert code == 0
    assert "bank.csv: CSV, 2 transfers" in said
    assert "title ← Verwendungszweck" in said
    assert "2 new, 0 there already; months 2024-02" in said
    assert "1,234.50" in said
    assert "Nothing was taken." in said
    assert not (tmp_path / "w.duckdb").exists()
    code, said, _ = command("bank.csv", "--yes", "--actor", "Ada")
    assert (code, "bank.csv: 2 of 2 transfers are new." in said) == (0, True)
    assert list(months()["transfers"]) == ["2024-02"]
    assert audited() == [("Ada", "imported", "bank.csv", "")]
    code, said, _ = command("bank.csv", "--yes")
    assert code == 0
    assert "by Ada as 'bank.csv'" in said
    assert "There is nothing to take." in said
    assert len(audited()) == 1


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("", 2)])
def test_it_asks(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int) -> None:
    (tmp_path / "bank.csv").write_text(BANK)
    (tmp_path / "answer").write_text(answer)
    with (tmp_path / "answer").open() as given:
        monkeypatch.setattr("sys.stdin", given)
        assert command("bank.csv")[0] == code
    assert (tmp_path / "w.duckdb").exists() == (code == 0)


def test_options_say_what_the_file_does_not(command: Command, tmp_path: Path) -> None:
    (tmp_path / "sales.csv").write_text(INVOICES)
    code, _, told = command("sales.csv", "--yes")
    assert (code, told.count("\n")) == (2, 1)
    assert "nothing tells currency, direction of these invoices" in told
    assert "(--currency, --direction)" in told
    given = ["--currency", "EUR", "--direction", "sale"]
    assert "'1,234' can be two amounts" in command("sales.csv", *given, "--dates", "DMY", "--yes")[2]
    assert "can be two dates" in command("sales.csv", *given, "--decimal", ".", "--yes")[2]
    code, said, _ = command("sales.csv", *given, "--decimal", ".", "--dates", "DMY", "--yes")
    assert code == 0
    assert "left out: row 3: has no date (Total 1,234)" in said
    assert list(months()["invoices"]) == ["2024-04"]
    (tmp_path / "later.csv").write_text(INVOICES.replace("\n1,", "\n2,"))
    code, said, _ = command("later.csv", "--yes")
    assert (code, "1 of 1 invoices are new" in said, "proposed" in said) == (0, True, False)


def test_columns_can_be_mapped_by_hand(command: Command, tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text("A;B;C;D\n2024-02-01;5,00;INV;1\n")
    given = [
        "--table",
        "transfers",
        "--currency",
        "EUR",
        "--direction",
        "in",
        "--map",
        "booked_on=A",
        "--map",
        "amount=B",
    ]
    code, said, _ = command("odd.csv", *given, "--map", "title=C", "--map", "title=D", "--yes")
    assert code == 0
    assert "INV 1" in said


def test_bad_files_end_before_any_is_taken(command: Command, tmp_path: Path) -> None:
    (tmp_path / "bank.csv").write_text(BANK)
    (tmp_path / "bad.xml").write_text("<Invoice>")
    code, _, told = command("bank.csv", "bad.xml", "--yes")
    assert (code, told.count("\n")) == (2, 1)
    assert told.startswith("error: bad.xml: ")
    assert not (tmp_path / "w.duckdb").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.csv"], "none.csv is not there; name a file"),
        (["."], ". is a folder; name the files in it, such as ./*"),
        (["bank.csv", "--map", "title"], "--map title names no header"),
        (["bank.csv", "--map", "title=Nothing"], "no column is called 'Nothing'"),
        (["bank.csv", "--dates", "YDM"], "--dates YDM is unknown; there are DMY, MDY, YMD"),
        (["bank.csv", "--table", "matches"], "--table matches is unknown"),
        (["bank.csv", "--direction", "up"], "--direction up is unknown"),
        (["bank.csv", "--currency", "EURO"], "'EURO' is not an ISO 4217 currency"),
    ],
)
def test_one_line_for_what_is_wrong(command: Command, tmp_path: Path, arguments: list[str], told: str) -> None:
    (tmp_path / "bank.csv").write_text(BANK)
    code, _, said = command(*arguments)
    assert (code, said.count("\n")) == (2, 1)
    assert told in said


def test_a_statement_that_does_not_add_up_is_taken_only_knowingly(command: Command, tmp_path: Path) -> None:
    (tmp_path / "bank.csv").write_text(BANK)
    (tmp_path / "cut.sta").write_text(CUT)
    told = "statement 7 of DE89370400440532013000 does not add up: 100.00 and 1 entries come to 110.00"
    code, said, _ = command("cut.sta", "--dry-run")
    assert (code, f"warning: {told}" in said) == (0, True)
    code, _, said = command("bank.csv", "cut.sta", "--yes")
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith(f"error: cut.sta: {told}")
    assert said.endswith("10.00 away; export it again, or take it knowingly with --unbalanced\n")
    assert not (tmp_path / "w.duckdb").exists(), "nothing was taken"
    assert command("bank.csv", "cut.sta", "--yes", "--unbalanced")[0] == 0
    assert list(months()["transfers"]) == ["2024-02", "2024-03"]


def test_months_that_will_not_be_seen_are_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text(BANK.replace("2024", "2019"))
    for option in ("--dry-run", "--yes"):
        assert "2019-02 lies outside 2024-01 to 2024-12 and will not be seen" in command("old.csv", option)[1]
