"""camt.052, camt.053 and camt.054 of several versions: what the samples say, and what is refused."""

from datetime import date
from pathlib import Path

import pytest

from matching_platform.intake import statements
from matching_platform.intake.incoming import Incoming, IntakeError
from matching_platform.intake.statements import other_forms
from matching_platform.intake.xml import parse

SAMPLES = Path(__file__).parent / "statements"
GERMAN = (SAMPLES / "german_053_02.xml").read_text()
NORTH, PAYER = "DE64200700240009988776", "DE17100500000123456789"
INVOICE_417 = (119000, "in", "Blumenhaus Wiesengrund GmbH", PAYER, "Rechnung RE-2024-000417 vom 01.03.2024")
BATCH = [
    (100000, "in", "Tischlerei Ahorn e.K. / Zahlstelle Nord AG", NORTH, "RE-2024-000418"),
    (150050, "in", "Weberei Flachs", "10050000/77", "RE-2024-000419 RE-2024-000420"),
    (49950, "in", "Imkerei Linde", None, "RF18539007547034"),
]


def read_statement(name: str, content: bytes) -> Incoming:
    return statements.read_statement(name, parse(name, content))


def sample(name: str) -> Incoming:
    return read_statement(name, (SAMPLES / name).read_bytes())


def told(incoming: Incoming) -> list[tuple[object, ...]]:
    columns = ["amount", "direction", "counterparty_name", "counterparty_account", "title"]
    return incoming.frame.select(columns).rows()


def test_a_statement_with_batch_reversal_reference_and_foreign_money() -> None:
    read = sample("german_053_02.xml")
    assert read.format == "camt.053"
    assert told(read) == [
        INVOICE_417,
        *BATCH,
        (35750, "out", "Zahlstelle Nord AG", NORTH, "RUECKGABE RE-2024-000411"),
        (46400, "in", "Maple Tools Inc.", "000123456", "US-INV-77"),
        (6000, "out", "", None, "ENTGELT Kontofuehrung"),
    ]
    assert set(read.frame["booked_on"]) == {date(2024, 3, 13)} and set(read.frame["currency"]) == {"EUR"}
    assert read.notes == (
        "account DE89370400440532013000, 2024-03-12 to 2024-03-13, balance 10,000.00 to 14,236.50 EUR, "
        "3 in (4,654.00 EUR), 2 out (417.50 EUR), 1 of them reversals",
    )
    assert read.skipped.rows() == [
        (
            "line 64, entry 6",
            "2024-03-14 300.00 EUR Noch Unterwegs RE-2024-000430",
            "its status is PDNG: it is not booked",
        )
    ]


def test_a_batch_from_which_the_bank_kept_its_charges() -> None:
    read = sample("swiss_053_08.xml")
    assert told(read) == [
        (50000, "in", "Käserei Alpenblick", None, "210000000003139471430009017 Rechnung 9001"),
        (25000, "in", "Uhrmacher Vogel", "CH5604835012345678009", "210000000003139471430009022"),
        (5000, "out", "Netz AG / Stromwerk Tal", "CH5604835012345678009", "Strom Mai"),
    ]
    assert read.skipped["reason"].to_list() == ["its status is INFO: it is not booked"]


def test_a_notification_gives_the_rows_of_the_statement_the_same_ids() -> None:
    notified, stated = sample("german_054_04.xml"), sample("german_053_02.xml")
    assert notified.format == "camt.054"
    assert told(notified) == [INVOICE_417, *BATCH]
    assert notified.frame.equals(stated.frame.head(4))


def test_reports_of_the_day_tell_an_entry_once() -> None:
    reported, stated = sample("german_052_13.xml"), sample("german_053_02.xml")
    assert reported.format == "camt.052"
    assert reported.frame.equals(stated.frame.head(1))
    assert reported.skipped["reason"].to_list() == [
        "it was told before in this file",
        "its status is FUTR: it is not booked",
    ]


@pytest.mark.parametrize("version", range(2, 14))
def test_every_version_and_none(version: int) -> None:
    told_as = GERMAN.replace("camt.053.001.02", f"camt.053.001.{version:02d}")
    assert read_statement("a", told_as.encode()).frame.equals(sample("german_053_02.xml").frame)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "iso8859-1"])
def test_encodings_of_xml(encoding: str) -> None:
    text = GERMAN.replace("Imkerei Linde", "Imkerei Süß")
    declared = text.replace("UTF-8", "UTF-8" if encoding == "utf-8-sig" else encoding.replace("iso8859", "ISO-8859"))
    assert "Imkerei Süß" in read_statement("a", declared.encode(encoding)).frame["counterparty_name"].to_list()


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
OUTSIDE = '<!DOCTYPE a [<!ENTITY i SYSTEM "file:///etc/hostname">'


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("</Document>", "", "a.xml: line "),
        ("2024-03-13</Dt></BookgDt><ValDt>", "2024-13-13</Dt></BookgDt><ValDt>", "field Ntry/BookgDt: '2024-13-13'"),
        ("<BookgDt><Dt>2024-03-14</Dt></BookgDt>", "", "line 64, entry 6, field Ntry/BookgDt: the entry has no date"),
        (">1190.00<", ">1190,0x<", "line 11, entry 1, field Ntry/Amt: '1190,0x' is not an amount"),
        (">1190.00<", "><", "line 11, entry 1, field Ntry/Amt: '' is not an amount"),
        ("EUR", "EUX", "field currency: 'EUX' is not an ISO 4217 currency"),
        ('<Amt Ccy="EUR">60.00', '<Amt Ccy="USD">60.00', "entry 5, field Ntry/Amt/@Ccy: the entry is in USD"),
        ("<CdtDbtInd>DBIT", "<CdtDbtInd>DEBT", "entry 3, field Ntry/CdtDbtInd: 'DEBT' is not CRDT or DBIT"),
        ("<NbOfTxs>3", "<NbOfTxs>4", "entry 2, field NtryDtls/Btch/NbOfTxs: the batch says that it has 4 transactions"),
        ('"EUR">1500.50', '"USD">1500.50', "entry 2, field TxDtls/Amt: one of its transactions has no amount in EUR"),
        ("<Acct><Id><IBAN>DE89370400440532013000</IBAN></Id>", "<Acct>", "field Acct/Id/IBAN: the statement names no"),
        ("BkToCstmrStmt", "CstmrPmtStsRpt", "holds 'Document' and no camt.052, camt.053 or camt.054"),
        ("Stmt>", "Other>", "the file's XML holds 'Document'"),
        ("<Document", f"{BOMB}]><Document", "declares a document type"),
        ("<Document", f"{OUTSIDE}]><Document", "declares a document type"),
    ],
)
def test_what_is_refused(before: str, after: str, expected: str) -> None:
    assert before in GERMAN
    with pytest.raises(IntakeError) as refused:
        read_statement("a.xml", GERMAN.replace(before, after).encode())
    assert expected in str(refused.value)
    assert str(refused.value).startswith("a.xml: ") and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            ">1190.00<",
            ">1191.00<",
            "10,000.00 and 5 entries come to 14,237.50, but the closing balance is 14,236.50 EUR",
        ),
        (
            "1500.50",
            "1500.00",
            "the transactions of line 20, entry 2 come to 2,999.50, the entry to 3,000.00 EUR",
        ),
        ("<NbOfNtries>6", "<NbOfNtries>7", "it says that the number of its entries is 7, and it is 5"),
        ("<Sum>4954.00", "<Sum>4955.00", "it says that the sum of its entries in is 4,955.00, and it is 4,654.00"),
    ],
)
def test_what_does_not_add_up_is_told(before: str, after: str, expected: str) -> None:
    told = read_statement("a.xml", GERMAN.replace(before, after).encode()).contradictions[0]
    assert told.startswith(f"statement 117 of DE89370400440532013000 does not add up: {expected}")


def test_a_batch_without_its_transactions_is_one_transfer() -> None:
    start, end = GERMAN.index("          <TxDtls>\n"), GERMAN.index("        </NtryDtls>\n")
    read = read_statement("a", (GERMAN[:start] + GERMAN[end:]).encode())
    whole = read.frame.filter(amount=300000)
    assert whole.height == 1
    # Its transactions, told elsewhere, are numbered within the id of the whole, by which each finds the other.
    apart = sample("german_054_04.xml").frame["transfer_id"]
    assert apart.to_list()[1:] == [f"{whole['transfer_id'][0]}.{number}" for number in (1, 2, 3)]
    assert whole["transfer_id"][0] in other_forms(apart)
    assert apart[1] in other_forms(whole["transfer_id"])
    assert not set(other_forms(apart)) & set(apart)


ONE = (
    "<Document><BkToCstmrStmt><Stmt><Acct><Id><IBAN>DE89370400440532013000</IBAN></Id><Ccy>EUR</Ccy><Ownr><Nm>Wir GmbH"
    '</Nm></Ownr></Acct><Ntry><Amt Ccy="EUR">{amount}</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts>BOOK</Sts><BookgDt><Dt>'
    "2024-01-15</Dt></BookgDt>{more}<NtryDtls>{details}</NtryDtls></Ntry></Stmt></BkToCstmrStmt></Document>"
)
CHARGES = '<Chrgs><TtlChrgsAndTaxAmt Ccy="EUR">{}</TtlChrgsAndTaxAmt></Chrgs>'


def of_one(details: str, amount: str = "50.00", more: str = "") -> Incoming:
    return read_statement("a.xml", ONE.format(amount=amount, details=details, more=more).encode())


def transaction(amount: str = "", more: str = "") -> str:
    return f"<TxDtls>{amount and f'<Amt Ccy={chr(34)}EUR{chr(34)}>{amount}</Amt>'}{more}</TxDtls>"


@pytest.mark.parametrize(
    ("details", "more"),
    [
        (transaction("30.00") + transaction("21.00"), CHARGES.format("1.00")),
        (transaction("30.00", CHARGES.format("0.50")) + transaction("21.00", CHARGES.format("0.50")), ""),
    ],
    ids=["of the batch", "of each"],
)
def test_charges_are_told_where_transactions_come_to_more_than_was_booked(details: str, more: str) -> None:
    read = of_one(details, more=more)
    assert (read.frame["amount"].to_list(), read.contradictions) == ([3000, 2100], ())
    assert read.notes[-1].endswith(", 1 in (50.00 EUR), 0 out (0.00 EUR), 1.00 EUR of charges kept by the bank")
    less = of_one(transaction("30.00") + transaction("19.00"), more=more)
    assert less.contradictions == (
        "statement 1 of DE89370400440532013000 does not add up: "
        "the transactions of line 1, entry 1 come to 49.00, the entry to 50.00 EUR",
    )


def test_one_transaction_that_speaks_of_all_is_one_transfer() -> None:
    summary = "<Btch><NbOfTxs>3</NbOfTxs></Btch>{}"
    for one in (transaction("50.00"), transaction()):
        assert of_one(summary.format(one)).frame["amount"].to_list() == [5000]
    with pytest.raises(IntakeError, match="the batch says that it has 3 transactions, and holds 1"):
        of_one(summary.format(transaction("20.00")))


def test_transactions_without_an_amount_of_the_account_are_one_transfer() -> None:
    foreign = "<AmtDtls><InstdAmt><Amt Ccy='USD'>9</Amt></InstdAmt></AmtDtls><RmtInf><Ustrd>RE {}</Ustrd></RmtInf>"
    read = of_one(transaction(more=foreign.format(1)) + transaction(more=foreign.format(2)))
    assert told(read) == [(5000, "in", "", None, "RE 1 RE 2")]


def test_a_notification_of_foreign_money_is_left_out() -> None:
    text = ONE.replace("BkToCstmrStmt", "BkToCstmrDbtCdtNtfctn").replace("Stmt>", "Ntfctn>")
    foreign = text.format(amount="50.00", details="", more="").replace('Amt Ccy="EUR"', 'Amt Ccy="USD"')
    read = read_statement("a.xml", foreign.encode())
    assert read.frame.is_empty()
    assert read.skipped["reason"].to_list() == ["the entry is in USD, the account in EUR"]


@pytest.mark.parametrize(
    ("more", "name", "title"),
    [
        ("<RltdPties><Cdtr><Nm>WIR GMBH</Nm></Cdtr></RltdPties><RmtInf><Ustrd>Bar</Ustrd></RmtInf>", "", "Bar"),
        (
            f"<RmtInf><Ustrd>{'Zahlung fuer Rechnung FV/2024/00001'}</Ustrd><Ustrd>FV/2</Ustrd></RmtInf>",
            "",
            "Zahlung fuer Rechnung FV/2024/00001 FV/2",
        ),
        (f"<RmtInf><Ustrd>{'x' * 140}</Ustrd><Ustrd>y</Ustrd></RmtInf>", "", f"{'x' * 140}y"),
        (
            "<RmtInf><Ustrd>Kd 120244, RE-7.</Ustrd><Strd><RfrdDocInf><Nb>2024</Nb></RfrdDocInf><RfrdDocInf><Nb>RE-7</Nb>"
            "</RfrdDocInf></Strd></RmtInf>",
            "",
            "Kd 120244, RE-7. 2024",
        ),
    ],
    ids=["ourselves by name", "no glue at 35", "glue at 140", "a number within another"],
)
def test_who_and_what(more: str, name: str, title: str) -> None:
    assert told(of_one(transaction(more=more))) == [(5000, "in", name, None, title)]


def test_an_amount_may_lack_its_whole_part() -> None:
    assert of_one("", amount=".50").frame["amount"].to_list() == [50]


def test_what_nothing_can_be_checked_against_is_noted() -> None:
    notes = sample("german_052_13.xml").notes
    assert notes[0] == (
        "statement R-1 of DE89370400440532013000 has neither balances nor totals: nothing shows whether entries are missing"
    )
