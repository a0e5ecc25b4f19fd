"""Statements that tell of the same bookings twice, and such as contradict themselves: no money counts double or unseen."""

from pathlib import Path

import polars as pl
import pytest

from matching_platform.intake.incoming import IntakeError
from matching_platform.intake.taking import Intake
from matching_platform.ledger.validation import validate
from matching_platform.store.versions import Store
from matching_platform.warehouse.duck import DuckWarehouse
from matching_platform_tests.intake.zipped import zipped

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


def entries(*told: tuple[str, str], number: str = "7") -> str:
    """Entries of 10.00 with the bank's reference and what `:86:` says of each."""
    lines = "".join(f":61:2401150115C10,00NTRFNONREF{reference}\n:86:{text}\n" for reference, text in told)
    closing = f"{100 + 10 * len(told)},00"
    return (
        f":20:X\n:25:DE89370400440532013000\n:28C:{number}\n:60F:C240101EUR100,00\n{lines}:62F:C240131EUR{closing}\n-\n"
    )


ANNA = "166?20Beitrag?31DE17100500000123456789?32Anna"
BORIS = "166?20Beitrag?31DE64200700240009988776?32Boris"


@pytest.mark.parametrize("first", [(ANNA,), (BORIS,), (ANNA, BORIS)])
@pytest.mark.parametrize("then", [(ANNA, BORIS), (BORIS, ANNA)])
def test_entries_that_share_a_reference_are_the_same_in_any_order(
    intake: Intake, tmp_path: Path, first: tuple[str, ...], then: tuple[str, ...]
) -> None:
    take(intake, "first.sta", entries(*(("//B7", text) for text in first)))
    preview = intake.look("then.sta", entries(*(("//B7", text) for text in then), number="8").encode())
    assert (preview.new, preview.known, preview.problem) == (2 - len(first), len(first), None)
    intake.take(preview, "Bob")
    assert sorted(held(tmp_path)["counterparty_name"]) == ["Anna", "Boris"]


def test_what_only_one_file_tells_of_a_row_is_no_difference(intake: Intake, tmp_path: Path) -> None:
    short, long = entries(("//R1", "166?20Beitrag?32Anna")), entries(("//R1", ANNA))
    take(intake, "report.sta", short)
    preview = intake.look("statement.sta", long.encode())
    assert (preview.new, preview.known, preview.problem, preview.notes[-1]) == (0, 1, None, REWORDED)
    intake.take(preview, "Bob")
    assert held(tmp_path)["counterparty_account"].to_list() == [None], "what is there stays"
    other = intake.look("other.sta", long.replace("DE17100500000123456789", "DE64200700240009988776").encode())
    assert other.problem is None
    take(intake, "second.sta", entries(("//R2", ANNA)))
    assert "is there already with 'Anna'" in str(intake.look("x.sta", entries(("//R2", BORIS)).encode()).problem)


CSV = "Booking date;Name;Account;Title;Amount;Currency;Direction\n"
LIKE = "look as if another file had brought them before"


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        (entries(("//R1", ANNA)), f"{CSV}2024-01-15;ANNA MARIA;DE17 1005 0000 0123 4567 89;x;10,00;EUR;in\n", 1),
        (entries(("//R1", ANNA)), f"{CSV}2024-01-15;Änna;;x;10,00;EUR;in\n", 1),
        (entries(("//R1", ANNA)), f"{CSV}2024-01-16;Anna;;BEITRAG;10,00;EUR;in\n", 1),
        (entries(("//R1", "166?20x")), f"{CSV}2024-01-15;Anna;;x;10,00;EUR;in\n2024-01-15;Boris;;x;10,00;EUR;in\n", 1),
        (f"{CSV}2024-01-15;;;x;3000,00;EUR;in\n", STATED.replace("2024-03-13", "2024-01-15"), 3),
        (entries(("//R1", ANNA)), f"{CSV}2024-01-16;Anna;;Maerz;10,00;EUR;in\n", 0),
        (entries(("//R1", ANNA)), f"{CSV}2024-01-15;Boris;;Beitrag;10,00;EUR;in\n2024-01-15;Anna;;x;10,01;EUR;in\n", 0),
        (entries(("//R1", ANNA)), f"{CSV}2024-01-15;Anna;;x;10,00;EUR;out\n2024-01-17;Anna;;Beitrag;10,00;EUR;in\n", 0),
        (entries(("//R1", "166?20x")), f"{CSV}2024-01-15;;;x;10,00;EUR;in\n", 0),
        (entries(("//R1", ANNA)), entries(("//R1", ANNA), ("//R2", BORIS)), 0),
    ],
    ids=[
        "by account",
        "by name",
        "the day after",
        "nobody is one of two",
        "a batch as a whole",
        "another title the day after",
        "another payer, another amount",
        "the other way, two days after",
        "nobody and nobody",
        "known rows and a new payer",
    ],
)
def test_what_looks_like_a_row_of_another_file_is_told(intake: Intake, first: str, then: str, expected: int) -> None:
    names = [f"a.{'xml' if text.startswith('<') else 'csv'}" for text in (first, then)]
    take(intake, names[0], first)
    notes = [note for note in intake.look(names[1], then.encode()).notes if LIKE in note]
    assert [int(note.split()[0]) for note in notes] == [expected] * bool(expected)
    assert all("10.00 EUR" in note or "1000.00 EUR Tischlerei" in note for note in notes)


def test_many_customers_who_pay_the_same_price_are_ordinary(intake: Intake) -> None:
    rows = [f"2024-01-15;Customer {number:04d} Ltd;;x;10,00;EUR;in\n" for number in range(1000)]
    take(intake, "first.csv", CSV + "".join(rows[:500]))
    assert not any(LIKE in note for note in intake.look("then.csv", (CSV + "".join(rows[500:])).encode()).notes)


def test_a_month_that_is_not_valid_is_not_compared(intake: Intake, tmp_path: Path) -> None:
    take(intake, "first.sta", entries(("//R1", ANNA)))
    warehouse = DuckWarehouse(tmp_path / "w.duckdb")
    rows = warehouse.read_month("transfers", "2024-01")
    damaged = rows.with_columns(transfer_id=pl.lit("T9"), currency=pl.lit("EURO"))
    warehouse.write_month("transfers", "2024-01", pl.concat([rows, damaged]))
    preview = intake.look("then.sta", entries(("//R2", BORIS)).encode())
    assert preview.problem is None
    assert preview.notes[-1].startswith("nothing was compared with what is there of 2024-01, which is not valid (")


def test_an_archive_of_statements(intake: Intake, tmp_path: Path) -> None:
    day, next_day = entries(("//R1", ANNA)), entries(("//R1", ANNA), ("//R2", BORIS), number="8")
    files = {"1.sta": day, "copy/1.sta": day, "2.sta": next_day, "3.xml": STATED, "a.pdf": "%PDF-", "b.txt": "x"}
    preview = intake.look("year.zip", zipped(files))
    assert (preview.format, preview.rows, preview.problem) == ("MT940 and camt.053", 9, None)
    assert preview.skipped.select("where", "reason").rows() == [
        ("copy/1.sta", "is a copy of 1.sta"),
        ("a.pdf", "is no bank statement"),
        ("b.txt", "is no bank statement"),
        ("3.xml, line 64, entry 6", "its status is PDNG: it is not booked"),
        ("2.sta, line 5", "it was told before in this file"),
    ]
    intake.take(preview, "Ada")
    assert intake.look("2.sta", next_day.encode()).known == 2, "the ids are those of the files alone"
    wrong = {"1.sta": day.replace("EUR110", "EUR111"), "2.sta": next_day}
    assert len(intake.look("wrong.zip", zipped(wrong)).contradictions) == 1


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"1.sta": mt940(), "2.xml": "<Invoice/>"}, "a.zip: holds statements and invoices; pack them apart"),
        ({"1.sta": mt940()[:60]}, "a.zip/1.sta: line 1, field :62F:: the statement has no closing balance"),
        ({"1.xml": "<Faktura/>"}, "a.zip/1.xml: "),
    ],
)
def test_an_archive_that_is_refused(intake: Intake, files: dict[str, str], expected: str) -> None:
    with pytest.raises(IntakeError) as refused:
        intake.look("a.zip", zipped(files))
    assert str(refused.value).startswith(expected)


def test_which_kinds_of_xml_are_read(intake: Intake) -> None:
    with pytest.raises(
        IntakeError, match="bank statements are read as camt and invoices as UBL, CII, Factur-X or ZUGFeRD"
    ):
        intake.look("ksef.xml", b"<Faktura/>")
