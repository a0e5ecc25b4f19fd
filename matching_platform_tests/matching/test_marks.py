"""What of a title is marked: what the candidate rules read there, in the title's own characters."""

import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matching_platform.ledger.reading import Ledger
from matching_platform.matching.features import Reader, World
from matching_platform.matching.marks import Mark, marks
from matching_platform.matching.memory import Memory
from matching_platform.matching.rules import RULE_INDEX
from matching_platform.matching.text import folded

OWED = [
    ("FV/2024/03/0123", None, "Kowalski Meble Sp. z o.o."),
    ("FV/2024/03/0124", "RF18 5390 0754 7034", "Łódź Straße GmbH"),
    ("FV/2024/03/0125", None, "Kowalski Meble Sp. z o.o."),
    ("77/OF/41", "000123456", "O'Neil & Söhne AG"),
]


def owed(rows: list[tuple[str, str | None, str]]) -> pl.DataFrame:
    """Invoices i1, i2, …"""
    columns = ["number", "reference", "counterparty_name"]
    named = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    return named.with_columns(invoice_id=pl.format("i{}", pl.int_range(1, pl.len() + 1)))


def told(title: str, rows: list[tuple[str, str | None, str]]) -> list[tuple[str, str, str]]:
    return [(title[mark.start : mark.end], mark.kind, mark.invoice_id) for mark in marks(title, owed(rows))]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        pytest.param("Zapłata FV/2024/03/0123", [("2024/03/0123", "number", "i1")], id="as it is printed"),
        pytest.param("2024-03 0123", [("2024-03 0123", "number", "i1")], id="other separators"),
        pytest.param("FV 2024/3/123!", [("2024/3/123", "number", "i1")], id="without zeros"),
        pytest.param("FV 002024/03/123", [("002024/03/123", "number", "i1")], id="with more zeros"),
        pytest.param("nr2024030124.", [("2024030124", "number", "i2")], id="squeezed"),
        pytest.param(
            "20240301232024030124", [("2024030123", "number", "i1"), ("2024030124", "number", "i2")], id="glued"
        ),
        pytest.param("2024/03/012", [("2024/03/012", "number", "i1")], id="a digit missing"),
        pytest.param("2024/03/01233", [("2024/03/01233", "number", "i1")], id="a digit too many"),
        pytest.param("2024/08/0125", [("2024/08/0125", "number", "i3")], id="a digit wrong"),
        pytest.param("2024/O3/0l23", [("2024/O3/0l23", "number", "i1")], id="letters for digits"),
        pytest.param("od 123 do 125", [("123", "number", "i1"), ("125", "number", "i3")], id="ends of a range"),
        pytest.param("123, 0124+125", [(t, "number", i) for t, i in (("123", "i1"), ("0124", "i2"), ("125", "i3"))]),
        pytest.param("rf18539007547034", [("18539007547034", "reference", "i2")], id="a reference"),
        pytest.param("REF 000123456", [("000123456", "reference", "i4")], id="a reference with zeros"),
        pytest.param("kowalski-meble, dzięki", [("kowalski-meble", "name", "i1")], id="a name in two words"),
        pytest.param("Meble od: Kowalski", [("Meble", "name", "i1"), ("Kowalski", "name", "i1")], id="a name apart"),
        pytest.param("LODZ i strasse", [("LODZ", "name", "i2"), ("strasse", "name", "i2")], id="a folded name"),
        pytest.param("oneil ＳÖHNE", [("oneil ＳÖHNE", "name", "i4")], id="full width and an apostrophe"),
        pytest.param("Łódź tylko", [], id="half a name"),
        pytest.param("SVWZ+2024/03/0123EREF+2024030124", [("2024/03/0123", "number", "i1")], id="what the bank adds"),
        pytest.param("/VAT/12/IDC/99/INV/2024/03/0123/TXT/x", [("2024/03/0123", "number", "i1")], id="split payment"),
        pytest.param("ﬁn ß 2024/03/0123\u0301 x", [("2024/03/0123\u0301", "number", "i1")], id="lengths that change"),
        pytest.param("", [], id="nothing"),
        pytest.param("株式会社 🧾", [], id="nothing known"),
    ],
)
def test_what_is_recognised_is_marked(title: str, expected: list[tuple[str, str, str]]) -> None:
    assert told(title, OWED) == expected


@pytest.mark.parametrize(
    ("title", "exact"),
    [
        ("Zapłata FV/2024/03/0123", [True]),
        ("FV 002024/3/123", [True]),
        ("2024/08/0125 i 2024/03/01233", [False, False]),
        ("20240301232024030124", [False, False]),
        ("od 123 do 0125", [False, False]),
        ("RF18539007547034, RF18539007547035", [True, False]),
        ("Kowalski Meble", [True]),
    ],
)
def test_what_differs_only_resembles_a_number(title: str, exact: list[bool]) -> None:
    assert [mark.is_exact for mark in marks(title, owed(OWED))] == exact


@pytest.mark.parametrize(
    ("title", "number"),
    [
        ("PAYOUT 20241216", "FV/2024/01/0216"),
        ("salary 12/2024", "120/2024"),
        ("paid on 16.12.2024", "1/613/2024"),
        ("on 16.12.24", "0/161224/7"),
        ("2024-12-16", "FV/2024/12/168"),
    ],
)
def test_a_date_is_no_number_that_it_resembles(title: str, number: str) -> None:
    assert told(title, [(number, None, "x")]) == []
    assert told(title, [(title.split()[-1], None, "x")]) == [(title.split()[-1], "number", "i1")], "unless it is one"


def test_a_number_of_another_invoice_is_not_marked_as_one_that_it_resembles() -> None:
    title, proposed = "FV-2024-12-0015 20240301231", owed([("FV/2024/12/0165", None, "x"), OWED[0]])
    assert [mark.is_exact for mark in marks(title, proposed)] == [False, False]
    settled = owed([("FV/2024/12/0015", None, "Kowalski"), ("2024/03/0124", None, "x")]).with_columns(
        invoice_id=pl.lit("settled")
    )
    first, second = marks(title + " Kowalski 0124", proposed, settled)
    assert first == Mark(3, 15, "number", "settled")
    assert (second.invoice_id, second.is_exact) == ("i2", False), "of others, only what is exact is found"


def test_of_what_is_the_same_the_first_invoice_is_told() -> None:
    assert told("2024/03/0123", [OWED[1], OWED[0], OWED[0]]) == [("2024/03/0123", "number", "i2")]


def test_a_number_that_many_share_is_nobodys() -> None:
    assert told("za 2024", OWED[:3]) == []
    assert told("za 2024", OWED[:2]) == [("2024", "number", "i1")]


def test_a_part_of_a_reference_is_no_bare_number() -> None:
    assert told("za 5390 i 41", OWED) == [("41", "number", "i4")]


def test_without_invoices_nothing_is_marked() -> None:
    assert told("FV 2024/03/0123 Kowalski", []) == []


def test_bare_nulls_are_no_reference() -> None:
    assert marks("2024030123", owed(OWED[:1]).with_columns(reference=None)) == [Mark(0, 10, "number", "i1")]


PIECES = st.sampled_from(
    [
        *"2024/03/0123 2024-3-124 20240301 FV / 0 123 RF18539007547034 kowalski MEBLE Łódź STRASSE od do O l".split(),
        *("ß", "ﬁ", "é", "e\u0301", "½", "١٢", "🧾", " ", "\n", "SVWZ+", "EREF+", "/INV/", "/TXT/"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=9).map("".join) | st.text(max_size=40), st.permutations(OWED))
def test_marks_lie_inside_and_apart(title: str, rows: list[tuple[str, str | None, str]]) -> None:
    found = marks(title, owed(rows))
    edges = [edge for mark in found for edge in (mark.start, mark.end)]
    assert edges == sorted(edges)
    assert all(0 <= mark.start < mark.end <= len(title) for mark in found)
    assert found == marks(title, owed(rows))


@given(st.text())
def test_a_title_is_folded_as_its_characters_are(title: str) -> None:
    """On this rests the map from folded characters to the title's."""
    letters = pl.DataFrame({"title": [title, *title]}, schema={"title": pl.String}).select(folded(pl.col("title")))
    whole, *each = letters["title"].to_list()
    assert "".join(each) == whole


def test_what_the_rules_found_by_a_whole_number_is_marked(small_ledger: Ledger) -> None:
    paid = small_ledger.transfers.head(300)
    world = World.of(paid, small_ledger.invoices, Memory.empty())
    every = np.arange(len(paid))
    pairs = Reader(world).read(every, every, world.settlements).pairs
    named = (pairs.found[:, [RULE_INDEX["number"], RULE_INDEX["reference"]]] > 0).any(axis=1)
    checked = 0
    for transfer in np.unique(pairs.transfer[named]):
        title = paid["title"][int(transfer)]
        candidates = small_ledger.invoices[pairs.invoice[pairs.transfer == transfer]]
        whole = small_ledger.invoices[pairs.invoice[(pairs.transfer == transfer) & named]]
        found = marks(title, candidates)
        marked = [digits_of(title[mark.start : mark.end]) for mark in found]
        for number, reference in whole.select("number", "reference").iter_rows():
            assert any(
                digits_of(text) in mark for text in (number, reference) if digits_of(text or "") for mark in marked
            ), (title, number, reference, found)
            checked += 1
    assert checked > 100


def digits_of(text: str | None) -> str:
    misread = re.sub(r"(?i)(?<=\d)[il](?=\d|\b)", "1", re.sub(r"(?i)(?<=\d)o|o(?=\d)", "0", text or ""))
    return "".join(re.findall(r"\d", misread))
