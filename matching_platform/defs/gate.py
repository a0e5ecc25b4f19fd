"""The gate in Dagster: checks as the computation emits them, and what a promoting asset reads of them.

There are two blessings: is the model better (`champion`), and does its service serve (`accepted`).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from matching_platform.delivery import acceptance
from matching_platform.environment import STAGING, Platform
from matching_platform.learning import examination, split
from matching_platform.learning.gate import (
    BLOCKING,
    DATA,
    SPLIT,
    Candidate,
    CheckRecord,
    Present,
    Verdict,
    failures,
    obstacles,
)
from matching_platform.store.registry import MODELS, Promotion
from matching_platform.store.versions import Version

# Each sentence must be true before a model serves.
SENTENCES: Final = {
    "data": "Every month has about as many rows as the others, and most transfers are tagged.",
    "split": "The test shares no transfer, invoice or component with what is learned; no row is from the future; every "
    "month and hash is present.",
    "quality": "The model is above the rules, at least as good as the champion on the frozen test by a paired "
    "bootstrap, and not worse on the newest month.",
    "segments": "No kind of transfer falls behind the champion by more than the margin, beyond what chance explains.",
    "calibration": "Confidence says how often the model is right.",
    "speed": "The model is fast enough where it is examined; the service is timed in staging.",
    **acceptance.SENTENCES,
}

_OF: Final = {DATA: "train_set", SPLIT: "train_set", **dict.fromkeys(acceptance.SENTENCES, STAGING)}
_ASSETS: Final = {name: _OF.get(name, "evaluation_report") for name in SENTENCES}
# The metadata of a check result that names what was judged.
_SUBJECT: Final = "subject"
_LOOKED_BACK: Final = 200
_DONE: Final = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}


def specs(asset: str) -> list[dg.AssetCheckSpec]:
    """The blocking checks that `asset` emits with its own numbers."""
    return [
        dg.AssetCheckSpec(name, asset=asset, blocking=True, description=SENTENCES[name])
        for name, owner in _ASSETS.items()
        if owner == asset
    ]


def results(asset: str, verdicts: list[Verdict], subject: str) -> list[dg.AssetCheckResult]:
    """Verdicts as check results that name `subject`, the digest of what they judge."""
    return [
        dg.AssetCheckResult(
            check_name=verdict.check,
            asset_key=asset,
            passed=verdict.passed,
            severity=dg.AssetCheckSeverity.ERROR,
            description=verdict.reason,
            metadata={_SUBJECT: subject, "reason": verdict.reason, **verdict.figures},
        )
        for verdict in verdicts
    ]


@dataclass(frozen=True)
class Asked:
    """A stored evaluation that asks for promotion."""

    version: Version
    examined: examination.Examined

    @property
    def candidate(self) -> Candidate:
        return self.examined.candidate(self.version)


def newest(platform: Platform) -> Asked | None:
    """The evaluation of the newest month, which alone may ask for promotion; None before the first."""
    months = platform.catalog.months("evaluation_report")
    if not months:
        return None
    version = platform.current("evaluation_report", months[-1])
    return Asked(version, examination.read(platform.store, version))


def hurdles(
    platform: Platform, instance: dg.DagsterInstance, candidate: Candidate | None, *, by_hand: bool = False
) -> list[str]:
    """Why `candidate` must not be promoted now, a sentence each; empty where the gate is open.

    Only a person, `by_hand`, promotes a model that was taken out of service. While automation is frozen nobody does.
    """
    models = platform.catalog.months("model")
    exam = split.current(platform.store)
    champion = platform.registry.champion()
    present = Present(
        platform.current("model", models[-1]).digest if models else None,
        exam.version.digest if exam else None,
        champion.number if champion else 0,
    )
    found = [*frozen_out(platform), *obstacles(candidate, _records(instance, BLOCKING, _subjects(candidate)), present)]
    model = Version(MODELS, candidate.model) if candidate else None
    withdrawn = platform.registry.withdrawn(model) if model and not by_hand else None
    if model and withdrawn:
        when = f"{withdrawn.time:%Y-%m-%d %H:%M} UTC by {withdrawn.actor} ({withdrawn.reason})"
        found.append(f"it was taken out of service on {when}: train another, or `models promote {model.name}` by hand")
    return found


def champion(platform: Platform, instance: dg.DagsterInstance) -> Promotion:
    """The champion, whose own evaluation passed every blocking check; dg.Failure otherwise.

    Image and deployment ask this in their own body, so that a champion that came past the gate goes no further.
    """
    promotion = platform.registry.champion()
    if promotion is None:
        raise dg.Failure("there is no champion yet: materialize champion first", allow_retries=False)
    examined = examination.read(platform.store, promotion.evaluation)
    candidate = examined.candidate(promotion.evaluation)
    found = failures(candidate, _records(instance, BLOCKING, _subjects(candidate)))
    if examined.model != promotion.model:
        found.append(f"its evaluation {promotion.evaluation} is of another model, {examined.model}")
    if found:
        raise closed(f"the champion {promotion.model.name} did not pass the gate", found)
    return promotion


def unaccepted(platform: Platform, instance: dg.DagsterInstance, accepted: Version | None, subject: str) -> list[str]:
    """Why what has the digest `subject` must not have the traffic, by its acceptance; a sentence each."""
    found = acceptance.read(platform.store, accepted) if accepted else None
    told = acceptance.obstacles(found, _records(instance, acceptance.CHECKS, {subject}), subject)
    if found and found.limits != platform.settings.acceptance:
        told.append("it was accepted by other limits than those of today: materialize staging again")
    return told


def frozen_out(platform: Platform) -> list[str]:
    """The sentence that keeps anything new from being promoted or rolled out; none where nobody froze automation.

    It does not stand in the way of a rollback.
    """
    told = platform.unattended.permission().told
    return [told] if told else []


def closed(what: str, sentences: list[str]) -> dg.Failure:
    """The failure that a closed gate is."""
    listed = "\n".join(f"- {sentence}" for sentence in sentences)
    return dg.Failure(
        f"{what}: {'; '.join(sentences)}", metadata={"reasons": dg.MetadataValue.md(listed)}, allow_retries=False
    )


def _subjects(candidate: Candidate | None) -> set[str]:
    return {candidate.evaluation, candidate.train_set} if candidate else set()


def _records(
    instance: dg.DagsterInstance, checks: Iterable[str], subjects: Collection[str]
) -> dict[str, CheckRecord | None]:
    return {name: _record(instance, name, subjects) for name in checks}


def _record(instance: dg.DagsterInstance, name: str, subjects: Collection[str]) -> CheckRecord | None:
    """The newest result about one of `subjects`; where there is none, the newest of all."""
    key = dg.AssetCheckKey(dg.AssetKey(_ASSETS[name]), name)
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=_LOOKED_BACK, status=_DONE)
    evaluations = [record.evaluation for record in history if record.evaluation]
    found = [CheckRecord(one.passed, str(one.metadata[_SUBJECT].value)) for one in evaluations]
    return next((record for record in found if record.subject in subjects), found[0] if found else None)
