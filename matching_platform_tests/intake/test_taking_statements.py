"""Statements that tell of the same bookings twice, and such as contradict themselves: no money counts double or unseen."""

from pathlib import Path

import polars as pl
import pytest

from matching_platform.intake.incoming import IntakeError
from matching_platform.intake.taking import Intake
from matching_platform.ledger.validation import validate
from matching_platform.store.versions import Store
from matching_platform.warehouse.duck import DuckWarehouse

SAMPLES = Path(__file__).parent / "statements"
STATED = (SAMPLES / "german_053_02.xml").read_text()
NOTIFIED = (SAMPLES / "german_054_04.xml").read_text()
OTHER_FORM = "this booking was taken before in another form"
REWORDED = "1 row is there already, worded differently; what is there is kept"

INVOICES = (
    "Invoice id;Invoice number;Customer;Invoice date;Gross;Currency;Direction\nI1;1;Acme;2024-03-01;1,50;EUR;sale\n"
)


def without_parts(statement: str) -> str:
    """The same with its batch as one transfer."""
    start, end = statement.index("          <TxDtls>\n"), statement.index("        </NtryDtls>\n")
    return statement[:start] + statement[end:]


def mt940(closing: str = "110,00", title: str = "RE 1", amount: str = "10,00") -> str:
    entry = f":61:2401150115C{amount}NTRFNONREF//B1\n:86:166?20{title}?32Acme\n"
    return f":20:X\n:25:DE89370400440532013000\n:28C:7\n:60F:C240101EUR100,00\n{entry}:62F:C240131EUR{closing}\n-\n"


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return Intake(Store(tmp_path / "store"), DuckWarehouse(tmp_path / "w.duckdb"))


def take(intake: Intake, name: str, text: str) -> int:
    """How many rows it added."""
    return intake.take(intake.look(name, text.encode()), "Ada").new


def held(tmp_path: Path) -> pl.DataFrame:
    warehouse = DuckWarehouse(tmp_path / "w.duckdb")
    months = [warehouse.read_month("transfers", month) for month in warehouse.months()["transfers"]]
    return validate("transfers", pl.concat(months))


@pytest.mark.parametrize(
    ("first", "then", "left_out"),
    [(without_parts(STATED), STATED, 3), (STATED, without_parts(STATED), 1), (without_parts(STATED), NOTIFIED, 3)],
    ids=["parts after the whole", "the whole after parts", "a notification's parts after the whole"],
)
def test_a_booking_is_taken_in_one_form(intake: Intake, tmp_path: Path, first: str, then: str, left_out: int) -> None:
    take(intake, "first.xml", first)
    before = held(tmp_path)
    preview = intake.look("then.xml", then.encode())
    found = preview.skipped.filter(reason=OTHER_FORM)
    assert found.height == left_out
    assert all(where.endswith(", entry 2") for where in found["where"])
    assert found["text"][0].startswith(
        "2024-03-13 3000.00 EUR" if left_out == 1 else "2024-03-13 1000.00 EUR Tischlerei"
    )
    assert (preview.new, preview.problem, preview.known) == (0, None, preview.rows)
    assert intake.take(preview, "Bob").new == 0
    assert held(tmp_path).equals(before)


def test_the_same_form_is_known_and_not_left_out(intake: Intake) -> None:
    take(intake, "stated.xml", STATED)
    preview = intake.look("notified.xml", NOTIFIED.encode())
    assert (preview.new, preview.known) == (0, 4)
    assert OTHER_FORM not in preview.skipped["reason"]


def test_ids_of_tables_are_no_forms_of_one_another(intake: Intake) -> None:
    head = "Booking date;Name;Title;Amount;Currency;Transaction id\n"
    take(intake, "a.csv", f"{head}2024-01-05;Acme;INV 1;-1,00;EUR;7\n")
    assert take(intake, "b.csv", f"{head}2024-01-05;Acme;INV 1;-1,00;EUR;7.1\n") == 1


def test_a_statement_that_does_not_add_up_is_taken_only_knowingly(intake: Intake, tmp_path: Path) -> None:
    preview = intake.look("cut.sta", mt940(closing="120,00").encode())
    told = (
        "statement 7 of DE89370400440532013000 does not add up: 100.00 and 1 entries come to 110.00, "
        "but the closing balance is 120.00 EUR, 10.00 away"
    )
    assert (preview.contradictions, preview.problem, preview.new) == ((told,), None, 1)
    with pytest.raises(IntakeError, match=r"10\.00 away; export it again, or take it although it does not add up"):
        intake.take(preview, "Ada")
    assert intake.history() == []
    assert not (tmp_path / "w.duckdb").exists()
    taken = intake.take(preview, "Ada", unbalanced=True)
    assert (taken.new, taken.contradictions) == (1, (told,))
    assert Intake(Store(tmp_path / "store"), DuckWarehouse(tmp_path / "w.duckdb")).history() == [taken]


def test_one_that_adds_up_is_remembered_as_such(intake: Intake) -> None:
    preview = intake.look("whole.sta", mt940().encode())
    assert intake.take(preview, "Ada", unbalanced=True).contradictions == ()


def test_other_words_for_a_booking_that_is_there_change_nothing(intake: Intake, tmp_path: Path) -> None:
    take(intake, "january.sta", mt940())
    before = held(tmp_path)
    preview = intake.look("again.sta", mt940(title="RE 1 VOM 3.1.").encode())
    assert (preview.new, preview.known, preview.problem) == (0, 1, None)
    assert preview.conflicts.is_empty()
    assert preview.notes[-1] == REWORDED
    intake.take(preview, "Bob")
    assert held(tmp_path).equals(before)


def test_other_money_under_the_same_id_is_refused_whatever_its_words(intake: Intake) -> None:
    head = "Booking date;Name;Title;Amount;Currency;Transaction id\n"
    take(intake, "a.csv", f"{head}2024-01-05;Acme;INV 1;-1,00;EUR;T1\n2024-01-05;Acme;INV 2;-2,00;EUR;T2\n")
    changed = f"{head}2024-01-05;Acme Ltd;INV 1;-1,00;EUR;T1\n2024-01-05;Acme Ltd;INV 2;-3,00;EUR;T2\n"
    preview = intake.look("b.csv", changed.encode())
    assert preview.conflicts.select("id", "column").rows() == [("T2", "amount"), ("T2", "counterparty_name")]
    assert preview.notes[-1] == REWORDED
    with pytest.raises(IntakeError, match="T2 is there already"):
        intake.take(preview, "Bob")


@pytest.mark.parametrize(("there", "here"), [("Acme", "Acme Ltd"), (";1;", ";2;"), ("1,50", "1,51")])
def test_any_difference_of_an_invoice_is_refused(intake: Intake, there: str, here: str) -> None:
    take(intake, "a.csv", INVOICES)
    preview = intake.look("b.csv", INVOICES.replace(there, here).encode())
    assert "I1 is there already" in str(preview.problem)
