"""A message becomes one run, whatever happens on the way; what makes no sense is put aside with the reason."""

import runpy
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import dagster as dg
import pytest
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1 import PubsubMessage

from matching_platform.defs import common, learning, requests
from matching_platform.environment import DEFAULTS, NotConfiguredError, Platform, Settings
from matching_platform.learning.training import TrainingSettings
from matching_platform_tests.defs.daemons import Daemons, daemons, local_instance
from matching_platform_tests.emulators.pubsub import Server, Status, serve

pytestmark = pytest.mark.cloud

REQUESTS = "projects/acme/topics/training-requests"
SUBSCRIPTION = "projects/acme/subscriptions/training-requests"
DEAD_LETTERS = "projects/acme/topics/dead-letters"
MONTHS = ["2024-03", "2024-04"]
WANTED = b'{"month": "2024-03", "settings": {"hidden": 24, "learning_rate": 0.01}}'


@dataclass
class Inbox:
    """Pub/Sub with a subscription, and a daemon whose sensor listens to it."""

    server: Server
    daemons: Daemons
    publisher: PublisherClient
    now: float = field(default_factory=time.time)

    def send(self, data: bytes) -> str:
        """Publishes a message and returns its id."""
        return self.publisher.publish(REQUESTS, data).result()

    def tick(self) -> str:
        """The sensor ticks when all deadlines have lapsed; returns why it failed or skipped, '' where it did neither."""
        self.server.expire()
        self.now += 60
        self.daemons.tick_sensors(self.now)
        tick = self.daemons.ticks("training_requests")[0]
        return tick.error.to_string() if tick.error else tick.skip_reason or ""

    @property
    def runs(self) -> list[dg.DagsterRun]:
        return list(self.daemons.instance.get_runs())

    @property
    def waiting(self) -> list[str]:
        return self.server.unacknowledged(SUBSCRIPTION)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve() as server:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.endpoint)
        yield server


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    given = {"store": str(tmp_path / "store"), "training_requests": SUBSCRIPTION, "dead_letters": DEAD_LETTERS}
    platform = Platform(Settings(**{**DEFAULTS["local"], **given}))
    for month in MONTHS:
        platform.catalog.set("train_set", month, platform.store.put_bytes("train_sets", "a", month.encode()), {})
    return platform


@pytest.fixture
def inbox(server: Server, platform: Platform, tmp_path: Path) -> Iterator[Inbox]:
    with PublisherClient() as publisher, SubscriberClient() as subscriber:
        for topic in (REQUESTS, DEAD_LETTERS):
            publisher.create_topic(name=topic)
        subscriber.create_subscription(name=SUBSCRIPTION, topic=REQUESTS)
        code = dg.Definitions(
            assets=[learning.model, learning.evaluation_report],
            jobs=[requests.train_job],
            sensors=[requests.training_requests],
            resources={"platform": platform},
        )
        with local_instance(tmp_path) as instance, daemons(instance, code) as running:
            yield Inbox(server, running, publisher)


def asked(run: dg.DagsterRun) -> tuple[str, dict[str, Any]]:
    """The month and the config of a run's model."""
    return run.tags["dagster/partition"], run.run_config["ops"]["model"]["config"]


def test_a_message_becomes_one_run_however_often_it_is_delivered(inbox: Inbox) -> None:
    key = inbox.send(WANTED)
    assert inbox.tick() == ""
    (run,) = inbox.runs
    assert run.job_name == "train"
    assert asked(run) == ("2024-03", {"settings": {"hidden": 24, "learning_rate": 0.01}, "search": False})
    assert (run.tags["dagster/run_key"], run.tags[requests.MESSAGE]) == (key, key)
    assert inbox.waiting == [key], "it is not acknowledged in the tick that asks for its run"
    assert "1 are on their way" in inbox.tick()
    assert inbox.waiting == []
    (message,) = inbox.server.messages(REQUESTS)
    for _ in range(30):
        inbox.server.deliver_again(SUBSCRIPTION, message)
    for _ in range(2):
        assert "are on their way" in inbox.tick()
    assert inbox.waiting == []
    assert inbox.runs == [run]
    assert inbox.server.messages(DEAD_LETTERS) == []


def test_a_message_that_comes_twice_at_once_becomes_one_run(inbox: Inbox) -> None:
    inbox.send(WANTED)
    inbox.server.deliver_again(SUBSCRIPTION, inbox.server.messages(REQUESTS)[0])
    assert inbox.tick() == ""
    assert len(inbox.runs) == 1
    inbox.tick()
    assert (len(inbox.runs), inbox.waiting) == (1, [])


def test_what_another_tick_holds_is_left_to_it(inbox: Inbox) -> None:
    """The subscription's own deadline, ten seconds, is shorter than a tick may be."""
    inbox.send(WANTED)
    inbox.tick()
    with SubscriberClient() as subscriber:
        assert not subscriber.pull(subscription=SUBSCRIPTION, max_messages=1).received_messages
    (delivery,) = inbox.server.subscriptions[SUBSCRIPTION].deliveries
    assert delivery.until - time.monotonic() > 50


@pytest.mark.parametrize(
    ("data", "month", "settings"),
    [
        (b"{}", "2024-04", {}),
        (b'{"settings": {}}', "2024-04", {}),
        (b'{"month": null}', "2024-04", {}),
        (b' {"settings": {"seed": 0}} ', "2024-04", {"seed": 0}),
        (
            b'{"month": "2024-03", "settings": {"weight_decay": 0, "folds": 2}}',
            "2024-03",
            {"weight_decay": 0.0, "folds": 2},
        ),
    ],
)
def test_what_may_be_left_out(data: bytes, month: str, settings: dict[str, float]) -> None:
    run = requests.run_of(PubsubMessage(message_id="7", data=data), MONTHS)
    assert run.partition_key == month
    assert run.run_config["ops"]["model"]["config"]["settings"] == settings


def test_every_setting_can_be_asked_for_but_the_promise() -> None:
    kinds = get_type_hints(TrainingSettings)
    assert kinds.pop("promised_precision") is float
    fields = learning.SettingsConfig.model_fields
    assert {name: field.annotation for name, field in fields.items()} == {
        name: kind | None for name, kind in kinds.items()
    }
    assert all(field.description for field in fields.values())


BAD = {
    b"": "Invalid JSON: EOF while parsing",
    b"hidden: 24": "Invalid JSON: expected value",
    b"\xff\xfe": "Invalid JSON",
    b"[" * 100_000: "Invalid JSON: recursion limit exceeded",
    b"[1]": "Input should be an object",
    b'{"setings": {}}': "setings: Extra inputs are not permitted",
    b'{"settings": [1]}': "settings: Input should be an object",
    b'{"settings": {"hiden": 24}}': "settings: 'hiden' is no training setting; there are promised_precision, folds",
    b'{"settings": {"hidden": "24"}}': "settings: hidden: Input should be a valid integer, not '24'",
    b'{"settings": {"hidden": null}}': "settings: hidden: Input should be a valid integer, not None",
    b'{"settings": {"learning_rate": NaN}}': "settings: learning_rate: Input should be a finite number",
    b'{"settings": {"hidden": 1'
    + b"0" * 4000
    + b"}}": "settings: hidden: Input should be less than or equal to 2147483647",
    b'{"settings": {"hidden": 1' + b"0" * 5000 + b"}}": "Invalid JSON: number out of range",
    b'{"\\ud800": 1}': "Invalid JSON: unexpected end of hex escape",
    b'{"settings": {"promised_precision": 0.5}}': "'promised_precision' belongs to the environment",
    b'{"month": 202404}': "month: Input should be a valid string",
    b'{"month": "2024-05"}': "month: '2024-05' has no train set; those of 2024-03 to 2024-04 may have one",
    b'{"month": "' + b"9" * 5000 + b'"}': "month: '9999",
    b'{"month": "' + "č".encode() * 3000 + b'"}': "month: 'čččč",
    b"{" + b" " * requests.LARGEST + b"}": f"it has {requests.LARGEST + 2} bytes; a request has {requests.LARGEST}",
}


def test_bad_messages_go_to_the_dead_letters_with_the_reason_and_are_gone(inbox: Inbox) -> None:
    keys = [inbox.send(data) if data else _send_empty(inbox) for data in BAD]
    assert f"{len(BAD)} refused" in inbox.tick()
    sent = {message.message_id: message for message in inbox.server.messages(REQUESTS)}
    buried = {letter.attributes["original_message_id"]: letter for letter in inbox.server.messages(DEAD_LETTERS)}
    for key, (data, told) in zip(keys, BAD.items(), strict=True):
        letter = buried.pop(key)
        assert told in letter.attributes["reason"]
        assert letter.attributes["original_publish_time"] == sent[key].publish_time.rfc3339()
        assert letter.data == data[: requests.LARGEST]
    assert not buried
    assert inbox.waiting == []
    assert "0 refused" in inbox.tick()
    assert (len(inbox.server.messages(DEAD_LETTERS)), inbox.runs) == (len(BAD), [])


def _send_empty(inbox: Inbox) -> str:
    """A message may consist of attributes alone."""
    return inbox.publisher.publish(REQUESTS, b"", sender="somebody").result()


def test_before_there_is_a_train_set_a_request_is_refused(inbox: Inbox, platform: Platform) -> None:
    for month in MONTHS:
        for name in platform.store.files.names(f"records/current/train_set/{month}"):
            Path(platform.store.files.path(f"records/current/train_set/{month}/{name}")).unlink()
    inbox.send(b"{}")
    inbox.tick()
    (letter,) = inbox.server.messages(DEAD_LETTERS)
    assert letter.attributes["reason"] == "there is no train set yet: materialize train_set, then ask again"


def test_what_cannot_be_buried_stays_and_holds_up_nobody(inbox: Inbox) -> None:
    bad, good = inbox.send(b"bad"), inbox.send(WANTED)
    inbox.server.fail("Publish", Status.PERMISSION_DENIED, times=2)
    assert inbox.tick() == ""
    assert [run.tags[requests.MESSAGE] for run in inbox.runs] == [good]
    assert inbox.waiting == [bad, good]
    told = f"the credentials in force may not use {DEAD_LETTERS}: grant them roles/pubsub.publisher on it"
    assert told in inbox.tick()
    assert inbox.waiting == [bad]
    assert "1 refused" in inbox.tick()
    assert (inbox.waiting, len(inbox.server.messages(DEAD_LETTERS))) == ([], 1)


# Dagster 1.13 says that it takes up a tick by a logging method that Python 3.11 calls old.
@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")
@pytest.mark.parametrize("dies_in", ["create_run", "submit_run"])
def test_a_process_that_dies_before_its_run_is_launched_loses_nothing(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, dies_in: str
) -> None:
    key = inbox.send(WANTED)
    with monkeypatch.context() as dying:

        def die(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        dying.setattr(inbox.daemons.instance, dies_in, die)
        with pytest.raises(KeyboardInterrupt):
            inbox.tick()
    assert all(run.status is dg.DagsterRunStatus.NOT_STARTED for run in inbox.runs)
    assert inbox.waiting == [key]
    for _ in range(3):
        inbox.tick()
    assert [run.status for run in inbox.runs] == [dg.DagsterRunStatus.QUEUED]
    assert inbox.waiting == []


def test_a_run_that_was_only_written_down_is_launched_when_its_message_comes_again(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no queue")

    key = inbox.send(WANTED)
    with monkeypatch.context() as failing:
        failing.setattr(inbox.daemons.instance, "submit_run", fail)
        inbox.tick()
    (run,) = inbox.runs
    assert run.status is dg.DagsterRunStatus.NOT_STARTED
    inbox.tick()
    assert inbox.waiting == [key]
    (again,) = inbox.runs
    assert (again.run_id, again.status) == (run.run_id, dg.DagsterRunStatus.QUEUED)
    inbox.tick()
    assert (inbox.waiting, len(inbox.runs)) == ([], 1)


def test_an_acknowledgement_that_is_lost_is_made_up_for(inbox: Inbox) -> None:
    inbox.send(WANTED)
    inbox.tick()
    inbox.server.fail("Acknowledge", Status.INTERNAL, times=1)
    inbox.tick()
    assert (inbox.waiting, len(inbox.runs)) == ([], 1), "asked again at once"
    inbox.send(b"bad")
    inbox.server.fail("Acknowledge", Status.FAILED_PRECONDITION, times=1)
    assert f"Pub/Sub fails for {SUBSCRIPTION}, and is asked again: 400 Acknowledge was told to fail" in inbox.tick()
    inbox.tick()
    assert (inbox.waiting, len(inbox.server.messages(DEAD_LETTERS))) == ([], 2), "told twice, rather than never"


def test_a_tick_takes_so_many_and_leaves_the_rest(inbox: Inbox) -> None:
    for _ in range(requests.MESSAGES + 3):
        inbox.send(b"bad")
    inbox.tick()
    assert len(inbox.waiting) == 3
    inbox.tick()
    assert inbox.waiting == []


@pytest.mark.parametrize(
    ("call", "status", "told"),
    [
        ("Pull", Status.NOT_FOUND, f"{SUBSCRIPTION} does not exist: create it, or name another in the settings"),
        ("Pull", Status.PERMISSION_DENIED, f"may not use {SUBSCRIPTION}: grant them roles/pubsub.subscriber on it"),
        ("Pull", Status.UNAUTHENTICATED, f"may not use {SUBSCRIPTION}: grant them roles/pubsub.subscriber on it"),
        ("Publish", Status.NOT_FOUND, f"{DEAD_LETTERS} does not exist: create it, or name another in the settings"),
        ("Pull", Status.UNAVAILABLE, f"Pub/Sub fails for {SUBSCRIPTION}, and is asked again: Timeout of 0.2s exceeded"),
    ],
)
def test_a_failure_is_one_sentence(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, call: str, status: Status, told: str
) -> None:
    monkeypatch.setattr(requests, "_RETRY", requests._RETRY.with_timeout(0.2))
    inbox.send(b"bad")
    inbox.server.fail(call, status, times=100)
    assert told in inbox.tick()
    assert len(inbox.waiting) == 1


def test_what_fails_for_a_moment_is_tried_again_at_once(inbox: Inbox) -> None:
    inbox.send(WANTED)
    inbox.server.fail("Pull", Status.UNAVAILABLE, times=2)
    assert inbox.tick() == ""
    assert len(inbox.runs) == 1


def test_nothing_to_do_is_no_failure(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no new training is asked for" in inbox.tick()
    monkeypatch.setattr(requests, "_SECONDS", 0.5)
    inbox.server.wait = 2.0
    assert "no new training is asked for" in inbox.tick(), "nothing came while Pub/Sub waited for something"


def test_a_dead_line_is_not_taken_for_nothing_to_do(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", f"127.0.0.1:{silent.getsockname()[1]}")
        assert f"Pub/Sub cannot be reached for {SUBSCRIPTION}: see to the network" in inbox.tick()


def test_credentials_that_are_missing_are_named(inbox: Inbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    assert f"there are no credentials for {SUBSCRIPTION}" in inbox.tick()


def test_an_examination_takes_no_message(inbox: Inbox, platform: Platform) -> None:
    inbox.send(WANTED)
    requests.examine(platform.settings)
    assert inbox.tick() == "", "the message was there to be taken"


@pytest.mark.parametrize(
    ("permission", "told"),
    [
        ("pubsub.subscriptions.consume", f"may not use {SUBSCRIPTION}: grant them roles/pubsub.subscriber on it"),
        ("pubsub.topics.publish", f"may not use {DEAD_LETTERS}: grant them roles/pubsub.publisher on it"),
    ],
)
def test_an_examination_names_what_is_missing(inbox: Inbox, platform: Platform, permission: str, told: str) -> None:
    inbox.server.denied.add(permission)
    with pytest.raises(requests.PubSubError, match=told):
        requests.examine(platform.settings)


@pytest.mark.parametrize("missing", ["training_requests", "dead_letters"])
def test_half_a_configuration_is_named(platform: Platform, missing: str) -> None:
    half = Platform(platform.settings.model_copy(update={missing: None}))
    told = "MATCHING_PLATFORM_TRAINING_REQUESTS, a subscription, and MATCHING_PLATFORM_DEAD_LETTERS, a topic; set both"
    with pytest.raises(NotConfiguredError, match=told):
        requests.training_requests(dg.build_sensor_context(resources={"platform": half}))


def test_who_names_no_subscription_has_no_sensor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert requests.defs.sensors == []
    monkeypatch.setattr(common, "SETTINGS", common.SETTINGS.model_copy(update={"training_requests": SUBSCRIPTION}))
    (sensor,) = runpy.run_path(requests.__file__)["defs"].sensors
    assert sensor.name == "training_requests"
