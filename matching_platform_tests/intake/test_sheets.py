"""Tables as programs in three languages export them: the headers are found, mapped, and the rows read."""

import io
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import polars as pl
import pytest

from matching_platform.intake.incoming import Incoming, IntakeError
from matching_platform.intake.mapping import ColumnMapping, propose
from matching_platform.intake.rows import UntoldError, read_rows
from matching_platform.intake.sheets import read_sheet

SAMPLES = Path(__file__).parent / "sheets"
POLISH = """Numer faktury;Nazwa kontrahenta;NIP;Data wystawienia;Termin płatności;Kwota brutto (PLN);Typ dokumentu
FV/1/2024;Żółć i Synowie sp. z o.o.;5260001246;01.02.2024;15.02.2024;1 234,50;Faktura
FV/2/2024;Bąk S.A.;;02.02.2024;;20,00;Faktura
KOR/1/2024;Bąk S.A.;;03.02.2024;10.02.2024;5,00;Korekta
Razem;;;;;1 249,50;
"""
GERMAN = """Umsatzanzeige;;;;;
Konto;DE02120300000000202051;;;;
;;;;;
Buchungstag;Auftraggeber/Empfänger;Verwendungszweck;Kontonummer/IBAN;Betrag;Währung
01.02.2024;Müller & Söhne GmbH;"RE 1001; RE 1002";DE89 3704 0044 0532 0130 00;-1.234,50;EUR
01.02.2024;Groß KG;RE 7;;7,00;EUR
01.02.2024;Groß KG;RE 7;;7,00;EUR
"""
ENGLISH = """Date,Description,Paid in,Paid out,Account number
2024-02-01,INV 1,"1,200.00",,GB33BUKB20201555555555
2024-02-02,INV 2,,3.00,
"""
SALE = {"direction": "sale"}


def read(text: str | bytes, changes: dict[str, str] | None = None, **options: Any) -> Incoming:
    sheet = read_sheet("export.csv", text.encode() if isinstance(text, str) else text)
    return read_rows(sheet, propose(sheet).changed({}, changes or {}, **options))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1250", "utf-16"])
def test_polish_invoices(encoding: str) -> None:
    incoming = read(POLISH.encode(encoding), SALE)
    assert incoming.table == "invoices"
    rows = incoming.frame
    assert rows["counterparty_name"].to_list() == ["Żółć i Synowie sp. z o.o.", "Bąk S.A.", "Bąk S.A."]
    assert rows["amount"].to_list() == [123450, 2000, -500], "a correction takes away"
    assert rows["currency"].unique().to_list() == ["PLN"], "the header says so"
    assert rows["issued_on"].to_list() == [date(2024, 2, day) for day in (1, 2, 3)]
    assert rows["due_on"].to_list() == [date(2024, 2, day) for day in (15, 2, 10)]
    assert rows["counterparty_id"][0] == "5260001246", "a tax id stands for a missing id"
    assert rows["counterparty_id"][1] == rows["counterparty_id"][2] != ""
    assert incoming.skipped.rows() == [("row 5", "Razem 1 249,50", "has no date")]
    assert any("due date" in note for note in incoming.notes)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_german_transfers_below_a_preamble(encoding: str) -> None:
    incoming = read(GERMAN.encode(encoding))
    assert incoming.table == "transfers"
    rows = incoming.frame
    assert rows["direction"].to_list() == ["out", "in", "in"]
    assert rows["amount"].to_list() == [123450, 700, 700]
    assert rows["title"][0] == "RE 1001; RE 1002"
    assert rows["counterparty_account"].to_list() == ["DE89370400440532013000", None, None]
    assert rows["counterparty_name"][0] == "Müller & Söhne GmbH"
    assert rows["transfer_id"].n_unique() == 3, "two equal payments on a day are two"


def test_english_transfers_with_amounts_in_two_columns() -> None:
    rows = read(ENGLISH, {"currency": "GBP"}).frame
    assert rows["direction"].to_list() == ["in", "out"]
    assert rows["amount"].to_list() == [120000, 300]


def test_ids_are_the_same_in_every_export_of_a_day() -> None:
    head, *lines = GERMAN.splitlines()[3:]
    later = "\n".join([head, *reversed(lines), "02.02.2024;Neu AG;RE 8;;1,00;EUR"])
    assert set(read(GERMAN).frame["transfer_id"]) < set(read(later).frame["transfer_id"])


def workbook(*rows: list[Any], before: int = 0) -> bytes:
    made = openpyxl.Workbook()
    for _ in range(before):
        made.active.append(["Report", None])
    for row in rows:
        made.active.append(row)
    file = io.BytesIO()
    made.save(file)
    return file.getvalue()


@pytest.mark.parametrize("before", [0, 3])
def test_a_workbook(before: int) -> None:
    content = workbook(
        ["Invoice number", "Customer", "Invoice date", "Due date", "Gross amount", "Currency"],
        [1001, "Smith Ltd", date(2024, 2, 1), date(2024, 3, 1), 1234.5, "GBP"],
        [1002, "Jones plc", date(2024, 2, 2), None, 0.1 + 0.2, "EUR"],
        before=before,
    )
    incoming = read(content, SALE)
    assert incoming.format == "Excel"
    assert incoming.frame["number"].to_list() == ["1001", "1002"]
    assert incoming.frame["amount"].to_list() == [123450, 30]
    assert incoming.frame["currency"].to_list() == ["GBP", "EUR"]
    assert incoming.frame["due_on"].to_list() == [date(2024, 3, 1), date(2024, 2, 2)]


def test_a_workbook_of_the_old_kind() -> None:
    """Bank exports are still made so: cells of dates and numbers below a title."""
    incoming = read((SAMPLES / "polish.xls").read_bytes())
    assert incoming.format == "Excel"
    columns = ["booked_on", "amount", "currency", "direction", "counterparty_name", "title"]
    assert incoming.frame.select(columns).rows() == [
        (date(2024, 2, 1), 123450, "PLN", "in", "Żółć i Synowie", "FV/1/2024"),
        (date(2024, 2, 29), 30, "PLN", "out", "Bąk S.A.", "FV/2/2024"),
    ]


def reaching(row: int, column: int) -> bytes:
    """A workbook with a small table, and one cell far from it."""
    made = openpyxl.Workbook()
    made.active.append(["Date", "Name"])
    made.active.append(["2024-02-01", "A"])
    made.active.cell(row, column, " ")
    file = io.BytesIO()
    made.save(file)
    return file.getvalue()


def swollen(content: bytes) -> bytes:
    """A workbook whose sheet ends in much of nothing, and whose directory keeps silent about it."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target,
    ):
        for name in source.namelist():
            more = b" " * 300 * 2**20 if name.endswith("sheet1.xml") else b""
            target.writestr(name, source.read(name) + more)
    lying = bytearray(file.getvalue())
    at = lying.rindex(b"PK\x01\x02", 0, lying.rindex(b"xl/worksheets/sheet1.xml"))
    lying[at + 24 : at + 28] = (100).to_bytes(4, "little")
    return bytes(lying)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (lambda: reaching(3, 301), "reaches over 3 rows and 301 columns, more than 300 columns or 5,000,000 cells"),
        (lambda: reaching(1_048_576, 5), "reaches over 1,048,576 rows and 5 columns, .* delete what stands far"),
        (
            lambda: reaching(1_048_576, 16_384),
            "takes too much memory or time to be read; split it, or delete what stands",
        ),
        (lambda: swollen(reaching(3, 2)), "too large when unpacked; split it"),
        (lambda: b";".join([b"a"] * 301) + b"\n1;2\n", "reaches over 3 rows and 301 columns"),
        (lambda: b";".join([b"a"] * 300) + b"\n" + b"b;c\n" * 17_000, "reaches over 17,002 rows and 300 columns"),
    ],
    ids=["wide", "long", "all of a sheet", "unpacked", "wide text", "long text"],
)
def test_a_small_file_that_would_fill_the_memory_is_refused(content: Callable[[], bytes], problem: str) -> None:
    with pytest.raises(IntakeError, match=problem):
        read_sheet("a", content())


def test_a_blank_at_the_end_of_a_sheet_does_no_harm() -> None:
    assert read_sheet("a.xlsx", reaching(1_048_576, 2)).frame.height == 1


@pytest.mark.parametrize("size", [8, 600, 3000])
def test_a_workbook_of_the_old_kind_that_is_cut(size: int) -> None:
    with pytest.raises(IntakeError, match=r"no workbook that can be read .*; save it again as \.xlsx"):
        read((SAMPLES / "polish.xls").read_bytes()[:size])


def test_a_cell_that_cannot_be_read_is_named_as_a_spreadsheet_names_it() -> None:
    text = "Report\n\nInvoice number;Customer;Invoice date;Gross\n1;A;2024-02-29;1,00\n2;A;2024-02-30;1,00\n"
    mapping = ColumnMapping(
        "invoices",
        {"number": ("Invoice number",), "counterparty_name": ("Customer",), "amount": ("Gross",)}
        | {"issued_on": ("Invoice date",)},
        {**SALE, "currency": "EUR"},
    )
    with pytest.raises(IntakeError, match="row 5, field Invoice date: '2024-02-30' is not a date"):
        read_rows(read_sheet("a.csv", text.encode()), mapping)
    late = text.replace("2024-02-30", "2024-02-29").replace("2;A;2024-02-29;1,00", "2;A;2024-02-29;1,005")
    with pytest.raises(IntakeError, match=r"row 5, field amount: '1.005' is not an amount with at most two decimal"):
        read_rows(read_sheet("a.csv", late.encode()), mapping)


def test_what_nothing_tells_is_asked_for() -> None:
    with pytest.raises(UntoldError, match="nothing tells direction of these invoices") as untold:
        read(POLISH)
    assert untold.value.columns == ("direction",)
    with pytest.raises(UntoldError, match="currency") as untold:
        read(ENGLISH)
    assert untold.value.columns == ("currency",)
    unsigned = "Date,Description,Amount,Currency\n2024-02-01,INV 1,1.00,EUR\n"
    with pytest.raises(UntoldError, match="incoming transfers from outgoing"):
        read(unsigned)
    assert read(unsigned, {"direction": "out"}).frame["direction"].to_list() == ["out"]


def test_a_letter_tells_the_direction() -> None:
    text = "Buchungstag;Verwendungszweck;Umsatz;Währung;Soll/Haben\n01.02.2024;RE 1;5,00;EUR;S\n01.02.2024;RE 2;5,00;EUR;H\n"
    assert read(text).frame["direction"].to_list() == ["out", "in"]
    with pytest.raises(IntakeError, match="row 2, field direction: 'Q' is not 'in' or 'out'"):
        read(text.replace(";S\n", ";Q\n"))


def test_columns_of_a_title_are_joined_and_unknown_ones_named() -> None:
    sheet = read_sheet("a.csv", b"Date;T1;T2;Amount\n2024-02-01;INV;1;-5,00\n")
    mapping = ColumnMapping(
        "transfers", {"booked_on": ("Date",), "title": ("T1", "T2"), "amount": ("Amount",)}, {"currency": "EUR"}
    )
    assert read_rows(sheet, mapping).frame["title"].to_list() == ["INV 1"]
    with pytest.raises(IntakeError, match=r"no column is called 'T3'.*Date, T1, T2, Amount"):
        read_rows(sheet, mapping.changed({"title": ("T3",)}, {}))
    with pytest.raises(IntakeError, match="no column 'titel'"):
        read_rows(sheet, mapping.changed({"titel": ("T1",)}, {}))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"one\ntwo\n", "nothing parts its lines"),
        (b"a;b\n", "no rows below its headers"),
        (b"1;2\n3;4\n", "no row of headers"),
        (b"a;b\n1;2\n3;4;5;6\n" + b"7;8\n" * 9, "a;b|no row of headers|is no table"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 600, "no workbook"),
        (b"\x00\x01\x02;\x03" * 9, "neither text"),
    ],
)
def test_what_is_no_table(content: bytes, problem: str) -> None:
    with pytest.raises(IntakeError, match=problem):
        read_sheet("a.csv", content)


def test_invoices_of_one_number_are_told_apart() -> None:
    """By year, by their sellers and by sign; the same invoice has the same id in every export."""
    head = "Invoice number;Supplier;Invoice date;Gross amount;Currency\n"
    rows = ["7;A;2023-02-01;1,00;EUR", "7;A;2024-02-01;1,00;EUR", "7;B;2024-02-01;1,00;EUR", "7;B;2024-02-01;-1,00;EUR"]
    ids = read(head + "\n".join(rows), {"direction": "purchase"}).frame["invoice_id"]
    assert ids.n_unique() == 4
    assert ids.to_list() == read(head + "\n".join(rows), {"direction": "purchase"}).frame["invoice_id"].to_list()
    with pytest.raises(IntakeError, match=r"row 3, field invoice_id: .* appears more than once"):
        read(head + "\n".join([rows[0], rows[0]]), SALE)


def test_the_same_headers_have_one_fingerprint() -> None:
    one, other = (read_sheet("x", text.encode()) for text in (POLISH, POLISH.replace("FV/1", "FV/9")))
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != read_sheet("x", ENGLISH.encode()).fingerprint
    assert isinstance(one.frame, pl.DataFrame)
