"""The companies to be judged on keep the contract, conserve money, can be decided, and are what they are said to be."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from benchmarks.companies import COMPANIES, generate, references, write
from benchmarks.companies.places import BANK_FEES
from benchmarks.companies.spec import MOST_WITHHELD
from matching_platform.ledger.money import DECIMAL
from matching_platform.ledger.months import month_of, months_between, next_month
from matching_platform.ledger.reading import read_ledger
from matching_platform.ledger.validation import check_references, validate

SCALE = 0.15
MOST_ABOVE = 1.05  # An overpayment, or a sum rounded up.
Frames = dict[str, pl.DataFrame]


def valid(frames: Frames) -> Frames:
    """The frames in minor units, refused where they break the contract."""
    tables = {name: validate("audit" if name == "truth" else name, frame) for name, frame in frames.items()}
    for name in ("matches", "audit", "truth"):
        check_references(tables[name], tables["transfers"]["transfer_id"], tables["invoices"]["invoice_id"])
    return tables


@pytest.fixture(scope="module", params=COMPANIES)
def company(request: pytest.FixtureRequest) -> tuple[str, Frames]:
    return request.param, valid(generate(COMPANIES[request.param], SCALE))


@pytest.fixture(scope="module")
def tables(company: tuple[str, Frames]) -> Frames:
    return company[1]


@pytest.fixture(scope="module")
def pairs(tables: Frames) -> pl.DataFrame:
    """A row a transfer and invoice that it settles."""
    return (
        tables["truth"]
        .drop_nulls("invoice_id")
        .join(tables["invoices"], on="invoice_id", suffix="_invoice")
        .join(tables["transfers"], on="transfer_id", suffix="_transfer")
    )


def test_months_and_audit_are_those_of_the_contract(company: tuple[str, Frames]) -> None:
    name, tables = company
    start = COMPANIES[name].start
    months = months_between(start, next_month(start, 17))
    booked = tables["transfers"].select("transfer_id", month=month_of("booked_on"))
    assert sorted(booked["month"].unique()) == months
    assert set(tables["invoices"].select(month_of("issued_on")).to_series()) <= set(months)
    assert set(tables["truth"]["transfer_id"]) == set(booked["transfer_id"])
    audited = set(booked.filter(pl.col("month") >= months[12])["transfer_id"])
    assert set(tables["audit"]["transfer_id"]) == audited
    assert_frame_equal(
        tables["audit"], tables["truth"].filter(pl.col("transfer_id").is_in(list(audited))), check_row_order=False
    )


def test_no_invoice_is_settled_for_more_than_its_amount(pairs: pl.DataFrame) -> None:
    assert pairs.filter(pl.col("amount").sign() != pl.col("amount_invoice").sign()).is_empty()
    spent = pairs.group_by("invoice_id").agg(pl.col("amount").sum().abs(), pl.col("amount_invoice").first().abs())
    assert spent.filter(pl.col("amount") > pl.col("amount_invoice")).is_empty()


def test_no_transfer_settles_more_than_it_brings_within_the_stated_tolerance(pairs: pl.DataFrame) -> None:
    sums = (
        pairs.filter(pl.col("currency") == pl.col("currency_transfer"))
        .group_by("transfer_id")
        .agg(pl.col("amount").sum(), pl.col("amount_transfer", "currency").first())
    )
    fee = pl.col("currency").replace_strict({currency: max(fees) for currency, fees in BANK_FEES.items()})
    least = pl.col("amount") * (1 - MOST_WITHHELD) - fee - 1_00
    assert sums.filter(pl.col("amount") <= 0).is_empty()
    assert sums.filter(pl.col("amount_transfer") < least).is_empty()
    assert sums.filter(pl.col("amount_transfer") > pl.col("amount") * MOST_ABOVE + 1_00).is_empty()


def test_sales_are_paid_by_incoming_transfers_after_their_issue(pairs: pl.DataFrame) -> None:
    assert pairs.filter((pl.col("direction") == "sale") != (pl.col("direction_transfer") == "in")).is_empty()
    assert pairs.filter(pl.col("booked_on") < pl.col("issued_on")).is_empty()


def test_of_equal_open_bills_the_older_is_paid(pairs: pl.DataFrame, tables: Frames) -> None:
    """Otherwise nobody could tell them apart where the title is silent."""
    open_amount = dict(tables["invoices"].select("invoice_id", "amount").iter_rows())
    bills: dict[tuple[str, str], list[str]] = defaultdict(list)
    for invoice_id, party, currency in (
        tables["invoices"].select("invoice_id", "counterparty_id", "currency").iter_rows()
    ):
        bills[party, currency].append(invoice_id)
    doubtful = 0
    columns = ("transfer_id", "invoice_id", "amount", "counterparty_id", "currency")
    ordered = pairs.sort("transfer_id", "invoice_id")
    single = ordered.filter(pl.len().over("transfer_id") == 1)["transfer_id"]
    singles = set(single)
    for transfer_id, invoice_id, amount, party, currency in ordered.select(columns).iter_rows():
        older = (bill for bill in bills[party, currency] if bill < invoice_id)
        doubtful += transfer_id in singles and any(open_amount[bill] == amount for bill in older)
        open_amount[invoice_id] -= amount
    assert doubtful <= 0.01 * len(singles)


def test_tags_come_late_and_are_a_little_incomplete_and_wrong(tables: Frames) -> None:
    matches, transfers = tables["matches"], tables["transfers"]
    days = matches.join(transfers, on="transfer_id").select((pl.col("tagged_on") - pl.col("booked_on")).dt.total_days())
    assert days.min().item() >= 1
    assert days.max().item() > 25
    assert 0.015 < 1 - matches["transfer_id"].n_unique() / transfers.height < 0.05
    wrong = matches.join(tables["truth"], on=["transfer_id", "invoice_id"], how="anti", nulls_equal=True)
    assert 0.002 < wrong["transfer_id"].n_unique() / transfers.height < 0.02


def test_numbers_are_unique_for_whoever_issues_them(tables: Frames) -> None:
    sales = tables["invoices"].filter(direction="sale")
    assert sales["number"].is_unique().all()
    purchases = tables["invoices"].filter(direction="purchase")
    assert not purchases.select("counterparty_id", "number").is_duplicated().any()


def test_every_company_has_both_directions_credit_notes_equal_amounts_and_payments_of_nothing(
    pairs: pl.DataFrame, tables: Frames
) -> None:
    paying = pairs["transfer_id"].n_unique() / tables["transfers"].height
    assert 0.65 < paying < 0.92
    assert set(tables["transfers"]["direction"]) == {"in", "out"}
    assert pairs.filter(pl.col("amount") < 0).height > 0
    assert tables["invoices"].group_by("counterparty_id", "amount").len()["len"].max() >= 8


def _sets(pairs: pl.DataFrame) -> pl.DataFrame:
    return pairs.group_by("transfer_id").agg(
        pl.col("amount").sum(),
        pl.col("amount_transfer", "title", "number", "reference", "currency", "issued_on", "booked_on").first(),
        pl.col("direction").first(),
        whole=(pl.col("amount") == pl.col("amount_invoice")).all(),
        invoices=pl.len(),
        parties=pl.col("counterparty_id").n_unique(),
        named=pl.any_horizontal(
            pl.col("title").str.contains(pl.col(key).fill_null("\0"), literal=True) for key in ("number", "reference")
        ).any(),
    )


_BARE = pl.col("title").str.replace_all(r"\D", "")
_SOLD = pl.col("direction") == "sale"
_KEPT = 1 - pl.col("amount_transfer") / pl.col("amount")
# Company → what must be true of how large a share of the transfers that pay something.
CHARACTERS = {
    ("norway", "nothing but a machine reference"): (
        pl.col("title").str.contains(r"^[\d \+<>RF]{8,}$") | pl.col("title").str.contains("(?i)^(KID|OCR|Viite)"), 0.6, 0.9,
    ),
    ("norway", "a reference on our own payments"): (~_SOLD & _BARE.str.contains(pl.col("reference")), 0.1, 0.4),
    ("acquirer", "payout of five and more counterparties less commission"): (
        (pl.col("parties") >= 5) & _KEPT.is_between(0.007, 0.031), 0.08, 0.5,
    ),
    ("messy", "sale whose title names nothing as printed"): (_SOLD & ~pl.col("named"), 0.35, 0.8),
    ("messy", "part payment"): (~pl.col("whole"), 0.08, 0.3),
    ("messy", "skonto"): (pl.col("whole") & (_KEPT - 0.03).abs().lt(0.0003), 0.03, 0.2),
    ("asia", "title that names nothing"): (_SOLD & ~pl.col("named"), 0.5, 0.85),
    ("asia", "a tenth withheld"): ((_KEPT - 0.1).abs().lt(0.001), 0.02, 0.15),
    ("asia", "closing"): ((pl.col("invoices") > 1) & ~pl.col("named") & _SOLD, 0.08, 0.3),
    ("healthcare_us", "one payer for many patients"): ((pl.col("parties") > 2) & pl.col("named"), 0.02, 0.3),
    ("healthcare_us", "claims denied in part"): (~pl.col("whole"), 0.05, 0.3),
}  # fmt: skip


@pytest.mark.parametrize(("name", "what"), CHARACTERS)
def test_a_company_is_what_it_is_said_to_be(name: str, what: str) -> None:
    tables = valid(generate(COMPANIES[name], SCALE))
    joined = tables["truth"].drop_nulls("invoice_id").join(tables["invoices"], on="invoice_id", suffix="_invoice")
    sets = _sets(joined.join(tables["transfers"], on="transfer_id", suffix="_transfer"))
    condition, least, most = CHARACTERS[name, what]
    assert least <= sets.select(condition.mean()).item() <= most


def test_a_company_that_drifts_changes_numbers_payers_and_batches() -> None:
    tables = valid(generate(COMPANIES["drift"], SCALE))
    sales = tables["invoices"].filter(pl.col("direction") == "sale", pl.col("amount") > 0).sort("issued_on")
    forms = sales["number"].str.contains("^FA").to_numpy()
    assert forms[: len(forms) // 3].all()
    assert not forms[-len(forms) // 3 :].any()
    joined = tables["truth"].drop_nulls("invoice_id").join(tables["invoices"], on="invoice_id", suffix="_invoice")
    sets = _sets(joined.join(tables["transfers"], on="transfer_id", suffix="_transfer")).filter(_SOLD)
    early = pl.col("booked_on") < pl.date(2024, 2, 1)
    several = [
        sets.filter(half)["invoices"].gt(1).mean() for half in (early, pl.col("booked_on") > pl.date(2024, 6, 1))
    ]
    short = [sets.filter(half).select(_KEPT.gt(0.019).mean()).item() for half in (early, ~early)]
    assert several[1] > 1.3 * several[0]
    assert short[1] > short[0] + 0.02


def test_equal_arguments_give_equal_companies_and_other_seeds_others() -> None:
    first, again, other = (generate(COMPANIES["messy"], 0.05, seed) for seed in (3, 3, 4))
    for name, frame in first.items():
        assert_frame_equal(frame, again[name])
        assert frame.schema["amount"] == DECIMAL
    assert set(first["transfers"]["title"]) != set(other["transfers"]["title"])


def _weighted(digits: str) -> int:
    return sum(int(digit) * weight for digit, weight in zip(reversed(digits), (1, *(7, 3, 1) * 9), strict=False))


REFERENCE_CHECKS = {
    "kid": lambda text: references.luhn(text[:-1]) == text,
    "ocr": lambda text: references.luhn(text[:-1]) == text and int(text[-2]) == len(text) % 10,
    "fik": lambda text: references.luhn(text[:-1]) == text and len(text) == 15,
    "viite": lambda text: _weighted(text) % 10 == 0,
    "rf": lambda text: int(f"{text[4:]}2715{text[2:4]}") % 97 == 1,
    "ogm": lambda text: int(text[:10]) % 97 in (int(text[10:]), 0) and len(text) == 12,
}


@pytest.mark.parametrize("kind", REFERENCE_CHECKS)
def test_references_pass_the_checks_of_those_who_made_them(kind: str) -> None:
    for customer, serial in ((1, 1), (12, 345), (491, 12_007), (7, 99_999)):
        assert REFERENCE_CHECKS[kind](references.KINDS[kind](customer, serial))


@pytest.mark.parametrize(
    ("text", "right"), [("7992739871", "79927398713"), ("37828224631000", "378282246310005"), ("0", "00")]
)
def test_check_digits_are_those_of_luhn(text: str, right: str) -> None:
    assert references.luhn(text) == right


def test_accounts_of_iban_countries_pass_their_check() -> None:
    accounts = generate(COMPANIES["norway"], 0.05)["transfers"]["counterparty_account"].drop_nulls().unique()
    assert accounts.len() > 25
    for code in accounts:
        assert int("".join(str(int(sign, 36)) for sign in code[4:] + code[:4])) % 97 == 1, code


def test_written_folders_are_read_back(tmp_path: Path) -> None:
    frames = generate(COMPANIES["asia"], 0.05)
    write(tmp_path / "asia", frames)
    ledger = read_ledger(tmp_path / "asia")
    assert ledger.transfers.height == frames["transfers"].height
    assert sorted(path.stem for path in (tmp_path / "asia").iterdir()) == sorted(frames)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["norway", "--scale", "0.03"], 0, "pays nothing"),
        (["atlantis"], 2, "there is no company atlantis"),
        (["norway", "--scale", "0"], 2, "--scale must be above zero"),
    ],
)
def test_the_command_writes_what_it_is_asked_for(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    command = [sys.executable, "-m", "benchmarks.companies", str(tmp_path / "out"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert (tmp_path / "out" / "norway" / "truth.parquet").is_file() == (code == 0)
