"""What Prometheus is told of the desk: requests, decisions, what waits, and who was refused."""

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER: Final = "other"


class Metrics:
    """The metrics of one desk, in a registry of its own."""

    def __init__(self, state: Collector) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route")
        self._requests = Counter(
            "desk_requests_total", "Requests, by route and status", (*labels, "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "desk_request_seconds", "How long they took", labels, buckets=SECONDS, registry=self.registry
        )
        self.registry.register(state)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts one request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


class Measured:
    """Middleware that counts requests by the template of their route, so that labels stay few."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = 500, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            method, route = _named(scope)
            self._metrics.answered(method, route, status, time.perf_counter() - began)


def _named(scope: Scope) -> tuple[str, str]:
    """Method and template; what somebody makes up has one name in common."""
    method = scope["method"] if scope["method"] in METHODS else OTHER
    template = getattr(scope.get("route"), "path", None)
    return method, OTHER if template is None else f"{scope.get('root_path', '')}{template}"
