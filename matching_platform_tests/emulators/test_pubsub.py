"""The Pub/Sub server answers its real clients as the service does."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1 import ReceivedMessage

from matching_platform_tests.emulators.pubsub import Server, Status, serve

pytestmark = pytest.mark.cloud

TOPIC = "projects/acme/topics/letters"
SUBSCRIPTION = "projects/acme/subscriptions/letters"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve() as server:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", server.endpoint)
        yield server


@pytest.fixture
def publisher(server: Server) -> Iterator[PublisherClient]:
    with PublisherClient() as publisher:
        publisher.create_topic(name=TOPIC)
        yield publisher


@pytest.fixture
def subscriber(publisher: PublisherClient) -> Iterator[SubscriberClient]:
    with SubscriberClient() as subscriber:
        subscriber.create_subscription(name=SUBSCRIPTION, topic=TOPIC)
        yield subscriber


def pull(subscriber: SubscriberClient) -> list[ReceivedMessage]:
    return list(subscriber.pull(subscription=SUBSCRIPTION, max_messages=10).received_messages)


def test_what_is_not_acknowledged_comes_again(
    server: Server, publisher: PublisherClient, subscriber: SubscriberClient
) -> None:
    key = publisher.publish(TOPIC, b"hello", sender="me").result()
    (first,) = pull(subscriber)
    assert (first.message.data, dict(first.message.attributes)) == (b"hello", {"sender": "me"})
    assert (first.message.message_id, first.delivery_attempt) == (key, 1)
    assert pull(subscriber) == []
    server.expire()
    (second,) = pull(subscriber)
    assert (second.message, second.delivery_attempt) == (first.message, 2)
    subscriber.acknowledge(subscription=SUBSCRIPTION, ack_ids=[first.ack_id])
    assert server.unacknowledged(SUBSCRIPTION) == [key], "it was delivered anew since"
    subscriber.modify_ack_deadline(subscription=SUBSCRIPTION, ack_ids=[second.ack_id], ack_deadline_seconds=0)
    (third,) = pull(subscriber)
    subscriber.acknowledge(subscription=SUBSCRIPTION, ack_ids=[third.ack_id])
    server.expire()
    assert (pull(subscriber), server.unacknowledged(SUBSCRIPTION)) == ([], [])
    assert server.messages(TOPIC) == [first.message]


def test_a_pull_waits_for_what_comes(server: Server, publisher: PublisherClient, subscriber: SubscriberClient) -> None:
    server.wait = 30.0
    sent = publisher.publish(TOPIC, b"soon")
    (message,) = pull(subscriber)
    # Whoever closes the client before it has the answer is tried again in vain, in a thread.
    assert (message.message.data, message.message.message_id) == (b"soon", sent.result())


def test_topics_and_subscriptions_come_and_go(
    server: Server, publisher: PublisherClient, subscriber: SubscriberClient
) -> None:
    assert [topic.name for topic in publisher.list_topics(project="projects/acme")] == [TOPIC]
    assert publisher.get_topic(topic=TOPIC).name == TOPIC
    described = subscriber.get_subscription(subscription=SUBSCRIPTION)
    assert (described.topic, described.ack_deadline_seconds) == (TOPIC, 10)
    server.denied.add("pubsub.topics.publish")
    asked = {"resource": TOPIC, "permissions": ["pubsub.topics.get", "pubsub.topics.publish"]}
    assert list(publisher.test_iam_permissions(asked).permissions) == ["pubsub.topics.get"]
    subscriber.delete_subscription(subscription=SUBSCRIPTION)
    publisher.delete_topic(topic=TOPIC)
    assert list(publisher.list_topics(project="projects/acme")) == []


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda p, s: p.get_topic(topic="projects/acme/topics/no"), exceptions.NotFound),
        (lambda p, s: s.pull(subscription="projects/acme/subscriptions/no", max_messages=1), exceptions.NotFound),
        (lambda p, s: s.pull(subscription=SUBSCRIPTION, max_messages=0), exceptions.InvalidArgument),
        (lambda p, s: p.create_topic(name=TOPIC), exceptions.AlreadyExists),
        (lambda p, s: s.create_subscription(name=SUBSCRIPTION, topic=TOPIC), exceptions.AlreadyExists),
        (lambda p, s: s.create_subscription(name=f"{SUBSCRIPTION}-2", topic="no"), exceptions.NotFound),
        (
            lambda p, s: s.create_subscription(
                request={"name": f"{SUBSCRIPTION}-2", "topic": TOPIC, "ack_deadline_seconds": 601}
            ),
            exceptions.InvalidArgument,
        ),
        (lambda p, s: p.publish(TOPIC, b"").result(), exceptions.InvalidArgument),
        (lambda p, s: p.publish(TOPIC, b"a", note="x" * 1025).result(), exceptions.InvalidArgument),
        (lambda p, s: p.publish(TOPIC, b"a", googlish="x").result(), exceptions.InvalidArgument),
    ],
)
def test_what_the_service_refuses(
    publisher: PublisherClient, subscriber: SubscriberClient, ask: Callable[..., Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        ask(publisher, subscriber)


def test_a_fault_comes_as_often_as_it_is_told_to(server: Server, subscriber: SubscriberClient) -> None:
    server.fail("Pull", Status.PERMISSION_DENIED, times=2)
    for _ in range(2):
        with pytest.raises(exceptions.PermissionDenied):
            pull(subscriber)
    assert pull(subscriber) == []
    assert server.calls.count("Pull") == 3
