"""Served requests, made up."""

from datetime import UTC, datetime
from typing import Final

import polars as pl

from matching_platform.delivery.probe import REQUEST
from matching_platform.ledger.schema import PROPOSALS
from matching_platform.ledger.wire import from_rows
from matching_platform.predictions.headers import ASKED
from matching_platform.predictions.masking import Masking
from matching_platform.predictions.served import Served

TRANSFERS: Final = from_rows("transfers", REQUEST["transfers"])
INVOICES: Final = from_rows("open_invoices", REQUEST["invoices"])
NOON: Final = datetime(2024, 5, 28, 12, tzinfo=UTC)
PLAIN: Final = Masking.of((), b"")


def answered(transfers: pl.DataFrame) -> pl.DataFrame:
    """What a careful model proposes: nothing."""
    named = transfers.select("transfer_id", pl.lit(0.5).alias("confidence"), pl.lit("none").alias("decision"))
    told = named.with_columns(pl.lit(["no open invoice has anything in common with it"]).alias("evidence"))
    return pl.concat([pl.DataFrame(schema=PROPOSALS), told], how="diagonal")


def served(
    request_id: str, received_at: datetime = NOON, purpose: str = ASKED, transfers: pl.DataFrame = TRANSFERS
) -> Served:
    return Served(request_id, received_at, purpose, "model-1", 12.5, 0.9, transfers, INVOICES, answered(transfers))
