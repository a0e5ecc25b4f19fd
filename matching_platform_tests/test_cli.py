"""The commands of the contract, and one line for every error of input."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from matching_platform import cli
from matching_platform.cli import shared
from matching_platform.learning import tuning
from matching_platform.learning.split import SplitError
from matching_platform.ledger.months import month_of
from matching_platform.ledger.proposals import read_proposals, write_proposals
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import PROPOSALS
from matching_platform.matching.matcher import Matcher
from matching_platform.warehouse.duck import DuckWarehouse
from matching_platform.warehouse.warehouse import WarehouseError

RAW = ("invoices", "transfers", "matches", "audit")


@pytest.fixture
def data(tmp_path: Path, sample: dict[str, pl.DataFrame]) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in RAW:
        sample[name].write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="session")
def proposals(small_model: Path, sample: dict[str, pl.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """proposals.parquet of the last month, with the truth beside it."""
    folder = tmp_path_factory.mktemp("matched")
    for name in RAW:
        sample[name].write_csv(folder / f"{name}.csv")
    last = max(sample["transfers"].select(month_of("booked_on")).to_series())
    ran("match", folder, "--model", small_model, "--output", folder / "proposals.parquet", "--from", last)
    return folder / "proposals.parquet"


def ran(*arguments: object) -> str:
    """The output of a command that succeeds."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert result.exception is None
    return result.stdout


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """The one line that `main` ends with, at exit code 2."""
    monkeypatch.setattr(sys, "argv", ["matching-platform", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1, told
    return told[0]


# Commands


def test_train_writes_a_model_that_matches(data: Path, tmp_path: Path, small_ledger: Ledger) -> None:
    until = small_ledger.months()[1]
    said = ran("train", data, "--until", until, "--model", tmp_path / "model")
    assert f"trained until {until}" in said
    assert Matcher.load(tmp_path / "model").card["trained_until"] == until
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model"], "no checkpoint stays"


def test_what_tune_finds_is_what_train_takes(
    data: Path, tmp_path: Path, small_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "SPACE", {"pair_epochs": tuning.Span(2, 12, ""), "hidden": tuning.Span(8, 64, "")})
    until, settings = small_ledger.months()[1], tmp_path / "new" / "settings.json"
    study = ["--study", tmp_path / "study", "--output", settings]
    said = ran("tune", data, "--until", until, "--trials", 2, "--minutes", 10, *study)
    assert all(word in said for word in ("Score", "pair_epochs", "hidden", "default", "best"))
    assert f"--settings {settings}" in " ".join(said.split())
    again = ran("tune", data, "--until", until, "--trials", 2, "--minutes", 10, *study)
    assert again == said, "what is done is not done again"
    ran("train", data, "--until", until, "--model", tmp_path / "model", "--settings", settings)
    assert Matcher.load(tmp_path / "model").card["settings"] == json.loads(settings.read_text())


def test_match_without_months_takes_all_transfers(data: Path, tmp_path: Path, small_model: Path) -> None:
    output = tmp_path / "new" / "p.parquet"
    ran("match", data, "--model", small_model, "--output", output)
    raw = pl.read_parquet(output)
    assert raw.schema["amount"] == pl.Decimal(18, 2)
    assert set(raw["transfer_id"]) == set(pl.read_parquet(data / "transfers.parquet")["transfer_id"])


def test_match_takes_the_months_asked_for(proposals: Path, small_ledger: Ledger) -> None:
    last = small_ledger.transfers.filter(month_of("booked_on") == small_ledger.months()[-1])
    assert set(read_proposals(proposals)["transfer_id"]) == set(last["transfer_id"])


def test_backtest_writes_proposals_and_figures(data: Path, tmp_path: Path, small_ledger: Ledger) -> None:
    month, output = small_ledger.months()[2], tmp_path / "walk"
    ran("backtest", data, "--from", month, "--to", month, "--output", output)
    assert read_proposals(output / "proposals.parquet").schema == PROPOSALS
    assert pl.read_csv(output / "months.csv")["month"].to_list() == [month]
    booked = small_ledger.transfers.filter(month_of("booked_on") == month)
    figures = json.loads((output / "figures.json").read_text())["figures"]
    assert 0 < figures["transfers"] <= len(booked)


def test_evaluate_tells_people_and_machines_the_same(proposals: Path) -> None:
    truth = proposals.parent / "audit.csv"
    told = json.loads(ran("evaluate", proposals, "--truth", truth, "--json"))
    assert {"exact", "exact_paying", "f1", "stp_995", "ece", "amount_exact"} <= set(told["figures"])
    table = ran("evaluate", proposals, "--truth", truth)
    assert f"{told['figures']['exact_paying']:.4f}" in table
    assert "foreign" in table, "the breakdown by kind"
    assert f"{told['costs']['transfers_per_second']:,.0f}" in table.partition("What it cost")[2]


def test_explain_says_why(proposals: Path) -> None:
    for decision, words in (("auto", "booked unattended"), ("none", "settles nothing")):
        first = read_proposals(proposals).filter(decision=decision).row(0, named=True)
        for more in ([], ["--data", proposals.parent]):
            said = ran("explain", proposals, first["transfer_id"], *more)
            assert words in said
            assert first["evidence"][0].removeprefix("against: ") in " ".join(said.split())


def test_explain_reads_no_text_as_markup(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared.out, "_width", 200)
    odd = "[bold]7[/nothing] :key:"
    rename(data, "invoices", "invoice_id", "number", to=odd)
    rename(data, "transfers", "transfer_id", "title", to=odd)
    row = (odd, odd, None, 0.9, "review", [f"the number {odd}"])
    write_proposals(pl.DataFrame([row], schema=PROPOSALS, orient="row"), tmp_path / "p.parquet")
    said = ran("explain", tmp_path / "p.parquet", odd, "--data", data)
    assert said.count(odd) == 5, "transfer, title, invoice, number, evidence"


def test_load_fills_the_warehouse(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATCHING_PLATFORM_WAREHOUSE", str(tmp_path / "w.duckdb"))
    said = ran("load", data)
    transfers = pl.read_parquet(data / "transfers.parquet")
    months = transfers.select(month_of("booked_on")).to_series().unique().sort().to_list()
    assert all(word in said for word in (f"{len(transfers):,}", months[0], months[-1], "make dev"))
    assert list(DuckWarehouse(tmp_path / "w.duckdb").months()["transfers"]) == months


@pytest.mark.parametrize("complete", [True, False])
def test_demo_that_fell_short_ends_with_1(monkeypatch: pytest.MonkeyPatch, complete: bool) -> None:
    monkeypatch.setattr("matching_platform.demo.run", lambda console: complete)
    assert CliRunner().invoke(cli.app, ["demo"]).exit_code == int(not complete)


# Errors


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["matchh", "data"], "No such command 'matchh'. Did you mean 'match'?"),
        (["match", "--modle", "m"], "No such option: --modle"),
        (["match"], "Missing argument"),
        (["models", "lst"], "No such command 'lst'"),
    ],
)
def test_a_slip_of_the_fingers_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    assert told in refused(capsys, monkeypatch, *arguments)


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["matching-platform"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "doctor" in capsys.readouterr().out


def rename(folder: Path, table: str, *columns: str, to: str) -> None:
    """Puts `to` into `columns` of the first row, and takes away the matches, which would name it otherwise."""
    first = pl.int_range(pl.len()) == 0
    frame = pl.read_parquet(folder / f"{table}.parquet")
    frame.with_columns(pl.when(first).then(pl.lit(to)).otherwise(pl.col(columns)).name.keep()).write_parquet(
        folder / f"{table}.parquet"
    )
    pl.read_parquet(folder / "matches.parquet").head(0).write_parquet(folder / "matches.parquet")


def change(name: str, edit: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], object]:
    def edited(folder: Path) -> None:
        frame = pl.read_parquet(folder / f"{name}.parquet")
        (folder / f"{name}.parquet").unlink()
        edit(frame.with_columns(pl.all().cast(pl.String))).write_csv(folder / f"{name}.csv")

    return edited


def second(column: str, value: str | None) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """The second row's `column` becomes `value`."""
    put = pl.when(pl.int_range(pl.len()) == 1).then(pl.lit(value)).otherwise(pl.col(column))
    return lambda frame: frame.with_columns(put.alias(column))


@pytest.mark.parametrize(
    ("fault", "file", "told"),
    [
        (change("transfers", lambda t: t.drop("title")), "transfers.csv", "column title: the column is missing"),
        (change("invoices", second("currency", "EURO")), "invoices.csv", "row 2, column currency: 'EURO' is not"),
        (change("invoices", second("amount", "1.234,50")), "invoices.csv", "row 2, column amount: '1.234,50' is not"),
        (change("invoices", second("invoice_id", None)), "invoices.csv", "row 2, column invoice_id: is missing"),
        (change("transfers", lambda t: pl.concat([t, t.head(1)])), "transfers.csv", "appears more than once"),
        (change("transfers", second("booked_on", "31.12.2024")), "transfers.csv", "row 2, column booked_on"),
        (change("transfers", second("amount", "-5")), "transfers.csv", "row 2, column amount: '-5' is not above zero"),
        (change("matches", second("transfer_id", "ghost")), "matches.csv", "row 2, column transfer_id: 'ghost'"),
        (lambda folder: (folder / "matches.parquet").write_bytes(b"no"), "matches.parquet", "cannot be read"),
        (lambda folder: (folder / "invoices.parquet").unlink(), "data", "holds neither invoices.parquet nor"),
    ],
)
def test_bad_tables_end_with_one_line(
    data: Path,
    small_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[Path], object],
    file: str,
    told: str,
) -> None:
    fault(data)
    output = tmp_path / "p.parquet"
    line = refused(capsys, monkeypatch, "match", data, "--model", small_model, "--output", output)
    assert file in line
    assert told in line
    assert not output.exists()


REQUESTS: list[tuple[list[str], str]] = [
    (["match", "{data}", "--model", "{data}", "--output", "{out}"], "holds no usable model"),
    (["match", "{data}", "--model", "{none}", "--output", "{out}"], "holds no usable model"),
    (["match", "{none}", "--model", "{model}", "--output", "{out}"], "is not a folder"),
    (["match", "{data}", "--model", "{model}", "--output", "{out}", "--from", "2024-13"], "'2024-13' is not a month"),
    (
        ["match", "{data}", "--model", "{model}", "--output", "{out}", "--from", "2031-01", "--to", "2030-01"],
        "later than",
    ),
    (
        ["match", "{data}", "--model", "{model}", "--output", "{out}", "--from", "1999-01", "--to", "1999-02"],
        "no transfer",
    ),
    (
        ["match", "{data}", "--model", "{model}", "--output", "{out}", "--from", "9999-11", "--to", "9999-12"],
        "no transfer",
    ),
    (["match", "{none}", "--model", "{none}", "--output", "."], "is a folder; name a file in it"),
    (["match", "{none}", "--model", "{none}", "--output", "{data}"], "is a folder; name a file in it"),
    (["match", "{none}", "--model", "{none}", "--output", "{file}/p.parquet"], "is a file, not a folder"),
    (["match", "{none}", "--model", "{none}", "--output", "{out}.csv"], "written as Parquet"),
    (["backtest", "{none}", "--from", "2024-01", "--to", "2024-02", "--output", "{file}"], "is a file, not a folder"),
    (["train", "{none}", "--until", "2024-01", "--model", "{file}/model"], "is a file, not a folder"),
    (["load", "{none}"], "is not a folder"),
    (["train", "{data}", "--until", "May", "--model", "{out}"], "'May' is not a month"),
    (["train", "{data}", "--until", "2023-02", "--model", "{out}", "--settings", "{none}"], "nowhere"),
    (["train", "{data}", "--until", "2023-02", "--model", "{out}", "--settings", "{file}"], "is not JSON"),
    (["tune", "{data}", "--until", "May", "--study", "{out}"], "'May' is not a month"),
    (["tune", "{data}", "--until", "1999-01", "--study", "{out}"], "no transfer was booked up to 1999-01"),
    (["tune", "{data}", "--until", "2023-01", "--study", "{out}"], "a search needs two months with tags"),
    (["tune", "{none}", "--until", "2023-02", "--study", "{file}"], "is a file, not a folder"),
    (["tune", "{none}", "--until", "2023-02", "--study", "{out}", "--output", "{data}"], "is a folder; name a file"),
    (["train", "{data}", "--until", "1999-01", "--model", "{out}"], "no transfer was booked up to 1999-01"),
    (["train", "{data}", "--until", "2023-02", "--model", "{model}"], "exists already"),
    (["backtest", "{data}", "--from", "1999-01", "--to", "1999-02", "--output", "{out}"], "no transfer"),
    (["evaluate", "{none}", "--truth", "{data}/audit.parquet"], "cannot be read"),
    (["evaluate", "{proposals}", "--truth", "{none}"], "cannot be read"),
    (["explain", "{proposals}", "ghost"], "holds no transfer 'ghost'"),
]


@pytest.mark.parametrize(("arguments", "told"), REQUESTS)
def test_what_cannot_be_done_ends_with_one_line(
    data: Path,
    small_model: Path,
    proposals: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    told: str,
) -> None:
    paths: dict[str, Any] = {"data": data, "model": small_model, "proposals": proposals}
    paths |= {"none": tmp_path / "nowhere", "out": tmp_path / "out", "file": data / "audit.parquet"}
    assert told in refused(capsys, monkeypatch, *(argument.format(**paths) for argument in arguments))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [('{"hiden": 8}', "'hiden' is no training setting; there are"), ('{"hidden": "8"}', "hidden: Input should be")],
)
def test_settings_that_are_none_are_told_in_one_line(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    told: str,
) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(content)
    arguments = ("train", data, "--until", "2023-02", "--model", tmp_path / "model", "--settings", settings)
    assert f"{settings}: {told}" in refused(capsys, monkeypatch, *arguments)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("SEARCH_TRIALS", "0", "MATCHING_PLATFORM_SEARCH_TRIALS: Input should be greater than or equal to 1"),
        ("PORT", "many", "MATCHING_PLATFORM_PORT: Input should be a valid integer"),
        ("ENVIRONMENT", "moon", "MATCHING_PLATFORM_ENVIRONMENT: Input should be 'local'"),
        ("FIRST_MONTH", "May", "MATCHING_PLATFORM_FIRST_MONTH: Value error, 'May' is not a month"),
        ("THRESHOLDS", "{", "thresholds"),
        ("ENVIRONMENT", "staging", "MATCHING_PLATFORM_FIRST_MONTH"),
        ("STORE", "/dev/null/store", "/dev/null"),
    ],
)
def test_a_setting_that_is_refused_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(f"MATCHING_PLATFORM_{name}", value)
    assert told in refused(capsys, monkeypatch, "models", "rollback", "--reason", "none")


@pytest.mark.parametrize("last", ["9999-12", None])
def test_months_are_those_of_the_ledger(small_ledger: Ledger, last: str | None) -> None:
    known = small_ledger.months()
    assert shared.months_between(small_ledger, known[1], last) == known[1:]


@pytest.mark.parametrize("error", [WarehouseError, SplitError, tuning.StudyError])
def test_errors_of_every_room_end_with_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fails(**_: object) -> None:
        raise error("load [a] folder\nfirst")

    monkeypatch.setattr(cli, "app", fails)
    assert refused(capsys, monkeypatch) == "error: load [a] folder first"


@pytest.mark.parametrize("arguments", [["mach"], ["match"], ["models", "promot"], ["train", "x", "--untl", "2024-01"]])
def test_a_typo_is_told(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_the_installed_command_refuses_in_one_line(tmp_path: Path) -> None:
    """Through the real console script, as a shell sees it."""
    script = Path(sys.executable).with_name("matching-platform")
    (tmp_path / "invoices.csv").write_text("invoice_id\n1\n")
    ended = subprocess.run(
        [script, "train", tmp_path, "--until", "2024-01", "--model", tmp_path / "m"], capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == f"error: {tmp_path}/invoices.csv: column number: the column is missing\n"
