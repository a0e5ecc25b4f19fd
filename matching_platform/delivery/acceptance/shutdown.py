"""A server is ended while it works: is everything answered that it was asked?"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter, sleep
from typing import Final

import httpx

from matching_platform.delivery.acceptance.limits import Limits
from matching_platform.delivery.acceptance.load import STARTED, Question
from matching_platform.delivery.acceptance.schema import some
from matching_platform.delivery.acceptance.server import AnswerError, asking, gauge, match
from matching_platform.delivery.probe import differences, given
from matching_platform.learning.gate import Verdict

IN_PROGRESS: Final = "bentoml_service_request_in_progress"

# Where too few are under way at the same time, twice as many are asked.
_ATTEMPTS: Final = 3
_LEAST_LATE: Final = 2
_POLL_SECONDS: Final = 0.02
# Who has ended does not answer; what stands before him may go on trying.
_GONE_SECONDS: Final = 1.0


@dataclass(frozen=True)
class _Answer:
    """When an answer came, on the clock of `perf_counter`, and what was wrong with it."""

    when: float
    problem: str | None


def examine_shutdown(url: str, question: Question, terminate: Callable[[], None], limits: Limits) -> Verdict:
    """The verdict on the requests under way when `terminate` ends the server, as RuntimeError or OSError say it cannot.

    `question`, which should take long, is asked several times at once. Only when the server's own gauge shows all of
    them in progress, but for what is answered, is it ended: a server that has answered before proves nothing.
    """
    requests = limits.in_flight
    with asking(url, limits.answer_seconds) as client:
        started = gauge(client, STARTED)
        match(client, question.content)  # There is no gauge of what was never asked.
        for _ in range(_ATTEMPTS):
            with ThreadPoolExecutor(requests) as pool:
                asked = [pool.submit(_ask, url, question, limits.answer_seconds) for _ in range(requests)]
                if _under_way(client, asked, limits.answer_seconds) >= requests / 2:
                    told = perf_counter()
                    failure = _failure(terminate)
                    seconds = perf_counter() - told
                    break
            requests *= 2
        else:
            return Verdict("shutdown", False, f"{requests // 2} requests are answered before it can be ended under way")
    answers = [one.result() for one in asked]
    problems = [failure] if failure else []
    if lost := [one.problem for one in answers if one.problem]:
        problems.append(f"{len(lost)} of {requests} requests were lost: {some(lost)}")
    late = sum(one.when > told for one in answers if not one.problem)
    if not problems and late < _LEAST_LATE:
        problems.append(f"only {late} of {requests} requests were under way when it was told to end")
    if not failure and _started(url) == started:
        problems.append("it was told to end and still answers")
    fine = f"{late} requests under way were all answered rightly within the {seconds:.1f} s that it took to end"
    figures = {"under_way": float(late), "lost": float(len(lost)), "shutdown_seconds": seconds}
    return Verdict("shutdown", not problems, "; ".join(problems) or fine, figures)


def _ask(url: str, question: Question, seconds: float) -> _Answer:
    try:
        with asking(url, seconds) as client:
            different = differences(question.expected, given(match(client, question.content)))
    except (httpx.HTTPError, ValueError) as error:
        return _Answer(perf_counter(), repr(error))
    return _Answer(perf_counter(), different[0] if different else None)


def _under_way(client: httpx.Client, asked: Sequence[Future[_Answer]], seconds: float) -> int:
    """How many of those `asked` are in progress when all have arrived; AnswerError where that takes so many seconds."""
    deadline = perf_counter() + seconds
    while perf_counter() < deadline:
        answered = sum(one.done() for one in asked)
        if answered + gauge(client, IN_PROGRESS, endpoint="/match") >= len(asked):
            return len(asked) - answered
        sleep(_POLL_SECONDS)
    raise AnswerError(f"/metrics never showed {len(asked)} requests in progress; several servers may answer in turn")


def _failure(terminate: Callable[[], None]) -> str | None:
    try:
        terminate()
    except (RuntimeError, OSError, httpx.HTTPError) as error:
        return f"it could not be told to end: {error}"
    return None


def _started(url: str) -> float | None:
    """When what answers at `url` was started; None where nothing does."""
    with suppress(httpx.HTTPError, ValueError), asking(url, _GONE_SECONDS) as client:
        return gauge(client, STARTED)
    return None
