"""A company for the desk: three months of a sample company in a store, the last of them proposed for and not tagged yet."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from matching_platform.environment import DEFAULTS, Platform, Settings
from matching_platform.ledger.money import to_decimal, to_minor
from matching_platform.ledger.months import first_day, month_of
from matching_platform.ledger.schema import PROPOSALS, RAW_TABLES, TABLES
from matching_platform.sample import company

MONTHS = ("2024-01", "2024-02", "2024-03")
OPEN = MONTHS[-1]
MODEL = "0123456789abcdef"
BOOKED_FROM = 0.95
NOBODY = 9  # a port at which nothing listens
_NOTHING = "none of the {} candidates fits well enough"


def desk_company(
    folder: Path, transfers: int = 60, unattended: float = 0.4, months: tuple[str, ...] = MONTHS, **given: Any
) -> Platform:
    """A platform in `folder` with about so many transfers in the last month, which a share of is booked `unattended`.

    Every earlier month is tagged. Proposals are right, but for some of low confidence; `given` are more settings.
    """
    platform = bare_platform(folder, months, **given)
    made = company.generate(company.Settings(start=months[0], months=len(months), transfers_per_month=transfers))
    frames = {name: made[name].with_columns(to_minor("amount")) for name in (*RAW_TABLES, "audit")}
    booked = frames["transfers"].select("transfer_id", "booked_on")
    newest = booked.filter(pl.col("booked_on") >= first_day(months[-1])).select("transfer_id")
    frames["matches"] = frames["matches"].join(newest, on="transfer_id", how="anti")
    for name in RAW_TABLES:
        dated = (
            frames[name] if name != "matches" else frames[name].join(booked, on="transfer_id", maintain_order="left")
        )
        for month in months:
            store(platform, name, month, dated.filter(month_of(TABLES[name].partitioned_by) == month))
    rows = proposals(frames, newest, unattended)
    propose(platform, months[-1], rows)
    return platform


def bare_platform(folder: Path, months: Sequence[str], **given: Any) -> Platform:
    """A platform in `folder` without any data, nor a service that matches."""
    local = {"warehouse": folder / "warehouse.duckdb", "store": str(folder / "store"), "port": NOBODY}
    calendar = {"first_month": months[0], "last_month": months[-1]}
    return Platform(Settings(**{**DEFAULTS["local"], **local, **calendar, **given}))


def store(platform: Platform, name: str, month: str, rows: pl.DataFrame) -> None:
    """Makes `rows` the current version of a table for a month."""
    frame = rows.select(list(TABLES[name].schema))
    platform.catalog.set(name, month, platform.store.put_frame(name, frame), {"rows": len(frame)})


def propose(platform: Platform, month: str, rows: pl.DataFrame, trained_until: str = MONTHS[-2]) -> None:
    """Makes `rows` (PROPOSALS, minor units) what a model proposes for a month."""
    metadata = {
        "model": MODEL,
        "trained until": trained_until,
        "booked from": BOOKED_FROM,
        "own threshold": BOOKED_FROM,
    }
    version = platform.store.put_frame("proposals", rows.with_columns(to_decimal("amount")))
    platform.catalog.set("proposals", month, version, metadata)


def proposals(frames: dict[str, pl.DataFrame], asked: pl.DataFrame, unattended: float) -> pl.DataFrame:
    """PROPOSALS for the transfers `asked`: the truth, of which the first `unattended` share is sure."""
    truth = asked.join(frames["audit"], on="transfer_id", how="left", maintain_order="left")
    size = pl.col("invoice_id").count().over("transfer_id")
    place = asked.with_row_index("place").with_columns(share=(pl.col("place") * 7 % len(asked)) / max(1, len(asked)))
    rows = truth.join(place, on="transfer_id", maintain_order="left").with_columns(size=size)
    pays = pl.col("size") > 0
    sure = pays & (pl.col("share") < unattended)
    confidence = (
        pl.when(sure).then(0.96 + 0.039 * pl.col("share")).otherwise(0.3 + 0.6 * ((pl.col("place") * 13) % 97) / 97)
    )
    said = (
        pl.when(~pays)
        .then(pl.concat_list(pl.format(_NOTHING, pl.col("place") % 9 + 1)))
        .when(pl.col("size") == 1)
        .then(pl.concat_list(pl.lit("amount equals what is open on the invoice"), pl.lit("title names the invoice")))
        .otherwise(
            pl.concat_list(
                pl.format("amount equals the sum of {} open invoices", "size"),
                pl.lit("account is known to be the counterparty's"),
            )
        )
    )
    decision = pl.when(~pays).then(pl.lit("none")).when(sure).then(pl.lit("auto")).otherwise(pl.lit("review"))
    return (
        _some_wrong(rows, frames)
        .with_columns(confidence=confidence, decision=decision, evidence=said)
        .select(pl.col(name).cast(dtype) for name, dtype in PROPOSALS.items())
    )


def _some_wrong(rows: pl.DataFrame, frames: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Every eleventh payment of one invoice is proposed for one of the same amount or more that nobody pays."""
    invoices = frames["invoices"]
    paid = pl.concat([frames["audit"], rows.select(frames["audit"].columns)]).drop_nulls("invoice_id")
    free = (
        invoices.filter(pl.col("amount") > 0)
        .join(paid, on="invoice_id", how="anti")
        .with_columns(turn=pl.int_range(pl.len()).over("counterparty_id", "currency"))
    )
    theirs = invoices.select("invoice_id", "counterparty_id", "currency")
    wrong = (
        rows.filter((pl.col("size") == 1) & (pl.col("place") % 11 == 5))
        .join(theirs, on="invoice_id", maintain_order="left")
        .with_columns(turn=pl.int_range(pl.len()).over("counterparty_id", "currency"))
        .join(
            free.select("counterparty_id", "currency", "turn", other="invoice_id", worth="amount"),
            on=["counterparty_id", "currency", "turn"],
        )
        .filter(pl.col("worth") >= pl.col("amount"))
        .select("transfer_id", "other")
    )
    return rows.join(wrong, on="transfer_id", how="left", maintain_order="left").with_columns(
        invoice_id=pl.coalesce("other", "invoice_id")
    )


def tag(platform: Platform, month: str, tags: list[tuple[str, str | None, int | None, date]]) -> None:
    """Adds tags of finance to a month: transfer, invoice, amount in minor units, tagged on."""
    rows = pl.DataFrame(tags, schema=TABLES["matches"].schema, orient="row")
    store(platform, "matches", month, pl.concat([platform.read("matches", month), rows]))
