"""Whatever comes is a table or one clear refusal, and ten thousand entries are read in seconds."""

import time
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from matching_platform.intake.incoming import Incoming, IntakeError
from matching_platform.intake.invoices.containers import is_xml
from matching_platform.intake.statements import read_statement
from matching_platform.intake.xml import parse

SAMPLES = sorted((Path(__file__).parent / "statements").iterdir())
PIECES = [
    *(f"\n:{tag}:".encode() for tag in "20 25 28C 60F 60M 61 62F 62M 64 86 90D 90C 34F 13D NS".split()),
    *(b"?20 ~21 <27 ^32 SVWZ+ EREF+ ABWA+ IBAN: MTLG: /TRTP/ /REMI/USTD// /CNTP/ TYT.: TNR: OD:".split()),
    *(b"C240101EUR1,00 D240101USD, 240101C1,00NMSC 2401010101RD, 1EUR1,00 BEA GIRO 0 \xff \xe4 \xd0\x9f -} -".split()),
    *(b"<Document> <Ntry> </Ntry> <Amt> <!DOCTYPE &a; <BkToCstmrStmt> <Stmt> <Bal/>".split()),
    *(b"\x00 \x01 \n \r\n \t".split(b" ")),
]


def read(content: bytes) -> None:
    try:
        assert isinstance(read_statement("a", parse("a", content) if is_xml(content) else content), Incoming)
    except IntakeError as error:
        assert str(error).startswith("a: ") and "\n" not in str(error)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    read(content)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join))
@example(b"\n:20:\n:25:")
def test_any_pieces_of_statements(content: bytes) -> None:
    read(content)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SAMPLES), st.integers(0), st.integers(0, 40), st.binary(max_size=12) | st.sampled_from(PIECES))
def test_any_damage(sample: Path, place: int, length: int, instead: bytes) -> None:
    content = sample.read_bytes()
    place %= len(content)
    read(content[:place] + instead + content[place + length :])


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SAMPLES), st.integers(0))
def test_any_end(sample: Path, end: int) -> None:
    content = sample.read_bytes()
    read(content[: end % len(content)])


def many(start: str, entry: str, end: str) -> bytes:
    return "\n".join([start, *(entry.format(n) for n in range(10_000)), end]).encode()


SWIFT = many(
    ":20:X\n:25:DE89370400440532013000\n:28C:1\n:60F:C240101EUR0,00",
    ":61:2401150115C10,00NTRFNONREF//REF{0}\n:86:166?00GUTSCHRIFT?20EREF+E{0}?21SVWZ+Rechnung RE-{0}?30COBADEFF?31"
    "DE17100500000123\n456789?32Blumenhaus Wiesengrund",
    ":62F:C240131EUR100000,00",
)
CAMT = many(
    '<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt><Stmt><Acct><Id><IBAN>'
    "DE89370400440532013000</IBAN></Id><Ccy>EUR</Ccy></Acct>",
    '<Ntry><Amt Ccy="EUR">10.00</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts><BookgDt><Dt>2024-01-15</Dt>'
    "</BookgDt><AcctSvcrRef>REF{0}</AcctSvcrRef><NtryDtls><TxDtls><RltdPties><Dbtr><Pty><Nm>Blumenhaus</Nm></Pty></Dbtr>"
    "</RltdPties><RmtInf><Ustrd>Rechnung RE-{0}</Ustrd></RmtInf></TxDtls></NtryDtls></Ntry>",
    "</Stmt></BkToCstmrStmt></Document>",
)


def test_ten_thousand_entries_take_seconds() -> None:
    for content in (SWIFT, CAMT):
        begun = time.process_time()
        frame = read_statement("a", parse("a", content) if is_xml(content) else content).frame
        assert time.process_time() - begun < 20
        assert frame["title"][9_999] == "Rechnung RE-9999" and frame["transfer_id"].n_unique() == 10_000
