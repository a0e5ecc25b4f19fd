"""What if we booked from another confidence on: thresholds tried on past months."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import polars as pl
import typer
from rich import box
from rich.table import Table

from matching_platform.cli.shared import From, To, UsageError, check_can_hold, month_given, open_platform, out
from matching_platform.ledger.money import MINOR_UNITS

if TYPE_CHECKING:
    from matching_platform.cli.past import Reading
    from matching_platform.learning.thresholds import Past

commands = typer.Typer()

TRIED: Final = (0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
_SHOWN_CURRENCIES: Final = 5
_PLOTS: Final = (".svg", ".html")


@commands.command()
def thresholds(
    proposals: Annotated[
        Path | None,
        typer.Argument(help="proposals.parquet; without it, the platform's own of past months", show_default=False),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="audit or matches, .parquet or .csv; invoices and transfers are taken beside it")
    ] = None,
    at: Annotated[list[float] | None, typer.Option(min=0, max=1, help="A threshold to try; may be repeated")] = None,
    promise: Annotated[
        float | None, typer.Option(help="The promised precision; the platform's by default, 0.995 for a file")
    ] = None,
    first: From = None,
    last: To = None,
    model: Annotated[str | None, typer.Option(help="Of the platform's proposals, only those of this model")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables")] = False,
    plot: Annotated[Path | None, typer.Option(help="Where a plot goes, .svg or .html")] = None,
) -> None:
    """Say what booking from another confidence on would have meant in past months.

    Proposals of a file must be of a model that had not learned from their months; of the platform's own, only such count.
    """
    from matching_platform.cli.past import Months, of_files, of_platform
    from matching_platform.learning import threshold_text as text

    _check_together(proposals, truth, model)
    _check_values(promise, first, last, plot)
    months = Months(first, last)
    if proposals and truth:
        reading = of_files(proposals, truth, months, promise)
    else:
        reading = of_platform(open_platform(), model, months, promise)
    past, marks = reading.past, _marks(reading)
    levels = sorted({*(at or TRIED), *marks})
    asked = at or [*marks, TRIED[0]][:1]
    sentences = [*(text.would_have(past, level) for level in asked), text.keeps(past, reading.promised)]
    if plot:
        _draw(plot, reading, marks, sentences)
    if as_json:
        sys.stdout.write(json.dumps(_told(reading, levels) | {"answer": sentences}, indent=2) + "\n")
        return
    out.print(_rated(past, levels, marks))
    out.print(_wrong(past, levels))
    if past.months["month"].drop_nulls().len():
        out.print(_monthly(past, asked[0]))
    for sentence in (*sentences, *reading.notes, *((f"The plot lies in {plot}.",) if plot else ())):
        out.print(f"{sentence}\n")


def _check_together(proposals: Path | None, truth: Path | None, model: str | None) -> None:
    if proposals and not truth:
        raise UsageError(f"say what judges {proposals}: --truth audit.parquet, or matches.parquet")
    if truth and not proposals:
        raise UsageError(f"say which proposals {truth} judges, or leave --truth out to ask the platform's own")
    if proposals and model:
        raise UsageError("--model chooses among the platform's own proposals; leave it out for a file")


def _check_values(promise: float | None, first: str | None, last: str | None, plot: Path | None) -> None:
    if promise is not None and not 0 < promise < 1:
        raise UsageError(f"--promise {promise:g} can be no promise; take a share between 0 and 1, such as 0.995")
    months = [month_given(month) for month in (first, last) if month]
    if months != sorted(months):
        raise UsageError(f"--from {first} is later than --to {last}")
    if plot and (plot.suffix not in _PLOTS or plot.is_dir()):
        raise UsageError(f"{plot}: a plot is a file that ends with {' or '.join(_PLOTS)}; name such a file")
    if plot:
        check_can_hold(plot)


def _marks(reading: "Reading") -> dict[float, str]:
    """What is said of thresholds: of the one in force, and then of the lowest that holds the promise."""
    from matching_platform.learning.threshold_text import promise

    holds, holding = f"holds {promise(reading.promised)}", reading.past.keeps(reading.promised).threshold
    marks: dict[float, str] = {}
    for level, mark in ((reading.in_force, "in force"), (holding, holds)):
        if level is not None:
            marks[level] = f"{marks[level]}, {mark}" if level in marks else mark
    return marks


def _rated(past: "Past", levels: Sequence[float], marks: Mapping[float, str]) -> Table:
    from matching_platform.learning import threshold_text as text

    count, paying = past.transfers.height, int(past.transfers["paying"].sum())
    table = _table(
        f"{count:,} transfers judged, {paying:,} of them pay something",
        *("from", "booked", "share", "of money", "errors", "right", "95 %", ""),
    )
    for row in past.at(levels).iter_rows(named=True):
        mark = marks.get(row["threshold"], "")
        counts = (f"{row['booked']:,}", text.share(row["share"]), text.share(row["money_share"]), f"{row['errors']:,}")
        right = (text.share(row["precision"]), text.interval(row) if row["booked"] else "–")
        table.add_row(text.confidence(row["threshold"]), *counts, *right, mark, style="bold" if mark else "")
    return table


def _wrong(past: "Past", levels: Sequence[float]) -> Table:
    from matching_platform.learning import threshold_text as text

    currencies = past.currencies[:_SHOWN_CURRENCIES]
    more = len(past.currencies) - len(currencies)
    beside = f"; {more} more with --json" if more > 0 else ""
    table = _table(
        f"Booked wrongly, in the invoices' currency{beside}", "from", *(name or "amount" for name in currencies)
    )
    amounts = {(row["threshold"], row["currency"]): row["wrong"] for row in past.at_risk(levels).iter_rows(named=True)}
    for level in levels:
        table.add_row(text.confidence(level), *(text.amount(amounts[level, currency]) for currency in currencies))
    return table


def _monthly(past: "Past", level: float) -> Table:
    from matching_platform.learning import threshold_text as text

    title = f"Month by month, from {text.confidence(level)} on"
    table = _table(title, "month", "tagged", "booked", "share", "errors", "right", "95 %")
    for row in past.by_month([level]).join(past.months, on="month").iter_rows(named=True):
        tagged = text.share(row["tagged"] / row["proposed"])
        right = (text.share(row["precision"]), text.interval(row) if row["booked"] else "–")
        table.add_row(
            row["month"], tagged, f"{row['booked']:,}", text.share(row["share"]), f"{row['errors']:,}", *right
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for at, name in enumerate(columns):
        table.add_column(name, justify="right" if at and name else "left", no_wrap=bool(name))
    return table


def _draw(plot: Path, reading: "Reading", marks: Mapping[float, str], sentences: list[str]) -> None:
    from matching_platform.learning import threshold_text as text
    from matching_platform.learning.threshold_charts import drawing, page, threshold_charts

    marked = [(level, f"{mark}: {text.confidence(level)}") for level, mark in marks.items()]
    charts = threshold_charts({"past": reading.past}, reading.promised, marked)
    title = "What other thresholds would have booked"
    drawn = drawing(title, charts) if plot.suffix == ".svg" else page(title, [*sentences, *reading.notes], charts)
    plot.parent.mkdir(parents=True, exist_ok=True)
    plot.write_text(drawn, encoding="utf-8")


def _told(reading: "Reading", levels: Sequence[float]) -> dict[str, Any]:
    """All of it as JSON has it; amounts in whole units of their currency, with two places."""
    from matching_platform.learning.thresholds import least_bookings, one_more_nine

    past, promised = reading.past, reading.promised
    money, monthly = past.at_risk(levels), past.at_risk(levels, "month")
    kept = [
        asdict(past.keeps(one)) | {"least_bookings": least_bookings(one)} for one in (promised, one_more_nine(promised))
    ]
    return {
        "promised": promised,
        "in_force": reading.in_force,
        "thresholds": _with_money(past.at(levels), money, "threshold"),
        "by_month": _with_money(past.by_month(levels), monthly, "month", "threshold"),
        "months": past.months.to_dicts(),
        "keeps": kept,
        "notes": reading.notes,
    }


def _with_money(rated: pl.DataFrame, risked: pl.DataFrame, *keys: str) -> list[dict[str, Any]]:
    amounts = risked.with_columns((pl.col("booked", "wrong", "expected") / MINOR_UNITS).round(2))
    money = amounts.group_by(keys).agg(money=pl.struct("currency", "booked", "wrong", "expected"))
    return rated.join(money, on=keys, how="left", nulls_equal=True, maintain_order="left").to_dicts()
