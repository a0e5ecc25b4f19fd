"""A company with a champion, whose newest month is proposed for by it, and by it anew after every decision."""

from pathlib import Path
from shutil import copytree

import polars as pl

from matching_platform.environment import Platform
from matching_platform.ledger.money import to_decimal
from matching_platform.ledger.months import first_day, month_of
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import RAW_TABLES, TABLES
from matching_platform.matching.matcher import Matcher
from matching_platform.review.proposed import (
    BOOKED_FROM,
    MODEL,
    OTHERS,
    OWN_THRESHOLD,
    RUNNERS_UP_KIND,
    TRAINED_UNTIL,
)
from matching_platform_tests.desk.companies import BOOKED_FROM as BOOKED
from matching_platform_tests.desk.companies import bare_platform, store


def learned_company(folder: Path, ledger: Ledger, model: Path) -> Platform:
    """The ledger's months, of which finance has not tagged the newest."""
    months = ledger.months()
    platform = bare_platform(folder, months)
    booked = ledger.transfers.select("transfer_id", "booked_on")
    tags = ledger.matches.join(booked, on="transfer_id", maintain_order="left")
    tags = tags.filter(pl.col("booked_on") < first_day(months[-1]))
    tables = {"invoices": ledger.invoices, "transfers": ledger.transfers, "matches": tags}
    for name in RAW_TABLES:
        for month in months:
            store(platform, name, month, tables[name].filter(month_of(TABLES[name].partitioned_by) == month))
    copytree(model, folder / "model")
    version = platform.store.put("models", folder / "model")
    platform.registry.promote(version, platform.store.put_bytes("evaluations", "e.json", b"{}"), "anna", "first")
    known = Ledger(ledger.invoices, ledger.transfers, tags.drop("booked_on"))
    matched = Matcher.load(model).match_in_full(known, [months[-1]])
    metadata = {
        MODEL: version.name,
        TRAINED_UNTIL: months[-2],
        OTHERS: platform.store.put_frame(RUNNERS_UP_KIND, matched.runners_up).digest,
        BOOKED_FROM: BOOKED,
        OWN_THRESHOLD: BOOKED,
    }
    rows = matched.proposals.with_columns(to_decimal("amount"))
    platform.catalog.set("proposals", months[-1], platform.store.put_frame("proposals", rows), metadata)
    return platform
