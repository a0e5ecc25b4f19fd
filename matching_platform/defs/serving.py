"""From an image to a service that answers: examined in staging, then rolled out. No button gets past that either."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from matching_platform.defs import gate
from matching_platform.defs.automation import WHEN_EVALUATED, WHEN_UPSTREAM_CHANGES
from matching_platform.defs.common import Made, PlatformParam, materialized, newest, note
from matching_platform.defs.pods import op_tags
from matching_platform.defs.releasing import (
    Candidate,
    candidate,
    examine,
    follow,
    refusal,
    remember,
    roll_out,
    serves,
    withdraw,
)
from matching_platform.delivery import acceptance
from matching_platform.delivery.acceptance import Acceptance
from matching_platform.delivery.images.image import ImageError
from matching_platform.delivery.serving.place import CandidateError, RolloutError
from matching_platform.delivery.serving.releases import ReleaseError
from matching_platform.environment import PRODUCTION, STAGING, Platform
from matching_platform.learning.gate import Verdict
from matching_platform.store.versions import Version

# A place is given to one run at a time.
POOL: Final = "serving"


@dg.asset(
    description="The champion's service where nobody depends on it yet, and what its examination there found.",
    deps=["image"],
    check_specs=gate.specs(STAGING),
    automation_condition=WHEN_UPSTREAM_CHANGES,
    group_name="promotion",
    kinds={"bentoml"},
    op_tags=op_tags("staging"),
    pool=POOL,
    code_version="1",
)
def staging(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    model = gate.champion(platform, context.instance).model
    with _explained():
        chosen = candidate(platform, model)
    _check_not_frozen(platform, STAGING, chosen)
    with _explained():
        verdicts = examine(platform, chosen)
    accepted = Acceptance(chosen.subject, model, platform.settings.acceptance, datetime.now(UTC), verdicts)
    version = acceptance.write(platform.store, accepted)
    note(platform, acceptance.KIND, version, model)
    metadata = {
        "accepted": all(verdict.passed for verdict in verdicts),
        "model": model.name,
        "serves from": chosen.runs,
        "then": "; ".join(_concluded(platform, chosen, verdicts)),
        **{name: value for verdict in verdicts for name, value in verdict.figures.items()},
    }
    made = Made(version, metadata)
    return materialized(context, platform, made, gate.results(STAGING, verdicts, chosen.subject))


@dg.asset(
    description="What answers requests: started beside what served before, and given the traffic where it serves well.",
    deps=[staging],
    automation_condition=WHEN_EVALUATED,
    group_name="promotion",
    kinds={"bentoml"},
    op_tags=op_tags("deployment"),
    pool=POOL,
    code_version="2",
)
def deployment(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    model = gate.champion(platform, context.instance).model
    with _explained():
        chosen = candidate(platform, model)
    _check_not_frozen(platform, PRODUCTION, chosen)
    accepted = newest(platform, acceptance.KIND, model)
    found = gate.unaccepted(platform, context.instance, accepted, chosen.subject)
    if found or accepted is None:
        raise gate.closed(f"the service of {model.name} was not accepted in staging", found)
    with _explained():
        try:
            deployed = roll_out(platform, PRODUCTION, chosen)
        except CandidateError as error:
            done = withdraw(platform, PRODUCTION, chosen, str(error))
            raise dg.Failure("; ".join([str(error), *done]), allow_retries=False) from error
        _check_still(platform, model)
    metadata = {
        "url": dg.MetadataValue.url(deployed.url),
        "model": model.name,
        "changed": deployed.changed,
        "serves from": chosen.runs,
        "steps": "; ".join(deployed.steps) or "all traffic at once",
    }
    return materialized(context, platform, Made(accepted, metadata))


def _check_not_frozen(platform: Platform, place: str, chosen: Candidate) -> None:
    """While automation is frozen nothing new is tried at a place; what serves there may be confirmed."""
    found = gate.frozen_out(platform)
    if found and not serves(platform, place, chosen):
        raise gate.closed(f"{chosen.model.name} is not rolled out in {place}", found)


def _concluded(platform: Platform, chosen: Candidate, verdicts: Sequence[Verdict]) -> list[str]:
    """What follows from the verdicts, in words: it is remembered as good, or taken back."""
    if refused := refusal(verdicts):
        return withdraw(platform, STAGING, chosen, f"refused in staging: {refused}")
    remember(platform, STAGING, "deploy", chosen, reason="accepted")
    return ["it may have the traffic"]


def _check_still(platform: Platform, model: Version) -> None:
    """Whoever went back while this was being rolled out has the last word."""
    champion = platform.registry.champion()
    if champion and champion.model != model:
        reason = f"{champion.model.name} has become champion while {model.name} was rolled out"
        deployed = follow(platform, champion, reason)
        raise dg.Failure(f"{reason}; {deployed.model} serves again", allow_retries=False)


@contextmanager
def _explained() -> Iterator[None]:
    """What keeps a place or a registry from being used says nothing about the candidate, which stays as it is."""
    try:
        yield
    except (ImageError, ReleaseError, RolloutError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error


defs = dg.Definitions(assets=[staging, deployment])
