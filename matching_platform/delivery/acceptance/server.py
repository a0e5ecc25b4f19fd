"""Asking a server that may be anything."""

from math import isfinite
from typing import Any, Final

import httpx
import polars as pl
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter, ValidationError

from matching_platform.ledger.wire import to_rows

_CONNECT_SECONDS: Final = 5.0
_SHOWN: Final = 500  # characters of a refusal
_OBJECT: Final = TypeAdapter(dict[str, Any])


class AnswerError(ValueError):
    """An answer that is not what the contract says."""


def asking(url: str, seconds: float) -> httpx.Client:
    """A client of the server at `url`, which is silent where it takes so many seconds; then httpx.TransportError."""
    timeout = httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
    return httpx.Client(base_url=url, timeout=timeout, trust_env=False)


def match(client: httpx.Client, content: bytes) -> bytes:
    """The body of the answer of `/match`; AnswerError where it is not 200."""
    answer = client.post("/match", content=content, headers={"content-type": "application/json"})
    if answer.status_code != httpx.codes.OK:
        raise AnswerError(f"/match answered {answer.status_code}: {answer.text[:_SHOWN]}")
    return answer.content


def told(answer: httpx.Response) -> dict[str, Any] | None:
    """The JSON object that is the body of an answer; None where it is something else."""
    try:
        return _OBJECT.validate_json(answer.content)
    except ValidationError:
        return None


def tables(transfers: pl.DataFrame, invoices: pl.DataFrame) -> dict[str, Any]:
    """A request of validated tables."""
    return {"transfers": to_rows(transfers), "invoices": to_rows(invoices)}


def gauge(client: httpx.Client, name: str, **labels: str) -> float:
    """The sum of the figures of that name on `/metrics` that carry `labels`; AnswerError where there is none."""
    answer = client.get("/metrics")
    if answer.status_code != httpx.codes.OK:
        raise AnswerError(f"/metrics answered {answer.status_code}")
    try:
        families = list(text_string_to_metric_families(answer.text))
    except (ValueError, LookupError) as error:
        raise AnswerError(f"/metrics is not in the Prometheus format: {error}") from error
    found = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    if not found or not isfinite(sum(found)):
        raise AnswerError(f"/metrics does not tell {name}")
    return float(sum(found))
