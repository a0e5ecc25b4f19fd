"""From an image to a service that answers: examined in staging, then rolled out. No button gets past that either."""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from matching_platform.defs import gate
from matching_platform.defs.automation import WHEN_EVALUATED, WHEN_UPSTREAM_CHANGES
from matching_platform.defs.common import Made, PlatformParam, materialized, newest, note
from matching_platform.defs.pods import op_tags
from matching_platform.defs.releasing import (
    BENTOS,
    STAGING,
    image_of,
    release,
    remember,
    roll_out,
    withdraw,
)
from matching_platform.delivery import acceptance
from matching_platform.delivery.acceptance import Acceptance
from matching_platform.delivery.serving.place import Release, RolloutError
from matching_platform.environment import PRODUCTION, Platform
from matching_platform.learning import split
from matching_platform.learning.examination import frozen_exam
from matching_platform.learning.gate import Verdict
from matching_platform.store.versions import Version


@dg.asset(
    description="The champion's service where nobody depends on it yet, and what its examination there found.",
    deps=["image"],
    check_specs=gate.specs(gate.STAGING),
    automation_condition=WHEN_UPSTREAM_CHANGES,
    group_name="promotion",
    kinds={"bentoml"},
    op_tags=op_tags("staging"),
    code_version="1",
)
def staging(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    model = gate.champion(platform, context.instance).model
    subject, chosen = _subject(platform, model), _release(platform, model)
    try:
        verdicts = _examined(platform, model, chosen)
        accepted = Acceptance(subject, model, platform.settings.acceptance, datetime.now(UTC), verdicts)
        version = acceptance.write(platform.store, accepted)
        note(platform, gate.ACCEPTANCES, version, model)
        done = _concluded(platform, model, verdicts)
    finally:
        platform.place(STAGING).stop()
    metadata = {
        "accepted": all(verdict.passed for verdict in verdicts),
        "model": model.name,
        "serves from": subject,
        "then": "; ".join(done),
        **{name: value for verdict in verdicts for name, value in verdict.figures.items()},
    }
    made = Made(version, metadata)
    return materialized(context, platform, made, gate.results(gate.STAGING, verdicts, subject))


@dg.asset(
    description="What answers requests: started beside what served before, and given the traffic where it serves well.",
    deps=[staging],
    automation_condition=WHEN_EVALUATED,
    group_name="promotion",
    kinds={"bentoml"},
    op_tags=op_tags("deployment"),
    code_version="2",
)
def deployment(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    model = gate.champion(platform, context.instance).model
    chosen, subject = _release(platform, model), _subject(platform, model)
    if found := gate.unaccepted(platform, context.instance, model, subject):
        raise gate.closed(f"the service of {model.name} was not accepted in staging", found)
    try:
        deployed = roll_out(platform, PRODUCTION, model)
    except RolloutError as error:
        done = withdraw(platform, PRODUCTION, model, str(error))
        raise dg.Failure("; ".join([str(error), *done]), allow_retries=False) from error
    metadata = {
        "url": dg.MetadataValue.url(deployed.url),
        "model": model.name,
        "changed": deployed.changed,
        "serves from": chosen.image.reference if chosen.image else subject,
    }
    accepted = newest(platform, gate.ACCEPTANCES, model)
    assert accepted is not None
    return materialized(context, platform, Made(accepted, metadata))


def _examined(platform: Platform, model: Version, chosen: Release) -> list[Verdict]:
    frozen = split.current(platform.store)
    if frozen is None:
        raise dg.Failure("there is no frozen test yet: materialize test_split first", allow_retries=False)
    place = platform.place(STAGING)
    try:
        url = place.deploy(chosen).url
    except RolloutError as error:
        return [Verdict(check, False, str(error)) for check in acceptance.CHECKS]
    folder = platform.store.fetch(model)
    limits = platform.settings.acceptance
    return acceptance.examine(url, folder, frozen_exam(frozen), limits, place.terminate, model.name)


def _concluded(platform: Platform, model: Version, verdicts: Sequence[Verdict]) -> list[str]:
    """What follows from the verdicts, in words: it is remembered as good, or taken back."""
    refused = [f"{verdict.check}: {verdict.reason}" for verdict in verdicts if not verdict.passed]
    if refused:
        return withdraw(platform, STAGING, model, f"refused in staging: {'; '.join(refused)}")
    remember(platform, STAGING, "deploy", model, reason="accepted")
    return ["it may have the traffic"]


def _release(platform: Platform, model: Version) -> Release:
    try:
        return release(platform, model)
    except RolloutError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def _subject(platform: Platform, model: Version) -> str:
    """The digest of what the service of `model` runs from: its image, or without one its bento."""
    image, packed = image_of(platform, model), newest(platform, BENTOS, model)
    return image.digest if image else packed.digest if packed else "nothing"


defs = dg.Definitions(assets=[staging, deployment])
