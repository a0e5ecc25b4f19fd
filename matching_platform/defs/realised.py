"""Did what was booked hold? And where it did not, the model grows more careful at once."""

from collections.abc import Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import dagster as dg
import polars as pl

from matching_platform.defs.automation import EVERY_MONTH
from matching_platform.defs.broken_promise import ASSET, BOOKINGS, PROPOSED_BY, Found, evidence, grow_careful
from matching_platform.defs.common import MANY_MONTHS, MONTHS, Made, PlatformParam, keep, materialized, table
from matching_platform.defs.pods import op_tags
from matching_platform.environment import Platform
from matching_platform.ledger.money import to_decimal
from matching_platform.ledger.schema import PROPOSALS
from matching_platform.monitoring.realised import Realised, tagged_alike
from matching_platform.monitoring.realised import realised_quality as realised
from matching_platform.review.proposed import in_advance, minor
from matching_platform.store.versions import FRAME, Version

KEPT: Final = "promise_kept"
TAGGED: Final = "bookings_tagged"
# Shown by name in the UI, under these titles.
_TABLES: Final = {"by_kind": "by kind", "by_payer": "worst payers", "by_currency": "by currency"}
_SENTENCES: Final = {
    KEPT: "What each model books unattended is as precise as promised; where it is not, the model books less from then on.",
    TAGGED: "People tag what was booked unattended about as often as what they were shown, so that it can be judged.",
}


@dg.asset(
    name=ASSET,
    description="A row is a figure of what was proposed in advance for the month, judged by what has been tagged since. "
    "Proposals of a model that had learned from the month do not count, and tags that the books refute judge nobody.",
    deps=["proposals", "matches"],
    check_specs=[
        dg.AssetCheckSpec(name, asset=ASSET, blocking=False, description=told) for name, told in _SENTENCES.items()
    ],
    partitions_def=MONTHS,
    backfill_policy=MANY_MONTHS,
    automation_condition=EVERY_MONTH,
    group_name="monitoring",
    kinds={"polars"},
    op_tags=op_tags(ASSET),
    code_version="3",
)
def realised_quality(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    months = sorted(context.partition_keys)
    # Late tags of later months tell as well which tags the books refute.
    ledger = platform.ledger(platform.catalog.months("matches")[-1])
    made, judged = {}, {}
    for month in months:
        proposed = proposed_in_advance(platform, month)
        judged[month] = told = realised(proposed, ledger)
        left_out = platform.read("proposals", month)["transfer_id"].n_unique() - told.counts["transfers"]
        metadata = {
            **told.figures,
            "left out as in-sample": left_out,
            PROPOSED_BY: ", ".join(proposed["model"].unique().sort()),
            **{title: table(_shown(told.frames[name])) for name, title in _TABLES.items()},
        }
        made[month] = keep(platform, ASSET, month, Made(_stored(platform, told), metadata))
    models = sorted({model for told in judged.values() for model in told.bookings["model"].unique()})
    latest = platform.catalog.latest(ASSET)
    found = [grow_careful(platform, evidence(latest, model)) for model in models]
    return materialized(context, platform, made, [_promise_kept(found), _bookings_tagged(judged.values())])


def proposed_in_advance(platform: Platform, month: str) -> pl.DataFrame:
    """What was proposed for transfers of `month` by models that had not learned from it, minor units, with `model`.

    What was once booked unattended stays booked, by the model that did it, whatever was proposed afterwards; of the rest
    the last word counts.
    """
    history = [one for one in platform.catalog.history("proposals", month) if in_advance(one, month)]
    frames = [
        minor(platform.store.read_frame(one.version)).with_columns(
            model=pl.lit(one.metadata.get("model", "unknown")), turn=turn
        )
        for turn, one in enumerate(history)
    ]
    empty = pl.DataFrame(schema={**PROPOSALS, "model": pl.String(), "turn": pl.Int32()})
    rows = pl.concat([empty, *frames])
    first, last = pl.col("turn").filter(pl.col("decision") == "auto").min(), pl.col("turn").max()
    counts = pl.coalesce(first.over("transfer_id"), last.over("transfer_id"))
    known = platform.read("proposals", month).select("transfer_id")
    return (
        rows.filter(pl.col("turn") == counts)
        .join(known, on="transfer_id", how="semi", maintain_order="left")
        .drop("turn")
    )


def _stored(platform: Platform, told: Realised) -> Version:
    with TemporaryDirectory() as folder:
        frames = {FRAME: told.shares, BOOKINGS: told.bookings}
        frames |= {f"{name}.parquet": told.frames[name] for name in _TABLES}
        for name, frame in frames.items():
            frame.rechunk().write_parquet(Path(folder, name))
        return platform.store.put(ASSET, Path(folder))


def _shown(frame: pl.DataFrame) -> pl.DataFrame:
    """The same with money as people write it."""
    return frame.with_columns(to_decimal(name) for name in frame.columns if "amount" in name)


def _promise_kept(found: Sequence[Found]) -> dg.AssetCheckResult:
    told = [f"{one.model}: {one.told}" for one in found]
    broken = any(one.verdict.broken for one in found)
    return _advice(KEPT, not broken, "; ".join(told) or "nothing was booked unattended in advance")


def _bookings_tagged(judged: Collection[Realised]) -> dg.AssetCheckResult:
    names = ("transfers", "tagged", "bookings", "bookings_tagged")
    counts = {name: sum(told.counts[name] for told in judged) for name in names}
    bookings, booked = counts["bookings"], counts["bookings_tagged"]
    told = (
        f"{booked} of {bookings} unattended bookings are tagged, and {counts['tagged'] - booked} of the other "
        f"{counts['transfers'] - bookings} transfers"
    )
    advice = "so that people pick what they judge, and all others count as right: let them confirm some by chance"
    passed = tagged_alike(counts)
    return _advice(TAGGED, passed, told if passed else f"{told}, {advice}")


def _advice(check: str, passed: bool, told: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=check,
        asset_key=ASSET,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=told,
    )


defs = dg.Definitions(assets=[realised_quality])
