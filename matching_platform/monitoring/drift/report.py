"""The report of a month: what was found, in a sentence, as a page and as data."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from matching_platform.monitoring.drift.description import TABLES
from matching_platform.monitoring.drift.evidently import compare
from matching_platform.monitoring.drift.judgement import Finding, judge
from matching_platform.monitoring.drift.limits import Limits
from matching_platform.monitoring.drift.words import sentence

_LOADER: Final = ChoiceLoader(
    [PackageLoader("matching_platform.monitoring.drift"), PackageLoader("matching_platform.learning")]
)


@dataclass(frozen=True)
class DriftReport:
    """What was found about a month beside the `reference`, months before it."""

    month: str
    reference: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def sentence(self) -> str:
        return sentence(self.month, self.findings)

    @property
    def moved(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.moved]

    def of(self, table: str) -> "DriftReport":
        """What it says of one of TABLES."""
        return DriftReport(self.month, self.reference, tuple(one for one in self.findings if one.table == table))

    def files(self) -> tuple[str, str]:
        """HTML that needs nothing from elsewhere, and JSON."""
        drawn, compared = compare(self.findings)
        environment = Environment(loader=_LOADER, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        environment.filters.update(percent=_percent, number=_number)
        page = environment.get_template("drift.html").render(
            report=self,
            shares=[one for one in self.findings if one.is_share],
            tables={name: [one for one in self.of(name).findings if not one.is_share] for name in TABLES},
            drawn=drawn,
        )
        told = {
            "month": self.month,
            "reference": list(self.reference),
            "sentence": self.sentence,
            "findings": [_plain(finding) for finding in self.findings],
            "evidently": compared,
        }
        return page, json.dumps(told, indent=2, default=str)


def drift(month: str, current: pl.DataFrame, reference: Mapping[str, pl.DataFrame], limits: Limits) -> DriftReport:
    """The report of `month` with the counts (schema COUNTS) `current`; `reference` are those of months before it."""
    return DriftReport(month, tuple(sorted(reference)), tuple(judge(reference, current, limits)))


def read(data: str | bytes) -> DriftReport:
    """The report that `DriftReport.files` wrote as JSON."""
    told = json.loads(data)
    findings = (Finding(**{**one, "counts": pl.DataFrame(one["counts"], schema=_COUNTED)}) for one in told["findings"])
    return DriftReport(told["month"], tuple(told["reference"]), tuple(findings))


_COUNTED: Final = pl.Schema({"value": pl.String, "before": pl.Int64, "now": pl.Int64})


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "table": finding.table,
        "what": finding.what,
        "measure": finding.measure,
        "limit": finding.limit,
        "counts": finding.counts.to_dict(as_series=False),
    }


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
