"""Pub/Sub on this machine, for its real clients: gRPC with Google's own messages, its limits, and faults on demand.

Google's emulator comes with the Cloud SDK only. `PUBSUB_EMULATOR_HOST` set to `Server.endpoint` leads clients here.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

import grpc
import proto
from google.iam.v1.iam_policy_pb2 import TestIamPermissionsRequest, TestIamPermissionsResponse
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import types
from google.pubsub_v1.types import PubsubMessage, ReceivedMessage

Status = grpc.StatusCode

# The service's own limits.
LARGEST_REQUEST: Final = 10_000_000
LARGEST_VALUE: Final = 1024
MOST_ATTRIBUTES: Final = 100
ACK_DEADLINES: Final = range(10, 601)


@dataclass
class Delivery:
    """A message on its way through one subscription; it is available again from `until`, a monotonic time."""

    message: PubsubMessage
    ack_id: str = ""
    attempts: int = 0
    until: float = 0.0


@dataclass
class Subscription:
    """A subscription and what it has not seen acknowledged."""

    described: types.Subscription
    deliveries: list[Delivery] = field(default_factory=list)


class Refused(Exception):
    """What the service answers instead of a result."""

    def __init__(self, status: grpc.StatusCode, told: str) -> None:
        super().__init__(told)
        self.status = status


class Server:
    """Topics and subscriptions in memory, behind an endpoint of this machine.

    A pull that finds nothing waits `wait` seconds for a message before it answers that there is none; the service itself
    waits up to 90.
    """

    def __init__(self, wait: float = 0.05) -> None:
        self.wait = wait
        self.calls: list[str] = []
        self.denied: set[str] = set()  # permissions that nobody has
        self._published: dict[str, list[PubsubMessage]] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self._faults: dict[str, list[grpc.StatusCode]] = {}
        self._changed = threading.Condition()
        self._numbers = count(time.time_ns())
        self._grpc = grpc.server(ThreadPoolExecutor(max_workers=8), options=[("grpc.max_receive_message_length", -1)])
        self._grpc.add_generic_rpc_handlers(tuple(self._handlers()))
        self.endpoint = f"127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"

    def fail(self, call: str, status: grpc.StatusCode, times: int = 1) -> None:
        """The next `times` of `call`, such as 'Pull', are answered with `status` and change nothing."""
        self._faults[call] = [status] * times

    def expire(self) -> None:
        """Lets all ack deadlines lapse now."""
        with self._changed:
            for subscription in self.subscriptions.values():
                for one in subscription.deliveries:
                    one.until = 0.0
            self._changed.notify_all()

    def messages(self, topic: str) -> list[PubsubMessage]:
        """All that was ever published to `topic`, the first one first."""
        return list(self._published[topic])

    def unacknowledged(self, subscription: str) -> list[str]:
        """The ids of the messages that `subscription` still holds."""
        return [one.message.message_id for one in self.subscriptions[subscription].deliveries]

    def deliver_again(self, subscription: str, message: PubsubMessage) -> None:
        """Delivers a message once more, though it was acknowledged: the service promises at least once, no more."""
        with self._changed:
            self.subscriptions[subscription].deliveries.append(Delivery(message))
            self._changed.notify_all()

    def create_topic(self, request: types.Topic) -> types.Topic:
        if request.name in self._published:
            raise Refused(Status.ALREADY_EXISTS, f"Resource already exists in the project (resource={request.name}).")
        self._published[request.name] = []
        return request

    def get_topic(self, request: types.GetTopicRequest) -> types.Topic:
        _known(self._published, request.topic)
        return types.Topic(name=request.topic)

    def list_topics(self, request: types.ListTopicsRequest) -> types.ListTopicsResponse:
        names = sorted(name for name in self._published if name.startswith(f"{request.project}/topics/"))
        return types.ListTopicsResponse(topics=[types.Topic(name=name) for name in names])

    def delete_topic(self, request: types.DeleteTopicRequest) -> Empty:
        _known(self._published, request.topic)
        del self._published[request.topic]
        return Empty()

    def publish(self, request: types.PublishRequest) -> types.PublishResponse:
        published = _known(self._published, request.topic)
        _check(request)
        now = datetime.now(UTC)
        for message in request.messages:
            message.message_id, message.publish_time = str(next(self._numbers)), now
            published.append(message)
            for one in self.subscriptions.values():
                if one.described.topic == request.topic:
                    one.deliveries.append(Delivery(message))
        self._changed.notify_all()
        return types.PublishResponse(message_ids=[message.message_id for message in request.messages])

    def create_subscription(self, request: types.Subscription) -> types.Subscription:
        if request.name in self.subscriptions:
            raise Refused(Status.ALREADY_EXISTS, f"Resource already exists in the project (resource={request.name}).")
        _known(self._published, request.topic)
        request.ack_deadline_seconds = request.ack_deadline_seconds or ACK_DEADLINES.start
        if request.ack_deadline_seconds not in ACK_DEADLINES:
            raise Refused(Status.INVALID_ARGUMENT, f"Invalid ack deadline given: {request.ack_deadline_seconds}.")
        self.subscriptions[request.name] = Subscription(request)
        return request

    def get_subscription(self, request: types.GetSubscriptionRequest) -> types.Subscription:
        return _known(self.subscriptions, request.subscription).described

    def delete_subscription(self, request: types.DeleteSubscriptionRequest) -> Empty:
        _known(self.subscriptions, request.subscription)
        del self.subscriptions[request.subscription]
        return Empty()

    def pull(self, request: types.PullRequest) -> types.PullResponse:
        subscription = _known(self.subscriptions, request.subscription)
        if request.max_messages < 1:
            raise Refused(Status.INVALID_ARGUMENT, "max_messages must be above zero.")

        def available() -> list[Delivery]:
            return [one for one in subscription.deliveries if one.until <= time.monotonic()]

        if not request.return_immediately:
            self._changed.wait_for(available, self.wait)
        chosen = available()[: request.max_messages]
        for one in chosen:
            one.ack_id, one.attempts = f"{one.message.message_id}-{next(self._numbers)}", one.attempts + 1
            one.until = time.monotonic() + subscription.described.ack_deadline_seconds
        received = [
            ReceivedMessage(ack_id=one.ack_id, message=one.message, delivery_attempt=one.attempts) for one in chosen
        ]
        return types.PullResponse(received_messages=received)

    def acknowledge(self, request: types.AcknowledgeRequest) -> Empty:
        """What was delivered again since keeps its newest ack id; an older one acknowledges nothing."""
        subscription = _known(self.subscriptions, request.subscription)
        subscription.deliveries = [one for one in subscription.deliveries if one.ack_id not in request.ack_ids]
        return Empty()

    def modify_ack_deadline(self, request: types.ModifyAckDeadlineRequest) -> Empty:
        subscription = _known(self.subscriptions, request.subscription)
        if not 0 <= request.ack_deadline_seconds <= ACK_DEADLINES[-1]:
            raise Refused(Status.INVALID_ARGUMENT, f"Invalid ack deadline given: {request.ack_deadline_seconds}.")
        for one in subscription.deliveries:
            if one.ack_id in request.ack_ids:
                one.until = time.monotonic() + request.ack_deadline_seconds
        self._changed.notify_all()
        return Empty()

    def test_iam_permissions(self, request: TestIamPermissionsRequest) -> TestIamPermissionsResponse:
        _known({**self._published, **self.subscriptions}, request.resource)
        return TestIamPermissionsResponse(permissions=[one for one in request.permissions if one not in self.denied])

    def start(self) -> None:
        self._grpc.start()

    def stop(self) -> None:
        self._grpc.stop(grace=None).wait()

    def _handlers(self) -> Iterator[grpc.GenericRpcHandler]:
        publisher = {
            "CreateTopic": (self.create_topic, types.Topic, types.Topic),
            "GetTopic": (self.get_topic, types.GetTopicRequest, types.Topic),
            "ListTopics": (self.list_topics, types.ListTopicsRequest, types.ListTopicsResponse),
            "DeleteTopic": (self.delete_topic, types.DeleteTopicRequest, Empty),
            "Publish": (self.publish, types.PublishRequest, types.PublishResponse),
        }
        subscriber = {
            "CreateSubscription": (self.create_subscription, types.Subscription, types.Subscription),
            "GetSubscription": (self.get_subscription, types.GetSubscriptionRequest, types.Subscription),
            "DeleteSubscription": (self.delete_subscription, types.DeleteSubscriptionRequest, Empty),
            "Pull": (self.pull, types.PullRequest, types.PullResponse),
            "Acknowledge": (self.acknowledge, types.AcknowledgeRequest, Empty),
            "ModifyAckDeadline": (self.modify_ack_deadline, types.ModifyAckDeadlineRequest, Empty),
        }
        policy = {
            "TestIamPermissions": (self.test_iam_permissions, TestIamPermissionsRequest, TestIamPermissionsResponse),
        }
        services = {
            "google.pubsub.v1.Publisher": publisher,
            "google.pubsub.v1.Subscriber": subscriber,
            "google.iam.v1.IAMPolicy": policy,
        }
        for service, calls in services.items():
            handlers = {call: self._handler(call, *described) for call, described in calls.items()}
            yield grpc.method_handlers_generic_handler(service, handlers)

    def _handler(self, call: str, answer: Callable[[Any], Any], asked: type, told: type) -> grpc.RpcMethodHandler:
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            with self._changed:
                self.calls.append(call)
                faults = self._faults.get(call)
                try:
                    if faults:
                        raise Refused(faults.pop(), f"{call} was told to fail.")
                    return answer(request)
                except Refused as error:
                    return context.abort(error.status, str(error))

        return grpc.unary_unary_rpc_method_handler(handle, _reader(asked), _writer(told))


@contextmanager
def serve(wait: float = 0.05) -> Iterator[Server]:
    """A running server; it and all that it held are gone afterwards."""
    server = Server(wait)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _known(held: dict[str, Any], name: str) -> Any:
    if name not in held:
        raise Refused(Status.NOT_FOUND, f"Resource not found (resource={name}).")
    return held[name]


def _check(request: types.PublishRequest) -> None:
    """What the service refuses to publish."""
    if len(types.PublishRequest.serialize(request)) > LARGEST_REQUEST:
        raise Refused(Status.INVALID_ARGUMENT, f"Request payload size exceeds the limit: {LARGEST_REQUEST} bytes.")
    for message in request.messages:
        if not message.data and not message.attributes:
            raise Refused(Status.INVALID_ARGUMENT, "One or more messages is empty.")
        if len(message.attributes) > MOST_ATTRIBUTES:
            raise Refused(Status.INVALID_ARGUMENT, "One or more messages has too many attributes.")
        for key, value in message.attributes.items():
            if not key or key.startswith("goog") or len(value.encode()) > LARGEST_VALUE:
                raise Refused(Status.INVALID_ARGUMENT, f"The attribute '{key}' is not allowed.")


def _reader(kind: type) -> Callable[[bytes], Any]:
    return kind.deserialize if issubclass(kind, proto.Message) else kind.FromString


def _writer(kind: type) -> Callable[[Any], bytes]:
    return kind.serialize if issubclass(kind, proto.Message) else kind.SerializeToString
