"""The sample company keeps the contract, conserves money, and holds every kind of payment there is."""

import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from matching_platform.ledger.money import DECIMAL
from matching_platform.ledger.months import month_of, months_between, next_month
from matching_platform.ledger.reading import read_ledger
from matching_platform.ledger.validation import check_references, validate
from matching_platform.sample.company import MAX_DISCOUNT, MAX_FEE, Settings, generate, write
from matching_platform.sample.words import COUNTRIES

YEAR = Settings(seed=7, months=12, transfers_per_month=400)

companies = st.builds(
    Settings,
    seed=st.integers(0, 10_000),
    start=st.sampled_from(["2022-12", "2024-02"]),
    months=st.integers(1, 5),
    transfers_per_month=st.integers(1, 80),
    shift_month=st.sampled_from([None, "2023-01", "2024-04"]),
    countries=st.lists(st.sampled_from(sorted(COUNTRIES)), min_size=1, unique=True).map(tuple),
)


def valid(frames: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The frames in minor units, refused where they break the contract."""
    tables = {name: validate(name, frame) for name, frame in frames.items()}
    for name in ("matches", "audit"):
        check_references(tables[name], tables["transfers"]["transfer_id"], tables["invoices"]["invoice_id"])
    return tables


@pytest.fixture(scope="module")
def year() -> dict[str, pl.DataFrame]:
    return valid(generate(YEAR))


@pytest.fixture(scope="module")
def settled(year: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """A row a transfer, with what it settles in truth."""
    pairs = year["audit"].join(
        year["invoices"].rename({"amount": "invoiced", "currency": "invoice_currency", "direction": "kind"}),
        on="invoice_id",
        how="left",
    )
    paid = pl.col("amount").filter(pl.col("invoiced") > 0)
    sets = pairs.group_by("transfer_id").agg(
        pl.col("invoice_id").count().alias("invoices"),
        pl.col("amount").sum().alias("settled"),
        (pl.col("invoiced") < 0).any().alias("credit"),
        (paid < pl.col("invoiced").filter(pl.col("invoiced") > 0)).any().alias("part"),
        pl.col("invoice_currency", "number", "reference").first(),
        pl.col("counterparty_name").first().alias("partner"),
        pl.col("counterparty_id").n_unique().alias("partners"),
    )
    return year["transfers"].join(sets, on="transfer_id", validate="1:1")


@settings(max_examples=25, deadline=None)
@given(companies)
def test_any_company_is_valid_and_conserves_money(company: Settings) -> None:
    tables = valid(generate(company))
    invoices, transfers, audit = tables["invoices"], tables["transfers"], tables["audit"]
    pairs = audit.drop_nulls("invoice_id").join(invoices, on="invoice_id", suffix="_invoice")
    spent = pairs.group_by("invoice_id").agg(pl.col("amount").sum(), pl.col("amount_invoice").first())
    assert spent.filter(pl.col("amount").abs() > pl.col("amount_invoice").abs()).is_empty()
    assert pairs.filter(pl.col("amount").sign() != pl.col("amount_invoice").sign()).is_empty()

    sets = pairs.group_by("transfer_id").agg(
        pl.col("amount").sum().alias("settled"), pl.col("currency", "issued_on").max()
    )
    paying = transfers.join(sets, on="transfer_id", suffix="_invoice")
    same = paying.filter(pl.col("currency") == pl.col("currency_invoice"))
    short = (pl.col("settled") * MAX_DISCOUNT).ceil().clip(MAX_FEE)
    assert same.filter(pl.col("settled") - pl.col("amount") > short).is_empty()
    assert paying.filter((pl.col("settled") <= 0) | (pl.col("booked_on") < pl.col("issued_on"))).is_empty()


@settings(max_examples=25, deadline=None)
@given(companies)
def test_audit_is_complete_and_the_time_is_the_settings(company: Settings) -> None:
    frames = generate(company)
    assert set(frames["audit"]["transfer_id"]) == set(frames["transfers"]["transfer_id"])
    assert (
        frames["audit"]
        .group_by("transfer_id")
        .agg(pl.len(), pl.col("invoice_id").null_count().alias("nothing"))
        .filter((pl.col("nothing") > 0) & (pl.col("len") > 1))
        .is_empty()
    )
    months = set(months_between(company.start, next_month(company.start, company.months - 1)))
    for name, day in {"transfers": "booked_on", "invoices": "issued_on"}.items():
        assert set(frames[name].select(month_of(day)).to_series()) <= months


def test_equal_settings_give_equal_companies_and_other_seeds_others() -> None:
    small = Settings(seed=3, months=3, transfers_per_month=60)
    first, again = generate(small), generate(small)
    for name, frame in first.items():
        assert_frame_equal(frame, again[name])
    other = generate(Settings(seed=4, months=3, transfers_per_month=60))
    assert set(first["transfers"]["title"]) != set(other["transfers"]["title"])


def test_amounts_and_dates_have_the_contracts_types() -> None:
    frames = generate(Settings(months=1, transfers_per_month=20))
    assert {frames[name].schema["amount"] for name in frames} == {DECIMAL}
    assert frames["transfers"].schema["booked_on"] == frames["matches"].schema["tagged_on"] == pl.Date


def titled(pattern: str) -> pl.Expr:
    return pl.col("title").str.contains(pattern)


KINDS = {
    "single": pl.col("invoices") == 1,
    "batch of ten or more": pl.col("invoices") >= 10,
    "part payment": pl.col("part"),
    "netted credit note": pl.col("credit"),
    "foreign currency": pl.col("currency") != pl.col("invoice_currency"),
    "cash discount": (pl.col("amount") == (pl.col("settled") * 0.98).round()) & (pl.col("invoices") > 0),
    "bank fee": pl.col("settled") - pl.col("amount") == 1500,
    "overpaid": (pl.col("amount") > pl.col("settled") + 50) & (pl.col("currency") == pl.col("invoice_currency")),
    "payout of a card acquirer": titled("^PAYOUT") & (pl.col("partners") > 1),
    "parent": pl.col("counterparty_name").str.to_lowercase().str.ends_with("holding") & (pl.col("invoices") > 0),
    "factor": pl.col("counterparty_name").str.to_lowercase().str.contains("factoring|fakturonet"),
    "no account": pl.col("counterparty_account").is_null(),
    "number as printed": titled(r"FV/\d{4}/\d\d/\d{4}"),
    "squeezed number": titled(r"FV\d{10}"),
    "bare running number": titled(r"(?i)^(faktura |rechnung |fv )?0\d{3}$"),
    "range": titled("(?i)od .+ do .+|von .+ bis .+|from .+ to .+"),
    "SEPA text": titled(r"(?i)^EREF\+\d+ SVWZ\+"),
    "split payment": titled(r"(?i)^/VAT/[\d,]+/IDC/\d{10}/INV/.*/TXT/$"),
    "machine reference": titled(r"(?i)^RF\d\d"),
    "cut at 35": titled("^.{35}$") & (pl.col("invoices") > 1),
    "cut at 70": titled("^.{70}$") & (pl.col("invoices") > 1),
    "cut at 140": titled("^.{140}$") & (pl.col("invoices") > 1),
    "no reference": titled("(?i)^(zapłata|zaplata|przelew|zahlung|payment)$") & (pl.col("invoices") > 0),
    "salary": titled("(?i)wynagrodzenie|wypłata") & (pl.col("invoices") == 0),
    "tax": titled("/OKR/") & (pl.col("invoices") == 0),
    "own transfer": titled("przelew własny") & (pl.col("invoices") == 0),
    "refund": titled("(?i)zwrot") & (pl.col("invoices") == 0),
    "advance": titled("zaliczka") & (pl.col("invoices") == 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_year_holds_every_kind(settled: pl.DataFrame, kind: str) -> None:
    assert settled.filter(KINDS[kind]).height > 0


def test_paid_twice_looks_like_the_payment_before_and_pays_nothing(settled: pl.DataFrame) -> None:
    alike = ["counterparty_name", "title", "amount", "currency", "direction"]
    first = settled.filter(pl.col("invoices") == 1, titled(r"\d{4}"))
    again = settled.filter(pl.col("invoices") == 0).join(first, on=alike, suffix="_first")
    assert again.filter(pl.col("booked_on") > pl.col("booked_on_first")).height > 5


def test_shares_are_those_of_a_real_company(settled: pl.DataFrame) -> None:
    shares = settled.select(
        nothing=(pl.col("invoices") == 0).mean(),
        batch=(pl.col("invoices") > 1).mean(),
        part=pl.col("part").mean(),
        incoming=(pl.col("direction") == "in").mean(),
    ).row(0, named=True)
    bounds = {"nothing": (0.15, 0.3), "batch": (0.05, 0.25), "part": (0.02, 0.25), "incoming": (0.3, 0.75)}
    assert {name for name, (low, high) in bounds.items() if not low <= shares[name] <= high} == set()
    steady = settled.group_by(month_of("booked_on")).len().sort("booked_on")["len"][2:]
    assert 0.8 * YEAR.transfers_per_month < steady.mean() < 1.2 * YEAR.transfers_per_month


def test_tags_come_late_and_are_a_little_incomplete_and_wrong(year: dict[str, pl.DataFrame]) -> None:
    matches, transfers = year["matches"], year["transfers"]
    tags = matches.join(transfers, on="transfer_id")
    days = (tags["tagged_on"] - tags["booked_on"]).dt.total_days()
    assert days.min() >= 1
    assert days.max() > 28
    untagged = 1 - matches["transfer_id"].n_unique() / transfers.height
    assert 0.015 < untagged < 0.05
    wrong = matches.join(year["audit"], on=["transfer_id", "invoice_id"], how="anti", nulls_equal=True)
    assert 0.001 < wrong["transfer_id"].n_unique() / transfers.height < 0.015


def test_numbers_are_unique_for_whoever_issues_them(year: dict[str, pl.DataFrame]) -> None:
    sales = year["invoices"].filter(direction="sale")
    assert sales["number"].is_unique().all()
    purchases = year["invoices"].filter(direction="purchase")
    assert not purchases.select("counterparty_id", "number").is_duplicated().any()


def test_accounts_and_references_pass_their_checks(year: dict[str, pl.DataFrame]) -> None:
    codes = pl.concat([year["transfers"]["counterparty_account"], year["invoices"]["reference"]]).drop_nulls().unique()
    assert codes.len() > 500
    for code in codes:
        assert int("".join(str(int(sign, 36)) for sign in code[4:] + code[:4])) % 97 == 1, code


@pytest.mark.parametrize(("shift", "changes"), [(None, False), ("2023-09", True)])
def test_payers_change_their_accounts_in_the_shift_month(shift: str | None, changes: bool) -> None:
    tables = valid(generate(Settings(seed=2, months=12, transfers_per_month=300, shift_month=shift)))
    paid = tables["transfers"].drop_nulls("counterparty_account")
    before = paid.filter(pl.col("booked_on") < pl.date(2023, 9, 1))["counterparty_account"]
    late = paid.filter(pl.col("booked_on") >= pl.date(2023, 11, 1))["counterparty_account"]
    assert (1 - late.is_in(before.implode()).mean() > 0.1) == changes


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_written_folders_are_read_back_equal(tmp_path: Path, form: str) -> None:
    company = Settings(months=2, transfers_per_month=30)
    write(tmp_path / "data", company, form)
    expected = valid(generate(company))
    ledger = read_ledger(tmp_path / "data")
    for name in ("invoices", "transfers", "matches"):
        assert_frame_equal(getattr(ledger, name), expected[name])
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == sorted(
        f"{name}.{form}" for name in ("audit", "invoices", "matches", "transfers")
    )


def test_a_hundred_thousand_transfers_take_seconds() -> None:
    started = time.perf_counter()
    frames = generate(Settings(months=12, transfers_per_month=9_000))
    assert frames["transfers"].height > 90_000
    assert time.perf_counter() - started < 30


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"start": "2023-13"}, "2023-13"),
        ({"shift_month": "soon"}, "soon"),
        ({"months": 0}, "at least one month"),
        ({"transfers_per_month": 0}, "at least one"),
        ({"countries": ("PL", "XX")}, "XX"),
        ({"countries": ()}, "countries must be"),
    ],
)
def test_settings_that_make_no_company_are_refused(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Settings(**wrong)
