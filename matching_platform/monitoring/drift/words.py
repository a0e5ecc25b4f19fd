"""What moved, in a sentence."""

from collections.abc import Sequence
from typing import Final

import polars as pl

from matching_platform.monitoring.drift.description import (
    ACCOUNT,
    COUNTERPARTY,
    FORMAT,
    NO_REFERENCE,
    NUMBERING,
    PAYER,
    WAY,
)
from matching_platform.monitoring.drift.judgement import FEWEST_MONTHS, Finding

_TOLD: Final = 4  # properties of a sentence
_RISEN: Final = {
    COUNTERPARTY: "counterparties never seen among those invoiced",
    NUMBERING: "invoices numbered in a format never seen",
    PAYER: "payers never seen among those who paid",
    ACCOUNT: "known payers paid from accounts never seen",
    FORMAT: "titles with numbers in a format never seen",
    WAY: "known payers wrote numbers in a format new to them",
    NO_REFERENCE: "titles without a reference",
}


def sentence(month: str, findings: Sequence[Finding]) -> str:
    """What moved most, or that nothing did, or why that cannot be said."""
    judged = [finding for finding in findings if finding.limit is not None]
    if not judged:
        return (
            f"In {month} there is nothing to compare with yet: drift is told from {FEWEST_MONTHS} earlier months on that "
            "have rows enough."
        )
    unknown = f"; {len(findings) - len(judged)} cannot be judged yet" if len(judged) < len(findings) else ""
    moved = sorted((one for one in judged if one.moved), key=_beyond, reverse=True)
    if not moved:
        return f"In {month} nothing moved beyond its limit, of {len(judged)} properties{unknown}."
    told = "; ".join(map(_told, moved[:_TOLD]))
    more = f"; and {len(moved) - _TOLD} more" if len(moved) > _TOLD else ""
    return f"In {month} {told}{more}{unknown}."


def _beyond(finding: Finding) -> float:
    return finding.measure / finding.limit if finding.limit else 0.0


def _told(finding: Finding) -> str:
    if finding.is_share:
        return f"{_RISEN[finding.what]}: {_change(finding.share('before'), finding.share('now'))}"
    return f"{finding.name}, {_shift(finding)}"


def _shift(finding: Finding) -> str:
    """The mean of numbers before and now; else the value whose share changed most."""
    numbers = finding.counts["value"].cast(pl.Float64, strict=False)
    if not numbers.has_nulls():
        before, now = (float((numbers * finding.counts[side]).sum()) / finding.rows(side) for side in ("before", "now"))
        return f"{before:.3g} → {now:.3g} on average"
    shares = {value: (finding.share("before", value), finding.share("now", value)) for value in finding.counts["value"]}
    value, (before, now) = max(shares.items(), key=lambda one: abs(one[1][1] - one[1][0]))
    named = {"true": "yes", "false": "no"}.get(value, f"'{value}'")
    return f"{named} {_change(before, now)}"


def _change(before: float, now: float) -> str:
    places = 0 if max(before, now) >= 0.1 and abs(now - before) >= 0.02 else 1
    return f"{before * 100:.{places}f} % → {now * 100:.{places}f} %"
