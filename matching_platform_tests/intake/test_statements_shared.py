"""The statements of eight banks that lie beside the repository; skipped where they do not."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from matching_platform.intake.statements import read_statement

DATA = Path(__file__).parents[3] / "shared" / "data" / "statements"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the data sets are not at hand")

# Rows and minor units in and out, and what is left out.
FIGURES = {
    "ASNB_mt940.txt": (3, 282890, 5, 277196, 0),
    "betterplace_sepa_mt9401.sta": (41, 518847494, 56, 1445761084, 0),
    "citi_mt940.txt": (0, 0, 3, 114275, 2),
    "cmxl_mt940.sta": (3, 2304000, 2, 1080000, 11),
    "jejik_abnamro.sta": (0, 0, 10, 34593, 0),
    "jejik_ing.sta": (2, 468, 5, 5027, 0),
    "jejik_rabobank.sta": (0, 0, 5, 158909, 0),
    "mBank_mt940.sta": (3, 3, 0, 0, 0),
    "mBank_mt942.sta": (3, 3, 0, 0, 0),
    "sberbank_171011_01234945.sta": (0, 0, 3, 943700, 0),
    "self-provided_raphaelm.sta": (0, 0, 0, 0, 9),
}
# Entries were taken out of these before they were published.
INCOMPLETE = {
    "jejik_abnamro.sta": "statement 19321/1 of 517852257 does not add up: 3,236.28 and 8 entries come to 2,914.84, but",
    "jejik_ing.sta": "statement 000 of 0001234567 does not add up: 0.00 and 7 entries come to -45.59, but the closing",
    "jejik_rabobank.sta": "statement 00000/00 of 1291.99.348 does not add up: 473.17 and 1 entries come to -740.11, but",
}
ROWS = {
    ("ASNB_mt940.txt", 4): (
        date(2020, 1, 29),
        82872,
        "in",
        "transfer solutions bv",
        "NL25INGB9999999999",
        "2020-01-28T14:32:46-000000000000089-NL25INGB9999999999-Transfer Solutions BV-DIVIDEND 28/01/2020",
    ),
    ("betterplace_sepa_mt9401.sta", 0): (
        date(2007, 9, 4),
        30000,
        "in",
        "",
        None,
        "TFNR 40005 00005 Grund nicht spezifiziert Reject aus SEPA-Ueberweisungsauftrag",
    ),
    ("betterplace_sepa_mt9401.sta", 24): (
        date(2007, 9, 4),
        5734,
        "out",
        "Empfaenger 1 mit 70 Zeichen Empfaenger 1 mit 70 Zeiche",
        "FR1420041010050500013M02606",
        "Unstrukturierter Verwendungszweck mit 140 Stellen fu/r SEPA COR Buchungsschema /A-CT-DTE-S01 und A-CT-NUD-/S01 "
        "CTSc-01 EBB TFNr 01011/ 0001",
    ),
    ("citi_mt940.txt", 0): (date(2024, 3, 12), 21239, "out", "", None, "SOMETHING FOO BAR 112233 123456789"),
    ("cmxl_mt940.sta", 0): (date(2002, 11, 2), 80000, "out", "MUELLER", "10020030/234567", "Miete November"),
    ("jejik_abnamro.sta", 0): (
        date(2011, 5, 24),
        900,
        "out",
        "KPN - DIGITENNE",
        "428428",
        "BETALINGSKENM. 000000042188659 5314606715 BETREFT FACTUUR D.D. 20-05-2011 INCL. 1,44 BTW",
    ),
    ("jejik_ing.sta", 2): (
        date(2010, 7, 22),
        111,
        "out",
        "",
        "0111111111",
        "ING iDEAL KN: TMG TANGO TRANSACTIENR 0050000534527978 10-06-2010 15:32 TMG TANGO ING Bank inzake GPKyoto",
    ),
    ("jejik_rabobank.sta", 0): (
        date(2011, 5, 27),
        121328,
        "out",
        "W.P. Jansen",
        "0121470966",
        "Terugboeking NIET AKKOORD MET AFSCHRIJVING KOSTEN KINDEROPVANG JUNI 20095731",
    ),
    ("mBank_mt940.sta", 1): (
        date(2017, 1, 19),
        1,
        "in",
        "JAN NOWAK",
        "PL56114010810000267002001001",
        "PRZELEW SRODKOW",
    ),
    ("sberbank_171011_01234945.sta", 1): (
        date(2017, 10, 11),
        346000,
        "out",
        "ERGO Eletbiztosito Zrt.",
        "10918001/0000002595841185",
        "136508 A10580361 20170926000100 3009 136508 Tranz. Illet�k: 10.38HUF",
    ),
}


def frame(name: str) -> pl.DataFrame:
    return read_statement(name, (DATA / name).read_bytes()).frame


@pytest.mark.parametrize("name", FIGURES)
def test_every_entry_is_read(name: str) -> None:
    read = read_statement(name, (DATA / name).read_bytes())
    sums: list[object] = []
    for direction in ("in", "out"):
        rows = read.frame.filter(direction=direction)
        sums += [rows.height, rows["amount"].sum()]
    assert (*sums, read.skipped.height) == FIGURES[name]
    assert read.format == ("MT942" if "942" in name else "MT940")


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_what_an_entry_says(name: str, row: int) -> None:
    columns = ["booked_on", "amount", "direction", "counterparty_name", "counterparty_account", "title"]
    assert frame(name).select(columns).row(row) == ROWS[name, row]


@pytest.mark.parametrize("name", sorted(FIGURES.keys() - INCOMPLETE.keys()))
def test_balances_hold(name: str) -> None:
    assert read_statement(name, (DATA / name).read_bytes()).contradictions == ()


@pytest.mark.parametrize("name", INCOMPLETE)
def test_what_lacks_entries_is_told(name: str) -> None:
    assert read_statement(name, (DATA / name).read_bytes()).contradictions[0].startswith(INCOMPLETE[name])


def test_what_is_left_out_says_why() -> None:
    reasons = read_statement("cmxl", (DATA / "cmxl_mt940.sta").read_bytes()).skipped["reason"].unique().to_list()
    assert reasons == ["DEM was replaced by the euro"]


def test_the_report_of_the_day_has_the_rows_of_the_statement() -> None:
    assert frame("mBank_mt942.sta").equals(frame("mBank_mt940.sta"))


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("changed", [lambda text: text.replace(b"\n", b"\r\n"), lambda text: text.replace(b"\r", b"")])
def test_line_ends_change_nothing(name: str, changed: Callable[[bytes], bytes]) -> None:
    content = (DATA / name).read_bytes()
    assert read_statement(name, changed(content)).frame.equals(frame(name))
