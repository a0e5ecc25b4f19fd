"""A server under load, and what it takes of memory meanwhile.

The load is a closed loop: each client sends its next request when the last one is answered. A thread for each client is
enough, because it mostly waits; what the clients take themselves is measured too.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from time import perf_counter, process_time
from typing import Final

import httpx
import numpy as np

from matching_platform.delivery.acceptance.limits import Limits
from matching_platform.delivery.acceptance.schema import some
from matching_platform.delivery.acceptance.server import asking, gauge, match
from matching_platform.delivery.probe import Proposals, differences, given
from matching_platform.learning.gate import Verdict

MEMORY: Final = "matching_memory_bytes"
PEAK_MEMORY: Final = "matching_peak_memory_bytes"
STARTED: Final = "matching_start_time_seconds"

_PERCENTILES: Final = (50, 95, 99)
_MEGABYTE: Final = 1e6
# Of a core, which Python's threads share: above that the clients may be what is slow.
_BUSY: Final = 0.5


@dataclass(frozen=True)
class Question:
    """The body of a request, and the proposals that answer it."""

    content: bytes
    expected: Proposals


@dataclass(frozen=True)
class Load:
    """Seconds that each request took that was answered well, what was wrong with the others, for how long was asked, and
    the share of a core that the clients took."""

    latencies: list[float]
    problems: list[str]
    seconds: float
    clients: float


@dataclass(frozen=True)
class Process:
    """What `/metrics` tells of the process that matches: bytes of resident memory, now and at most, and its start."""

    memory: float
    peak: float
    started: float

    @classmethod
    def of(cls, url: str, limits: Limits) -> "Process":
        with asking(url, limits.answer_seconds) as client:
            return cls(gauge(client, MEMORY), gauge(client, PEAK_MEMORY), gauge(client, STARTED))


def examine_load(url: str, questions: Sequence[Question], limits: Limits) -> list[Verdict]:
    """The verdicts on latency, throughput and memory, where `questions` are asked again and again."""
    _load(url, questions, limits, limits.warm_up_seconds)
    before = Process.of(url, limits)
    load = _load(url, questions, limits, limits.load_seconds)
    verdicts = [_latency(load, limits), _throughput(load, limits)]
    try:
        return [*verdicts, _memory(before, Process.of(url, limits), limits)]
    except (httpx.HTTPError, ValueError) as error:
        return [*verdicts, Verdict("memory", False, f"after the load: {error!r}")]


def _load(url: str, questions: Sequence[Question], limits: Limits, seconds: float) -> Load:
    latencies: list[float] = []
    problems: list[str] = []
    turn, started, worked = count(), perf_counter(), process_time()

    def ask() -> None:
        with asking(url, limits.answer_seconds) as client:
            while perf_counter() - started < seconds:
                try:
                    latencies.append(_timed(client, questions[next(turn) % len(questions)]))
                except httpx.TransportError as error:
                    problems.append(f"no answer: {error!r}")
                    return  # A server that is gone refuses connections by the thousand.
                except (httpx.HTTPError, ValueError) as error:
                    problems.append(str(error))

    with ThreadPoolExecutor(limits.connections) as pool:
        for client in [pool.submit(ask) for _ in range(limits.connections)]:
            client.result()
    asked = perf_counter() - started
    return Load(latencies, problems, asked, (process_time() - worked) / asked)


def _timed(client: httpx.Client, question: Question) -> float:
    """Seconds until the answer came; ValueError where it is not the right one."""
    started = perf_counter()
    content = match(client, question.content)
    seconds = perf_counter() - started
    if different := differences(question.expected, given(content)):
        raise ValueError(different[0])
    return seconds


def _latency(load: Load, limits: Limits) -> Verdict:
    problems = _errors(load)
    if not load.latencies:
        return Verdict("latency", False, "; ".join(problems) or "nothing was answered under load", _counts(load))
    found = {f"p{share}": float(np.percentile(load.latencies, share)) * 1000 for share in _PERCENTILES}
    told = ", ".join(f"{name} {value:,.0f} ms" for name, value in found.items())
    told += f", {limits.p99_milliseconds:,.0f} ms allowed, of {len(load.latencies)} requests of one transfer"
    if found["p99"] > limits.p99_milliseconds:
        problems.append(f"too slow under load: {told}{_doubt(load)}")
    figures = {f"{name}_milliseconds": value for name, value in found.items()}
    return Verdict("latency", not problems, "; ".join(problems) or told, figures | _counts(load))


def _throughput(load: Load, limits: Limits) -> Verdict:
    speed = len(load.latencies) / load.seconds
    told = f"{speed:,.1f} requests of one transfer a second from {limits.connections} clients"
    problems = _errors(load)
    if speed < limits.requests_per_second:
        problems.append(f"{told}, fewer than {limits.requests_per_second:,.1f}{_doubt(load)}")
    figures = {"requests_per_second": speed, "transfers_per_second": speed, "clients_share_of_a_core": load.clients}
    return Verdict("throughput", not problems, "; ".join(problems) or told, figures | _counts(load))


def _memory(before: Process, after: Process, limits: Limits) -> Verdict:
    peak, growth = after.peak / _MEGABYTE, (after.memory - before.memory) / _MEGABYTE
    problems = []
    if peak > limits.memory_megabytes:
        problems.append(f"it took {peak:,.0f} MB at most, more than {limits.memory_megabytes:,.0f} MB")
    if growth > limits.growth_megabytes:
        problems.append(f"it grew by {growth:,.0f} MB under load, more than {limits.growth_megabytes:,.0f} MB")
    if after.started != before.started:
        problems.append("the process ended under load, and another took its place")
    fine = f"{peak:,.0f} MB at most, {growth:+,.0f} MB under load"
    figures = {"peak_megabytes": peak, "growth_megabytes": growth}
    return Verdict("memory", not problems, "; ".join(problems) or fine, figures)


def _errors(load: Load) -> list[str]:
    if not load.problems:
        return []
    return [
        f"{len(load.problems)} of {len(load.latencies) + len(load.problems)} requests failed: {some(load.problems)}"
    ]


def _counts(load: Load) -> dict[str, float]:
    return {"requests": float(len(load.latencies)), "errors": float(len(load.problems))}


def _doubt(load: Load) -> str:
    if load.clients < _BUSY:
        return ""
    return (
        f"; the clients themselves took {load.clients:.0%} of a core, so the server may be faster: ask from elsewhere"
    )
