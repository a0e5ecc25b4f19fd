"""Did what was booked hold: proposals against the tags that finance sets afterwards."""

from typing import Final

import polars as pl
from scipy.stats import binomtest

from matching_platform.learning.yardstick import evaluate

DECISIONS: Final = ("auto", "review", "none")
CONFIDENCE_LEVEL: Final = 0.95


def realised_quality(proposals: pl.DataFrame, matches: pl.DataFrame) -> dict[str, float]:
    """How `proposals` (schema PROPOSALS) stand up to `matches` (validated): figures of what is tagged so far.

    | figure | of |
    |---|---|
    | transfers, tagged | counts: transfers proposed, and those of them with a tag |
    | share_tagged, share_auto, share_review, share_none | shares of the transfers proposed |
    | straight_through | share of the tagged paying transfers that were booked unattended |
    | exact, exact_auto, exact_review, exact_none | share of the tagged ones with exactly the tagged set of invoices |
    | auto_precision_low, auto_precision_high | 95 % Clopper-Pearson interval of exact_auto |

    A figure with nothing to divide by is absent. Tags of transfers without a proposal do not count. Finance is wrong
    now and then, so that exact_auto is a little below the precision in truth.
    """
    decided = proposals.select("transfer_id", "decision").unique()
    tags = matches.join(decided, on="transfer_id", how="semi")
    count, tagged = float(decided.height), float(tags["transfer_id"].n_unique())
    figures = {"transfers": count, "tagged": tagged}
    if count:
        figures["share_tagged"] = tagged / count
        figures |= {f"share_{d}": decided.filter(decision=d).height / count for d in DECISIONS}
    return figures | _exactness(proposals, tags)


def _exactness(proposals: pl.DataFrame, tags: pl.DataFrame) -> dict[str, float]:
    if tags.is_empty():
        return {}
    outcomes = evaluate(proposals, tags).outcomes
    groups = {"exact": outcomes} | {f"exact_{d}": outcomes.filter(decision=d) for d in DECISIONS}
    figures = {name: float(group["exact"].sum()) / group.height for name, group in groups.items() if group.height}
    paying, auto = outcomes.filter("paying"), groups["exact_auto"]
    if paying.height:
        figures["straight_through"] = float(paying["auto"].sum()) / paying.height
    if auto.height:
        interval = binomtest(int(auto["exact"].sum()), auto.height).proportion_ci(CONFIDENCE_LEVEL, method="exact")
        figures |= {"auto_precision_low": float(interval.low), "auto_precision_high": float(interval.high)}
    return figures
