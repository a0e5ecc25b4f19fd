"""Tables as programs in three languages export them: the headers are found, mapped, and the rows read."""

import io
import logging
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
from matching_platform.intake.workbooks import read_workbook

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


AMOUNTS = (
    "Data operacji;Opis operacji;Kontrahent;Kwota\n2024-01-15;FV 1;ABC;1 100,00 {}\n2024-01-16;FV 2;DEF;-5,00 {}\n"
)


@pytest.mark.parametrize(
    ("beside", "said", "currencies"),
    [
        (("PLN", "PLN"), {}, ["PLN", "PLN"]),
        (("EUR", "PLN"), {}, ["EUR", "PLN"]),
        (("€", "£"), {}, ["EUR", "GBP"]),
        (("EUR", ""), {"currency": "PLN"}, ["EUR", "PLN"]),
        (("", ""), {"currency": "PLN"}, ["PLN", "PLN"]),
        (("$", "$"), {"currency": "CAD"}, ["CAD", "CAD"]),
    ],
)
def test_what_stands_beside_an_amount_is_its_currency(
    beside: tuple[str, str], said: dict[str, str], currencies: list[str]
) -> None:
    """What is said of all rows holds for those that tell nothing."""
    assert read(AMOUNTS.format(*beside), said).frame["currency"].to_list() == currencies


def test_a_currency_is_asked_for_where_one_amount_tells_none() -> None:
    for beside in (("EUR", ""), ("$", "$"), ("", "")):
        with pytest.raises(UntoldError, match="nothing tells currency"):
            read(AMOUNTS.format(*beside))
    late = AMOUNTS + "".join(f"2024-01-17;FV {n};ABC;{n},00 PLN\n" for n in range(300)) + "2024-01-18;FV;ABC;7,00 EUR\n"
    assert read(late.format("PLN", "PLN")).frame["currency"][-1] == "EUR"


def test_an_amount_in_another_currency_than_its_row_is_refused() -> None:
    text = "Date;Title;Amount;Currency\n2024-01-15;A;-1,00;PLN\n2024-01-15;B;-1,00 EUR;PLN\n"
    with pytest.raises(IntakeError, match="row 3, field Amount and Currency: '-1,00 EUR' is not in PLN, which is said"):
        read(text)
    assert read(text.replace("EUR;PLN", "EUR;EUR")).frame["currency"].to_list() == ["PLN", "EUR"]
    with pytest.raises(IntakeError, match=r"row 2, field Kwota: '1 100,00 \$' is not in EUR, which is said"):
        read(AMOUNTS.format("$", "$"), {"currency": "EUR"})


MARKED = "Buchungstag;Verwendungszweck;Betrag;Währung;Soll/Haben\n"


def test_a_sign_is_not_swallowed_by_a_direction() -> None:
    with pytest.raises(IntakeError, match=r"row 3, field Kwota: the amount is negative, and 'in' is said .* 'signed'"):
        read(AMOUNTS.format("PLN", "PLN"), {"direction": "in"})
    assert read(AMOUNTS.format("PLN", "PLN"), {"direction": "signed"}).frame["direction"].to_list() == ["in", "out"]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["100,00;EUR;H", "-100,00;EUR;H"], "row 3, field Betrag: the amount is negative, against the mark"),
        (["100,00;EUR;S", "-100,00;EUR;S"], "row 3, field Betrag: the amount is negative, .* than the other rows"),
        (["100,00;EUR;H", "-100,00;EUR;S", "-5,00;EUR;S"], ["in", "out", "out"]),
        (["100,00;EUR;H", "100,00;EUR;S"], ["in", "out"]),
    ],
)
def test_a_sign_against_its_mark_is_refused(rows: list[str], told: str | list[str]) -> None:
    text = MARKED + "".join(f"15.01.2024;RG {n};{row}\n" for n, row in enumerate(rows))
    if isinstance(told, list):
        assert read(text).frame["direction"].to_list() == told
    else:
        with pytest.raises(IntakeError, match=told):
            read(text)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["0.50,100.00"], r"row 2, field Credit and Debit: 100.00 came in and 0.50 went out in one row"),
        (["0.50,", "-0.50,"], "row 3, field Debit: some of these amounts are negative"),
        (["0.50,0.00", "0.00,7.00", "-0.00,-7.00"], [(50, "out"), (700, "in"), (700, "out")]),
        (["-0.50,", ",7.00"], [(50, "out"), (700, "in")]),
        (["0.00,", ",7.00"], [(700, "in")]),
    ],
)
def test_amounts_in_two_columns(rows: list[str], told: str | list[tuple[int, str]]) -> None:
    text = "Date,Title,Debit,Credit,Currency\n" + "".join(f"2024-01-15,INV,{row},EUR\n" for row in rows)
    if isinstance(told, list):
        assert read(text).frame.select("amount", "direction").rows() == told
    else:
        with pytest.raises(IntakeError, match=told):
            read(text)


REGISTER = "Numer faktury;NIP;Data wystawienia;Kwota brutto;Waluta;Typ dokumentu\n"


@pytest.mark.parametrize(
    ("rows", "amounts"),
    [
        (["1000,00;PLN;Faktura", "150,00;PLN;Korekta"], [100000, -15000]),
        (["1000,00;PLN;Faktura", "150,00;PLN;Korekta", "-200,00;PLN;Korekta"], [100000, 15000, -20000]),
        (["-1,00;PLN;Korekta", "150,00;PLN;Credit note"], [-100, -15000]),
        (["1000,00;PLN;Faktura", "1000,00;PLN;Pro forma", "1,00;PLN;Faktura proforma"], [100000]),
    ],
)
def test_what_kinds_of_documents_mean(rows: list[str], amounts: list[int]) -> None:
    """A correction may raise where signs tell; what is pro forma is no claim."""
    text = REGISTER + "".join(f"F/{n};5260001246;2024-01-15;{row}\n" for n, row in enumerate(rows))
    incoming = read(text, SALE)
    assert incoming.frame["amount"].to_list() == amounts
    assert incoming.skipped.height == len(rows) - len(amounts)
    raising = [amount for amount in amounts[1:] if amount > 0]
    assert any("1 of the corrections add" in note for note in incoming.notes) == bool(raising)


def test_a_file_of_nothing_but_pro_forma_invoices_is_refused() -> None:
    with pytest.raises(IntakeError, match="no row can be taken: it is a pro-forma invoice"):
        read(REGISTER + "F/1;5260001246;2024-01-15;1,00;PLN;Proforma\n", SALE)


def test_a_tax_id_is_one_however_it_is_written() -> None:
    rows = [f"F/{n};{text};2024-01-15;1,00;PLN;\n" for n, text in enumerate(["5260001246", "PL 526-000-12-46", "DE1"])]
    frame = read(REGISTER + "".join(rows), {"direction": "purchase"}).frame
    assert frame["counterparty_id"].to_list() == ["5260001246", "5260001246", "DE1"]
    assert frame["invoice_id"][0] == "purchase 2024 5260001246 F/0"
    assert frame["counterparty_tax_id"][1] == "PL 526-000-12-46", "as it came"


OWN = "Auftragskonto;Buchungstag;Verwendungszweck;Kontonummer/IBAN;Betrag;Währung\n"


def test_equal_bookings_of_two_own_accounts_are_two() -> None:
    row = "{};31.01.2024;Entgelt;;-30,00;EUR\n"
    one, same, other = (read(OWN + row.format(iban)) for iban in ("DE89 3704", "de893704", "DE0212"))
    assert one.frame.drop("transfer_id").equals(other.frame.drop("transfer_id"))
    assert one.frame["transfer_id"][0] == same.frame["transfer_id"][0] != other.frame["transfer_id"][0]


@pytest.mark.parametrize("theirs", ["NL91ABNA0417164300", ""])
def test_our_own_account_is_not_taken_for_that_of_another(theirs: str) -> None:
    text = f"""Date;Name / Description;Account;Counterparty;Debit/credit;Amount (EUR);Notifications
20240115;Klant BV;NL18INGB0001234567;NL91ABNA0417164300;Credit;100,00;Factuur 1
20240116;Shop;NL18INGB0001234567;{theirs};Debit;12,50;Pas 001
"""
    frame = read(text).frame
    assert frame["counterparty_account"].to_list() == ["NL91ABNA0417164300", theirs or None]
    assert frame["counterparty_name"].to_list() == ["Klant BV", "Shop"]
    assert frame["title"].to_list() == ["Factuur 1", "Pas 001"]


def test_the_one_account_of_a_file_is_that_of_the_other_side() -> None:
    text = GERMAN.replace("Kontonummer/IBAN", "IBAN").replace("DE89 3704 0044 0532 0130 00", "DE89370400440532013000")
    assert read(text).frame["counterparty_account"][0] == "DE89370400440532013000"


@pytest.mark.parametrize(
    ("footer", "left"),
    [
        ("Total;;0,00;EUR", "row 3: has no date"),
        ("Kontostand;31.01.2024;1.098,00;EUR", "row 3: has no date"),
        (";;#Saldo końcowe;", "row 3: has neither date nor amount|row 3: has no date"),
        ("2024-01-16;Info;0,00;EUR", "row 3: its amount is zero"),
    ],
)
def test_what_stands_below_a_table_and_what_moved_no_money_is_left_out(footer: str, left: str) -> None:
    incoming = read(f"Date;Title;Amount;Currency\n2024-01-15;INV;-1,00;EUR\n{footer}\n")
    assert incoming.frame["amount"].to_list() == [100]
    ((where, _, reason),) = incoming.skipped.rows()
    assert f"{where}: {reason}" in left.split("|")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("16 Sept 2024;INV;1,00", "row 3, field Date: '16 Sept 2024' is not a date"),
        ("16 Jan 2024;INV;1,00 DBT", "row 3, field Amount: '1,00 DBT' is not an amount"),
    ],
)
def test_a_column_that_cannot_be_read_is_named_with_its_first_such_cell(row: str, told: str) -> None:
    with pytest.raises(IntakeError, match=told):
        read(f"Date;Title;Amount;Currency\n15 Jan 2024;INV;-1,00;EUR\n{row};EUR\n")


QUOTED = "Date;Name;Title;Amount;Currency\n2024-01-15;{};{};-1,00;EUR\n2024-01-16;A;B;-2,00;EUR\n"


@pytest.mark.parametrize(
    ("name", "title", "read_as"),
    [
        ('"ABC" Ltd', "INV 1", ("ABC Ltd", "INV 1")),
        ("ABC", 'INV 1 26" monitor', ("ABC", 'INV 1 26" monitor')),
        ('"A;B"', 'INV "1"', ("A;B", 'INV "1"')),
    ],
)
def test_quotes_within_texts(name: str, title: str, read_as: tuple[str, str]) -> None:
    frame = read(QUOTED.format(name, title)).frame
    assert frame.select("counterparty_name", "title").row(0) == read_as
    assert frame.height == 2


def test_a_quote_that_would_swallow_rows_is_refused() -> None:
    with pytest.raises(IntakeError, match="is no table"):
        read(QUOTED.format('"ABC', 'INV "1'))


def test_a_first_row_of_values_is_no_row_of_headers() -> None:
    row = "15 Jan 2024;ACME LTD;INV 1;EUR;GB29NWBK60161331926819;-100.00\n"
    with pytest.raises(IntakeError, match="has no row of headers"):
        read(row + row.replace("15", "16"))


HEADS = ["Date", "Payer", "Account", "Title", "Amount", "Currency"]


def sheets(states: dict[str, str], *rows: list[Any], headers: list[str] = HEADS) -> bytes:
    """A workbook with the same table on several sheets, of which each has its state."""
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, state in states.items():
        sheet = made.create_sheet(name)
        sheet.sheet_state = state
        for row in (headers, *rows):
            sheet.append(row)
    file = io.BytesIO()
    made.save(file)
    return file.getvalue()


ROW = [date(2024, 1, 15), "A", "", "INV", -1.5, "EUR"]


def test_hidden_sheets_are_passed_over() -> None:
    incoming = read(sheets({"Old": "hidden", "Older": "veryHidden", "Bank": "visible"}, ROW))
    assert incoming.frame.height == 1
    assert incoming.notes == ()


def test_sheets_with_the_same_columns_are_refused() -> None:
    with pytest.raises(
        IntakeError, match=r"the sheets 'Jan' and 'Feb' have the same columns, .* hide what is not to be"
    ):
        read(sheets({"Jan": "visible", "Feb": "visible"}, ROW))
    assert read(sheets({"Jan": "visible", "Feb": "hidden"}, ROW)).frame.height == 1


def test_a_number_that_lost_digits_is_refused() -> None:
    account = "27114020040000300201355387"
    number, text = ([*ROW[:2], value, *ROW[3:]] for value in (int(account), account))
    with pytest.raises(IntakeError, match=r"row 2, field Account: '27114020040000300\d{9}' was kept as a number"):
        read(sheets({"A": "visible"}, number))
    assert read(sheets({"A": "visible"}, text)).frame["counterparty_account"].to_list() == [account]
    reference = read(sheets({"A": "visible"}, number, headers=["Date", "Payer", "Any", "Title", "Amount", "Currency"]))
    assert reference.frame.height == 1, "nobody reads that column"


def test_why_a_workbook_could_not_be_read_is_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with caplog.at_level(logging.WARNING), pytest.raises(IntakeError, match="too much memory or time"):
        read_workbook("a.xlsx", b"")
    assert "reading a.xlsx" in caplog.text
    assert "exit status 1" in caplog.text


def test_another_sheet_may_be_wider_than_any_table() -> None:
    made = openpyxl.load_workbook(io.BytesIO(sheets({"Bank": "visible", "Empty": "visible"}, ROW)))
    made["Empty"].delete_rows(1, 9)
    made.create_sheet("Wide").append(["x"] * 400)
    file = io.BytesIO()
    made.save(file)
    incoming = read(file.getvalue())
    assert incoming.frame.height == 1
    assert incoming.notes == ("only the sheet 'Bank' was read, of 3",)
