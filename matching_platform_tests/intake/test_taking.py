"""Taking files: looked at first, whole or not at all, once only, whoever is killed or takes the same at the same time."""

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from matching_platform.intake.incoming import IntakeError
from matching_platform.intake.mapping import ColumnMapping
from matching_platform.intake.taking import Intake, Preview
from matching_platform.ledger.validation import validate
from matching_platform.store.versions import Store
from matching_platform.warehouse.duck import DuckWarehouse
from matching_platform.warehouse.warehouse import HeldError, WarehouseError

HEAD = "Booking date;Name;Title;Amount;Currency;Transaction id\n"
JANUARY = HEAD + "2024-01-05;Acme;INV 1;10,50;EUR;T1\n2024-01-06;Zulu;INV 2;-3,00;EUR;T2\n"
BOTH = HEAD + "2024-01-06;Zulu;INV 2;-3,00;EUR;T2\n2024-02-01;Acme;INV 3;1,00;EUR;T3\n"


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return opened(tmp_path)


def opened(folder: Path) -> Intake:
    return Intake(Store(folder / "store"), DuckWarehouse(folder / "w.duckdb"))


def ids(folder: Path, table: str = "transfers") -> list[str]:
    warehouse = DuckWarehouse(folder / "w.duckdb")
    months = [warehouse.read_month(table, month) for month in warehouse.months()[table]]
    return sorted(validate(table, pl.concat(months))[f"{table[:-1]}_id"]) if months else []


def take(intake: Intake, name: str, text: str, actor: str = "Ada") -> Any:
    return intake.take(intake.look(name, text.encode()), actor)


def test_a_file_is_looked_at_and_then_taken(intake: Intake, tmp_path: Path) -> None:
    preview = intake.look("january.csv", JANUARY.encode())
    assert (preview.format, preview.table, preview.rows, preview.new, preview.known) == ("CSV", "transfers", 2, 2, 0)
    assert (preview.months, preview.problem, preview.taken, preview.confirmed) == (("2024-01",), None, None, False)
    assert not (tmp_path / "w.duckdb").exists(), "looking changes nothing"
    taken = intake.take(preview, "Ada")
    assert (taken.number, taken.actor, taken.name, taken.rows, taken.new) == (1, "Ada", "january.csv", 2, 2)
    assert intake.history() == [taken] == opened(tmp_path).history()
    assert ids(tmp_path) == ["T1", "T2"]
    months = DuckWarehouse(tmp_path / "w.duckdb").months()
    assert list(months["transfers"]) == ["2024-01"], "where the sensor sees it"
    assert months["matches"] == {}, "all raw tables are there"


def test_a_file_is_taken_once(intake: Intake, tmp_path: Path) -> None:
    taken = take(intake, "january.csv", JANUARY)
    again = intake.look("another name.csv", JANUARY.encode())
    assert again.taken == taken
    assert intake.take(again, "Bob") == taken
    assert intake.history() == [taken]
    assert ids(tmp_path) == ["T1", "T2"]


def test_a_file_whose_rows_were_lost_is_taken_again(intake: Intake, tmp_path: Path) -> None:
    first = take(intake, "january.csv", JANUARY)
    warehouse = DuckWarehouse(tmp_path / "w.duckdb")
    left = warehouse.read_month("transfers", "2024-01").filter(pl.col("transfer_id") != "T1")
    warehouse.write_month("transfers", "2024-01", left)
    preview = intake.look("again.csv", JANUARY.encode())
    assert (preview.taken, preview.new, preview.known) == (None, 1, 1)
    assert f"this very file was {first}, but rows of it are missing since; they are added again" in preview.notes
    second = intake.take(preview, "Bob")
    assert (second.number, second.actor, second.rows, second.new) == (2, "Bob", 2, 1)
    assert ids(tmp_path) == ["T1", "T2"]
    assert intake.history() == [first, second]
    assert intake.look("again.csv", JANUARY.encode()).taken == second


def test_rows_that_are_there_already_are_not_taken_twice(intake: Intake, tmp_path: Path) -> None:
    take(intake, "january.csv", JANUARY)
    preview = intake.look("both.csv", BOTH.encode())
    assert (preview.new, preview.known, preview.months) == (1, 1, ("2024-02",))
    assert intake.take(preview, "Bob").new == 1
    assert ids(tmp_path) == ["T1", "T2", "T3"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            BOTH.replace("-3,00", "-4,00"),
            r"row 2, field amount: T2 is there already with '3.00', and here it has '4.00'",
        ),
        (
            BOTH.replace("2024-01-06", "2024-02-06"),
            r"field booked_on: T2 .* '2024-01-06', and here it has '2024-02-06'",
        ),
        (BOTH.replace("EUR;T2", "USD;T2"), r"field currency: T2 .* 'EUR', and here it has 'USD'"),
        (BOTH.replace("-3,00", "3,00"), r"field direction: T2 .* 'out', and here it has 'in'"),
    ],
)
def test_other_content_under_the_same_id_refuses_the_file(
    intake: Intake, tmp_path: Path, changed: str, told: str
) -> None:
    take(intake, "january.csv", JANUARY)
    preview = intake.look("both.csv", changed.encode())
    assert preview.conflicts["id"].to_list() == ["T2"]
    with pytest.raises(IntakeError, match=told):
        intake.take(preview, "Bob")
    assert ids(tmp_path) == ["T1", "T2"]
    assert len(intake.history()) == 1


def test_what_was_added_since_it_was_looked_at_counts(intake: Intake, tmp_path: Path) -> None:
    looked = intake.look("both.csv", BOTH.encode())
    other = intake.look("other.csv", BOTH.replace("-3,00", "-4,00").encode())
    intake.take(looked, "Ada")
    with pytest.raises(IntakeError, match="T2 is there already"):
        intake.take(other, "Bob")
    assert ids(tmp_path) == ["T2", "T3"]


def test_columns_are_mapped_once(intake: Intake, tmp_path: Path) -> None:
    odd = "Kiedy|Ile|Skąd\n03/04/2024|1,00|Acme\n"
    first = intake.look("odd.csv", odd.encode())
    assert (first.problem is not None, first.confirmed, first.rows) == (True, False, 0)
    assert first.headers == ("Kiedy", "Ile", "Skąd")
    assert first.first_rows.rows() == [("03/04/2024", "1,00", "Acme")]
    columns = {"booked_on": ("Kiedy",), "amount": ("Ile",), "counterparty_name": ("Skąd",)}
    mapping = ColumnMapping("transfers", columns, {"currency": "PLN"})
    assert intake.look("odd.csv", odd.encode(), mapping).missing == ("direction",)
    mapping = mapping.changed({}, {"direction": "in"})
    assert "two dates" in str(intake.look("odd.csv", odd.encode(), mapping).problem)
    intake.take(intake.look("odd.csv", odd.encode(), mapping.changed({}, {}, dates="DMY")), "Ada")
    later = opened(tmp_path).look("later.csv", odd.replace("1,00", "2,00").encode())
    assert (later.problem, later.confirmed, later.new, later.months) == (None, True, 1, ("2024-04",))
    assert later.mapping == mapping.changed({}, {}, dates="DMY", decimal=","), "what one file told holds for the next"


def test_what_a_confirmed_file_told_is_not_asked_again(intake: Intake) -> None:
    """The next one has only incoming transfers, whole thousands and days that could be months."""
    head = "Booking date;Title;Amount;Currency\n"
    take(intake, "a.csv", f"{head}13/01/2024;INV 1;-1.234,50;EUR\n")
    later = intake.look("b.csv", f"{head}03/04/2024;INV 2;1.234;EUR\n".encode())
    assert later.problem is None
    assert later.months == ("2024-04",)
    assert later.frame.select("amount", "direction").rows() == [(123400, "in")]


def test_a_file_without_a_row_can_be_taken(intake: Intake) -> None:
    """A day on which nothing was booked, which is no mistake of a statement."""
    statement = ":20:S\n:25:DE89370400440532013000\n:28C:1/1\n:60F:C240101EUR5,00\n:62F:C240101EUR5,00\n-\n"
    assert take(intake, "empty.sta", statement).rows == 0


@pytest.mark.parametrize("content", [b"", b"x" * (64 * 2**20 + 1)], ids=["empty", "huge"])
def test_nothing_and_too_much(intake: Intake, content: bytes) -> None:
    with pytest.raises(IntakeError, match=r"is empty|has more than 64 MiB"):
        intake.look("file", content)


def test_damaged_rows_in_the_warehouse_are_named(intake: Intake, tmp_path: Path) -> None:
    take(intake, "january.csv", JANUARY)
    warehouse = DuckWarehouse(tmp_path / "w.duckdb")
    bad = warehouse.read_month("transfers", "2024-01").with_columns(currency=pl.lit("???"))
    warehouse.write_month("transfers", "2024-01", bad)
    with pytest.raises(IntakeError, match="raw_transfers holds ids of this file in rows that are not valid"):
        intake.look("both.csv", BOTH.encode())


@dataclass(frozen=True)
class Failing:
    """A warehouse whose `add_rows` fails before or after it has added."""

    inner: DuckWarehouse
    after: bool

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def add_rows(self, table: str, frame: pl.DataFrame) -> None:
        if self.after:
            self.inner.add_rows(table, frame)
        raise WarehouseError("the line was cut")


@pytest.mark.parametrize("after", [False, True])
def test_a_warehouse_that_fails_loses_and_doubles_nothing(tmp_path: Path, after: bool) -> None:
    failing = Intake(Store(tmp_path / "store"), Failing(DuckWarehouse(tmp_path / "w.duckdb"), after))  # type: ignore[arg-type]
    preview = failing.look("january.csv", JANUARY.encode())
    with pytest.raises(WarehouseError):
        failing.take(preview, "Ada")
    assert failing.history() == []
    assert ids(tmp_path) == (["T1", "T2"] if after else []) if (tmp_path / "w.duckdb").exists() else not after
    intake = opened(tmp_path)
    intake.take(preview, "Ada")
    assert ids(tmp_path) == ["T1", "T2"]
    assert [taken.rows for taken in intake.history()] == [2]


_KILLED = """
    import os, signal, sys
    from pathlib import Path
    from matching_platform.intake.taking import Intake
    from matching_platform.store.record import Record
    from matching_platform.store.versions import Store
    from matching_platform.warehouse.duck import DuckWarehouse

    folder, text = Path(sys.argv[1]), sys.argv[2]
    Record.append = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    intake = Intake(Store(folder / "store"), DuckWarehouse(folder / "w.duckdb"))
    intake.take(intake.look("january.csv", text.encode()), "Ada")
"""


def test_killed_between_the_warehouse_and_the_record(tmp_path: Path) -> None:
    script = [sys.executable, "-c", textwrap.dedent(_KILLED), str(tmp_path), JANUARY]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    assert ids(tmp_path) == ["T1", "T2"]
    intake = opened(tmp_path)
    assert intake.history() == []
    preview = intake.look("january.csv", JANUARY.encode())
    assert (preview.taken, preview.new, preview.known) == (None, 0, 2)
    assert intake.take(preview, "Ada").rows == 2
    assert ids(tmp_path) == ["T1", "T2"]
    assert len(intake.history()) == 1


def at_once(works: list[Callable[[], object]]) -> None:
    with ThreadPoolExecutor(len(works)) as pool:
        for future in [pool.submit(work) for work in works]:
            future.result()


def test_many_take_at_once(tmp_path: Path) -> None:
    """The same file, and files that overlap: every row is there once, and every file is recorded once."""
    texts = [HEAD + "".join(f"2024-01-05;A;INV {n};-1,00;EUR;T{n}\n" for n in range(i, i + 5)) for i in range(4)]
    at_once([lambda text=text: take(opened(tmp_path), "a.csv", text) for text in texts + texts])  # type: ignore[misc]
    assert ids(tmp_path) == [f"T{n}" for n in range(8)]
    history = opened(tmp_path).history()
    assert len(history) == len({taken.sha256 for taken in history}) == 4


def test_threads_share_an_intake(intake: Intake, tmp_path: Path) -> None:
    texts = [JANUARY.replace("T1", f"A{n}").replace("T2", f"B{n}") for n in range(6)]
    at_once([lambda text=text: take(intake, "a.csv", text) for text in texts])  # type: ignore[misc]
    assert len(ids(tmp_path)) == 12
    assert [taken.number for taken in intake.history()] == [1, 2, 3, 4, 5, 6]


def test_adding_is_all_or_nothing(tmp_path: Path, intake: Intake) -> None:
    take(intake, "january.csv", JANUARY)
    warehouse = DuckWarehouse(tmp_path / "w.duckdb")
    there = warehouse.read_month("transfers", "2024-01")
    other = there.head(1).with_columns(transfer_id=pl.lit("T9"))
    before = warehouse.months()
    with pytest.raises(HeldError, match="raw_transfers holds transfer_id 'T1' already"):
        warehouse.add_rows("transfers", pl.concat([other, there]))
    assert warehouse.months() == before
    blank = there.head(1).with_columns(transfer_id=pl.lit("T1"))
    warehouse.write_month("transfers", "2023-12", blank.with_columns(transfer_id=pl.lit(" T7\u00a0")))
    assert warehouse.rows_with("transfers", pl.Series(["T7", "T1", "T8"])).height == 2, "of any month, trimmed"
    assert warehouse.rows_with("invoices", pl.Series(["T1"])).is_empty()
    with pytest.raises(HeldError):
        warehouse.add_rows("transfers", blank.with_columns(transfer_id=pl.lit("T7")))


UBL_LIKE = b'<Invoice xmlns="urn:oasis:names:specification:ubl:schema:xsd:Invoice-2"><ID>1</ID></Invoice>'


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(min_size=1, max_size=400),
        st.text(alphabet="ab;,1.\n\"'\t-/ €<>:{}ł\x00", min_size=1, max_size=200).map(str.encode),
        st.builds(
            lambda at, byte, text: text[:at] + bytes([byte]) + text[at + 1 :],
            st.integers(0, 200),
            st.integers(0, 255),
            st.sampled_from([JANUARY.encode(), UBL_LIKE, JANUARY.encode("utf-16")]),
        ),
    )
)
@example(b"PK\x03\x04")
@example(b"%PDF-1.7\n")
@example(b"<")
@example(b'a;b\n"')
@example(b"\xff\xfe")
def test_any_bytes_are_shown_or_refused(intake: Intake, content: bytes) -> None:
    try:
        preview = intake.look("file", content)
    except IntakeError as error:
        assert str(error).startswith("file")
        assert "\n" not in str(error)
    else:
        assert isinstance(preview, Preview)
        assert replace(preview).rows == preview.frame.height


def test_what_was_learnt_of_a_currency_covers_only_amounts_that_tell_none(intake: Intake) -> None:
    head = "Booking date;Title;Name;Amount\n"
    first = f"{head}2024-01-15;INV 1;A;-1,00\n".encode()
    mapping = intake.look("a.csv", first).mapping
    assert mapping is not None
    intake.take(intake.look("a.csv", first, mapping.changed({}, {"currency": "PLN"})), "Ada")
    later = intake.look("b.csv", f"{head}2024-01-15;INV 1;A;-1,00 EUR\n2024-01-16;INV 2;A;-2,00\n".encode())
    assert (later.confirmed, later.new) == (True, 2)
    assert later.frame["currency"].to_list() == ["EUR", "PLN"]


SALES = "Invoice number;Customer;Tax id;Invoice date;Gross;Currency\n1;A;{};2024-01-15;1,00;PLN\n"


@pytest.mark.parametrize(
    ("first", "second", "conflicts"),
    [
        ("526-000-12-46", "PL5260001246", []),
        ("5260001246", "7010019747", ["counterparty_id", "counterparty_tax_id"]),
        ("5260001246", "", ["counterparty_id", "counterparty_tax_id"]),
    ],
)
def test_a_tax_id_may_be_written_otherwise_than_before(
    intake: Intake, first: str, second: str, conflicts: list[str]
) -> None:
    looked = intake.look("a.csv", SALES.format(first).encode())
    assert looked.mapping is not None
    intake.take(intake.look("a.csv", looked.content, looked.mapping.changed({}, {"direction": "sale"})), "Ada")
    assert sorted(intake.look("b.csv", SALES.format(second).encode()).conflicts["column"]) == conflicts


def test_what_was_taken_under_a_tax_id_with_punctuation_is_there(intake: Intake, tmp_path: Path) -> None:
    """Before, the id of a party was its tax id as it came."""
    content = SALES.format("526-000-12-46").encode()
    looked = intake.look("a.csv", content)
    assert looked.mapping is not None
    intake.take(intake.look("a.csv", content, looked.mapping.changed({}, {"direction": "sale"})), "Ada")
    warehouse = DuckWarehouse(tmp_path / "w.duckdb")
    there = warehouse.read_month("invoices", "2024-01")
    warehouse.write_month("invoices", "2024-01", there.with_columns(counterparty_id=pl.lit("526-000-12-46")))
    again = intake.look("b.csv", content.replace(b"\n1;", b"\n2;") + content.splitlines()[1] + b"\n")
    assert (again.problem, again.new, again.known) == (None, 1, 1)
