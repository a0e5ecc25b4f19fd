"""A training by event: a Pub/Sub message that names a month and settings becomes one run.

Pub/Sub delivers at least once. A message is acknowledged only when a later delivery of it finds its run launched, or when
it lies on the dead-letter topic; and Dagster makes one run of a run key. So whenever a process dies, nothing is lost and
nothing is trained twice.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import dagster as dg
import grpc
from google.api_core import exceptions
from google.api_core.retry import Retry, if_exception_type
from google.auth.exceptions import GoogleAuthError
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient

# The one call `publish` without the threads and batches that the client above puts around it.
from google.pubsub_v1 import PublisherClient as PlainPublisherClient
from google.pubsub_v1 import PubsubMessage, ReceivedMessage
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from matching_platform.defs.common import MONTHS, SETTINGS, PlatformParam
from matching_platform.defs.learning import ModelConfig, SettingsConfig
from matching_platform.environment import PREFIX, NotConfiguredError, Platform, Settings
from matching_platform.learning.settings import TrainingSettingsError, settings_of

# The tag of a run that names the message which asked for it.
MESSAGE: Final = "matching_platform/training_request"

MESSAGES: Final = 20  # of one tick, at most
LARGEST: Final = 256 * 1024  # bytes of a request; a tick's fit into one call of the dead-letter topic, 10 MB
LONGEST: Final = 1024  # bytes of an attribute, as Pub/Sub limits it

_SUBSCRIBER: Final = "roles/pubsub.subscriber"
_PUBLISHER: Final = "roles/pubsub.publisher"

# A tick has 60 s, and makes six calls of at most this many.
_SECONDS: Final = 8.0
# Whatever the subscription's own deadline, a message comes again when this tick is over, and not much later.
_ACK_SECONDS: Final = 60
_RETRY: Final = Retry(
    if_exception_type(
        exceptions.Aborted, exceptions.InternalServerError, exceptions.ServiceUnavailable, exceptions.TooManyRequests
    ),
    initial=0.1,
    maximum=1.0,
    timeout=_SECONDS / 2,
)


class PubSubError(RuntimeError):
    """Pub/Sub does not do what it is asked for; the message names the subscription or topic, and what to do."""


class BadRequestError(ValueError):
    """A message asks for no training that can be; the error says why."""


class TrainingRequest(BaseModel):
    """The data of a message, a JSON object: {"month": "2024-06", "settings": {"hidden": 96}}."""

    model_config = ConfigDict(extra="forbid", strict=True)

    month: str | None = Field(default=None, description="Whose train set to learn from; without it, the newest")
    settings: dict[str, Any] = Field(default={}, description="Training settings by name, see `SettingsConfig`")


train_job = dg.define_asset_job(
    "train",
    selection=dg.AssetSelection.assets("model", "evaluation_report"),
    description="Trains on the month's train set, with settings that are asked for, and evaluates.",
)


@dg.sensor(
    job=train_job,
    description="A message asks for a training: its settings are checked, and one run is made of it, however often it "
    "is delivered. A message that makes no sense goes to the dead-letter topic, with the reason.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
)
def training_requests(context: dg.SensorEvaluationContext, platform: PlatformParam) -> dg.SensorResult | dg.SkipReason:
    subscription, topic = _names(platform.settings)
    with _subscriber(subscription) as subscriber:
        received = _pull(subscriber, subscription)
        launched = [one for one in received if _is_launched(context.instance, one.message)]
        fresh = {one.message.message_id: one for one in received if one not in launched}
        runs, refused = _read(fresh, _months(platform) if fresh else [])
        for key, reason in refused.items():
            context.log.warning("message %s asks for no training: %s", key, reason)
        try:
            _acknowledge(subscriber, subscription, launched)
            _bury(topic, [(fresh[key].message, reason) for key, reason in refused.items()])
            _acknowledge(subscriber, subscription, [fresh[key] for key in refused])
        except PubSubError as error:
            # A tick that fails makes no run; what is not acknowledged fails again when it comes without one.
            if not runs:
                raise
            context.log.error(str(error))
    if not runs:
        return dg.SkipReason(f"no new training is asked for; {len(launched)} are on their way, {len(refused)} refused")
    return dg.SensorResult(run_requests=list(runs.values()))


def run_of(message: PubsubMessage, months: Sequence[str]) -> dg.RunRequest:
    """The run that a message asks for; `months` have a train set. BadRequestError where there can be none."""
    if len(message.data) > LARGEST:
        raise BadRequestError(f"it has {len(message.data)} bytes; a request has {LARGEST} at most")
    try:
        asked = TrainingRequest.model_validate_json(message.data)
        settings_of(asked.settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadRequestError(": ".join([*map(str, first["loc"]), first["msg"]])) from error
    except TrainingSettingsError as error:
        raise BadRequestError(f"settings: {error}") from error
    if kept := asked.settings.keys() - SettingsConfig.model_fields.keys():
        raise BadRequestError(f"settings: '{kept.pop()}' belongs to the environment; it cannot be asked for")
    if not months:
        raise BadRequestError("there is no train set yet: materialize train_set, then ask again")
    month = months[-1] if asked.month is None else asked.month
    if month not in months:
        raise BadRequestError(f"month: '{month}' has no train set; those of {months[0]} to {months[-1]} may have one")
    key = message.message_id
    config = dg.RunConfig(ops={"model": ModelConfig(settings=SettingsConfig(**asked.settings))})
    return dg.RunRequest(run_key=key, partition_key=month, run_config=config, tags={MESSAGE: key})


def examine(settings: Settings) -> None:
    """Asks whether the subscription and the topic can be used, and takes no message. PubSubError where one cannot."""
    subscription, topic = _names(settings)
    with _subscriber(subscription) as subscriber:
        _connect(subscriber, subscription)
        _permitted(subscriber, subscription, "pubsub.subscriptions.consume", _SUBSCRIBER)
    with _publisher(topic) as publisher:
        _permitted(publisher, topic, "pubsub.topics.publish", _PUBLISHER)


def _read(
    fresh: Mapping[str, ReceivedMessage], months: Sequence[str]
) -> tuple[dict[str, dg.RunRequest], dict[str, str]]:
    """The runs that messages ask for, and why the others are refused; both by message id."""
    runs, refused = {}, {}
    for key, one in fresh.items():
        try:
            runs[key] = run_of(one.message, months)
        except BadRequestError as error:
            refused[key] = str(error).encode(errors="replace")[:LONGEST].decode(errors="ignore")
    return runs, refused


def _months(platform: Platform) -> list[str]:
    configured = set(MONTHS.get_partition_keys())
    return [month for month in platform.catalog.months("train_set") if month in configured]


def _is_launched(instance: dg.DagsterInstance, message: PubsubMessage) -> bool:
    """Whether its run was handed over. A run that was only written down is launched by asking for it again."""
    runs = instance.get_runs(dg.RunsFilter(tags={MESSAGE: message.message_id}))
    return any(run.status is not dg.DagsterRunStatus.NOT_STARTED for run in runs)


def _names(settings: Settings) -> tuple[str, str]:
    if settings.training_requests is None or settings.dead_letters is None:
        told = f"{PREFIX}TRAINING_REQUESTS, a subscription, and {PREFIX}DEAD_LETTERS, a topic"
        raise NotConfiguredError(f"trainings by message need {told}; set both")
    return settings.training_requests, settings.dead_letters


@contextmanager
def _subscriber(subscription: str) -> Iterator[SubscriberClient]:
    with _told(subscription, _SUBSCRIBER):
        client = SubscriberClient()
    with client:
        yield client


@contextmanager
def _publisher(topic: str) -> Iterator[PublisherClient]:
    with _told(topic, _PUBLISHER):
        client = PublisherClient()
    with client:
        yield client


def _connect(subscriber: SubscriberClient, subscription: str) -> None:
    """Once there is a line, a deadline that passes means that nothing came; without one, it would mean nothing."""
    try:
        grpc.channel_ready_future(subscriber.transport.grpc_channel).result(_SECONDS)
    except grpc.FutureTimeoutError as error:
        raise PubSubError(f"Pub/Sub cannot be reached for {subscription}: see to the network") from error


def _permitted(client: SubscriberClient | PublisherClient, resource: str, permission: str, role: str) -> None:
    request = {"resource": resource, "permissions": [permission]}
    with _told(resource, role):
        if not client.test_iam_permissions(request, retry=_RETRY, timeout=_SECONDS).permissions:
            raise exceptions.PermissionDenied(permission)


def _pull(subscriber: SubscriberClient, subscription: str) -> list[ReceivedMessage]:
    """What there is, at most `MESSAGES`, kept from other ticks until this one is over."""
    _connect(subscriber, subscription)
    with _told(subscription, _SUBSCRIBER):
        request = {"subscription": subscription, "max_messages": MESSAGES}
        try:
            received = list(subscriber.pull(request, retry=_RETRY, timeout=_SECONDS).received_messages)
        except exceptions.DeadlineExceeded:
            return []
        if received:
            held = {"ack_ids": [one.ack_id for one in received], "ack_deadline_seconds": _ACK_SECONDS}
            subscriber.modify_ack_deadline({"subscription": subscription, **held}, retry=_RETRY, timeout=_SECONDS)
    return received


def _acknowledge(subscriber: SubscriberClient, subscription: str, done: Sequence[ReceivedMessage]) -> None:
    if done:
        request = {"subscription": subscription, "ack_ids": [one.ack_id for one in done]}
        with _told(subscription, _SUBSCRIBER):
            subscriber.acknowledge(request, retry=_RETRY, timeout=_SECONDS)


def _bury(topic: str, refused: Sequence[tuple[PubsubMessage, str]]) -> None:
    """Publishes refused messages with the reasons, all or none."""
    if refused:
        request = {"topic": topic, "messages": [_letter(message, reason) for message, reason in refused]}
        with _publisher(topic) as publisher, _told(topic, _PUBLISHER):
            PlainPublisherClient.publish(publisher, request, retry=_RETRY, timeout=_SECONDS)


def _letter(message: PubsubMessage, reason: str) -> PubsubMessage:
    """A refused message with its reason; of one that is too large, the beginning."""
    attributes = {
        "reason": reason,
        "original_message_id": message.message_id,
        "original_publish_time": message.publish_time.rfc3339(),
    }
    return PubsubMessage(data=message.data[:LARGEST], attributes=attributes)


@contextmanager
def _told(resource: str, role: str) -> Iterator[None]:
    """Turns what Google's client raises into PubSubError, one sentence about `resource`."""
    try:
        yield
    except exceptions.NotFound as error:
        raise PubSubError(f"{resource} does not exist: create it, or name another in the settings") from error
    except (exceptions.Forbidden, exceptions.Unauthorized) as error:
        raise PubSubError(f"the credentials in force may not use {resource}: grant them {role} on it") from error
    except GoogleAuthError as error:
        raise PubSubError(f"there are no credentials for {resource}: {error}") from error
    except exceptions.GoogleAPIError as error:
        raise PubSubError(f"Pub/Sub fails for {resource}, and is asked again: {error}") from error


defs = dg.Definitions(jobs=[train_job], sensors=[training_requests] if SETTINGS.training_requests else [])
