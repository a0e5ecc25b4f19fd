"""The frozen test, asked of a server: are its answers whole, its model's own, and as right?"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import httpx
import numpy as np
import polars as pl

from matching_platform.delivery.acceptance import schema
from matching_platform.delivery.acceptance.limits import Limits
from matching_platform.delivery.acceptance.server import asking, match, tables, told
from matching_platform.delivery.probe import differences, given
from matching_platform.learning.examination import Exam
from matching_platform.learning.gate import Verdict
from matching_platform.learning.yardstick import evaluate
from matching_platform.ledger.wire import proposal_rows
from matching_platform.matching.balances import open_amounts
from matching_platform.matching.history import History, Month

FIGURES: Final = ("exact", "precision", "recall")

# What a server can be asked at once, whatever its model.
_TRANSFERS_AT_ONCE: Final = 2_000

Card = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """Validated tables: transfers of a month, and the invoices one may have in mind then, with what is open of them."""

    month: str
    transfers: pl.DataFrame
    invoices: pl.DataFrame

    @property
    def content(self) -> bytes:
        return json.dumps(tables(self.transfers, self.invoices)).encode()


@dataclass(frozen=True)
class Answered:
    """A request, the body of the server's answer, and the model's own proposals."""

    request: Request
    content: bytes
    own: pl.DataFrame


def requests_of(exam: Exam) -> list[Request]:
    """What is asked: for each month its transfers, 2,000 at a time, in order of booking.

    A service has no memory of months but what travels in the model, so all that earlier months tell is what is open.
    """
    history = History.of(exam.ledger)
    return [request for month in exam.months for request in _of_month(exam, history.month(month), month)]


def _of_month(exam: Exam, known: Month, month: str) -> Iterator[Request]:
    every = np.arange(known.invoices.height)
    settled = known.settlements(known.earlier).before(every, np.zeros(len(every), np.int64))
    invoices = known.invoices.select(exam.ledger.invoices.columns).with_columns(
        open_amount=pl.Series(open_amounts(known.invoices["amount"].to_numpy(), settled), dtype=pl.Int64)
    )
    transfers = known.transfers.select(exam.ledger.transfers.columns)
    for portion in transfers.iter_slices(_TRANSFERS_AT_ONCE):
        yield Request(month, portion, invoices)


def examine_answers(
    url: str, version: str, requests: list[Request], own: list[pl.DataFrame], exam: Exam, card: Card, limits: Limits
) -> list[Verdict]:
    """The verdicts on answers, served quality and schema; AnswerError where the server does not answer with 200."""
    with asking(url, limits.answer_seconds) as client:
        started = perf_counter()
        contents = [match(client, request.content) for request in requests]
        seconds = perf_counter() - started
        others = _beside_matching(client, version, card)
    answered = [Answered(*one) for one in zip(requests, contents, own, strict=True)]
    return [
        _answers(answered, seconds),
        _served_quality(answered, exam, limits),
        _schema(answered, version, others),
    ]


def _answers(answered: list[Answered], seconds: float) -> Verdict:
    transfers = sum(one.request.transfers.height for one in answered)
    try:
        different = [line for one in answered for line in differences(proposal_rows(one.own), given(one.content))]
    except ValueError as error:
        return Verdict("answers", False, f"/match did not answer with proposals: {error}")
    figures = {
        "transfers": float(transfers),
        "different": float(len(different)),
        "batch_transfers_per_second": transfers / seconds,
    }
    fine = f"{transfers:,} transfers in {len(answered)} requests are answered as by the model itself"
    otherwise = f"{len(different):,} of {transfers:,} transfers are answered otherwise than by the model itself: "
    return Verdict("answers", not different, otherwise + schema.some(different) if different else fine, figures)


def _served_quality(answered: list[Answered], exam: Exam, limits: Limits) -> Verdict:
    try:
        served = pl.concat(schema.frame(one.content) for one in answered)
    except ValueError as error:
        return Verdict("served_quality", False, f"the answers cannot be judged: {error}")
    judged, own = (evaluate(rows, exam.truth).figures for rows in (served, pl.concat(one.own for one in answered)))
    problems = [
        f"{name} is {judged[name]:.4f} where the model's own is {own[name]:.4f}"
        for name in FIGURES
        if abs(judged[name] - own[name]) > limits.tolerance
    ]
    figures = {name: judged[name] for name in FIGURES} | {f"own_{name}": own[name] for name in FIGURES}
    figures["judged_transfers"] = judged["transfers"]
    fine = ", ".join(f"{name} {judged[name]:.4f}" for name in FIGURES)
    fine += f" on {judged['transfers']:,.0f} transfers of the frozen test, as the model itself"
    return Verdict("served_quality", not problems, "; ".join(problems) or fine, figures)


def _schema(answered: list[Answered], version: str, others: list[str]) -> Verdict:
    problems, rows = list(others), 0
    for one in answered:
        try:
            found = schema.frame(one.content, version)
        except ValueError as error:
            problems.append(f"{one.request.month}: {error}")
            continue
        rows += found.height
        problems += schema.problems(found, one.request.transfers, one.request.invoices)
    fine = f"{rows:,} rows are as the contract says, every transfer once, and money is conserved"
    figures = {"rows": float(rows), "problems": float(len(problems))}
    return Verdict("schema", not problems, schema.some(problems) or fine, figures)


def _beside_matching(client: httpx.Client, version: str, card: Card) -> list[str]:
    """What the other addresses of the contract answer that they must not."""
    answers = {path: client.get(path) for path in ("/healthz", "/readyz", "/metrics", "/model")}
    problems = [f"{path} answered {one.status_code}" for path, one in answers.items() if one.status_code != 200]
    if "# TYPE " not in answers["/metrics"].text:
        problems.append("/metrics is not in the Prometheus format")
    said = told(answers["/model"])
    if said is None:
        return [*problems, "/model did not answer with a card"]
    expected = {"version": version, **{name: card[name] for name in ("trained_until", "figures")}}
    wrong = {name: value for name, value in expected.items() if said.get(name) != value}
    return [*problems, *(f"/model says {said.get(name)!r} for {name}, not {value!r}" for name, value in wrong.items())]
