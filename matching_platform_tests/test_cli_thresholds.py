"""What if we booked from another confidence on: asked of files and of the platform, answered for people and machines."""

import json
import sys
import xml.etree.ElementTree as ElementTree
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from matching_platform import cli
from matching_platform.cli import shared
from matching_platform.environment import Platform, load
from matching_platform.ledger.money import to_decimal
from matching_platform.ledger.months import month_of
from matching_platform.ledger.proposals import write_proposals
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import INVOICES, MATCHES, PROPOSALS, RAW_TABLES, TRANSFERS
from matching_platform.matching.matcher import Matcher

MAY, JUNE = "2024-05", "2024-06"
COUNT = 40  # transfers a month: the nth is proposed with a confidence of 1 - n/100
TAGGED_IN_JUNE = 10
ISSUED = date(2024, 4, 2)


def names(month: str) -> list[str]:
    return [f"{month}/{n:02d}" for n in range(COUNT)]


def ledger() -> Ledger:
    """A company that is paid one invoice of 100.00 by each transfer. May is tagged, June only to a quarter, and the first
    tag of May is contradicted by its tables: an incoming transfer settles a purchase."""
    every = [*names(MAY), *names(JUNE)]
    invoices = [(name, name, "sale", "C", "C", None, None, ISSUED, ISSUED, 100_00, "EUR", None) for name in every]
    bought = ("bought", "bought", "purchase", "S", "S", None, None, ISSUED, ISSUED, 100_00, "EUR", None)
    transfers = [(name, date(2024, int(name[5:7]), 9), 100_00, "EUR", "in", "C", None, name) for name in every]
    tagged = [(name, "bought" if name == every[0] else name, 100_00, date(2024, 7, 1)) for name in every]
    return Ledger(
        pl.DataFrame([*invoices, bought], schema=INVOICES.schema, orient="row"),
        pl.DataFrame(transfers, schema=TRANSFERS.schema, orient="row"),
        pl.DataFrame(tagged[: COUNT + TAGGED_IN_JUNE], schema=MATCHES.schema, orient="row"),
    )


def proposed(month: str, wrong: tuple[int, ...] = (12, 30), auto_from: float = 0.75) -> pl.DataFrame:
    """Those of a month; `wrong` ones get the invoice of the next. The last one is said to settle nothing."""
    every = names(month)
    rows = [
        (
            name,
            every[(n + (n in wrong)) % COUNT],
            100_00,
            1 - n / 100,
            "auto" if 1 - n / 100 >= auto_from else "review",
            [],
        )
        for n, name in enumerate(every[:-1])
    ]
    nothing = (every[-1], None, None, 0.99, "none", [])
    return pl.DataFrame([*rows, nothing], schema=PROPOSALS, orient="row")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with the tables, `audit` and `proposals` of both months."""
    folder, tables = tmp_path / "files", ledger()
    folder.mkdir()
    every = [*names(MAY), *names(JUNE)]
    audit = pl.DataFrame({"transfer_id": every, "invoice_id": every, "amount": [100_00] * len(every)})
    for name, frame in {**{name: getattr(tables, name) for name in RAW_TABLES}, "audit": audit}.items():
        frame.with_columns(to_decimal("amount")).write_parquet(folder / f"{name}.parquet")
    write_proposals(pl.concat([proposed(MAY), proposed(JUNE)]), folder / "proposals.parquet")
    return folder


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_model: Path) -> Platform:
    """A platform whose champion proposed for May and June in advance, and for May once more when it had learned from it."""
    monkeypatch.setenv("MATCHING_PLATFORM_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MATCHING_PLATFORM_WAREHOUSE", str(tmp_path / "warehouse.duckdb"))
    found, tables = Platform(load()), ledger()
    model = found.store.put("models", small_model)
    found.registry.promote(model, found.store.put_bytes("evaluations", "none", b""), "a test", "it must be some model")
    dates = tables.transfers.select("transfer_id", "booked_on")
    of_month = {"invoices": "issued_on", "transfers": "booked_on", "matches": "booked_on"}
    for name, column in of_month.items():
        frame = getattr(tables, name)
        dated = frame if column in frame.columns else frame.join(dates, on="transfer_id", maintain_order="left")
        for (month,), rows in dated.group_by(month_of(column)):
            version = found.store.put_frame(name, rows.select(frame.columns))
            found.catalog.set(name, str(month), version, {})
    for month, until, wrong in ((MAY, "2024-04", (12, 30)), (JUNE, "2024-05", (5,)), (MAY, "2024-05", ())):
        rows = proposed(month, wrong).with_columns(to_decimal("amount"))
        told = {"model": model.name, "trained until": until}
        found.catalog.set("proposals", month, found.store.put_frame("proposals", rows), told)
    return found


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared.out, "_width", 80)


def ran(*arguments: object) -> str:
    """The output of a command that succeeds."""
    result = CliRunner().invoke(cli.app, ["thresholds", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def told(*arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ran(*arguments, "--json"))
    return found


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """The one line that `main` ends with, at exit code 2."""
    monkeypatch.setattr(sys, "argv", ["matching-platform", "thresholds", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


# Files


def test_an_audit_judges_all_transfers(files: Path) -> None:
    found = told(files / "proposals.parquet", "--truth", files / "audit.parquet", "--at", 0.9, "--at", 0.7)
    by_threshold = {row["threshold"]: row for row in found["thresholds"]}
    assert {level: (row["booked"], row["errors"]) for level, row in by_threshold.items()} == {
        0.7: (62, 4),
        0.75: (52, 2),
        0.9: (22, 0),
    }
    assert by_threshold[0.9]["share"] == 22 / 80
    assert by_threshold[0.7]["money"] == [{"currency": "EUR", "booked": 6200.0, "wrong": 400.0, "expected": 930.0}]
    assert found["in_force"] == 0.75, "the lowest confidence that the file itself books"
    assert [(row["month"], row["proposed"], row["tagged"]) for row in found["months"]] == [
        (MAY, 40, 40),
        (JUNE, 40, 40),
    ]
    assert not any("tag" in note for note in found["notes"])


def test_people_read_tables_and_sentences(files: Path) -> None:
    said = ran(files / "proposals.parquet", "--truth", files / "audit.parquet", "--promise", 0.8, "--at", 0.7)
    assert max(map(len, said.splitlines())) <= 80
    flat = " ".join(said.split())
    assert "80 transfers judged, 80 of them pay something" in flat
    assert "From 0.7 on, 77.5 % of the paying transfers would have been booked, 93.5 % of the bookings right" in flat
    assert "EUR 400 of 6,200 would have been booked wrongly" in flat
    assert "You promise 80 %: the lowest threshold that holds it with 95 % certainty is" in flat
    assert "Month by month, from 0.7 on" in flat
    assert all(mark in flat for mark in ("in force", "holds 80 %"))


def test_tags_judge_what_they_can(files: Path) -> None:
    said = told(files / "proposals.parquet", "--truth", files / "matches.parquet", "--at", 0.9)
    (row,) = (row for row in said["thresholds"] if row["threshold"] == 0.9)
    assert (row["booked"], row["errors"]) == (10 + TAGGED_IN_JUNE, 0), "the contradicted tag judges nobody"
    notes = " ".join(said["notes"])
    assert "the tables contradict their tags: 1 of 50 tagged transfers" in notes
    assert "in truth, precision is rather higher" in notes
    assert "31 of 80 transfers are not judged" in notes
    assert f"{JUNE} is still mostly untagged (10 of 40 transfers)" in notes
    assert f"{MAY} is still mostly untagged" not in notes


def test_months_can_be_chosen(files: Path) -> None:
    asked = (files / "proposals.parquet", "--truth", files / "audit.parquet", "--at", 0.9)
    assert [row["month"] for row in told(*asked, "--from", JUNE)["months"]] == [JUNE]
    assert [row["month"] for row in told(*asked, "--to", MAY)["months"]] == [MAY]


def test_without_tables_beside_it_months_and_currencies_are_not_told(files: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.parquet"
    alone.write_bytes((files / "audit.parquet").read_bytes())
    said = ran(files / "proposals.parquet", "--truth", alone, "--at", 0.7)
    assert "Month by month" not in said
    assert "400 of 6,200 would have been booked wrongly" in " ".join(said.split())


@pytest.mark.parametrize("suffix", [".svg", ".html"])
def test_a_plot_is_written_that_needs_nothing_else(files: Path, tmp_path: Path, suffix: str) -> None:
    plot = tmp_path / "new" / f"plot{suffix}"
    said = ran(files / "proposals.parquet", "--truth", files / "audit.parquet", "--plot", plot)
    assert "The plot lies in" in said
    drawn = plot.read_text()
    assert all(words in drawn for words in ("EUR booked wrongly", "promised 99.5 %", "in force: 0.75"))
    assert not any(word in drawn for word in ("<script", "href=", "src=", "url(http"))
    if suffix == ".svg":
        root = ElementTree.fromstring(drawn)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 4


# The platform


def test_only_what_was_proposed_in_advance_counts(platform: Platform) -> None:
    found = told("--at", 0.7, "--promise", 0.9)
    (row,) = (row for row in found["thresholds"] if row["threshold"] == 0.7)
    assert (row["booked"], row["errors"]) == (30 + TAGGED_IN_JUNE, 3), "the second look at May would have had no error"
    own = Matcher.load(platform.store.fetch(platform.registry.champion().model)).auto_from  # type: ignore[union-attr]
    assert found["in_force"] == own
    assert own in [row["threshold"] for row in found["thresholds"]]
    assert "as it was trained" in " ".join(found["notes"])


def test_the_threshold_in_force_is_the_raised_one(platform: Platform) -> None:
    model = platform.registry.champion().model.name  # type: ignore[union-attr]
    platform.unattended.book_from(model, 0.985, actor="a test", reason="to be careful")
    platform.unattended.freeze(actor="a person", reason="a bad feeling")
    found = told()
    assert found["in_force"] == 0.985
    notes = " ".join(found["notes"])
    assert "In force: 0.985" in notes
    assert "it was trained to book from" in notes
    assert "a bad feeling" in notes
    assert found["answer"][0].startswith("From 0.985 on")


def test_one_model_and_some_months_can_be_asked_for(platform: Platform) -> None:
    model = platform.registry.champion().model.name  # type: ignore[union-attr]
    assert [row["month"] for row in told("--model", model[:6])["months"]] == [MAY, JUNE]
    assert [row["month"] for row in told("--from", JUNE)["months"]] == [JUNE]


def test_the_platforms_promise_is_asked_for(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATCHING_PLATFORM_PROMISED_PRECISION", "0.8")
    assert told()["promised"] == 0.8
    assert told("--promise", 0.9)["promised"] == 0.9


def test_several_models_are_named(platform: Platform) -> None:
    rows = proposed(JUNE).with_columns(to_decimal("amount"))
    version = platform.store.put_frame("proposals", rows)
    platform.catalog.set("proposals", JUNE, version, {"model": "another", "trained until": MAY})
    assert "2 models proposed" in " ".join(told()["notes"])


# Errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{files}/proposals.parquet"], "--truth audit.parquet, or matches.parquet"),
        (["--truth", "{files}/audit.parquet"], "say which proposals"),
        (["{both}", "--model", "m"], "--model chooses among the platform's own"),
        (["{both}", "--at", "1.2"], "--at"),
        (["{both}", "--at", "-0.1"], "--at"),
        (["{both}", "--at", "much"], "--at"),
        (["{both}", "--promise", "1"], "between 0 and 1"),
        (["{both}", "--promise", "99.5"], "between 0 and 1"),
        (["{both}", "--from", "May"], "'May' is not a month"),
        (["{both}", "--from", "2024-06", "--to", "2024-05"], "later than"),
        (["{both}", "--plot", "{files}/plot.png"], "ends with .svg or .html"),
        (["{both}", "--plot", "{files}/audit.parquet/plot.svg"], "is a file, not a folder"),
        (["{both}", "--from", "2030-01"], "proposes nothing for transfers booked from 2030-01;"),
        (["{both}", "--from", "2030-01", "--to", "2030-02"], "booked from 2030-01 to 2030-02;"),
        (["{files}/none.parquet", "--truth", "{files}/audit.parquet"], "cannot be read"),
        (["{files}/proposals.parquet", "--truth", "{files}/none.parquet"], "cannot be read"),
        (["{files}/proposals.parquet", "--truth", "{files}/invoices.parquet"], "column transfer_id"),
        (["{files}/proposals.parquet", "--truth", "{alone}", "--from", "2024-05"], "no transfers beside"),
    ],
)
def test_what_cannot_be_asked_ends_with_one_line(
    files: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    alone = tmp_path / "alone.parquet"
    alone.write_bytes((files / "audit.parquet").read_bytes())
    both = [f"{files}/proposals.parquet", "--truth", f"{files}/audit.parquet"]
    given = [both if one == "{both}" else [one.format(files=files, alone=alone)] for one in arguments]
    assert words in refused(capsys, monkeypatch, *(one for part in given for one in part))


def test_a_platform_without_past_proposals_says_what_to_do(
    platform: Platform, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "materialize proposals" in refused(capsys, monkeypatch, "--from", "2024-08")
    assert "no name of a version" in refused(capsys, monkeypatch, "--model", "zzz")
    untagged = platform.store.put_frame("matches", ledger().matches.clear())
    for month in (MAY, JUNE):
        platform.catalog.set("matches", month, untagged, {})
    assert "is tagged yet" in refused(capsys, monkeypatch)
