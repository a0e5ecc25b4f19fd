"""Does a running service answer as the model it was built from, fast enough, and refuse what it must refuse?"""

import json
import time
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import polars as pl

from matching_platform.delivery.probe import differences
from matching_platform.ledger.wire import proposal_rows, to_rows
from matching_platform.matching.matcher import Matcher

REQUESTS: Final = 50

MALFORMED: Final[dict[str, Any]] = {
    "no JSON": b"{",
    "no object": b"[]",
    "no transfers": {"invoices": []},
    "rows that are no list": {"transfers": {}, "invoices": []},
    "a row that is no object": {"transfers": [1], "invoices": []},
    "a row without its columns": {"transfers": [{}], "invoices": []},
}


@dataclass(frozen=True)
class AcceptanceResult:
    """What was found: `problems` in words, and latencies in seconds of `requests` requests of one transfer each."""

    requests: int
    p50: float
    p95: float
    p99: float
    problems: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        return {"accepted": self.accepted, **asdict(self)}


def accept(
    url: str, model: Path, transfers: pl.DataFrame, invoices: pl.DataFrame, requests: int = REQUESTS
) -> AcceptanceResult:
    """Compares the service at `url` with the model in folder `model` on validated tables, at least one transfer.

    One request holds all transfers; then `requests` requests of one transfer each are timed, all against `invoices`.
    httpx.TransportError where the service cannot be reached.
    """
    with httpx.Client(base_url=url, timeout=120.0, trust_env=False) as client:
        problems = [*_wrong_answers(client, model, transfers, invoices), *_not_refused(client)]
        latencies = _latencies(client, to_rows(transfers), to_rows(invoices), requests)
    p50, p95, p99 = (float(value) for value in np.percentile(latencies, (50, 95, 99)))
    return AcceptanceResult(requests, p50, p95, p99, tuple(problems))


def _wrong_answers(client: httpx.Client, model: Path, transfers: pl.DataFrame, invoices: pl.DataFrame) -> list[str]:
    answer = client.post("/match", json={"transfers": to_rows(transfers), "invoices": to_rows(invoices)})
    if answer.status_code != httpx.codes.OK:
        return [f"/match answered {answer.status_code}: {answer.text}"]
    expected = proposal_rows(Matcher.load(model).propose(transfers, invoices))
    return differences(expected, answer.json()["proposals"])


def _not_refused(client: httpx.Client) -> list[str]:
    problems = []
    for name, request in MALFORMED.items():
        content = request if isinstance(request, bytes) else json.dumps(request).encode()
        status = client.post("/match", content=content).status_code
        if status != httpx.codes.BAD_REQUEST:
            problems.append(f"{name} was answered with {status}, not 400")
    return problems


def _latencies(
    client: httpx.Client, transfers: list[dict[str, Any]], invoices: list[dict[str, Any]], requests: int
) -> list[float]:
    seconds = []
    for transfer in islice(cycle(transfers), requests):
        content = json.dumps({"transfers": [transfer], "invoices": invoices}).encode()
        started = time.perf_counter()
        client.post("/match", content=content).raise_for_status()
        seconds.append(time.perf_counter() - started)
    return seconds
