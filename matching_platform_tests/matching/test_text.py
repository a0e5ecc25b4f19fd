"""Number forms in titles, names, accounts, and the arrays of digits against plain loops."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.matching import text
from matching_platform.matching.candidates import join
from matching_platform.matching.key_spaces import number_keys, title_keys
from matching_platform.matching.text import Digits, deletions, folded

RULES = {
    "exact": ("digits", "number"),
    "zeros": ("digits without zeros", "number without zeros"),
    "missing": ("digits, one missing", "less one"),
    "extra": ("digits less one", "number or reference"),
    "wrong": ("digits less one", "less one"),
}


def rules_that_find(number: str, title: str) -> set[str]:
    """The rules by which `title` names the invoice `number`."""
    invoices = number_keys(pl.Series([number]), pl.Series([None], dtype=pl.String))
    lengths = {int(n) for name in ("number", "number without zeros") for n in abs(invoices[name].weight)}
    written = pl.select(text.remittance(folded(pl.lit(title)))).to_series()
    transfers = title_keys(written, lengths, invoices["number"].key)
    return {rule for rule, (left, right) in RULES.items() if len(join(transfers[left].key, invoices[right].key)[0])}


@pytest.mark.parametrize(
    ("number", "title", "rule"),
    [
        pytest.param("FV/2024/03/0123", "FV/2024/03/0123", "exact", id="as it is"),
        pytest.param("FV/2024/03/0123", "zaplata za fv 2024-03-0123", "exact", id="other separators"),
        pytest.param("FV/2024/03/0123", "FV2024030123", "exact", id="squeezed"),
        pytest.param("FV/2024/03/0123", "FV 20 24/03/01 23", "exact", id="broken by spaces"),
        pytest.param("FV/2024/03/0123", "fv 2024/3/123", "zeros", id="leading zeros dropped"),
        pytest.param("FV/2024/03/0123", "FV 2024.03.00123", "zeros", id="leading zeros put in"),
        pytest.param("RE-10023", "RE-10O23", "exact", id="O for 0"),
        pytest.param("RE-10123", "RE-10I23", "exact", id="I for 1"),
        pytest.param("RE-10231", "RE-1023l", "exact", id="l for 1 at the end"),
        pytest.param("RE-10123", "EREF+998877SVWZ+RE-10123KREF+1", "exact", id="SEPA"),
        pytest.param("12/2024/887", "/VAT/23,00/IDC/5252248481/INV/12-2024-887/TXT/x", "exact", id="split payment"),
        pytest.param("RE-100123", "RE-100122RE-100123", "exact", id="two glued"),
        pytest.param("RE-100123", "RE-100122 RE-100123", "exact", id="two with a space"),
        pytest.param("RE-100123", "kd 99 re100123", "exact", id="behind other digits"),
        pytest.param("RE-100123", "RE-10123", "missing", id="a digit missing"),
        pytest.param("RE-100123", "RE-1000123", "extra", id="a digit too many"),
        pytest.param("RE-100123", "RE-100723", "wrong", id="a digit wrong"),
    ],
)
def test_a_title_names_a_number(number: str, title: str, rule: str) -> None:
    assert rule in rules_that_find(number, title)


@pytest.mark.parametrize(
    ("number", "title"),
    [
        pytest.param("RE-100123", "dziekuje", id="no digits"),
        pytest.param("RE-12", "RE-12", id="too short to tell anything"),
        pytest.param("RE-123", "4512398", id="short and embedded"),
        pytest.param("RE-998877", "EREF+998877SVWZ+RE-100123", id="the bank's own reference"),
        pytest.param("5252248481", "/VAT/1,00/IDC/5252248481/INV/12-2024-887", id="a tax number"),
        pytest.param("RE-100123", "RE-100321", id="two digits wrong"),
        pytest.param("", "RE-100123", id="an invoice without number"),
    ],
)
def test_a_title_does_not_name_a_number(number: str, title: str) -> None:
    assert rules_that_find(number, title) == set()


@pytest.mark.parametrize(
    ("title", "is_range"),
    [
        ("FV 120-125/03", True),
        ("faktury od 12/2024 do 15/2024", True),
        ("Rechnungen von 100 bis 110", True),
        ("invoices 100 to 110", True),
        ("factures 12 au 19", True),
        ("RE-100 - RE-110", True),
        ("100..110", True),
        ("100–110", True),
        ("FV/2024/03/0123", False),
        ("RE 100, RE 110", False),
        ("TODO 7", False),
        ("", False),
    ],
)
def test_ranges(title: str, is_range: bool) -> None:
    assert pl.select(text.names_range(folded(pl.lit(title)))).item() is is_range


@pytest.mark.parametrize(
    ("title", "written"),
    [
        ("EREF+1 MREF+2 SVWZ+RE 7 8 KREF+9", "RE 7 8 "),
        ("SVWZ+RE 7", "RE 7"),
        ("SVWZ+", "SVWZ+"),
        ("/VAT/1,00/IDC/525/INV/FV 7/TXT/more", "FV 7"),
        ("/VAT/1,00/IDC/525/INV/FV/7/24", "FV/7/24"),
        ("PLAIN O", "PLAIN O"),
    ],
)
def test_only_what_the_payer_wrote_is_read(title: str, written: str) -> None:
    assert pl.select(text.remittance(pl.lit(title))).item() == written


@pytest.mark.parametrize(
    "spellings",
    [
        ("Müller & Söhne GmbH", "MULLER & SOHNE", "Muller  Sohne G.m.b.H."),
        ("Zażółć Sp. z o.o.", "ZAZOLC SP Z O O", "Zazolc spółka z ograniczoną odpowiedzialnością"),
        ("Łódź-Øst A/S", "LODZ OST AS"),
        ("Rossi S.r.l.", "ROSSI SRL", "rossi s r l"),
        ("Weiß AG", "WEISS"),
        ("山田株式会社", "山田"),
    ],
)
def test_spellings_of_one_name_have_one_key(spellings: tuple[str, ...]) -> None:
    keys = pl.DataFrame({"name": spellings}).select(text.name_key(folded(pl.col("name"))))["name"]
    assert keys.n_unique() == 1, keys.to_list()
    assert keys[0]


def test_a_name_that_is_a_legal_form_only_stays_itself() -> None:
    assert pl.select(text.name_key(pl.lit("SA"))).item() == "SA"


@pytest.mark.parametrize(
    ("account", "key"),
    [("PL61 1090 1014", "PL6110901014"), ("de-89/3704", "DE893704"), ("12", None), ("", None), (None, None)],
)
def test_account_keys(account: str | None, key: str | None) -> None:
    assert pl.select(text.account_key(pl.lit(account, dtype=pl.String))).item() == key


texts = st.lists(st.text(alphabet="0012 9/a٣", max_size=25) | st.none(), max_size=6)


def groups_of(line: str | None) -> list[str]:
    """The groups of ASCII digits of one text, the slow way."""
    spaced = "".join(c if c in "0123456789" else " " for c in line or "")
    return spaced.split()


@given(texts)
def test_windows_are_all_runs_of_digits_of_one_text(lines: list[str | None]) -> None:
    digits = Digits.of(pl.Series(lines, dtype=pl.String))
    found = [
        (length, int(digits.text[at]), key)
        for length, starts, keys in digits.windows()
        for at, key in zip(starts.tolist(), keys.tolist(), strict=True)
    ]
    squeezed = ["".join(groups_of(line)) for line in lines]
    expected = [
        (length, index, int("1" + line[at : at + length]))
        for length in range(1, text.LONGEST_KEY + 1)
        for index, line in enumerate(squeezed)
        for at in range(len(line) - length + 1)
    ]
    assert sorted(found) == sorted(expected)


def spans(found: tuple[text.Ints, text.Ints, text.Ints]) -> list[tuple[int, int, int]]:
    return sorted(zip(*(part.tolist() for part in found), strict=True))


@given(texts)
def test_groups_and_wholes_are_those_of_a_plain_loop(lines: list[str | None]) -> None:
    digits = Digits.of(pl.Series(lines, dtype=pl.String))

    def keys(of: list[list[str]]) -> list[tuple[int, int, int]]:
        fit = [(i, d) for i, line in enumerate(of) for d in line if 0 < len(d) <= text.LONGEST_KEY]
        return sorted((i, int("1" + d), len(d)) for i, d in fit)

    groups = [groups_of(line) for line in lines]
    assert spans(digits.groups()) == keys(groups)
    assert spans(digits.wholes()) == keys([["".join(line)] for line in groups])
    bare = [[group.lstrip("0") or "0" for group in line] for line in groups]
    assert spans(digits.without_leading_zeros().groups()) == keys(bare)
    assert spans(digits.without_leading_zeros().wholes()) == keys([["".join(line)] for line in bare])


@given(st.lists(st.text("0123456789", min_size=6, max_size=6), max_size=5))
def test_deletions_drop_each_digit_once(numbers: list[str]) -> None:
    keys = pl.Series([int("1" + number) for number in numbers], dtype=pl.Int64).to_numpy()
    found = sorted(key for part in deletions(keys, 6) for key in part.tolist())
    assert found == sorted(int("1" + number[:at] + number[at + 1 :]) for number in numbers for at in range(6))


@pytest.mark.parametrize(
    ("title", "first", "last"),
    [
        pytest.param("PAYOUT 2024-02-29..2024-03-02", "2024-02-29", "2024-03-02", id="from and to"),
        pytest.param("SETTLEMENT 01.03.2024 - 03.03.2024", "2024-03-01", "2024-03-03", id="the day first"),
        pytest.param("PAYOUT 2024-03-02", "2024-03-02", "2024-03-02", id="one day"),
        pytest.param("ZA 02/2024", "2024-02-01", "2024-02-29", id="a month"),
        pytest.param("USLUGI 2024-02", "2024-02-01", "2024-02-29", id="a month, the year first"),
        pytest.param("FV/2024/03/0123", None, None, id="a number that begins like a month"),
        pytest.param("604/2024", None, None, id="a number that ends like a month"),
        pytest.param("FA/2024/08/3012", None, None, id="a number that begins like a day"),
        pytest.param("2024-02-31", None, None, id="no such day"),
        pytest.param("", None, None, id="nothing"),
    ],
)
def test_days_of_which_a_title_speaks(title: str, first: str | None, last: str | None) -> None:
    found = pl.DataFrame({"title": [title]}).select(**text.dates_named(pl.col("title")))
    assert [None if day is None else day.isoformat() for day in found.row(0)] == [first, last]
