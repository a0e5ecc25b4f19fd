"""The report on a model: one HTML file that opens anywhere, without a network and without a script."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl

from matching_platform.learning import charts
from matching_platform.learning.charts import Axis, Chart, Line, percent, percents
from matching_platform.learning.gate import Sides, Verdict
from matching_platform.learning.threshold_charts import threshold_charts
from matching_platform.learning.threshold_text import confidence, keeps, would_have
from matching_platform.learning.thresholds import Past
from matching_platform.learning.yardstick import KINDS, Difference, Evaluation, paired_bootstrap
from matching_platform.ledger.months import next_month
from matching_platform.ledger.reading import Ledger

MISTAKES: Final = 20

# What the tiles at the top show: figure, its name, what it means.
_HEADLINES: Final = (
    ("exact_paying", "Exactly right", "of the transfers that pay something"),
    ("stp_995", "Straight through", "could be booked unattended with 99.5 % of them right"),
    ("amount_exact", "Money placed right", "of all money, to the cent"),
    ("f1", "F1 over pairs", "of transfer and invoice"),
    ("auto_share", "Booked unattended", "of the paying transfers, by the model's own decision"),
    ("auto_precision", "Right when unattended", "of the transfers so booked"),
)
_SIDES: Final = ("model", "champion", "trees", "rules")
_WALKED: Final = {
    "exact_paying": "paying transfers exactly right",
    "stp_995": "straight through with 99.5 % right",
}
_COMPARED: Final = ("exact", "exact_paying", "precision", "recall", "f1", "amount_exact")
_LEAST_PRECISION: Final = 0.95  # where the precision axis begins; below it nobody books unattended
_CURVE_POINTS: Final = 300
_MONTHS_LABELLED: Final = 6
_TOLERATED_FALL: Final = 0.02  # below the level of the first year, in any later month


@dataclass(frozen=True)
class ReportData:
    """What the report tells.

    `test` and `newest` are what model, rules, boosted trees and champion reached on the frozen test and on the newest
    month; `verdicts` and their `sentences` (by check: what must be true) are the gate's; `threshold` is the confidence
    from which the model books unattended; `costs` are the model's training_seconds and candidates_per_transfer, where known;
    `walk` has a row per month and side that was judged then: month, side (model, champion, trees or rules),
    exact_paying, stp_995; `mistakes` comes from `worst_mistakes`; `past` are the model's proposals for the exams, test
    and newest, on which other thresholds are tried. What is None or empty is said to be missing.
    """

    model: str
    trained_until: str
    promised_precision: float
    test: Sides
    newest: Sides | None = None
    champion: str | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    sentences: Mapping[str, str] = field(default_factory=dict)
    threshold: float | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    walk: pl.DataFrame | None = None
    mistakes: pl.DataFrame | None = None
    past: Mapping[str, Past] = field(default_factory=dict)


def render(data: ReportData) -> str:
    """One self-contained HTML file."""
    rival = ("champion", data.test.champion) if data.test.champion else ("rules", data.test.rules)
    return charts.render(
        "report.html",
        data=data,
        figures=data.test.model.figures,
        headlines=_HEADLINES,
        sides=dict(_sides(data.test)),
        newest=dict(_sides(data.newest)) if data.newest else {},
        failed=[verdict for verdict in data.verdicts if not verdict.passed],
        reliability=_reliability_chart(data.test),
        precision=_precision_chart(data),
        kinds=_kinds(data.test),
        rival=rival[0],
        costs=_costs(data.costs),
        differences=list(_differences(data.test.model, rival[1])),
        walk=list(_walk_charts(data.walk)) if data.walk is not None and data.walk.height else [],
        mistakes=data.mistakes.to_dicts() if data.mistakes is not None else [],
        thresholds=_threshold_charts(data),
        told=list(_thresholds_told(data)),
    )


def worst_mistakes(
    evaluation: Evaluation, proposals: pl.DataFrame, truth: pl.DataFrame, ledger: Ledger
) -> pl.DataFrame:
    """The MISTAKES wrong answers that hurt most: booked unattended first, then the most confident, then by amount.

    Columns of the transfer (amount in minor units), kinds (list), confidence, decision, evidence (list), and `proposed`
    and `true`: lists of {invoice, counterparty, amount, whole, currency}, empty for nothing; `whole` is the invoice's.
    """
    kinds = [kind for kind in KINDS if kind in evaluation.outcomes.columns]
    wrong = evaluation.outcomes.filter(~pl.col("exact")).select(
        "transfer_id",
        "confidence",
        "decision",
        "auto",
        kinds=pl.concat_list(pl.when(kind).then(pl.lit(kind)) for kind in kinds).list.drop_nulls(),
    )
    told = wrong.join(ledger.transfers, on="transfer_id").sort(
        ["auto", "confidence", "amount", "transfer_id"], descending=[True, True, True, False]
    )
    evidence = proposals.group_by("transfer_id").agg(pl.col("evidence").first())
    return (
        told.head(MISTAKES)
        .join(evidence, on="transfer_id", how="left", maintain_order="left")
        .join(_sets(proposals, ledger, "proposed"), on="transfer_id", how="left", maintain_order="left")
        .join(_sets(truth, ledger, "true"), on="transfer_id", how="left", maintain_order="left")
        .with_columns(pl.col("evidence", "proposed", "true").fill_null([]))
    )


def _sets(allocations: pl.DataFrame, ledger: Ledger, name: str) -> pl.DataFrame:
    """transfer_id and the set that `allocations` give it, as a list of structs called `name`."""
    invoices = ledger.invoices.select(
        "invoice_id", "currency", invoice="number", counterparty="counterparty_name", whole="amount"
    )
    named = allocations.join(invoices, on="invoice_id").sort("transfer_id", "invoice")
    part = pl.struct("invoice", "counterparty", "amount", "whole", "currency")
    return named.group_by("transfer_id").agg(part.alias(name))


def _sides(sides: Sides) -> Iterator[tuple[str, Evaluation]]:
    """The sides there are, each with the name under which it is drawn."""
    judged = zip(_SIDES, (sides.model, sides.champion, sides.trees, sides.rules), strict=True)
    return ((side, evaluation) for side, evaluation in judged if evaluation)


def _differences(model: Evaluation, rival: Evaluation) -> Iterator[Difference]:
    return (paired_bootstrap(model.outcomes, rival.outcomes, figure) for figure in _COMPARED)


def _costs(costs: Mapping[str, float]) -> str:
    seconds, candidates = costs.get("training_seconds"), costs.get("candidates_per_transfer")
    learned = (
        "How long the model learned is not known." if seconds is None else f"The model learned in {seconds:,.0f} s."
    )
    compared = "" if candidates is None else f" {candidates:.1f} candidate invoices are compared for each transfer."
    return learned + compared


def _kinds(sides: Sides) -> list[dict[str, Any]]:
    """A row per kind: its name, how many transfers, the model's figures, and `exact` of each side."""
    exact = {side: dict(judged.by_kind.select("kind", "exact").iter_rows()) for side, judged in _sides(sides)}
    return [
        row | {"sides": {side: found.get(row["kind"]) for side, found in exact.items()}}
        for row in sides.model.by_kind.to_dicts()
    ]


def _reliability_chart(sides: Sides) -> Chart:
    lines = [
        Line(
            side,
            [
                (
                    row["confidence"],
                    row["exact"],
                    f"{row['transfers']} transfers: said {percent(row['confidence'])}, right {percent(row['exact'])}",
                )
                for row in judged.reliability.iter_rows(named=True)
            ],
            dots=True,
        )
        for side, judged in _sides(sides)
        if side != "rules"
    ]
    return Chart(
        percents("confidence that the model states", 0, 1, 5),
        percents("share exactly right", 0, 1, 5),
        lines,
        diagonal=True,
    )


def _precision_chart(data: ReportData) -> Chart:
    lines = []
    for side, judged in _sides(data.test):
        curve = judged.curve.gather_every(max(1, judged.curve.height // _CURVE_POINTS))
        points = [
            (
                row["share"],
                row["precision"],
                f"from confidence {row['threshold']:.4f}: {percent(row['share'])} booked, "
                f"{percent(row['precision'])} right",
            )
            for row in curve.iter_rows(named=True)
        ]
        lines.append(Line(side, points))
    return Chart(
        percents("share of paying transfers booked unattended", 0, 1, 5),
        percents("share of them exactly right", _LEAST_PRECISION, 1, 5),
        lines,
        across=((data.promised_precision, f"promised {percent(data.promised_precision)}"),),
        down=tuple(_chosen(data)),
    )


def _threshold_charts(data: ReportData) -> list[Chart]:
    if not data.past:
        return []
    marked = [] if data.threshold is None else [(data.threshold, f"chosen {confidence(data.threshold)}")]
    return threshold_charts(data.past, data.promised_precision, marked)


def _thresholds_told(data: ReportData) -> Iterator[str]:
    """What the chosen threshold means on the first exam, and which one holds the promise there."""
    for past in list(data.past.values())[:1]:
        if data.threshold is not None and data.threshold <= 1:
            yield would_have(past, data.threshold)
        yield keeps(past, data.promised_precision)


def _chosen(data: ReportData) -> Iterator[tuple[float, str]]:
    """Where the threshold cuts the model's curve."""
    if data.threshold is not None:
        share = data.test.model.curve.filter(pl.col("threshold") >= data.threshold)["share"].max() or 0.0
        yield float(share), f"chosen threshold {data.threshold:.4f}"  # type: ignore[arg-type]


def _walk_charts(walk: pl.DataFrame) -> Iterator[Chart]:
    months = walk["month"].unique().sort().to_list()
    place = {month: float(i) for i, month in enumerate(months)}
    every = max(1, -(-len(months) // _MONTHS_LABELLED))
    x = Axis("month", 0, max(1.0, len(months) - 1.0), [(place[month], month) for month in months[::every]])
    for figure, label in _WALKED.items():
        told = walk.drop_nulls(figure).sort("month")
        least = _first_year(told, months[0], figure) - _TOLERATED_FALL
        low = np.floor(min([*told[figure], least]) * 10) / 10
        lines = [
            Line(side, [(place[month], value, f"{month}: {percent(value)}") for month, value in rows.rows()])
            for side in _SIDES
            if (rows := told.filter(side=side).select("month", figure)).height
        ]
        held = f"2 points below the model's first year: {percent(least)}"
        yield Chart(x, percents(label, min(low, 0.9), 1, 5), lines, across=((least, held),))


def _first_year(walk: pl.DataFrame, first: str, figure: str) -> float:
    """The mean of the model's `figure` over the twelve months from `first` on."""
    year = walk.filter((pl.col("side") == "model") & (pl.col("month") < next_month(first, 12)))
    return float(year[figure].mean() or 0.0)  # type: ignore[arg-type]
