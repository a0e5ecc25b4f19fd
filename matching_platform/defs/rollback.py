"""The way back: by a person in the UI, and by itself where production fails too many requests."""

import json
from dataclasses import asdict
from datetime import date
from time import time
from typing import Any, Final

import dagster as dg
from pydantic import Field

from matching_platform.defs.common import PlatformParam, actor
from matching_platform.defs.releasing import OURSELVES, roll_back, way_back
from matching_platform.delivery.images.image import ImageError
from matching_platform.delivery.serving.place import Reading, RolloutError
from matching_platform.environment import PRODUCTION
from matching_platform.matching.matcher import ModelError
from matching_platform.monitoring.notify import Message
from matching_platform.store.files import StoreError

# Errors are counted over so many seconds, and say nothing before there were so many requests.
WINDOW_SECONDS: Final = 300
LEAST_REQUESTS: Final = 20
AGAIN_SECONDS: Final = 600


class RollbackConfig(dg.Config):
    """Where to go back to, and why."""

    reason: str = Field(description="Why; it stays in the record")
    to: str | None = Field(
        default=None, description="The model, or the beginning of its name; the last good one by default"
    )
    instead_of: int | None = Field(
        default=None, description="The number of a release of production: where another is in force, nothing happens"
    )


@dg.op(description="Makes an earlier champion champion again, and serves it; nothing is trained or built.")
def back(context: dg.OpExecutionContext, config: RollbackConfig, platform: PlatformParam) -> None:
    try:
        rolled = roll_back(
            platform, actor=actor(context), reason=config.reason, to=config.to, instead_of=config.instead_of
        )
    except (ModelError, RolloutError, StoreError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    if rolled is None:
        context.log.info("release %s is no longer in force: nothing to do", config.instead_of)
        return
    deployed = rolled.deployment
    metadata: dict[str, Any] = {
        "model": rolled.champion.model.name,
        "promotion": rolled.champion.number,
        "reason": config.reason,
        "answers": deployed.url if deployed else "nothing was ever rolled out",
    }
    context.log_event(dg.AssetObservation("champion", metadata=metadata))
    context.log.info("%s is champion again", rolled.champion.model.name)


@dg.job(
    name="rollback",
    description="Goes back to the last good model, or to a named one, within a minute; give a reason.",
    executor_def=dg.in_process_executor,  # In a cluster, a pod for the step would cost half of that.
)
def rollback_job() -> None:
    back()


@dg.sensor(
    job_name=rollback_job.name,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Production fails more requests than it may: the last good model serves again.",
)
def failing_service(context: dg.SensorEvaluationContext, platform: PlatformParam) -> dg.SensorResult | dg.SkipReason:
    served = platform.releases(PRODUCTION).current()
    if served is None:
        return dg.SkipReason("nothing was ever rolled out")
    try:
        reading = platform.place(PRODUCTION).traffic()
    except (ImageError, RolloutError) as error:
        text = f"Production does not say how it serves: {error}"
        platform.notifier.notify(Message(f"production/{served.number}/silent/{date.today()}", text))
        return dg.SkipReason(text)
    window = _window(context.cursor, reading)
    cursor = json.dumps([[when, asdict(one)] for when, one in window])
    requests, errors = reading.since(window[0][1])
    limit = platform.settings.rollout.error_rate
    told = f"{errors} of {requests} requests failed in production within {WINDOW_SECONDS} s"
    if requests < LEAST_REQUESTS or errors <= limit * requests:
        return dg.SensorResult(skip_reason=told, cursor=cursor)
    if served.action == "rollback" or way_back(platform, failing=True) is None:
        text = f"{told}; this is as far back as goes by itself: look at the service of {served.model}."
        platform.notifier.notify(Message(f"production/{served.number}/failing", text))
        return dg.SensorResult(skip_reason=text, cursor=cursor)
    asked = RollbackConfig(reason=f"{told}, more than {limit:.1%}", instead_of=served.number)
    request = dg.RunRequest(
        # Where it fails, and production still does, it is tried again.
        run_key=f"production/{served.number}/{int(time() // AGAIN_SECONDS)}",
        run_config=dg.RunConfig(ops={back.name: asked}),
        tags={"dagster/user": OURSELVES},
    )
    return dg.SensorResult(run_requests=[request], cursor=cursor)


def _window(cursor: str | None, reading: Reading) -> list[tuple[float, Reading]]:
    """The readings of the last minutes, the newest last."""
    now = time()
    earlier = [(when, Reading(**one)) for when, one in json.loads(cursor or "[]")]
    return [*((when, one) for when, one in earlier if when > now - WINDOW_SECONDS), (now, reading)]


defs = dg.Definitions(jobs=[rollback_job], sensors=[failing_service])
