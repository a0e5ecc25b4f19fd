"""The yardstick: how right proposals are, transfer by transfer, against the truth.

Everything is counted once, in `outcomes`: a row per transfer judged. The figures, the breakdown by kind, the curves and
the bootstrap are sums over those rows.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl
from rapidfuzz import fuzz, process

from matching_platform.matching.text import account_key, folded, name_key, remittance

KINDS: Final = (
    "single",
    "batch",
    "part payment",
    "netted credit note",
    "foreign currency",
    "no reference in the title",
    "payer under another name",
    "pays nothing",
)
BINS: Final = 15

# An invoice paid up to this share short is paid in full: a discount, a fee or rounding, no part payment.
_SHORTFALL: Final = 0.05
# Below this (of 100) the shorter name is no cut or abbreviated form of the other.
_SAME_NAME: Final = 90.0
# A number of fewer digits stands in too many titles by chance to be looked for across separators.
_TELLING_DIGITS: Final = 5

_DRAWS: Final = 2000
_WEIGHTS_AT_ONCE: Final = 4_000_000

# Each figure is one sum over transfers divided by another.
_RATIOS: Final[dict[str, tuple[pl.Expr, pl.Expr]]] = {
    "exact": (pl.col("exact"), pl.lit(1)),
    "exact_paying": (pl.col("exact") & pl.col("paying"), pl.col("paying")),
    "precision": (pl.col("hits"), pl.col("proposed")),
    "recall": (pl.col("hits"), pl.col("true")),
    "f1": (2 * pl.col("hits"), pl.col("proposed") + pl.col("true")),
    "auto_precision": (pl.col("auto") & pl.col("exact"), pl.col("auto")),
    "auto_share": (pl.col("auto") & pl.col("paying"), pl.col("paying")),
    "amount_exact": (pl.col("right_amount"), pl.col("true_amount")),
}


@dataclass(frozen=True)
class Evaluation:
    """Proposals judged.

    `figures` are shares from 0 to 1, but for `transfers` (how many were judged) and `transfers_per_second`; a share of
    nothing is 0. `by_kind` has a row per kind that could be told: kind, transfers, share, exact, precision, recall, f1,
    stp_995 (null where there is nothing to divide by); a transfer may be of several kinds.
    `outcomes` has a row per transfer judged: transfer_id, paying, exact, booked (a set is proposed), auto (and is to be
    booked unattended), confidence, decision (null: no answer), counts of pairs `proposed`, `true` and `hits`,
    `true_amount` and `right_amount` in minor units, and a bool column per kind.
    """

    figures: dict[str, float]
    by_kind: pl.DataFrame
    outcomes: pl.DataFrame

    @cached_property
    def curve(self) -> pl.DataFrame:
        """Precision against share booked: a row per `threshold` of confidence, see `curve`."""
        return curve(self.outcomes)

    @cached_property
    def reliability(self) -> pl.DataFrame:
        """Confidence against the share that is right: a row per bin, see `reliability`."""
        return reliability(self.outcomes)

    def to_dict(self) -> dict[str, Any]:
        """Figures, kinds and reliability as JSON has them."""
        return {
            "figures": self.figures,
            "by_kind": self.by_kind.to_dicts(),
            "reliability": self.reliability.to_dicts(),
        }


@dataclass(frozen=True)
class Difference:
    """Challenger minus champion in one figure: the difference seen, and its 95 % interval over the draws."""

    figure: str
    mean: float
    low: float
    high: float


def evaluate(
    proposals: pl.DataFrame,
    truth: pl.DataFrame,
    transfers: pl.DataFrame | None = None,
    invoices: pl.DataFrame | None = None,
    seconds: float | None = None,
) -> Evaluation:
    """Judges `proposals` (schema PROPOSALS) by `truth` (columns of `audit`), both in minor units.

    Every transfer of the truth is judged and no other. One without any proposal has no answer: it is wrong, even where
    it pays nothing. `transfers` and `invoices`, validated tables, tell the kinds; without them only single, batch,
    netted credit note and pays nothing are told. `seconds`, the time that matching took, adds `transfers_per_second`.
    Raises ValueError where the truth is empty.
    """
    if truth.is_empty():
        raise ValueError("the truth holds no transfer; give the audit, or matches of the months that were matched")
    outcomes = _outcomes(proposals, truth).join(kinds_of(truth, transfers, invoices), on="transfer_id")
    figures = _ratios(outcomes, tuple(_RATIOS)) | {
        "stp_995": straight_through(outcomes, 0.995) or 0.0,
        "stp_990": straight_through(outcomes, 0.990) or 0.0,
        "ece": calibration_error(outcomes),
        "transfers": float(outcomes.height),
    }
    if seconds:
        figures["transfers_per_second"] = proposals["transfer_id"].n_unique() / seconds
    return Evaluation({name: value or 0.0 for name, value in figures.items()}, _by_kind(outcomes), outcomes)


def curve(outcomes: pl.DataFrame) -> pl.DataFrame:
    """What booking everything of at least `threshold` confidence would give, from the most confident down.

    Columns threshold, booked (transfers for which a set is proposed), precision (share of them exactly right; one that
    in truth pays nothing is wrong) and share (of all paying transfers). Equal confidences are booked together.
    """
    levels = (
        outcomes.filter("booked")
        .group_by("confidence")
        .agg(pl.len(), pl.col("exact").sum(), pl.col("paying").sum())
        .sort("confidence", descending=True)
    )
    booked = pl.col("len").cum_sum()
    return levels.select(
        threshold="confidence",
        booked=booked,
        precision=pl.col("exact").cum_sum() / booked,
        share=pl.col("paying").cum_sum() / pl.lit(outcomes["paying"].sum()),
    )


def straight_through(outcomes: pl.DataFrame, precision: float) -> float | None:
    """The largest share of paying transfers that can be booked at `precision`; None where none pays."""
    if not outcomes["paying"].any():
        return None
    return float(curve(outcomes).filter(pl.col("precision") >= precision)["share"].max() or 0.0)  # type: ignore[arg-type]


def reliability(outcomes: pl.DataFrame) -> pl.DataFrame:
    """Confidence against what came true: bin, transfers, confidence (mean), exact (share).

    There are at most BINS bins of as many transfers each, by confidence; equal confidences stay together.
    """
    place = (pl.col("confidence").rank("average") - 0.5) / pl.len()
    return (
        outcomes.group_by((place * BINS).floor().cast(pl.Int64).alias("bin"))
        .agg(transfers=pl.len(), confidence=pl.col("confidence").mean(), exact=pl.col("exact").mean())
        .sort("bin")
    )


def calibration_error(outcomes: pl.DataFrame) -> float:
    """ECE: the mean distance of confidence from the share that is right, over the bins of `reliability`.

    All transfers judged take part, also those said to pay nothing.
    """
    bins = reliability(outcomes)
    return float(np.average((bins["confidence"] - bins["exact"]).abs(), weights=bins["transfers"]))


def paired_bootstrap(
    challenger: pl.DataFrame, champion: pl.DataFrame, figure: str = "exact", seed: int = 0
) -> Difference:
    """How much better `challenger` is than `champion` in `figure`, over 2,000 draws of transfers.

    Both are outcomes on the same transfers, and each draw takes the same transfers for both. `figure` is any that is a
    share of counts: exact, exact_paying, precision, recall, f1, auto_precision, auto_share or amount_exact.
    Raises ValueError where the transfers differ. Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
    """
    if set(challenger["transfer_id"]) != set(champion["transfer_id"]):
        raise ValueError("challenger and champion were judged on different transfers; evaluate both on the same truth")
    parts = [side.sort("transfer_id").select(_parts(figure)) for side in (challenger, champion)]
    sums = resampled(np.hstack([part.to_numpy() for part in parts]), seed)
    ours, theirs = (
        np.divide(sums[:, i], sums[:, i + 1], where=sums[:, i + 1] > 0, out=np.zeros(_DRAWS)) for i in (0, 2)
    )
    low, high = np.quantile(ours - theirs, [0.025, 0.975])
    seen = [part.sum().row(0) for part in parts]
    mine, other = (share / of if of else 0.0 for share, of in seen)
    return Difference(figure, float(mine - other), float(low), float(high))


def kinds_of(
    truth: pl.DataFrame, transfers: pl.DataFrame | None = None, invoices: pl.DataFrame | None = None
) -> pl.DataFrame:
    """transfer_id and a bool column for each kind that can be told, a row per transfer of the truth.

    single, batch, pays nothing: it settles one invoice, several, none.
    netted credit note: one of its parts is negative.
    part payment: one of its parts is more than 5 % short of its invoice.
    foreign currency: one of its invoices is in another currency.
    no reference in the title: for none of its invoices does the title hold the number or the reference (letters and
    digits, or the number's digits where they are five or more, separators ignored), nor the running number as a token.
    payer under another name: the payer's name is no form of the counterparty's, and the account is not the invoice's,
    for any of its invoices.
    """
    parts = truth.group_by("transfer_id", maintain_order=True).agg(
        invoices=pl.col("invoice_id").drop_nulls().n_unique(), least=pl.col("amount").min().fill_null(0)
    )
    kinds = parts.select(
        "transfer_id",
        (pl.col("invoices") == 1).alias("single"),
        (pl.col("invoices") > 1).alias("batch"),
        (pl.col("invoices") == 0).alias("pays nothing"),
        (pl.col("least") < 0).alias("netted credit note"),
    )
    if transfers is None or invoices is None:
        return kinds
    found = [name for name in KINDS if name not in kinds.columns]
    told = kinds.join(_kinds_by_tables(truth, transfers, invoices), on="transfer_id", how="left")
    return told.with_columns(pl.col(found).fill_null(value=False))


def _kinds_by_tables(truth: pl.DataFrame, transfers: pl.DataFrame, invoices: pl.DataFrame) -> pl.DataFrame:
    pairs = (
        _pairs(truth)
        .join(invoices, on="invoice_id", suffix="_invoice")
        .join(transfers, on="transfer_id", suffix="_transfer")
    )
    pairs = pairs.with_columns(_mentioned(pairs), _same_name(pairs))
    short = pl.col("amount").abs() < (1 - _SHORTFALL) * pl.col("amount_invoice").abs()
    same_account = account_key(pl.col("counterparty_account")) == account_key(pl.col("counterparty_account_transfer"))
    known = pl.col("same_name") | same_account.fill_null(value=False)
    return pairs.group_by("transfer_id").agg(
        short.any().alias("part payment"),
        (pl.col("currency") != pl.col("currency_transfer")).any().alias("foreign currency"),
        (~pl.col("mentioned")).all().alias("no reference in the title"),
        (~known).all().alias("payer under another name"),
    )


def _mentioned(pairs: pl.DataFrame) -> pl.Series:
    """`mentioned`: whether the title of each pair names its invoice."""
    title = remittance(folded(pl.col("title")))
    number, reference = (folded(pl.col(name).fill_null("")) for name in ("number", "reference"))
    squeezed = [(_squeezed(title), _squeezed(text), 1) for text in (number, reference)]
    digits = (_digits(title), _digits(number), _TELLING_DIGITS)
    whole = pl.any_horizontal(
        held.str.contains(key, literal=True) & (key.str.len_chars() >= least)
        for held, key, least in [*squeezed, digits]
    )
    rows = pairs.with_row_index("row")
    running = _running_numbers(rows).join(
        rows.select("row", token=title.str.extract_all(r"\d+")).explode("token").with_columns(_bare("token")),
        on=["row", "token"],
    )
    return rows.select(mentioned=whole | pl.col("row").is_in(running["row"].unique().implode())).to_series()


def _running_numbers(rows: pl.DataFrame) -> pl.DataFrame:
    """row, token: the digit groups of each number without those, or the parts, that only tell when it was issued."""
    dates = {form: pl.col("issued_on").dt.strftime(form) for form in ("%Y%m", "%y%m", "%Y", "%y", "%m")}
    groups = rows.select("row", "issued_on", token=pl.col("number").str.extract_all(r"\d+")).explode("token")
    after = pl.col("token").str.strip_prefix(dates["%Y%m"]).str.strip_prefix(dates["%y%m"])
    telling = ~pl.any_horizontal(pl.col("token") == date for date in dates.values())
    return groups.filter(telling).with_columns(token=after).filter(pl.col("token") != "").select("row", _bare("token"))


def _same_name(pairs: pl.DataFrame) -> pl.Series:
    """`same_name`: whether the payer's name is a form of the counterparty's, legal forms apart."""
    names = pairs.select(
        theirs=name_key(folded(pl.col("counterparty_name"))),
        payer=name_key(folded(pl.col("counterparty_name_transfer"))),
    )
    ratio = process.cpdist(
        names["theirs"].to_list(), names["payer"].to_list(), scorer=fuzz.partial_ratio, dtype=np.float32
    )
    return pl.Series("same_name", ratio >= _SAME_NAME, dtype=pl.Boolean)


def _squeezed(text: pl.Expr) -> pl.Expr:
    return text.str.replace_all(r"[^\p{L}\p{N}]", "")


def _digits(text: pl.Expr) -> pl.Expr:
    return text.str.replace_all(r"\D", "")


def _bare(column: str) -> pl.Expr:
    return pl.col(column).str.strip_chars_start("0")


def _pairs(allocations: pl.DataFrame) -> pl.DataFrame:
    return allocations.drop_nulls("invoice_id").group_by("transfer_id", "invoice_id").agg(pl.col("amount").sum())


def _outcomes(proposals: pl.DataFrame, truth: pl.DataFrame) -> pl.DataFrame:
    judged = truth.select("transfer_id").unique(maintain_order=True)
    answers = proposals.group_by("transfer_id").agg(
        pl.col("confidence").first(), pl.col("decision").first(), answered=pl.lit(value=True)
    )
    pairs = _pairs(truth).join(
        _pairs(proposals), on=["transfer_id", "invoice_id"], how="full", coalesce=True, suffix="_proposed"
    )
    right = pl.col("amount") == pl.col("amount_proposed")
    counts = pairs.group_by("transfer_id").agg(
        proposed=pl.col("amount_proposed").count().cast(pl.Int64),
        true=pl.col("amount").count().cast(pl.Int64),
        hits=(pl.col("amount").is_not_null() & pl.col("amount_proposed").is_not_null()).sum().cast(pl.Int64),
        true_amount=pl.col("amount").abs().sum(),
        right_amount=pl.col("amount").filter(right).abs().sum(),
    )
    joined = judged.join(answers, on="transfer_id", how="left").join(counts, on="transfer_id", how="left")
    counted = joined.with_columns(
        pl.col("proposed", "true", "hits", "true_amount", "right_amount").fill_null(0),
        pl.col("confidence").fill_null(0.0),
        pl.col("answered").fill_null(value=False),
    )
    booked = pl.col("proposed") > 0
    whole = (pl.col("hits") == pl.col("proposed")) & (pl.col("hits") == pl.col("true"))
    return counted.with_columns(
        paying=pl.col("true") > 0,
        exact=pl.col("answered") & whole,
        booked=booked,
        auto=booked & (pl.col("decision") == "auto").fill_null(value=False),
    ).drop("answered")


def _parts(figure: str) -> list[pl.Expr]:
    numerator, denominator = _RATIOS[figure]
    columns = {"numerator": numerator, "denominator": denominator}
    return [pl.zeros(pl.len(), eager=False).cast(pl.Float64).add(part).alias(name) for name, part in columns.items()]


def _ratios(outcomes: pl.DataFrame, names: tuple[str, ...]) -> dict[str, float | None]:
    sums = {name: outcomes.select(_parts(name)).sum().row(0) for name in names}
    return {name: numerator / denominator if denominator else None for name, (numerator, denominator) in sums.items()}


def _by_kind(outcomes: pl.DataFrame) -> pl.DataFrame:
    told = {kind: outcomes.filter(kind) for kind in KINDS if kind in outcomes.columns}
    rows = [
        {"kind": kind, "transfers": group.height, "share": group.height / outcomes.height}
        | _ratios(group, ("exact", "precision", "recall", "f1"))
        | {"stp_995": straight_through(group, 0.995)}
        for kind, group in told.items()
    ]
    shares = ("share", "exact", "precision", "recall", "f1", "stp_995")
    return pl.DataFrame(
        rows, schema=pl.Schema({"kind": pl.String(), "transfers": pl.Int64()} | {s: pl.Float64() for s in shares})
    )


def resampled(values: np.ndarray, seed: int) -> np.ndarray:
    """Sums float64[draws, columns] of `values` float64[N, columns] over N rows drawn with replacement."""
    random, size = np.random.default_rng(seed), len(values)
    chunk = max(1, _WEIGHTS_AT_ONCE // size)
    sums = []
    for first in range(0, _DRAWS, chunk):
        draws = min(chunk, _DRAWS - first)
        drawn = random.integers(size, size=(draws, size)) + size * np.arange(draws)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=draws * size).reshape(draws, size)
        sums.append(weights @ values)
    return np.vstack(sums)
