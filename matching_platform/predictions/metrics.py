"""What the service tells Prometheus, besides what BentoML does."""

import resource
import sys
from functools import cache
from typing import Any, Final

import numpy as np
import polars as pl
import psutil

from matching_platform.predictions.log import Figures

OUTCOMES: Final = ("answered", "refused", "too_large", "failed")
# In seconds; a request may take 120.
SECONDS: Final = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
# Fine where it is decided what may be booked.
CONFIDENCES: Final = (
    *(0.1, 0.25, 0.5, 0.75, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985),
    *(0.99, 0.9925, 0.995, 0.9975, 0.998, 0.999, 1.0),
)
_COUNTERS: Final = {
    "written": "Requests written to the prediction log",
    "dropped": "Requests that the prediction log lost because too many waited",
    "failures": "Attempts to write the prediction log that failed",
}
_GAUGES: Final = {
    "matching_memory_bytes": "Resident memory",
    "matching_peak_memory_bytes": "Most resident memory since the start",
    "matching_start_time_seconds": "When the process started, in Unix time",
    "matching_booked_from": "From which confidence is booked unattended; 1.1: nothing is",
    "matching_frozen": "Whether nothing may be booked unattended",
    "matching_permission_age_seconds": "Since the record of what may be booked was last read",
    "matching_log_backlog_requests": "Requests that wait to be written to the prediction log",
    "matching_log_backlog_bytes": "Memory that they take",
    "matching_log_flushed_timestamp_seconds": "All requests before this moment are written or dropped, in Unix time",
}
# The unit of `ru_maxrss`.
_MAXRSS_BYTES: Final = 1 if sys.platform == "darwin" else 1024


class ServiceMetrics:
    """The metrics of one process. Of a gauge, the newest process's value holds, should one have ended."""

    def __init__(self, version: str, trained_until: str) -> None:
        # BentoML says in the environment where processes share their metrics, which has to be known before this import.
        from prometheus_client import Counter, Gauge, Histogram

        def counter(name: str, documentation: str, labels: tuple[str, ...] = ()) -> Any:
            return Counter(name, documentation, labelnames=labels)

        def gauge(name: str, documentation: str, labels: tuple[str, ...] = ()) -> Any:
            return Gauge(name, documentation, labelnames=labels, multiprocess_mode="mostrecent")

        self._process = psutil.Process()
        self._requests = counter("matching_requests_total", "Matchings asked for, by outcome", ("outcome",))
        for outcome in OUTCOMES:
            self._requests.labels(outcome)  # A rate needs the zero before the first.
        self._seconds = Histogram("matching_request_seconds", "How long a matching took", buckets=SECONDS)
        self._transfers = counter("matching_transfers_total", "Transfers matched, by decision", ("decision",))
        self._confidence = Histogram("matching_confidence", "How sure a transfer's proposal is", buckets=CONFIDENCES)
        labels = ("version", "trained_until")
        gauge("matching_model_info", "The model that serves", labels).labels(version, trained_until).set(1)
        # Made when first set: a server without a log has no metrics of one.
        self._gauge = cache(lambda name: gauge(name, _GAUGES[name]))
        self._log = cache(lambda name: counter(f"matching_log_{name}_total", _COUNTERS[name]))
        self._told = dict.fromkeys(_COUNTERS, 0)
        self.set("matching_start_time_seconds", self._process.create_time())

    def set(self, name: str, value: float) -> None:
        """Sets one of the gauges."""
        self._gauge(name).set(value)

    def measure(self) -> None:
        """Notes how much memory is in use, of the process that matches; its supervisor has some of its own."""
        self.set("matching_memory_bytes", self._process.memory_info().rss)
        self.set("matching_peak_memory_bytes", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES)

    def asked(self, outcome: str, seconds: float) -> None:
        """Counts one request."""
        self._requests.labels(outcome).inc()
        self._seconds.observe(seconds)

    def proposed(self, proposals: pl.DataFrame) -> None:
        """Counts what was proposed, transfer by transfer."""
        transfers = proposals.unique("transfer_id")
        for decision, count in transfers.group_by("decision").len().iter_rows():
            self._transfers.labels(decision).inc(count)
        sure = transfers["confidence"].to_numpy()
        # What `observe` does for one value; one by one, a month's transfers would take longer than many a matching.
        counts = np.bincount(np.searchsorted(CONFIDENCES, sure), minlength=len(CONFIDENCES) + 1)
        self._confidence._sum.inc(float(sure.sum()))
        for bucket, count in zip(self._confidence._buckets, counts.tolist(), strict=True):
            bucket.inc(count)

    def logged(self, figures: Figures) -> None:
        """Tells how the prediction log stands."""
        self.set("matching_log_backlog_requests", figures.backlog)
        self.set("matching_log_backlog_bytes", figures.backlog_bytes)
        self.set("matching_log_flushed_timestamp_seconds", figures.whole_until.timestamp())
        for name, told in self._told.items():
            total = getattr(figures, name)
            self._log(name).inc(total - told)
            self._told[name] = total

    def permitted(self, *, frozen: bool, age: float) -> None:
        """Tells what may be booked unattended; `age` in seconds, infinite where the record was never read."""
        self.set("matching_frozen", frozen)
        self.set("matching_permission_age_seconds", age)
