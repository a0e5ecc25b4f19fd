"""The second blessing: does a server serve? Everything is asked over HTTP, wherever it runs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import httpx
import polars as pl

from matching_platform.delivery.acceptance.answers import Request, examine_answers, requests_of
from matching_platform.delivery.acceptance.limits import Limits
from matching_platform.delivery.acceptance.load import Question, examine_load
from matching_platform.delivery.acceptance.malformed import examine_malformed
from matching_platform.delivery.acceptance.shutdown import examine_shutdown
from matching_platform.delivery.probe import answers
from matching_platform.learning.examination import Exam
from matching_platform.learning.gate import Verdict
from matching_platform.ledger.wire import proposal_rows

# Each sentence must be true before a server gets traffic.
SENTENCES: Final = {
    "answers": "The server proposes for the frozen test what its model proposes.",
    "served_quality": "Its answers are as right as the model's own: accuracy, precision and recall.",
    "schema": "Its answers are of the contract's form, each transfer once, money conserved; it names its version.",
    "malformed": "What is malformed is refused, with table, row and column, and the server answers well afterwards.",
    "latency": "Under load, requests are answered in time.",
    "throughput": "Under load, enough requests are answered.",
    "memory": "It keeps within its memory and does not grow under load.",
    "shutdown": "When it is ended, every request under way is answered.",
}
CHECKS: Final = tuple(SENTENCES)

# The load: one transfer against what a company of some size has open.
_SINGLES: Final = 20
_INVOICES: Final = 200

Part = tuple[tuple[str, ...], Callable[[], list[Verdict]]]


def examine(
    url: str, model: Path, exam: Exam, limits: Limits, terminate: Callable[[], None], version: str
) -> list[Verdict]:
    """A verdict for each of CHECKS on the server at `url`, which should serve the model in folder `model` as `version`.

    `terminate` ends it, at last. A server that does not answer, or answers rubbish, fails its checks with a reason; from
    the first silence on, nothing more is asked. Raises ModelError where the model itself does not load.
    """
    verdicts: list[Verdict] = []
    silent = ""
    for names, part in _parts(url, model, exam, limits, terminate, version):
        try:
            verdicts += part() if not silent else [Verdict(name, False, silent) for name in names]
        except httpx.TransportError as error:
            reason = f"{url} did not answer: {error!r}"
            silent = f"not examined, because the server was silent at '{names[0]}'"
            verdicts += [Verdict(name, False, reason) for name in names]
        except (httpx.HTTPError, ValueError) as error:
            verdicts += [Verdict(name, False, str(error)) for name in names]
    return verdicts


def _parts(
    url: str, model: Path, exam: Exam, limits: Limits, terminate: Callable[[], None], version: str
) -> Iterator[Part]:
    # The environment's settings hold limits, and need no torch.
    from matching_platform.matching.matcher import Matcher

    matcher = Matcher.load(model)
    requests = requests_of(exam)
    own = [matcher.propose(one.transfers, one.invoices) for one in requests]
    longest, its_own = max(zip(requests, own, strict=True), key=lambda one: one[0].transfers.height)

    def load() -> list[Verdict]:
        singles = [_question(one, matcher.propose(one.transfers, one.invoices)) for one in _singles(requests[-1])]
        return examine_load(url, singles, limits)

    def shutdown() -> list[Verdict]:
        return [examine_shutdown(url, _question(longest, its_own), terminate, limits)]

    yield (
        ("answers", "served_quality", "schema"),
        lambda: examine_answers(url, version, requests, own, exam, matcher.card, limits),
    )
    yield ("malformed",), lambda: [examine_malformed(url, answers(model), limits.answer_seconds)]
    yield ("latency", "throughput", "memory"), load
    yield ("shutdown",), shutdown


def _singles(request: Request) -> list[Request]:
    """The transfers of the request one by one, with the newest open invoices."""
    invoices = request.invoices.filter(pl.col("open_amount") != 0).tail(_INVOICES)
    return [Request(request.month, one, invoices) for one in request.transfers.tail(_SINGLES).iter_slices(1)]


def _question(request: Request, own: pl.DataFrame) -> Question:
    return Question(request.content, proposal_rows(own))
