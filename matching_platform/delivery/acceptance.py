"""Does a running service answer as the model it was built from, fast enough, and refuse what it must refuse?"""

import json
import math
import time
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import polars as pl

from matching_platform.delivery.probe import differences, given
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
    """What was found: `problems` in words, and latencies in seconds of `requests` requests of one transfer each.

    Where there are problems nothing was timed: no requests, and latencies that are NaN.
    """

    requests: int
    p50: float
    p95: float
    p99: float
    problems: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        return not self.problems


def accept(
    url: str, model: Path, transfers: pl.DataFrame, invoices: pl.DataFrame, requests: int = REQUESTS
) -> AcceptanceResult:
    """Compares the service at `url` with the model in folder `model` on validated tables, at least one transfer.

    One request holds all transfers; where it is answered well, `requests` requests of one transfer each are timed, all
    against `invoices`. A service that does not answer, or not in the contract's form, has that as its problem.
    """
    latencies: list[float] = []
    with httpx.Client(base_url=url, timeout=120.0, trust_env=False) as client:
        try:
            problems = [*_wrong_answers(client, model, transfers, invoices), *_not_refused(client)]
            if not problems:
                latencies = _latencies(client, to_rows(transfers), to_rows(invoices), requests)
        except httpx.HTTPError as error:
            problems = [f"{url} does not answer: {error!r}"]
    if problems:
        return AcceptanceResult(0, math.nan, math.nan, math.nan, tuple(problems))
    p50, p95, p99 = (float(value) for value in np.percentile(latencies, (50, 95, 99)))
    return AcceptanceResult(requests, p50, p95, p99, ())


def _wrong_answers(client: httpx.Client, model: Path, transfers: pl.DataFrame, invoices: pl.DataFrame) -> list[str]:
    answer = client.post("/match", json={"transfers": to_rows(transfers), "invoices": to_rows(invoices)})
    if answer.status_code != httpx.codes.OK:
        return [f"/match answered {answer.status_code}: {answer.text}"]
    expected = proposal_rows(Matcher.load(model).propose(transfers, invoices))
    try:
        return differences(expected, given(answer.content))
    except ValueError as error:
        return [f"/match did not answer with proposals: {error}"]


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
