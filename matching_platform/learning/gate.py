"""The gate: what must hold before a model serves, as pure functions over figures and facts.

`examine` turns the figures of an examination into one verdict per check. `obstacles` says, a sentence each, what keeps
an evaluated model from being promoted: no press of a button gets past it, because whoever promotes asks it himself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from matching_platform.learning.yardstick import KINDS, Difference, Evaluation, calibration_error, paired_bootstrap

DATA: Final = "data"
SPLIT: Final = "split"
EVALUATED: Final = ("quality", "segments", "calibration", "speed")
BLOCKING: Final = (DATA, SPLIT, *EVALUATED)

_CHANCES: Final = 100


class Thresholds(BaseModel):
    """What the checks demand. They belong to the environment: no run can loosen them for itself."""

    model_config = ConfigDict(frozen=True)

    minimum_gain: float = Field(
        default=0.0,
        description="Least mean gain over the champion in `exact` on the frozen test, over paired bootstrap draws",
    )
    tolerated_loss: float = Field(
        default=0.02,
        description="The gain's 95 % interval on the frozen test may reach this far below zero, no further",
    )
    unattended_loss: float = Field(
        default=0.2,
        description="How much less of the frozen test's paying transfers than the champion a model may book unattended, "
        "where it is not surely better",
    )
    newest_loss: float = Field(
        default=0.02,
        description="How far the newest month's `exact` may lie below the champion's before it counts as worse",
    )
    segment_loss: float = Field(
        default=0.05,
        description="How far `exact` of a kind may fall below the champion's; a fall that could be chance, its 95 % "
        "interval reaching zero, does not block",
    )
    segment_transfers: int = Field(default=10, description="A kind with fewer transfers in the test is not judged")
    calibration_error: float = Field(
        default=0.05,
        description="Largest ECE on the frozen test; what chance gives a perfectly calibrated model does not block",
    )
    transfers_per_second: float = Field(
        default=20.0, description="Least speed of the model in the process that examines it, in transfers a second"
    )
    usual_rows: float = Field(
        default=3.0,
        description="A month's rows may be this many times the median of the other months', or that part of it",
    )
    tagged_share: float = Field(default=0.5, description="Least share of the months' transfers that is tagged")


@dataclass(frozen=True)
class Verdict:
    """Whether a check holds, why, and the figures that decided."""

    check: str
    passed: bool
    reason: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sides:
    """One examination sat by the new model, by the rules and, where there are such, by the champion and by boosted trees.

    The trees are there to be compared with; no verdict asks them.
    """

    model: Evaluation
    rules: Evaluation
    champion: Evaluation | None
    trees: Evaluation | None = None


@dataclass(frozen=True)
class CheckRecord:
    """The last result of a check: whether it passed, and the digest of what it judged."""

    passed: bool
    subject: str


@dataclass(frozen=True)
class Candidate:
    """An evaluation that asks for promotion, by digests; `promotion` numbers the champion it was compared with."""

    evaluation: str
    model: str
    train_set: str
    test_split: str
    promotion: int


@dataclass(frozen=True)
class Present:
    """What is in force now: the newest model, the frozen test and the number of the last promotion."""

    newest_model: str | None
    test_split: str | None
    promotion: int


def examine(test: Sides, newest: Sides | None, transfers_per_second: float, limits: Thresholds) -> list[Verdict]:
    """The verdicts on quality, segments, calibration and speed. `newest` is None where nobody tagged that month."""
    return [
        _quality(test, newest, limits),
        _segments(test, limits),
        _calibration(test.model, limits),
        _speed(transfers_per_second, limits),
    ]


def examine_data(months: pl.DataFrame, limits: Thresholds) -> Verdict:
    """The verdict on what is learned from.

    `months` has a row per month: month, rows of each table (invoices, transfers, matches) and `tagged`, the number of
    transfers with a tag.
    """
    problems = [
        f"{table} of {month} has {rows} rows where {usual:.0f} are usual"
        for table in ("invoices", "transfers", "matches")
        for month, rows, usual in _beside_the_usual(months["month"].to_list(), months[table].to_list())
        if not usual / limits.usual_rows <= rows <= usual * limits.usual_rows
    ]
    share = sum(months["tagged"].to_list()) / max(sum(months["transfers"].to_list()), 1)
    if share < limits.tagged_share:
        problems.append(f"{share:.0%} of the transfers are tagged, less than {limits.tagged_share:.0%}")
    fine = f"{months.height} months of usual size, {share:.0%} of their transfers tagged"
    return Verdict(DATA, not problems, "; ".join(problems) or fine, {"tagged_share": share, "months": months.height})


def examine_split(problems: Sequence[str]) -> Verdict:
    """The verdict on the problems found between train set and test."""
    fine = "nothing is shared with the test, nothing is from the future, and every hash is right"
    return Verdict(SPLIT, not problems, "; ".join(problems) or fine, {"problems": len(problems)})


def obstacles(candidate: Candidate | None, checks: Mapping[str, CheckRecord | None], present: Present) -> list[str]:
    """Why `candidate` must not be promoted, a sentence each; empty where the gate is open."""
    if candidate is None:
        return ["no model has been evaluated yet: materialize evaluation_report"]
    return [*failures(candidate, checks), *_stale(candidate, present)]


def failures(candidate: Candidate, checks: Mapping[str, CheckRecord | None]) -> list[str]:
    """Which blocking checks did not pass, for this evaluation and no other."""
    subjects = dict.fromkeys(BLOCKING, candidate.evaluation) | dict.fromkeys((DATA, SPLIT), candidate.train_set)
    found = []
    for name, subject in subjects.items():
        record = checks.get(name)
        if record is None:
            found.append(f"the check '{name}' was never made")
        elif record.subject != subject:
            found.append(f"the last check '{name}' judged {record.subject[:16]}, not {subject[:16]}: evaluate again")
        elif not record.passed:
            found.append(f"the check '{name}' failed")
    return found


def _stale(candidate: Candidate, present: Present) -> list[str]:
    found = []
    if candidate.model != present.newest_model:
        found.append(f"the evaluation is of model {candidate.model[:16]}, which is not the newest: evaluate the newest")
    if candidate.test_split != present.test_split:
        found.append(f"the evaluation used the test split {candidate.test_split[:16]}, which is no longer in force")
    if candidate.promotion != present.promotion:
        found.append("the champion has changed since the evaluation: evaluate again")
    return found


def _quality(test: Sides, newest: Sides | None, limits: Thresholds) -> Verdict:
    above = paired_bootstrap(test.model.outcomes, test.rules.outcomes)
    problems = [] if above.mean > 0 else [f"no better than the rules on the frozen test ({_points(above)})"]
    told, figures = [f"{_points(above)} above the rules"], {"gain_over_rules": above.mean}
    if test.champion:
        gain = paired_bootstrap(test.model.outcomes, test.champion.outcomes)
        told.append(f"{_points(gain)} against the champion on the frozen test")
        figures |= {"gain_over_champion": gain.mean, "gain_low": gain.low, "gain_high": gain.high}
        if gain.mean < limits.minimum_gain:
            problems.append(f"not better than the champion on the frozen test ({_points(gain)})")
        if gain.low < -limits.tolerated_loss:
            problems.append(
                f"possibly worse than the champion by more than {limits.tolerated_loss:.1%} ({_points(gain)})"
            )
        ours, theirs = (side.figures["auto_share"] for side in (test.model, test.champion))
        figures["unattended_loss"] = theirs - ours
        if theirs - ours > limits.unattended_loss and gain.low <= 0:
            problems.append(
                f"books {ours:.0%} of the frozen test unattended, where the champion books {theirs:.0%}, and is not surely "
                f"better ({_points(gain)})"
            )
    if newest and newest.champion:
        gain = paired_bootstrap(newest.model.outcomes, newest.champion.outcomes)
        told.append(f"{_points(gain)} against it on the newest month")
        figures["newest_gain"] = gain.mean
        if gain.mean < -limits.newest_loss:
            problems.append(f"worse than the champion on the newest month ({_points(gain)})")
    return Verdict("quality", not problems, "; ".join(problems or told), figures)


def _segments(test: Sides, limits: Thresholds) -> Verdict:
    if test.champion is None:
        return Verdict("segments", True, "there is no champion yet that a kind could fall behind")
    ours, theirs = test.model.outcomes, test.champion.outcomes
    problems: list[str] = []
    figures: dict[str, float] = {}
    for kind in (kind for kind in KINDS if kind in ours.columns and ours[kind].sum() >= limits.segment_transfers):
        members = ours.filter(kind).select("transfer_id")
        gain = paired_bootstrap(_of(ours, members), _of(theirs, members))
        figures[kind] = gain.mean
        if gain.mean < -limits.segment_loss and gain.high < 0:
            problems.append(f"'{kind}' falls by {-gain.mean:.1%} ({_points(gain)})")
    return Verdict("segments", not problems, "; ".join(problems) or f"{len(figures)} kinds hold", figures)


def _of(outcomes: pl.DataFrame, members: pl.DataFrame) -> pl.DataFrame:
    return outcomes.join(members, on="transfer_id", how="semi", maintain_order="left")


def _calibration(model: Evaluation, limits: Thresholds) -> Verdict:
    error, allowed = model.figures["ece"], max(limits.calibration_error, _ece_by_chance(model.outcomes))
    reason = f"ECE {error:.3f} on the frozen test, at most {allowed:.3f} allowed for {model.outcomes.height} transfers"
    return Verdict("calibration", error <= allowed, reason, {"ece": error, "ece_allowed": allowed})


def _ece_by_chance(outcomes: pl.DataFrame) -> float:
    """The ECE that one in twenty perfectly calibrated models exceeds on so few transfers."""
    random = np.random.default_rng(0)
    confidence = outcomes["confidence"].to_numpy()
    drawn = (pl.Series("exact", random.random(len(confidence)) < confidence) for _ in range(_CHANCES))
    return float(np.quantile([calibration_error(outcomes.with_columns(exact)) for exact in drawn], 0.95))


def _speed(transfers_per_second: float, limits: Thresholds) -> Verdict:
    least = limits.transfers_per_second
    reason = f"{transfers_per_second:,.0f} transfers a second where it was examined, at least {least:,.0f} demanded"
    return Verdict("speed", transfers_per_second >= least, reason, {"transfers_per_second": transfers_per_second})


def _beside_the_usual(months: list[str], rows: list[int]) -> list[tuple[str, int, float]]:
    """month, rows and the median of the other months'; a single month is its own measure."""
    others = [rows[:i] + rows[i + 1 :] or rows for i in range(len(rows))]
    return [(month, count, float(median(other))) for month, count, other in zip(months, rows, others, strict=True)]


def _points(gain: Difference) -> str:
    return f"{gain.mean * 100:+.1f} points, 95 % interval {gain.low * 100:+.1f} to {gain.high * 100:+.1f}"
