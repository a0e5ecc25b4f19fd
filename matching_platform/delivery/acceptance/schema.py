"""The form of an answer, as the contract has it, whatever the service's code thinks of it."""

from typing import Annotated, Final, Literal

import polars as pl
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from matching_platform.delivery.acceptance.server import AnswerError
from matching_platform.delivery.probe import in_short
from matching_platform.ledger.validation import validate

# What stays within is rounding, discount or commission: minor units, and shares of what a set, or a lone invoice, takes.
ROUNDING: Final = 100
DISCOUNT: Final = 0.05
LONE_DISCOUNT: Final = 0.125
_SHOWN: Final = 3


class _Proposal(TypedDict):
    transfer_id: str
    invoice_id: str | None
    amount: FiniteFloat | None
    confidence: Annotated[float, Field(ge=0, le=1)]
    decision: Literal["auto", "review", "none"]
    evidence: list[str]


class _Answer(TypedDict):
    model: str
    proposals: list[_Proposal]


_ANSWER: Final = TypeAdapter(_Answer)
_TYPES: Final = {
    "transfer_id": pl.String(),
    "invoice_id": pl.String(),
    "amount": pl.Float64(),
    "confidence": pl.Float64(),
    "decision": pl.String(),
    "evidence": pl.List(pl.String()),
}


def frame(content: bytes, version: str | None = None) -> pl.DataFrame:
    """The proposals (schema PROPOSALS) in the body of an answer.

    ValueError where it is not of the contract's form, a column is missing or of another type or range, an invoice is
    proposed twice for a transfer, or the answer is not of the model `version`.
    """
    try:
        answer = _ANSWER.validate_json(content, strict=True)
    except ValidationError as error:
        raise AnswerError(in_short(error)) from error
    if version is not None and answer["model"] != version:
        raise AnswerError(f"the answer names the model {answer['model']}, not {version}")
    return validate("proposals", pl.DataFrame([{**row} for row in answer["proposals"]], schema=_TYPES), source="answer")


def problems(proposals: pl.DataFrame, transfers: pl.DataFrame, invoices: pl.DataFrame) -> list[str]:
    """What is wrong with proposals for `transfers` and open `invoices`, validated tables; a line for each thing found.

    Whether a transfer gives more than it brought is only told where all its invoices are in its currency.
    """
    open_amount = pl.coalesce("open_amount", "amount") if "open_amount" in invoices.columns else pl.col("amount")
    rows = proposals.join(
        invoices.select("invoice_id", open=open_amount, invoice_currency="currency"),
        on="invoice_id",
        how="left",
        maintain_order="left",
    ).join(
        transfers.select("transfer_id", brought="amount", currency="currency"),
        on="transfer_id",
        how="full",
        coalesce=True,
        maintain_order="left_right",
    )
    settled = rows.filter(pl.col("invoice_id").is_not_null())
    found = {
        "transfer {} was not answered": rows.filter(pl.col("decision").is_null())["transfer_id"],
        "transfer {} was not asked": rows.filter(pl.col("brought").is_null())["transfer_id"],
        "invoice {} was not sent": settled.filter(pl.col("open").is_null())["invoice_id"],
        "transfer {} settles nothing and something": _mixed(rows),
        "transfer {} has rows that disagree on confidence or decision": _disagreeing(rows),
        "invoice {} is settled for more than it has open": _overdrawn(settled),
        "transfer {} gives more than it brought": _overspent(settled),
    }
    return [line.format(name) for line, names in found.items() for name in names.unique(maintain_order=True)]


def some(lines: list[str]) -> str:
    """The first of many problems, and how many more there are."""
    more = f"; and {len(lines) - _SHOWN:,} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more


def _mixed(rows: pl.DataFrame) -> pl.Series:
    """Transfers with a row without invoice beside others, or whose invoice, amount and decision do not go together."""
    answered = rows.filter(pl.col("decision").is_not_null())
    nothing = pl.col("invoice_id").is_null()
    alone = (pl.len() == 1) | ~nothing.any()
    together = (nothing == pl.col("amount").is_null()).all() & (nothing == (pl.col("decision") == "none")).all()
    return (
        answered.group_by("transfer_id", maintain_order=True)
        .agg(fine=alone & together)
        .filter(~pl.col("fine"))["transfer_id"]
    )


def _disagreeing(rows: pl.DataFrame) -> pl.Series:
    said = rows.group_by("transfer_id", maintain_order=True).agg(pl.struct("confidence", "decision").n_unique())
    return said.filter(pl.col("confidence") > 1)["transfer_id"]


def _overdrawn(settled: pl.DataFrame) -> pl.Series:
    taken = settled.group_by("invoice_id", maintain_order=True).agg(
        pl.col("amount").sum(), pl.col("amount").abs().sum().alias("moved"), pl.col("open").first()
    )
    other_way = pl.col("amount").sign() * pl.col("open").sign() < 0
    return taken.filter((pl.col("moved") > pl.col("open").abs()) | other_way)["invoice_id"]


def _overspent(settled: pl.DataFrame) -> pl.Series:
    given = settled.group_by("transfer_id", maintain_order=True).agg(
        pl.col("amount").sum(),
        pl.col("brought").first(),
        same=(pl.col("currency") == pl.col("invoice_currency")).all(),
        share=pl.when(pl.len() == 1).then(LONE_DISCOUNT).otherwise(DISCOUNT),
    )
    tolerated = pl.max_horizontal(pl.lit(float(ROUNDING)), pl.col("share") * pl.col("amount"))
    return given.filter("same", pl.col("amount") - pl.col("brought") > tolerated)["transfer_id"]
