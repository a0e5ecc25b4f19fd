"""Did the world move: a month's columns against those of the months before. The only file that knows Evidently."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from polars import selectors as cs

# What Evidently takes for a move where its figure is a distance.
MOVED: Final = 0.1
_DISTANCES: Final = {"num_method": "wasserstein", "cat_method": "jensenshannon"}


@dataclass(frozen=True)
class DriftReport:
    """How far each column moved, which moved too far, and a self-contained HTML page to look at.

    `figures`: a distance per column (Wasserstein in standard deviations for numbers, Jensen-Shannon for the rest),
    `missing.<column>`, the change of its share of nulls, and `share_moved`, the share of columns in `moved`.
    """

    figures: dict[str, float]
    moved: list[str]
    html: str


def drift(reference: pl.DataFrame, current: pl.DataFrame, threshold: float = MOVED) -> DriftReport:
    """Compares the columns of `current` with those of `reference`; numbers as numbers, strings and flags as categories.

    A column moved where its distance or its share of nulls changed by `threshold` or more. Raises ValueError where a
    frame is empty, the columns differ, or one is neither number, string nor flag.
    """
    _check(reference, current)
    missing = {name: abs(_share_missing(current[name]) - _share_missing(reference[name])) for name in current.columns}
    # A column without any value has no distribution; what there is to say of it is that it is missing.
    valued = [
        name for name in current.columns if max(_share_missing(current[name]), _share_missing(reference[name])) < 1
    ]
    distances, html = _compare(reference.select(valued), current.select(valued), threshold)
    moved = [name for name in current.columns if max(distances.get(name, 0.0), missing[name]) >= threshold]
    figures = distances | {f"missing.{name}": change for name, change in missing.items()}
    return DriftReport(figures | {"share_moved": len(moved) / current.width}, moved, html)


def _check(reference: pl.DataFrame, current: pl.DataFrame) -> None:
    if reference.is_empty() or current.is_empty():
        raise ValueError("drift needs rows on both sides; give at least one earlier month as the reference")
    if reference.schema != current.schema:
        raise ValueError(f"drift needs the same columns on both sides, not {reference.schema} and {current.schema}")
    other = current.select(~(cs.numeric() | cs.string() | cs.boolean())).columns
    if other:
        raise ValueError(f"drift knows numbers, strings and flags; column '{other[0]}' is {current.schema[other[0]]}")


def _share_missing(column: pl.Series) -> float:
    return column.null_count() / len(column)


def _compare(reference: pl.DataFrame, current: pl.DataFrame, threshold: float) -> tuple[dict[str, float], str]:
    """The distance of each column, and the page."""
    # Evidently takes four seconds to import, which every start of the platform would pay.
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(
        numerical_columns=current.select(cs.numeric()).columns,
        categorical_columns=current.select(~cs.numeric()).columns,
    )
    now, before = (
        Dataset.from_pandas(frame.with_columns((~cs.numeric()).cast(pl.String)).to_pandas(), data_definition=definition)
        for frame in (current, reference)
    )
    report = Report([DataDriftPreset(threshold=threshold, **_DISTANCES)], include_tests=False)
    # The histogram of a constant column divides zero by zero in a plot, which changes no figure.
    with np.errstate(invalid="ignore", divide="ignore"):
        snapshot = report.run(now, before)
        html = snapshot.get_html_str(as_iframe=False)
    metrics = snapshot.dict()["metrics"]
    return {m["config"]["column"]: float(m["value"]) for m in metrics if "column" in m["config"]}, html
