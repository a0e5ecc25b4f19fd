"""What the front counts of the servers behind it: how often each was asked, failed, took how long, answered otherwise."""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

# The latest requests, from which the percentiles come.
RECENT: Final = 1000
WORDS: Final = 10
BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

COUNTERS: Final = {
    "requests": "Matchings that a server was asked for",
    "errors": "Those that it answered with 5xx, or not at all, or where another server had to answer",
    "copies": "Copies of requests that wait for it, or were sent to it",
    "dropped": "Copies that were not sent, because too many waited",
    "compared": "Transfers that it answered as a copy, besides another server",
    "different": "Those that it answered otherwise than the other server",
}


@dataclass(frozen=True)
class Counts:
    """The counters of one server, its latencies in seconds, and its last differences in words."""

    requests: int
    errors: int
    copies: int
    dropped: int
    compared: int
    different: int
    p50: float | None
    p95: float | None
    differences: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """The servers that a front sends requests to, by their addresses. `front` changes when counting begins anew."""

    front: str
    server: str | None
    challenger: str | None
    servers: dict[str, Counts]


@dataclass
class Tally:
    """What is counted of one server."""

    requests: int = 0
    errors: int = 0
    copies: int = 0
    dropped: int = 0
    compared: int = 0
    different: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    differences: deque[str] = field(default_factory=lambda: deque(maxlen=WORDS))
    total: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    def add(self, seconds: float, *, failed: bool) -> None:
        """One request, and how long it took."""
        self.requests += 1
        self.errors += failed
        self.recent.append(seconds)
        self.total += seconds
        self.buckets[bisect_left(BOUNDS, seconds)] += 1

    def compare(self, transfers: int, differences: Sequence[str]) -> None:
        """One answer to a copy, of so many transfers, with its differences in words."""
        self.compared += transfers
        self.different += len(differences)
        self.differences.extend(differences)

    def counts(self) -> Counts:
        counters = {name: getattr(self, name) for name in COUNTERS}
        return Counts(**counters, p50=self._share(0.5), p95=self._share(0.95), differences=tuple(self.differences))

    def _share(self, share: float) -> float | None:
        """The time in which this share of the recent requests was answered."""
        ordered = sorted(self.recent)
        return ordered[int(share * (len(ordered) - 1))] if ordered else None


class Figures(Collector):
    """Tallies by the servers' addresses, as Prometheus collects them too."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}

    def of(self, address: str) -> Tally:
        return self._tallies.setdefault(address, Tally())

    def keep(self, addresses: Iterable[str]) -> None:
        """Forgets the servers that get no requests any more; a later one at the same address begins at zero."""
        for gone in self._tallies.keys() - set(addresses):
            del self._tallies[gone]

    def counts(self) -> dict[str, Counts]:
        return {address: tally.counts() for address, tally in self._tallies.items()}

    def collect(self) -> Iterator[Metric]:
        for name, meaning in COUNTERS.items():
            counter = CounterMetricFamily(f"front_{name}", meaning, labels=["server"])
            for address, tally in self._tallies.items():
                counter.add_metric([address], getattr(tally, name))
            yield counter
        histogram = HistogramMetricFamily("front_seconds", "How long a server took to answer", labels=["server"])
        bounds = [*map(str, BOUNDS), "+Inf"]
        for address, tally in self._tallies.items():
            cumulated = list(zip(bounds, accumulate(tally.buckets), strict=True))
            histogram.add_metric([address], cumulated, tally.total)
        yield histogram
