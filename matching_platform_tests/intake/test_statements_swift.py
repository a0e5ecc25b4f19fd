"""MT940 and MT942: what the samples of four countries say, each dialect's details, and what is refused."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matching_platform.intake.incoming import Incoming, IntakeError
from matching_platform.intake.statements import read_statement
from matching_platform.intake.statements.details import details
from matching_platform.ledger.schema import TRANSFERS

SAMPLES = Path(__file__).parent / "statements"


def sample(name: str) -> Incoming:
    return read_statement(name, (SAMPLES / name).read_bytes())


def told(incoming: Incoming) -> list[tuple[object, ...]]:
    columns = ["booked_on", "amount", "direction", "counterparty_name", "counterparty_account", "title"]
    return incoming.frame.select(columns).rows()


def message(*entries: str, opening: str = "C240101EUR100,00", closing: str = "C240131EUR100,00") -> bytes:
    lines = [":20:X", ":25:DE89370400440532013000", ":28C:1/1", f":60F:{opening}", *entries, f":62F:{closing}", "-"]
    return "\n".join(lines).encode()


def test_german_sub_fields_and_sepa_tags() -> None:
    read = sample("german.sta")
    on, payer, north = date(2024, 3, 13), "DE17100500000123456789", "DE64200700240009988776"
    assert read.format == "MT940" and read.frame.schema == TRANSFERS.schema
    assert told(read) == [
        (
            on,
            119000,
            "in",
            "Blumenhaus Wiesengrund GmbH & Co. KG",
            payer,
            "Rechnung RE-2024-000417 vom 01.03.2024 abzgl. nichts",
        ),
        (on, 35750, "in", "Tischlerei Ahorn e.K. / Zahlstelle Nord AG", north, "RE-2024-000418"),
        (on, 25000, "out", "Immobilien Ost / Hausverwaltung Birke", north, "Miete Lager Maerz"),
        (on, 35750, "out", "Zahlstelle Nord AG", north, "RUECKGABE RE-2024-000418"),
        (on, 9999, "in", "Stadtwerke Musterbach", payer, "Strom 03/2024"),
        (on, 480000, "in", "", None, "Einzug Datei mit 0000048 Lastschriften"),
    ]
    assert read.notes == (
        "account 37040044/0532013000, 2024-03-12 to 2024-03-14, balance 10,000.00 to 15,839.99 EUR, "
        "4 in (6,447.49 EUR), 2 out (607.50 EUR), 2 of them reversals",
    )
    assert read.skipped.rows() == [("line 26", "2024-03-13 0.00 EUR Kontoabschluss ohne Betrag", "its amount is zero")]
    assert read.place(0) == "line 5"


def test_polish_sub_fields_and_split_payment() -> None:
    read = sample("polish.sta")
    on, wholesaler, other = date(2024, 4, 5), "PL79124010371111001012345678", "PL12114020040000310276543218"
    assert read.notes[0] == "read as Windows-1250"
    assert told(read) == [
        (
            on,
            123000,
            "in",
            "HURTOWNIA ŁĄKA SP. Z O.O. UL. ŹRÓDLANA 5 00-950 WARSZAWA",
            wholesaler,
            "/VAT/230,00/IDC/5261040828/INV/FV 2024/04/0117/TXT/ZAPLATA",
        ),
        (on, 61500, "in", "JAN ŻÓŁĆ GDYNIA", other, "ZAPŁATA ZA FAKTURĘ FV/2024/04/0118 ORAZ FV/2024/04/0119"),
        (on, 10050, "out", "SPÓŁDZIELNIA WIERZBA UL. KRÓTKA 1", other, "Czynsz za kwiecień 2024"),
        (on, 2000, "in", "SKLEP DĄB", wholesaler, "FV 2024/04/0120"),
    ]


def test_dutch_codes_and_older_forms() -> None:
    assert [row[1:] for row in told(sample("dutch.sta"))] == [
        (12100, "in", "BAKKERIJ DE KROON", "NL39RABO0300065264", "FACTUUR 20240611 EN 20240612"),
        (6050, "in", "FIETSENMAKER VAN DIJK", "NL20INGB0001234567", "20240613"),
        (1000, "in", "J JANSEN", "NL20INGB0001234567", "7012345678901234"),
        (
            2240,
            "out",
            "KOFFIEHUIS CENTRAAL UTRECHT",
            None,
            "BEA NR:ABC1234 03.06.24/12.54 KOFFIEHUIS CENTRAAL UTRECHT,PAS123",
        ),
        (5000, "in", "MOLEN BV", "0123456789", "BETALINGSKENM. 7012345678901234 FACTUUR 20240614"),
    ]


def test_austrian_letters_and_an_entry_of_the_next_year() -> None:
    read = sample("austrian.sta")
    assert read.notes[0] == "read as Windows-1252"
    assert told(read) == [
        (
            date(2024, 5, 31),
            8420,
            "in",
            "Müller & Söhne Gasthof zum Grünen Löwen",
            "AT792011100012345678",
            "Rg. 4711/24 Gästehaus Süß, Zahlung für Jänner bis März 2024",
        ),
        (
            date(2024, 1, 2),
            1580,
            "in",
            "",
            None,
            "Bareinzahlung Filiale Wörgl, Beleg 4712/24 und noch ein sehr langer Text dazu, der umbricht",
        ),
    ]


def test_a_report_of_the_day_and_the_statement_after_it_give_the_same_rows() -> None:
    report, statement = sample("interim.sta"), sample("polish.sta")
    assert report.format == "MT942"
    assert report.frame.equals(statement.frame.head(2))
    assert report.skipped["reason"].to_list() == ["it is expected and not booked yet"]


def test_the_same_file_gives_the_same_ids_and_equal_entries_have_their_own() -> None:
    twice = [":61:240115C10,00NMSC", ":86:Beitrag"] * 2
    other = message(*twice, closing="C240131EUR120,00").replace(b"DE89370400440532013000", b"DE17100500000123456789")
    ids = read_statement("a", message(*twice, closing="C240131EUR120,00")).frame["transfer_id"].to_list()
    assert len(set(ids)) == 2
    assert ids == read_statement("b", message(*twice, closing="C240131EUR120,00")).frame["transfer_id"].to_list()
    assert not set(ids) & set(read_statement("c", other).frame["transfer_id"])


def test_an_id_does_not_depend_on_what_else_is_in_the_file() -> None:
    first, second, other = (
        [f":61:240115C10,00NMSCNONREF//{reference}", f":86:Beitrag {name}"]
        for reference, name in (("BATCH7", "A"), ("BATCH7", "B"), ("BATCH8", "C"))
    )
    alone = read_statement("a", message(*first, closing="C240131EUR110,00")).frame["transfer_id"].to_list()
    both = read_statement("a", message(*other, *first, *second, closing="C240131EUR130,00")).frame["transfer_id"]
    assert both.to_list()[1:] == [alone[0], f"{alone[0]}-2"]


@pytest.mark.parametrize(
    ("account", "same"),
    [
        ("DE89 3704 0044 0532 0130 00", True),
        ("37040044/0532013000", True),
        ("37040044/532013000", True),
        ("COBADEFFXXX/DE89370400440532013000", True),
        ("COBADEFF/DE89370400440532013000EUR", True),
        ("37040044/0532013001", False),
    ],
)
def test_an_account_is_the_same_however_it_is_written(account: str, same: bool) -> None:
    entry = message(":61:240115C10,00NMSCNONREF//B1", closing="C240131EUR110,00")
    ids = [
        read_statement("a", content).frame["transfer_id"][0]
        for content in (entry, entry.replace(b"DE89370400440532013000", account.encode()))
    ]
    assert (ids[0] == ids[1]) is same


def test_a_message_may_hold_several_accounts_and_days() -> None:
    entry = [":61:240115C10,00NMSC", ":86:one"]
    again = [":60F:C240131EUR110,00", ":61:240201C20,00NMSC", ":86:two", ":62F:C240201EUR130,00"]
    other = [
        ":25:DE17100500000123456789",
        ":28C:9",
        ":60F:C240101EUR0,00",
        ":61:240103D5,00NMSC",
        ":62F:D240131EUR5,00",
    ]
    content = message(*entry, closing="\n".join(["C240131EUR110,00", ":86:closed", *again, *other]))
    read = read_statement("a", content)
    assert read.frame.select("amount", "direction", "title").rows() == [
        (1000, "in", "one"),
        (2000, "in", "two"),
        (500, "out", ""),
    ]
    assert read.contradictions == ()
    assert [note.split(",")[0] for note in read.notes] == [
        "account DE89370400440532013000",
        "account DE17100500000123456789",
    ]
    wrong = content.replace(b":62F:D240131EUR5,00", b":62F:D240131EUR6,00")
    assert (
        read_statement("a", wrong).contradictions[0].startswith("statement 9 of DE17100500000123456789 does not add up")
    )


def test_an_entry_after_the_closing_balance_needs_balances_of_its_own() -> None:
    content = message(closing="C240131EUR100,00\n:61:240201C20,00NMSC")
    with pytest.raises(IntakeError, match=r"line 6, field :60F:: the statement has no opening balance"):
        read_statement("a", content)


def test_text_that_looks_like_a_field_is_text() -> None:
    lines = [":61:240115C10,00NMSC", ":86:RE 1 of 14", ":30:15 RE 2", "-", "RE 3"]
    read = read_statement("a", message(*lines, closing="C240131EUR110,00"))
    assert read.frame["title"].to_list() == ["RE 1 of 14 :30:15 RE 2 - RE 3"]


def test_a_frame_on_the_line_of_the_first_field_is_none_of_it() -> None:
    framed = b"{1:F01COBADEFFAXXX0000000000}{2:I940COBADEFFXXXXN}{4:" + message(closing="C240131EUR100,00")
    assert read_statement("a", framed).contradictions == ()


def test_details_before_the_first_entry_tell_of_the_statement() -> None:
    lines = [":86:Kontokorrent", ":61:240115C10,00NMSC", ":86:RE 1"]
    assert read_statement("a", message(*lines, closing="C240131EUR110,00")).frame["title"].to_list() == ["RE 1"]


def test_equal_entries_of_one_report_are_several_and_of_the_next_the_same() -> None:
    entry = b":61:240115C10,00NMSCNONREF//POS\n:86:Karte\n"
    head = b":20:X\n:25:ACCOUNT1\n:34F:EUR0,\n"
    read = read_statement("a", head + entry + entry + b"-\n" + head + b":13D:2401151500+0100\n" + entry * 3)
    assert read.frame["transfer_id"].n_unique() == read.frame.height == 3
    assert read.skipped["reason"].to_list() == ["it was told before in this file"] * 2


def test_a_statement_that_stands_twice_is_read_once() -> None:
    one = message(":61:240115C10,00NMSC", closing="C240131EUR110,00")
    read = read_statement("a", one + b"\n" + one)
    assert read.frame.height == 1
    assert read.notes[0] == "statement 1/1 is there twice (line 1, line 8) and read once"


DAY_REPORT = b":20:X\n:25:ACCOUNT1\n:34F:EUR0,\n:61:240115C10,00NMSC\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            message(":61:240115C10,00NMSC", closing="C240131EUR120,00"),
            "statement 1/1 of DE89370400440532013000 does not add up: 100.00 and 1 entries come to 110.00, "
            "but the closing balance is 120.00 EUR, 10.00 away",
        ),
        (
            DAY_REPORT + b":90C:2EUR10,00\n",
            "statement X of ACCOUNT1 does not add up: it says that the number of its entries in is 2, and it is 1",
        ),
        (
            DAY_REPORT + b":90C:1EUR11,00\n",
            "statement X of ACCOUNT1 does not add up: it says that the sum of its entries in is 11.00, and it is 10.00",
        ),
    ],
)
def test_what_does_not_add_up_is_told(content: bytes, expected: str) -> None:
    read = read_statement("a", content)
    assert read.contradictions == (expected,)
    assert read.frame["amount"].to_list() == [1000]


def test_what_adds_up_has_no_contradictions() -> None:
    assert read_statement("a", DAY_REPORT + b":90C:1EUR10,00\n").contradictions == ()


@pytest.mark.parametrize(
    ("dates", "booked_on"),
    [
        ("240115", date(2024, 1, 15)),
        ("2401150116", date(2024, 1, 16)),
        ("2312290102", date(2024, 1, 2)),
        ("2401021231", date(2023, 12, 31)),
        ("2311200105", date(2024, 1, 5)),
        ("240115    ", date(2024, 1, 15)),
        ("240230", date(2024, 2, 29)),
        ("230230", date(2023, 2, 28)),
        ("2402280229", date(2024, 2, 29)),
    ],
)
def test_the_day_of_an_entry(dates: str, booked_on: date) -> None:
    read = read_statement("a", message(f":61:{dates}C10,NMSC", closing="C240131EUR110,00"))
    assert read.frame["booked_on"].to_list() == [booked_on]


@pytest.mark.parametrize(
    ("mark", "direction"),
    [("C", "in"), ("CR", "in"), ("RD", "in"), ("D", "out"), ("DR", "out"), ("RC", "out"), ("RCR", "out"), ("c", "in")],
)
def test_which_way_money_went(mark: str, direction: str) -> None:
    closing = {"in": "C240131EUR110,00", "out": "C240131EUR90,00"}[direction]
    assert read_statement("a", message(f":61:240115{mark}10,NMSC", closing=closing)).frame["direction"][0] == direction


@pytest.mark.parametrize(
    ("lines", "name", "account", "title"),
    [
        # A chunk of 27 characters was cut; a shorter one ended by itself.
        (["166?00X?20SVWZ+1234567890123456789ab?21cd?32N"], "N", "", "1234567890123456789ab cd"),
        (["166?00X?20SVWZ+1234567890123456789012?21345?32N"], "N", "", "1234567890123456789012345"),
        (["166?00X?20SVWZ+Teil 1?21Teil 2?60Teil 3?32N"], "N", "", "Teil 1 Teil 2 Teil 3"),
        (["166?00X?20EREF+E-1 SVWZ+RE 17 ABWA+Kunde?32Bank"], "Kunde / Bank", "", "RE 17"),
        (["166?00X?20EREF+RE-99?32N"], "N", "", "RE-99"),
        (["166?00X?20EREF+NOTPROVIDED?32N"], "N", "", "X"),
        (["166?00X?20RE 17?21IBAN+DE17100500000123456789?22BIC+X?32N"], "N", "DE17100500000123456789", "RE 17"),
        (["166?00X?20vor SVWZ+RE 17"], "", "", "vor RE 17"),
        (["166?00X?20ABIC+2 IST KEIN FELD?32N"], "N", "", "ABIC+2 IST KEIN FELD"),
        (["166?00X?20RE?3010050000?31123?32N"], "N", "10050000/123", "RE"),
        (["020~00X~20FV 1~21ÿ~22ÿ~32N~33ÿ"], "N", "", "FV 1"),
        (["<00X<20FV 1<27NAZWA<28ULICA"], "NAZWA ULICA", "", "FV 1"),
        (["/VAT/1,00/IDC/525/INV/FV 7/TXT/opis"], "", "", "/VAT/1,00/IDC/525/INV/FV 7/TXT/opis"),
        (["944 X; Z RACH.: 12; OD: A B  ULICA 1; TYT.: FV 7; TNR: 1.1"], "A B", "12", "FV 7"),
        (["944 X; NA RACH.: 12; DLA: C; TYT.: FV 8; TNR: 1.1"], "C", "12", "FV 8"),
        (["/PT/FT/PY/WIRE   IN 77"], "", "", "WIRE IN 77"),
        (["/OCMT/EUR100,/RFB/X/ORDP/ACME CORP/REMI/INV 77 78"], "ACME CORP", "", "INV 77 78"),
        (["166+00GUTSCHRIFT+20SVWZ+2024 RE 17+30COBADEFF+31123+32Acme"], "Acme", "123", "2024 RE 17"),
        (["020~00X~20FV 1~32N~62UL. DLUGA 5~6300-001 WARSZAWA"], "N", "", "FV 1"),
        (["020?00X?20FV 1?27NOWAK?60WARSZAWA"], "NOWAK", "", "FV 1"),
        (["/EREF/E-7/REMI/USTD//"], "", "", "E-7"),
        (["free text " + "x" * 55, "yz and", "more"], "", "", "free text " + "x" * 55 + "yz and more"),
        (["Платёж по счёту 77"], "", "", "Платёж по счёту 77"),
        ([""], "", "", ""),
        ([], "", "", ""),
    ],
)
def test_details(lines: list[str], name: str, account: str, title: str) -> None:
    read = details(lines, incoming=True)
    assert (read.name, read.account, read.title) == (name, account, title)


@pytest.mark.parametrize(
    ("text", "encoding", "noted"),
    [
        ("Müller & Söhne, Straße", "utf-8", "read as UTF-8"),
        ("Müller & Söhne, Straße", "cp1252", "read as Windows-1252"),
        ("50 € für Œuvre", "iso8859-15", "read as ISO-8859-15"),
        ("ZAPŁATA ZA FAKTURĘ, ŻÓŁĆ", "cp1250", "read as Windows-1250"),
        ("zażółć gęślą jaźń", "iso8859-2", "read as ISO-8859-2"),
        ("zażółć gęślą jaźń", "cp852", "read as CP852"),
        ("SPÓŁKA HANDLOWA ŁÓDŹ", "cp852", "read as CP852"),
        ("ОПЛАТА ПО СЧЕТУ, Сбербанк", "cp1251", "read as Windows-1251"),
    ],
)
def test_encodings(text: str, encoding: str, noted: str) -> None:
    content = message(":61:240115C10,NMSC", ":86:@", closing="C240131EUR110,00").replace(b"@", text.encode(encoding))
    read = read_statement("a", content)
    assert read.notes[0] == noted
    assert read.frame["title"].to_list() == [text]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b":61:240115C10,00NMSC\n:62F:C240131EUR1,00\n",
            "a.sta: line 1, field :20:: the file begins within a statement",
        ),
        (message()[:60], "line 1, field :62F:: the statement has no closing balance, so the file is cut; export"),
        (b":20:X\n:25:A\n:61:240115C10,00NMSC\n", "line 1, field :60F:: the statement has no opening balance"),
        (b":20:X\n:28C:1\n:60F:C240101EUR1,\n", "line 1, field :25:: the statement names no account"),
        (message(":61:241315C10,NMSC"), "line 5, field :61:: '241315' is not a day"),
        (message(":61:2401150231C10,NMSC"), "line 5, field :61: entry date: '0231' is not a day"),
        (message(":61:24O115C10,NMSC"), "line 5, field :61: value date: '24O115C10,NMSC' cannot be read as value date"),
        (message(":61:240115X10,NMSC"), "line 5, field :61: debit or credit mark: 'X10,NMSC' cannot be read"),
        (message(":61:240115CR,NMSC"), "line 5, field :61: amount"),
        (message(":61:240115C1,2,3NMSC"), "line 5, field :61: amount: '1,2,3' is not an amount with at most two"),
        (message(":61:240115C1,234NMSC"), "line 5, field :61: amount: '1,234' is not an amount with at most two"),
        (message(":61:240115C1.000,00NMSC"), "line 5, field :61: amount: '1.000,00NMSC' cannot be read as amount"),
        (message(":61:240115C250.50NMSC"), "line 5, field :61: amount: '250.50NMSC' cannot be read as amount"),
        (message(opening="C240101EUX100,00"), "field currency: 'EUX' is not an ISO 4217 currency"),
        (message(opening="X240101EUR100,00"), "line 4, field :60F:: 'X240101EUR100,00' is not a balance"),
        (message(opening="C240199EUR100,00"), "line 4, field :60F:: '240199' is not a day"),
        (DAY_REPORT + b":90D:one\n", "line 5, field :90D:: 'one' is not a number and sum of entries"),
    ],
)
def test_what_is_refused(content: bytes, expected: str) -> None:
    with pytest.raises(IntakeError) as refused:
        read_statement("a.sta", content)
    assert expected in str(refused.value)
    assert str(refused.value).startswith("a.sta: ") and "\n" not in str(refused.value)


LETTERS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 /-.,", max_size=140)
TRANSFERS_MADE = st.lists(
    st.tuples(
        st.dates(date(2001, 1, 1), date(2080, 12, 31)),
        st.integers(1, 10**12),
        st.booleans(),
        st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ ", max_size=54),
        st.from_regex(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", fullmatch=True),
        LETTERS,
    ),
    max_size=8,
)


def written(amount: int) -> str:
    return f"{amount // 100},{amount % 100:02d}"


def as_mt940(transfers: list[tuple[date, int, bool, str, str, str]]) -> bytes:
    lines, balance = [":20:X", ":25:DE89370400440532013000", ":28C:1", ":60F:C240101EUR0,00"], 0
    for day, amount, incoming, name, account, title in transfers:
        balance += amount if incoming else -amount
        pieces = [title[place : place + 27] for place in range(0, len(title), 27)]
        names = [name[:27], name[27:]]
        text = "166?00UEBERWEISUNG" + "".join(f"?2{place}{piece}" for place, piece in enumerate(pieces))
        text += f"?31{account}" + "".join(f"?3{place}{piece}" for place, piece in enumerate(names, start=2))
        lines.append(f":61:{day:%y%m%d%m%d}{'C' if incoming else 'D'}{written(amount)}NTRFNONREF")
        lines += [f"{':86:' if not place else ''}{text[place : place + 65]}" for place in range(0, len(text), 65)]
    lines.append(f":62F:{'D' if balance < 0 else 'C'}240131EUR{written(abs(balance))}")
    return "\r\n".join([*lines, "-", ""]).encode()


@settings(max_examples=100, deadline=None)
@given(TRANSFERS_MADE)
def test_what_was_written_is_read(transfers: list[tuple[date, int, bool, str, str, str]]) -> None:
    read = read_statement("a", as_mt940(transfers)).frame
    assert read["transfer_id"].n_unique() == len(transfers)
    assert read.drop("transfer_id", "currency").rows() == [
        (
            day,
            amount,
            "in" if incoming else "out",
            " ".join(name.split()),
            account,
            " ".join(title.split()) or "UEBERWEISUNG",
        )
        for day, amount, incoming, name, account, title in transfers
    ]
    assert read.select(pl.col("currency").eq("EUR").all()).item()
