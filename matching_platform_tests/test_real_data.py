"""Quick checks on the data sets that lie beside the repository; skipped where they do not."""

from pathlib import Path

import polars as pl
import pytest

from matching_platform.learning.baselines import rules
from matching_platform.learning.examples import label_month
from matching_platform.learning.yardstick import evaluate
from matching_platform.ledger.months import month_of, months_between
from matching_platform.ledger.reading import Ledger, read_file, read_ledger

DATA = Path(__file__).parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the data sets are not at hand")


@pytest.fixture(scope="module", params=["company", "pay_to_inv"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def ledger(name: str) -> Ledger:
    return read_ledger(DATA / name)


ROWS = {"company": (18_874, 15_284, 20_790), "pay_to_inv": (15_527, 12_262, 17_789)}


def test_the_tables_are_valid_and_whole(ledger: Ledger, name: str) -> None:
    assert (len(ledger.invoices), len(ledger.transfers), len(ledger.matches)) == ROWS[name]


def test_candidates_hold_what_was_paid(ledger: Ledger, name: str) -> None:
    # Of `company` a quarter is read without memory, and some tags are wrong.
    month, recall = {"company": ("2024-03", 0.96), "pay_to_inv": ("2014-10", 0.99)}[name]
    heads = label_month(ledger, month).filter(pl.col("invoice_id").is_null())
    ids = heads.select("transfer_id")
    paid = ledger.matches.drop_nulls("invoice_id").join(ids, on="transfer_id", how="semi")
    assert len(paid) > 300
    assert 1 - heads["missed"].sum() / len(paid) > recall


def test_the_rules_reach_what_is_known_of_them() -> None:
    ledger = read_ledger(DATA / "company")
    months = months_between("2024-07", "2024-12")
    audit = read_file(DATA / "company" / "audit.parquet", "audit")
    figures = evaluate(rules.match(ledger, months), audit, ledger.transfers, ledger.invoices).figures
    assert figures["transfers"] == len(ledger.transfers.filter(month_of("booked_on").is_in(months))) == 6005
    assert figures["exact_paying"] == pytest.approx(0.712, abs=0.03)
    assert figures["f1"] == pytest.approx(0.677, abs=0.03)
