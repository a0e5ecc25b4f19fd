"""Did what was booked hold: proposals against the tags that finance sets afterwards, some late, some never, a few wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from matching_platform.learning import thresholds
from matching_platform.learning.yardstick import KINDS, evaluate, kinds_of, resampled
from matching_platform.ledger.reading import Ledger
from matching_platform.matching.arrays import Ints
from matching_platform.matching.history import credible
from matching_platform.monitoring.promise import interval

DECISIONS: Final = ("auto", "review", "none")

# All tags together may settle an invoice by so much more than it is worth: rounding of its parts.
_ROUNDING: Final = 0.01

# People who tag what they are shown, and what is booked less than this part as often, pick what they tag of the latter.
_AS_OFTEN: Final = 0.5

# A row a booking: booked unattended, in advance. `exact` is null where nothing can judge it yet.
BOOKINGS: Final = pl.Schema(
    {"transfer_id": pl.String(), "model": pl.String(), "confidence": pl.Float64(), "exact": pl.Boolean()}
)
_SHARES: Final = pl.Schema(
    {
        "figure": pl.String(),
        "count": pl.Int64(),
        "of": pl.Int64(),
        "share": pl.Float64(),
        "low": pl.Float64(),
        "high": pl.Float64(),
    }
)


@dataclass(frozen=True)
class Realised:
    """How a month's proposals stand up to its tags so far.

    A *booking* is a transfer whose decision is auto. A tag that the books refute judges nobody, see `refuted`.
    `counts`, of transfers: `transfers` proposed for, `tagged` and `judged` among them, `refuted` those with such a tag;
    `bookings`, `bookings_tagged` and `wrong` among these.

    `shares` has a row per figure: figure, count, of, share, and the 95 % interval low and high. One of nothing is absent.

    | figure | share |
    |---|---|
    | share_tagged, share_auto, share_review, share_none | of the transfers proposed for |
    | auto_untagged | of the bookings that has no tag yet |
    | exact, exact_auto, exact_review, exact_none | of the judged, with exactly the tagged invoices; what is acted upon |
    | auto_precision | of all tagged bookings, right by their tags, wrong tags included |
    | straight_through | of the judged that pay something, booked unattended |

    `by_kind`: kind, bookings (judged), wrong, precision, low, high; a booking may be of several kinds.
    `by_payer`, only payers with a wrong booking, the worst first: payer, currency, bookings (judged), wrong, precision,
    low, high, wrong_amount.
    `by_currency`: currency, bookings, amount, untagged_amount, untagged_share (of the amount), wrong, wrong_amount,
    wrong_amount_low, wrong_amount_high.
    Amounts are what the transfers brought, minor units. low and high are 95 % intervals, of a precision Clopper and
    Pearson's. Those of wrong_amount are bootstrapped over the bookings that could be judged: what as many others might
    have cost. Where none was wrong both are 0, and the precision's low tells how much that says.
    `bookings` (BOOKINGS) has a row per booking.
    """

    counts: dict[str, int]
    shares: pl.DataFrame
    by_kind: pl.DataFrame
    by_payer: pl.DataFrame
    by_currency: pl.DataFrame
    bookings: pl.DataFrame

    @property
    def figures(self) -> dict[str, float]:
        """All as scalars: counts, and each share with its interval as `<figure>_low` and `<figure>_high`."""
        told = {name: float(count) for name, count in self.counts.items()}
        for figure, share, low, high in self.shares.select("figure", "share", "low", "high").iter_rows():
            told |= {figure: share, f"{figure}_low": low, f"{figure}_high": high}
        return told

    @property
    def frames(self) -> Mapping[str, pl.DataFrame]:
        """The tables by name."""
        names = ("shares", "by_kind", "by_payer", "by_currency", "bookings")
        return {name: getattr(self, name) for name in names}


def tagged_alike(counts: Mapping[str, float]) -> bool:
    """Whether bookings are tagged about as often as what people are shown, beyond what chance explains where there are few.

    `counts` as `Realised.counts`. Where they are not, those that are tagged were picked, perhaps because they were wrong.
    """
    shown = counts["transfers"] - counts["bookings"]
    others = (counts["tagged"] - counts["bookings_tagged"]) / shown if shown else 0.0
    return interval(int(counts["bookings_tagged"]), int(counts["bookings"]))[1] >= _AS_OFTEN * others


def realised_quality(proposals: pl.DataFrame, ledger: Ledger) -> Realised:
    """How `proposals` (schema PROPOSALS in minor units, and `model`, who made them) stand up to the tags of `ledger`.

    All tags of the ledger take part, also those of other months: they tell which tags the books refute. Tags of transfers
    without a proposal do not count.
    """
    decided = proposals.unique("transfer_id", maintain_order=True).select(
        "transfer_id", "model", "confidence", "decision"
    )
    tags = ledger.matches.join(decided, on="transfer_id", how="semi", maintain_order="left")
    judged = believed(ledger).join(decided, on="transfer_id", how="semi", maintain_order="left")
    outcomes = _outcomes(proposals.drop("model"), tags)
    told = decided.join(outcomes, on="transfer_id", how="left", maintain_order="left").with_columns(
        tagged=pl.col("exact").is_not_null(),
        judged=pl.col("transfer_id").is_in(judged["transfer_id"].unique().implode()),
        auto=pl.col("decision") == "auto",
    )
    told = told.join(_money(ledger), on="transfer_id", how="left", maintain_order="left")
    counted = told.filter("auto", "judged")
    return Realised(
        _counts(told),
        _shares(told),
        _by_kind(counted, judged, ledger),
        _by_payer(counted, judged, ledger),
        _by_currency(told.filter("auto")),
        told.filter("auto").select(
            "transfer_id", "model", "confidence", exact=pl.when("judged").then("exact").otherwise(None)
        ),
    )


def believed(ledger: Ledger) -> pl.DataFrame:
    """The matches of `ledger` that may judge: those of transfers whose tags nothing refutes."""
    return ledger.matches.filter(~pl.col("transfer_id").is_in(refuted(ledger).implode()))


def refuted(ledger: Ledger) -> pl.Series:
    """transfer_id: transfers whose tags the books themselves refute, whoever proposed what.

    One of their tags contradicts the tables (see `history.credible`), or names an invoice that all tags together settle by
    more than it is worth: then one of these tags is wrong, and nobody can say which. The rule asks no model, so that it
    excuses the errors of a bad one no more often than those of a good one.
    """
    tags = ledger.matches
    slips = tags.join(credible(ledger), on=["transfer_id", "invoice_id"], how="anti", nulls_equal=True)
    settled = tags.drop_nulls("invoice_id").group_by("invoice_id").agg(pl.col("amount").sum())
    worth = ledger.invoices.select("invoice_id", worth=pl.col("amount").abs())
    over = settled.join(worth, on="invoice_id").filter(pl.col("amount").abs() > (1 + _ROUNDING) * pl.col("worth"))
    doubtful = tags.join(over, on="invoice_id", how="semi")
    return pl.concat([slips["transfer_id"], doubtful["transfer_id"]]).unique().sort()


def _outcomes(proposals: pl.DataFrame, tags: pl.DataFrame) -> pl.DataFrame:
    """transfer_id, exact and paying of what is tagged."""
    if tags.is_empty():
        return pl.DataFrame(schema={"transfer_id": pl.String, "exact": pl.Boolean, "paying": pl.Boolean})
    return evaluate(proposals, tags).outcomes.select("transfer_id", "exact", "paying")


def _money(ledger: Ledger) -> pl.DataFrame:
    return ledger.transfers.select("transfer_id", "amount", "currency", name="counterparty_name")


def _counts(told: pl.DataFrame) -> dict[str, int]:
    counts = {
        "transfers": pl.len(),
        "tagged": pl.col("tagged").sum(),
        "judged": pl.col("judged").sum(),
        "refuted": (pl.col("tagged") & ~pl.col("judged")).sum(),
        "bookings": pl.col("auto").sum(),
        "bookings_tagged": (pl.col("auto") & pl.col("tagged")).sum(),
        "wrong": (pl.col("auto") & pl.col("judged") & ~pl.col("exact")).sum(),
    }
    return told.select(**counts).row(0, named=True)


def _shares(told: pl.DataFrame) -> pl.DataFrame:
    of_decision = {decision: pl.col("decision") == decision for decision in DECISIONS}
    everything = pl.lit(value=True)
    # By figure: what is counted, and among what.
    figures = {
        "share_tagged": (pl.col("tagged"), everything),
        **{f"share_{name}": (is_it, everything) for name, is_it in of_decision.items()},
        "auto_untagged": (~pl.col("tagged"), pl.col("auto")),
        "exact": (pl.col("exact"), pl.col("judged")),
        **{f"exact_{name}": (pl.col("exact"), pl.col("judged") & is_it) for name, is_it in of_decision.items()},
        "auto_precision": (pl.col("exact"), pl.col("auto") & pl.col("tagged")),
        "straight_through": (pl.col("auto"), pl.col("judged") & pl.col("paying")),
    }
    rows = []
    for figure, (what, among) in figures.items():
        count, of = told.filter(among).select(what.sum(), of=pl.len()).row(0)
        if of:
            rows.append((figure, count, of, count / of, *interval(count, of)))
    return pl.DataFrame(rows, schema=_SHARES, orient="row")


def _by_kind(counted: pl.DataFrame, judged: pl.DataFrame, ledger: Ledger) -> pl.DataFrame:
    kinds = kinds_of(judged, ledger.transfers, ledger.invoices)
    of_kind = counted.join(kinds, on="transfer_id")
    rows = []
    for kind in KINDS:
        bookings, right = of_kind.filter(kind).select(pl.len(), pl.col("exact").sum()).row(0)
        if bookings:
            rows.append((kind, bookings, bookings - right, right / bookings, *interval(right, bookings)))
    schema = {"kind": pl.String, "bookings": pl.Int64, "wrong": pl.Int64}
    return pl.DataFrame(rows, schema=schema | dict.fromkeys(("precision", "low", "high"), pl.Float64), orient="row")


def _by_payer(counted: pl.DataFrame, judged: pl.DataFrame, ledger: Ledger) -> pl.DataFrame:
    """Who pays is the counterparty of the tagged invoices, and by his own name whoever pays none."""
    parties = ledger.invoices.select("invoice_id", party="counterparty_name")
    tagged = judged.join(parties, on="invoice_id").group_by("transfer_id").agg(pl.col("party").min())
    known = counted.join(tagged, on="transfer_id", how="left", maintain_order="left")
    wrong = ~pl.col("exact")
    worst = (
        known.group_by("currency", payer=pl.coalesce("party", "name"))
        .agg(bookings=pl.len(), wrong=wrong.sum(), wrong_amount=pl.col("amount").filter(wrong).sum())
        .filter(pl.col("wrong") > 0)
        .sort(["wrong", "wrong_amount", "payer"], descending=[True, True, False])
        .with_columns(precision=1 - pl.col("wrong") / pl.col("bookings"))
    )
    right = worst.select(pl.col("bookings") - pl.col("wrong")).to_series()
    low, high = thresholds.interval(right.to_numpy(), worst["bookings"].to_numpy())
    names = ("payer", "currency", "bookings", "wrong", "precision", "low", "high", "wrong_amount")
    return worst.with_columns(low=pl.Series(low), high=pl.Series(high)).select(names)


def _by_currency(bookings: pl.DataFrame) -> pl.DataFrame:
    wrong = pl.col("judged") & ~pl.col("exact")
    untagged = pl.col("amount").filter(~pl.col("tagged")).sum()
    amounts = (
        bookings.group_by("currency")
        .agg(
            bookings=pl.len(),
            amount=pl.col("amount").sum(),
            untagged_amount=untagged,
            untagged_share=untagged / pl.col("amount").sum(),
            wrong=wrong.sum(),
            wrong_amount=pl.col("amount").filter(wrong).sum(),
        )
        .sort("currency")
    )
    judged = bookings.filter("judged").sort("transfer_id").with_columns(cost=pl.col("amount") * ~pl.col("exact"))
    costs = (judged.filter(currency=currency)["cost"].to_numpy() for currency in amounts["currency"])
    ends = np.array([_between(cost) for cost in costs], np.int64).reshape(-1, 2)
    return amounts.with_columns(wrong_amount_low=pl.Series(ends[:, 0]), wrong_amount_high=pl.Series(ends[:, 1]))


def _between(costs: Ints) -> Ints:
    """The 95 % interval int64[2] of the sum of costs int64[N]."""
    if not costs.any():
        return np.zeros(2, np.int64)
    return np.rint(np.quantile(resampled(costs[:, None], seed=0), [0.025, 0.975])).astype(np.int64)
