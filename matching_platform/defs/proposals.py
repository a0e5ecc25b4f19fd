"""What the finance system reads."""

from dataclasses import dataclass
from typing import Any

import dagster as dg
import polars as pl

from matching_platform.defs.automation import every_month_ignoring
from matching_platform.defs.common import MANY_MONTHS, MONTHS, Made, PlatformParam, charged, keep, materialized
from matching_platform.defs.pods import op_tags
from matching_platform.environment import Platform
from matching_platform.ledger.money import to_decimal
from matching_platform.matching.decisions import decided, why
from matching_platform.matching.matcher import Matcher
from matching_platform.review.proposed import (
    BOOKED_FROM,
    MODEL,
    OBEYS,
    OTHERS,
    OWN_THRESHOLD,
    RUNNERS_UP_KIND,
    TRAINED_UNTIL,
    in_advance,
    made_in_advance,
    minor,
    others,
)
from matching_platform.store.catalog import Current
from matching_platform.store.unattended import Permission, permission


@dataclass(frozen=True)
class Rule:
    """What may be booked unattended, as the record said when its last change was that `number`."""

    number: int
    permission: Permission

    @classmethod
    def of(cls, platform: Platform) -> "Rule":
        """What is in force now."""
        changes = platform.unattended.history()
        return cls(len(changes), permission(changes))

    def decide(self, rows: pl.DataFrame, model: str, own: float | None) -> pl.DataFrame:
        """Proposals of a model, decided by the rule; where its own threshold is not known, never less carefully."""
        auto_from = self.permission.auto_from(model, own or 0.0)
        frozen = self.permission.frozen
        return decided(rows, own, auto_from, why(auto_from, frozen.signed if frozen else ""))

    def metadata(self, model: str, own: float | None) -> dict[str, Any]:
        return {
            **({OWN_THRESHOLD: own} if own is not None else {}),
            BOOKED_FROM: self.permission.auto_from(model, own or 0.0),
            "frozen": self.permission.told or "no",
            OBEYS: self.number,
        }


@dataclass(frozen=True)
class Kept:
    """Earlier proposals that stay, with their `model`, and their runners-up (schema RUNNERS_UP) where those are known."""

    rows: pl.DataFrame
    others: pl.DataFrame

    @classmethod
    def of(cls, platform: Platform, rows: pl.DataFrame, made: Current) -> "Kept":
        """`rows` as stored, of those that were `made`."""
        return cls(minor(rows).with_columns(model=pl.lit(str(made.metadata.get(MODEL)))), others(platform.store, made))


@dg.asset(
    description="A row is an invoice that a transfer booked in the month settles, or a transfer that settles none: "
    "book it, or show it to a person.",
    deps=["transfers", "invoices", "champion"],
    partitions_def=MONTHS,
    backfill_policy=MANY_MONTHS,
    # A new champion speaks about the months to come; what was proposed stays proposed, also when he is asked again.
    automation_condition=every_month_ignoring("champion"),
    group_name="serving",
    kinds={"parquet"},
    op_tags=op_tags("proposals"),
    code_version="1",
)
def proposals(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    promotion = platform.registry.champion()
    if promotion is None:
        raise dg.Failure("there is no champion yet to propose anything: materialize champion first")
    model, trained = promotion.model.name, Matcher.load(platform.store.fetch(promotion.model))
    own = trained.auto_from
    months = sorted(context.partition_keys)
    ledger = platform.ledger(months[-1])
    tagged = ledger.matches.select("transfer_id")
    made = {}
    for month in months:
        warehouse = charged(context, platform)
        # By its own threshold, which settles who pays which of two alike; what may be booked is decided afterwards.
        matched = trained.match_in_full(ledger, [month], candidates=platform.candidates(warehouse))
        rule = Rule.of(platform)
        rows = rule.decide(matched.proposals, model, own).with_columns(model=pl.lit(model))
        in_sample = month <= trained.card["trained_until"]
        kept = _in_advance(platform, month, rule, tagged) if in_sample else _acted_on(platform, month, model, tagged)
        rows, fresh = _beside(kept, rows)
        runners_up = platform.store.put_frame(RUNNERS_UP_KIND, _others_beside(kept, matched.runners_up))
        made_by, rows = rows.select("transfer_id", "model").unique(), rows.drop("model")
        by_decision = rows.unique("transfer_id")["decision"].value_counts()
        metadata = {
            "dagster/partition_row_count": rows.height,
            "rows": rows.height,
            MODEL: model,
            TRAINED_UNTIL: trained.card["trained_until"],
            "in-sample": fresh if in_sample else 0,
            OTHERS: runners_up.digest,
            **rule.metadata(model, own),
            **dict(by_decision.rows()),
        }
        version = platform.store.put_frame("proposals", rows.with_columns(to_decimal("amount")))
        platform.catalog.set(RUNNERS_UP_KIND, month, runners_up, {})
        booked = ledger.transfers.select("transfer_id", "booked_on")
        dated = rows.join(booked, on="transfer_id", maintain_order="left")
        warehouse.publish("proposals", month, dated.join(made_by, on="transfer_id", maintain_order="left"))
        made[month] = keep(platform, "proposals", month, Made(version, metadata)).costing(warehouse.costs())
    return materialized(context, platform, made)


def _in_advance(platform: Platform, month: str, rule: Rule, tagged: pl.DataFrame) -> Kept | None:
    """What was proposed in advance; of what nobody has acted on, no tag says so, the rule decides, and that is kept."""
    earlier = made_in_advance(platform.catalog, month)
    if earlier is None:
        return None
    stored = platform.store.read_frame(earlier.version)
    model, own = str(earlier.metadata.get(MODEL)), earlier.metadata.get(OWN_THRESHOLD)
    acted_on, waiting = _split(stored.with_row_index(), tagged)
    now = pl.concat([acted_on, rule.decide(waiting, model, own)]).sort("index").drop("index")
    if not now.equals(stored):
        version = platform.store.put_frame("proposals", now)
        # Who asks finds it disobedient until it is published, too.
        told = {**earlier.metadata, **rule.metadata(model, own), OBEYS: earlier.metadata.get(OBEYS, 0)}
        platform.catalog.set("proposals", month, version, told)
    return Kept.of(platform, now, earlier)


def _acted_on(platform: Platform, month: str, model: str, tagged: pl.DataFrame) -> Kept | None:
    """What the same model has proposed for transfers that people have tagged since: no freeze takes that back."""
    history = platform.catalog.history("proposals", month)
    mine = (one for one in reversed(history) if in_advance(one, month) and one.metadata.get(MODEL) == model)
    if (earlier := next(mine, None)) is None:
        return None
    return Kept.of(platform, _split(platform.store.read_frame(earlier.version), tagged)[0], earlier)


def _split(proposals: pl.DataFrame, tagged: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The proposals of `tagged` transfers, and the others."""
    acted_on = proposals.join(tagged, on="transfer_id", how="semi", maintain_order="left")
    return acted_on, proposals.join(tagged, on="transfer_id", how="anti", maintain_order="left")


def _beside(kept: Kept | None, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """What is `kept` of earlier proposals, and `rows` of the other transfers; and how many of these there are.

    `rows` are of a model that has seen the tags of the month, and would only repeat them.
    """
    if kept is None:
        return rows, rows["transfer_id"].n_unique()
    fresh = rows.join(kept.rows, on="transfer_id", how="anti", maintain_order="left")
    stay = kept.rows.join(rows, on="transfer_id", how="semi", maintain_order="left")
    return pl.concat([stay, fresh]), fresh["transfer_id"].n_unique()


def _others_beside(kept: Kept | None, fresh: pl.DataFrame) -> pl.DataFrame:
    """The runners-up of what is `kept`, and `fresh` ones of the other transfers."""
    if kept is None:
        return fresh
    stay = kept.others.join(kept.rows, on="transfer_id", how="semi", maintain_order="left")
    return pl.concat([stay, fresh.join(kept.rows, on="transfer_id", how="anti", maintain_order="left")])


defs = dg.Definitions(assets=[proposals])
