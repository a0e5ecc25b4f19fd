"""Evidently draws and computes the comparison of two sets of counts. The only file that knows it."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from matching_platform.monitoring.drift.judgement import Finding, distance

# Rows of a property, at most; of larger months, so many in the same proportions.
ROWS: Final = 50_000
_METHOD: Final = "jensenshannon"
_NEVER: Final = 1.0  # above every distance


def compare(findings: Sequence[Finding]) -> tuple[str, dict[str, Any]]:
    """A page that stands alone, and the same as data: the distance of each property, and whether it moved.

    Properties without rows on both sides are left out; ('', {}) where no other is left.
    """
    compared = [one for one in findings if one.rows("before") and one.rows("now")]
    if not compared:
        return "", {}
    # Evidently takes four seconds to import, which every start of the platform would pay.
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    before, now = (_rows(compared, side) for side in ("before", "now"))
    definition = DataDefinition(
        numerical_columns=[name for name in now.columns if now.schema[name].is_numeric()],
        categorical_columns=[name for name in now.columns if not now.schema[name].is_numeric()],
    )
    current, reference = (Dataset.from_pandas(rows.to_pandas(), data_definition=definition) for rows in (now, before))
    metrics = [ValueDrift(column=one.name, method=_METHOD, threshold=_limit(one)) for one in compared]
    # The histogram of a constant property divides zero by zero in a plot, which changes no figure.
    with np.errstate(invalid="ignore", divide="ignore"):
        snapshot = Report(metrics, include_tests=True).run(current, reference)
        return snapshot.get_html_str(as_iframe=False), snapshot.dict()


def _rows(findings: Sequence[Finding], side: str) -> pl.DataFrame:
    """A column a property, with as many rows of each value as were counted; nulls at its end are left out."""
    columns = [_column(finding, side) for finding in findings]
    height = max(map(len, columns))
    return pl.DataFrame([column.extend_constant(None, height - len(column)) for column in columns])


def _column(finding: Finding, side: str) -> pl.Series:
    values, counts = finding.counts["value"].alias(finding.name), finding.counts[side]
    if (rows := finding.rows(side)) > ROWS:
        counts = (counts * (ROWS / rows)).round().cast(pl.Int64)
    numbers = values.cast(pl.Float64, strict=False)
    values = values if numbers.has_nulls() else numbers
    return values.gather(np.repeat(np.arange(len(values)), counts.to_numpy()))


def _limit(finding: Finding) -> float:
    """The limit as a distance. A share moves only upwards."""
    if finding.limit is None or (finding.is_share and not finding.moved):
        return _NEVER
    return distance(*_of_share(finding)) if finding.is_share else finding.limit


def _of_share(finding: Finding) -> tuple[np.ndarray, np.ndarray]:
    limit, before = float(finding.limit or 0.0), finding.share("before")
    return np.array([before, 1 - before]), np.array([limit, 1 - limit])
