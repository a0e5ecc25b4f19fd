"""Each check passes on the real service and fails on a server that is broken on purpose."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.delivery import acceptance, probe
from matching_platform.delivery.acceptance import (
    CHECKS,
    SENTENCES,
    Acceptance,
    Limits,
    examine,
    malformed,
    obstacles,
)
from matching_platform.delivery.acceptance.answers import examine_answers, requests_of
from matching_platform.delivery.acceptance.load import Question, examine_load
from matching_platform.delivery.acceptance.malformed import MALFORMED, examine_malformed, wrong_values
from matching_platform.delivery.acceptance.schema import frame, problems
from matching_platform.delivery.acceptance.server import AnswerError, asking, gauge
from matching_platform.delivery.acceptance.shutdown import examine_shutdown
from matching_platform.delivery.serving.place import Release
from matching_platform.delivery.serving.servers import BentoServers, Server, log_of
from matching_platform.learning.examination import Exam
from matching_platform.learning.examples import credible_tags
from matching_platform.learning.gate import CheckRecord, Verdict
from matching_platform.ledger.months import month_of
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import OPEN_INVOICES, PROPOSALS, TRANSFERS
from matching_platform.ledger.validation import LedgerError
from matching_platform.ledger.wire import from_rows, proposal_rows
from matching_platform.matching.history import credible
from matching_platform.matching.matcher import Matcher
from matching_platform.store.files import StoreError
from matching_platform.store.versions import Store, Version
from matching_platform_tests.delivery.parts import VERSION, free_port

# As short as still tells something; as patient as a busy machine needs.
LIMITS = Limits(
    load_seconds=1.0, warm_up_seconds=0.3, p99_milliseconds=20_000, requests_per_second=0.2, memory_megabytes=4000
)

# Answers the packed probe, and misbehaves where the request asks for it.
LIGHT_SERVICE = """
import json, os, signal, time
from itertools import count
from pathlib import Path

import bentoml, psutil
from anyio import to_thread
from bentoml.metrics import Gauge
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

PROBE = json.loads((Path(__file__).parent / "probe.json").read_text())
TURN, KEPT = count(), []

def answer(fault):
    if fault in ("slow", "drops"):
        time.sleep(1)
    if fault == "leaks":
        time.sleep(0.02)
        KEPT.append(b"x" * 1_000_000)
    if fault == "dies" and next(TURN) > 10:
        os._exit(1)
    if fault == "fails" and next(TURN) % 3 == 0:
        return JSONResponse({}, 500)
    bentoml.get_current_service().memory.set(psutil.Process().memory_info().rss)
    proposals = [] if fault == "wrong" else PROBE["proposals"]
    return JSONResponse({"model": PROBE["version"], "proposals": proposals})

async def match(request):
    fault = (await request.json()).get("fault")
    if fault == "drops":
        signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
    return await to_thread.run_sync(answer, fault)

@bentoml.asgi_app(Starlette(routes=[Route("/match", match, methods=["POST"])]))
@bentoml.service(name="matching-platform")
class MatchingService:
    def __init__(self):
        gauges = {name: Gauge(name, documentation=name, multiprocess_mode="mostrecent") for name in
                  ("matching_memory_bytes", "matching_peak_memory_bytes", "matching_start_time_seconds")}
        self.memory = gauges["matching_memory_bytes"]
        for gauge in gauges.values():
            gauge.set(psutil.Process().create_time() if "time" in gauge._name else psutil.Process().memory_info().rss)
"""

# Status and body of the answer to method, path and body; None where the server hangs up.
Respond = Callable[[str, str, bytes], tuple[int, bytes] | None]


@contextmanager
def started(bento: Path, folder: Path) -> Iterator[tuple[str, Server]]:
    """The URL of a process that serves `bento`, and the process."""
    address = f"127.0.0.1:{free_port()}"
    log_of(folder, address).parent.mkdir(parents=True)
    server, url = BentoServers().start(Release(VERSION, bento), address, folder), f"http://{address}"
    try:
        deadline = time.monotonic() + 60
        while not is_ready(url):
            assert time.monotonic() < deadline, log_of(folder, address).read_text()
            time.sleep(0.1)
        yield url, server
    finally:
        server.stop(1.0)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False, timeout=1).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def scripted(respond: Respond) -> Iterator[str]:
    """The URL of a server that answers what `respond` says to method, path and body."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            if self.headers.get("transfer-encoding"):
                while size := int(self.rfile.readline(), 16):
                    self.rfile.read(size + 2)
                self.rfile.readline()
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            said = respond(self.command, self.path, body)
            if said is None:
                self.close_connection = True
                return
            status, content = said
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = answer

        def log_message(self, *_: Any) -> None:
            """Nothing: what was asked is in the test."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def exam(ledger: Ledger) -> Exam:
    return Exam(ledger, ledger.months(), credible_tags(ledger))


@pytest.fixture(scope="module")
def light(bento: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("light") / "bento"
    copytree(bento, folder)
    (folder / "src" / "service.py").write_text(LIGHT_SERVICE)
    return folder


@pytest.fixture(scope="module")
def light_url(light: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with started(light, tmp_path_factory.mktemp("servers")) as (url, _):
        yield url


@pytest.fixture(scope="module")
def packed(bento: Path) -> probe.Proposals:
    return probe.read(bento).proposals


def asked(packed: probe.Proposals, fault: str | None = None) -> Question:
    return Question(json.dumps({**probe.REQUEST, "fault": fault}).encode(), packed)


def failed(verdicts: list[Verdict]) -> dict[str, str]:
    return {verdict.check: verdict.reason for verdict in verdicts if not verdict.passed}


def test_the_real_service_passes_every_check(bento: Path, model: Path, exam: Exam, tmp_path: Path) -> None:
    with started(bento, tmp_path) as (url, server):
        verdicts = examine(url, model, exam, LIMITS, lambda: server.stop(60), VERSION)
    assert failed(verdicts) == {}
    assert [verdict.check for verdict in verdicts] == list(CHECKS) == list(SENTENCES)
    figures = {verdict.check: verdict.figures for verdict in verdicts}
    assert figures["answers"]["transfers"] == exam.ledger.transfers.height
    assert figures["served_quality"]["exact"] == figures["served_quality"]["own_exact"] > 0.3
    assert figures["malformed"]["malformed_requests"] > 100
    latency = figures["latency"]
    assert 0 < latency["p50_milliseconds"] <= latency["p95_milliseconds"] <= latency["p99_milliseconds"]
    assert figures["throughput"]["requests_per_second"] > 0
    assert 100 < figures["memory"]["peak_megabytes"] < 4000
    assert figures["shutdown"]["under_way"] >= 2
    assert figures["shutdown"]["lost"] == 0


def test_the_exam_asks_what_was_known_then(exam: Exam) -> None:
    requests = requests_of(exam)
    assert [request.month for request in requests] == exam.months
    assert pl.concat(request.transfers for request in requests).height == exam.ledger.transfers.height
    booked = exam.ledger.transfers.select("transfer_id", month=month_of("booked_on"))
    matches = credible(exam.ledger).join(booked, on="transfer_id")
    for request in requests:
        assert set(request.transfers.select(month_of("booked_on")).to_series()) == {request.month}
        assert request.invoices.filter(month_of("issued_on") > request.month).is_empty()
        paid = matches.filter(pl.col("month") < request.month).group_by("invoice_id").agg(paid=pl.col("amount").sum())
        left = pl.col("amount") - pl.col("paid").fill_null(0)
        known = request.invoices.join(paid, on="invoice_id", how="left").with_columns(left=left)
        assert known.filter(left.sign() == pl.col("amount").sign(), left != pl.col("open_amount")).is_empty()
        assert known.filter(left.sign() != pl.col("amount").sign(), pl.col("open_amount") != 0).is_empty()
    assert requests[-1].invoices.filter(pl.col("open_amount") == 0).height > 0


# A server that is not there, one that is silent, one that hangs up, and some that answer rubbish.


def test_nothing_there_fails_every_check_at_once(model: Path, exam: Exam) -> None:
    began = time.monotonic()
    verdicts = examine(f"http://127.0.0.1:{free_port()}", model, exam, LIMITS, lambda: None, VERSION)
    assert list(failed(verdicts)) == list(CHECKS)
    assert "did not answer" in verdicts[0].reason
    assert "not examined, because the server was silent at 'answers'" in verdicts[-1].reason
    assert time.monotonic() - began < 20


def test_silence_fails_every_check_after_one_wait(model: Path, exam: Exam) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        limits = LIMITS.model_copy(update={"answer_seconds": 0.5})
        verdicts = examine(f"http://127.0.0.1:{silent.getsockname()[1]}", model, exam, limits, lambda: None, VERSION)
    assert list(failed(verdicts)) == list(CHECKS)
    assert "ReadTimeout" in verdicts[0].reason


def test_a_server_that_dies_in_the_middle_is_asked_no_more(model: Path, exam: Exam) -> None:
    own = answers_of(model, exam)
    with scripted(lambda method, path, body: beside(path, card_of(model)) or own.get(body)) as url:
        verdicts = examine(url, model, exam, LIMITS, lambda: None, VERSION)
    found = failed(verdicts)
    assert list(found) == list(CHECKS[3:])
    assert "RemoteProtocolError" in found["malformed"]
    assert set(map(found.get, CHECKS[4:])) == {"not examined, because the server was silent at 'malformed'"}


def card_of(model: Path) -> dict[str, Any]:
    return dict(json.loads((model / "card.json").read_text()))


def answers_of(model: Path, exam: Exam) -> dict[bytes, tuple[int, bytes]]:
    """What a server of the model answers to each request of the exam."""
    matcher = Matcher.load(model)
    own = ((request, matcher.propose(request.transfers, request.invoices)) for request in requests_of(exam))
    return {request.content: (200, answer(proposal_rows(proposals))) for request, proposals in own}


RUBBISH = {
    "a page": (200, b"<html>"),
    "no UTF-8": (200, b'{"model": "\xff'),
    "nested deeply": (200, b"[" * 100_000),
    "errors": (500, b"oops"),
}


@pytest.fixture
def few_malformed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row or two of each sort, where only the judgement is tried: the real service is asked them all."""
    some = list(islice(wrong_values(), 0, None, 20))
    monkeypatch.setattr(malformed, "MALFORMED", MALFORMED[:3])
    monkeypatch.setattr(malformed, "wrong_values", lambda: iter(some))


@pytest.mark.parametrize("answer", RUBBISH.values(), ids=RUBBISH)
@pytest.mark.usefixtures("few_malformed")
def test_rubbish_fails_every_check(model: Path, exam: Exam, answer: tuple[int, bytes]) -> None:
    limits = LIMITS.model_copy(update={"warm_up_seconds": 0.1, "load_seconds": 0.1})
    with scripted(lambda *_: answer) as url:
        verdicts = examine(url, model, exam, limits, lambda: None, VERSION)
    assert list(failed(verdicts)) == list(CHECKS)
    assert all(verdict.reason and "\n" not in verdict.reason for verdict in verdicts)


# Answers, quality and schema: what the model says, altered on the way.


Rows = list[dict[str, Any]]


def without_first(rows: Rows) -> Rows:
    return [row for row in rows if row["transfer_id"] != rows[0]["transfer_id"]]


def nothing(rows: Rows) -> Rows:
    settled = {"invoice_id": None, "amount": None, "decision": "none"}
    return list({row["transfer_id"]: {**row, **settled} for row in rows}.values())


def sure(rows: Rows) -> Rows:
    return [{**row, "confidence": min(1.0, row["confidence"] + 0.01)} for row in rows]


ALTERED: dict[str, tuple[Callable[[Rows], Any], set[str]]] = {
    "as they are": (lambda rows: rows, set()),
    "a transfer left out": (without_first, {"answers", "served_quality", "schema"}),
    "nothing settled": (nothing, {"answers", "served_quality"}),
    "more confident": (sure, {"answers"}),
    "a column missing": (lambda rows: [{**row, "evidence": ...} for row in rows], {"served_quality", "schema"}),
    "amounts as text": (lambda rows: [{**row, "amount": "1"} for row in rows], {"answers", "served_quality", "schema"}),
    "no list": (lambda rows: {}, {"answers", "served_quality", "schema"}),
}


@pytest.mark.parametrize(("alter", "failing"), ALTERED.values(), ids=ALTERED)
def test_altered_answers_fail_their_checks(
    model: Path, exam: Exam, alter: Callable[[Rows], Any], failing: set[str]
) -> None:
    requests, matcher = requests_of(exam), Matcher.load(model)
    own = [matcher.propose(request.transfers, request.invoices) for request in requests]
    answers = {request.content: answer(alter(proposal_rows(rows))) for request, rows in zip(requests, own, strict=True)}
    with scripted(lambda _, path, body: beside(path, matcher.card) or (200, answers[body])) as url:
        verdicts = examine_answers(url, VERSION, requests, own, exam, matcher.card, LIMITS)
    assert failed(verdicts).keys() == failing


def answer(rows: Any, version: str = VERSION) -> bytes:
    if isinstance(rows, list):
        rows = [{name: value for name, value in row.items() if value is not ...} for row in rows]
    return json.dumps({"model": version, "proposals": rows}).encode()


def beside(path: str, card: dict[str, Any]) -> tuple[int, bytes] | None:
    """What a good server answers at the other addresses."""
    if path == "/match":
        return None
    return 200, json.dumps({**card, "version": VERSION}).encode() if path == "/model" else b"# TYPE one gauge\n"


BESIDE = {
    "another version on the card": ("/model", (200, b'{"version": "another"}'), "/model says 'another' for version"),
    "no card": ("/model", (200, b"[]"), "did not answer with a card"),
    "ill": ("/healthz", (503, b""), "/healthz answered 503"),
    "no metrics": ("/metrics", (200, b"{}"), "/metrics is not in the Prometheus format"),
}


@pytest.mark.parametrize(("path", "said", "told"), BESIDE.values(), ids=BESIDE)
def test_the_other_addresses_are_asked_too(
    model: Path, exam: Exam, path: str, said: tuple[int, bytes], told: str
) -> None:
    requests, matcher = requests_of(exam)[:1], Matcher.load(model)
    own = [matcher.propose(request.transfers, request.invoices) for request in requests]
    good = (200, answer(proposal_rows(own[0])))

    def respond(_: str, asked: str, __: bytes) -> tuple[int, bytes]:
        return said if asked == path else beside(asked, matcher.card) or good

    with scripted(respond) as url:
        verdicts = examine_answers(url, VERSION, requests, own, exam, matcher.card, LIMITS)
    assert failed(verdicts).keys() == {"schema"}
    assert told in verdicts[-1].reason


def test_answers_of_another_model_are_told_by_name(model: Path, exam: Exam) -> None:
    with pytest.raises(AnswerError, match="names the model other, not test-1"):
        frame(answer([], "other"), VERSION)


def row(transfer: str = "t1", invoice: str | None = "i1", amount: float | None = 10.0, **more: Any) -> dict[str, Any]:
    decision = "none" if invoice is None else "auto"
    fixed = {"confidence": 0.9, "decision": decision, "evidence": ["because"]}
    return {"transfer_id": transfer, "invoice_id": invoice, "amount": amount, **fixed, **more}


ONE_TRANSFER = pl.DataFrame(
    [{"transfer_id": "t1", "amount": 1000, "currency": "EUR", "direction": "in", "counterparty_name": "", "title": ""}],
    schema=TRANSFERS.schema,
)
INVOICES = pl.DataFrame(
    [
        {"invoice_id": name, "amount": amount, "open_amount": left, "currency": currency}
        for name, amount, left, currency in (
            ("i1", 1200, 1150, "EUR"),
            ("i2", 1000, None, "EUR"),
            ("credit", -300, -300, "EUR"),
            ("dollars", 9000, 9000, "USD"),
        )
    ],
    schema=OPEN_INVOICES.schema,
)

CONSERVED = {
    "all of it": ([row()], None),
    "a lone invoice, 12 % short": ([row(amount=11.36)], None),
    "a lone invoice, 13 % short": ([row(amount=11.50)], "transfer t1 gives more than it brought"),
    "a batch, a euro short": ([row(amount=5.5), row(invoice="i2", amount=5.5)], None),
    "a batch, 15 % short": ([row(amount=5.5), row(invoice="i2", amount=6.0)], "transfer t1 gives more"),
    "a netted credit note": ([row(invoice="i2"), row(invoice="credit", amount=-1.0)], None),
    "a credit note paid": ([row(invoice="credit", amount=3.0)], "invoice credit is settled for more than it has open"),
    "more than is open": ([row(invoice="i2", amount=10.01)], "invoice i2 is settled for more than it has open"),
    "another currency": ([row(invoice="dollars", amount=90.0)], None),
    "nothing": ([row(invoice=None, amount=None)], None),
    "nobody": ([], "transfer t1 was not answered"),
    "somebody else": ([row(), row(transfer="t2", invoice="i2")], "transfer t2 was not asked"),
    "an unknown invoice": ([row(invoice="i9")], "invoice i9 was not sent"),
    "nothing and something": (
        [row(amount=5.0), row(invoice=None, amount=None, decision="auto")],
        "transfer t1 settles nothing and something",
    ),
    "nothing, with an amount": ([row(invoice=None, amount=1.0)], "transfer t1 settles nothing and something"),
    "something, decided as nothing": ([row(decision="none")], "transfer t1 settles nothing and something"),
    "two confidences": (
        [row(amount=5.0), row(invoice="i2", amount=5.0, confidence=0.8)],
        "transfer t1 has rows that disagree",
    ),
}


@pytest.mark.parametrize(("rows", "told"), CONSERVED.values(), ids=CONSERVED)
def test_money_is_conserved(rows: Rows, told: str | None) -> None:
    found = problems(frame(answer(rows)), ONE_TRANSFER, INVOICES)
    assert len(found) == (told is not None)
    assert told is None or found[0].startswith(told)


OUT_OF_FORM = {
    "a column missing": ({"evidence": ...}, "proposals.0.evidence: Field required"),
    "a number as text": ({"amount": "10"}, "proposals.0.amount"),
    "no finite amount": ({"amount": float("nan")}, "proposals.0.amount"),
    "parts of a cent": ({"amount": 10.001}, "answer: row 1, column amount"),
    "more than certain": ({"confidence": 1.01}, "proposals.0.confidence"),
    "no such decision": ({"decision": "maybe"}, "proposals.0.decision"),
    "evidence as text": ({"evidence": "because"}, "proposals.0.evidence"),
    "no transfer": ({"transfer_id": ""}, "answer: row 1, column transfer_id"),
}


@pytest.mark.parametrize(("change", "told"), OUT_OF_FORM.values(), ids=OUT_OF_FORM)
def test_what_is_not_of_the_form_is_named(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=r"[^\n]*") as error:
        frame(answer([{**row(), **change}]))
    assert str(error.value).startswith(told)


def test_a_form_that_holds_becomes_proposals() -> None:
    assert frame(answer([row(), row(invoice=None, amount=None, transfer="t2", more="columns")])).schema == PROPOSALS
    with pytest.raises(ValueError, match="proposed more than once"):
        frame(answer([row(), row()]))


# What must be refused.


def careful(method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """What a good service answers, as far as it refuses."""
    if path != "/match" or method != "POST":
        return 404 if path != "/match" else 405, {"error": "not here"}
    try:
        tables = json.loads(body)
        from_rows("transfers", tables["transfers"])
        from_rows("open_invoices", tables["invoices"], source="invoices")
    except LedgerError as error:
        return 400, {"error": str(error), "table": error.source, "row": error.row, "column": error.column}
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        return 400, {"error": str(error)}
    return 200, {}


Refusal = tuple[int, dict[str, Any]]

CARELESS: dict[str, tuple[Callable[[Refusal], Refusal], str | None]] = {
    "careful": (lambda refusal: refusal, None),
    "errors": (lambda refusal: (500, {}), "no body was answered with 500, not 400"),
    "takes anything": (lambda refusal: (200, {}), "no body was answered with 200, not 400"),
    "tells nothing": (lambda refusal: (refusal[0], {}), "5 as transfer_id of transfers was refused without an error"),
    "another row": (lambda refusal: (refusal[0], {**refusal[1], "row": 1}), "the refusal names {'row': 1}"),
    "another column": (lambda refusal: (refusal[0], {**refusal[1], "column": ""}), "the refusal names {'column': ''}"),
}


@pytest.mark.parametrize(("refuse", "told"), CARELESS.values(), ids=CARELESS)
@pytest.mark.usefixtures("few_malformed")
def test_what_is_malformed_must_be_refused(
    packed: probe.Proposals, refuse: Callable[[Refusal], Refusal], told: str | None
) -> None:
    def respond(*asked: Any) -> tuple[int, bytes]:
        refusal = careful(*asked)
        if refusal[0] == 200:
            return 200, answer(packed)
        status, said = refuse(refusal)
        return status, json.dumps(said).encode()

    with scripted(respond) as url:
        verdict = examine_malformed(url, packed, 60)
    assert verdict.passed == (told is None)
    assert told is None or told in verdict.reason


@pytest.mark.usefixtures("few_malformed")
def test_a_good_request_must_be_answered_after_the_malformed(packed: probe.Proposals) -> None:
    def respond(*asked: Any) -> tuple[int, bytes]:
        status, said = careful(*asked)
        return status, answer([]) if status == 200 else json.dumps(said).encode()

    with scripted(respond) as url:
        verdict = examine_malformed(url, packed, 60)
    assert not verdict.passed
    assert "afterwards a good request is not answered well: transfer probe-" in verdict.reason


def test_every_column_is_tried_with_wrong_values() -> None:
    tried = {(bad.place["table"], bad.place["column"]) for bad in wrong_values() if bad.place}
    assert tried == {("transfers", name) for name in TRANSFERS.schema} | {
        ("invoices", name) for name in OPEN_INVOICES.schema
    }
    names = [bad.name for bad in (*MALFORMED, *wrong_values())]
    assert len(names) == len(set(names))


# Under load.


LOADED: dict[str, tuple[str | None, dict[str, float], dict[str, str]]] = {
    "as it should": (None, {}, {}),
    "slow": ("slow", {}, {"latency": "too slow under load: p50 1,", "throughput": "fewer than 8.0"}),
    "wrong": ("wrong", {}, {"latency": "failed: transfer probe-", "throughput": "got no answer"}),
    "failing now and then": ("fails", {}, {"latency": "/match answered 500", "throughput": "/match answered 500"}),
    "leaking": ("leaks", {}, {"memory": "under load, more than 10 MB"}),
    "large": (None, {"memory_megabytes": 10}, {"memory": "at most, more than 10 MB"}),
}


@pytest.mark.parametrize(("fault", "limits", "told"), LOADED.values(), ids=LOADED)
def test_load_finds_what_is_too_slow_or_too_large(
    light_url: str, packed: probe.Proposals, fault: str | None, limits: dict[str, float], told: dict[str, str]
) -> None:
    strict = {"p99_milliseconds": 900.0, "requests_per_second": 8.0, "growth_megabytes": 10.0}
    verdicts = examine_load(light_url, [asked(packed, fault)], LIMITS.model_copy(update={**strict, **limits}))
    assert [verdict.check for verdict in verdicts] == ["latency", "throughput", "memory"]
    found = failed(verdicts)
    assert found.keys() == told.keys()
    assert all(words in found[check] for check, words in told.items())


def test_a_server_that_dies_under_load_is_found(light: Path, packed: probe.Proposals, tmp_path: Path) -> None:
    limits = LIMITS.model_copy(update={"answer_seconds": 3.0, "warm_up_seconds": 0.0, "load_seconds": 5.0})
    with started(light, tmp_path) as (url, _):
        found = failed(examine_load(url, [asked(packed, "dies")], limits))
    assert found.keys() == {"latency", "throughput", "memory"}
    assert "no answer" in found["latency"]


# Ended while it works.


def test_who_has_answered_before_proves_nothing(packed: probe.Proposals) -> None:
    idle = b'bentoml_service_request_in_progress{endpoint="/match"} 0\nmatching_start_time_seconds 1\n'
    with scripted(lambda method, path, _: (200, answer(packed) if path == "/match" else idle)) as url:
        verdict = examine_shutdown(url, asked(packed), lambda: None, LIMITS)
    assert verdict.reason == f"{4 * LIMITS.in_flight} requests are answered before it can be ended under way"


def test_a_clean_end_loses_nothing_and_must_be_an_end(light: Path, packed: probe.Proposals, tmp_path: Path) -> None:
    def refuse() -> None:
        raise RuntimeError("the cluster does not answer")

    with started(light, tmp_path) as (url, server):
        examined = {
            "never ended": examine_shutdown(url, asked(packed, "slow"), lambda: None, LIMITS),
            "not told": examine_shutdown(url, asked(packed, "slow"), refuse, LIMITS),
            "clean": examine_shutdown(url, asked(packed, "slow"), lambda: server.stop(60), LIMITS),
        }
    assert "it was told to end and still answers" in examined["never ended"].reason
    assert "it could not be told to end: the cluster does not answer" in examined["not told"].reason
    assert [name for name, verdict in examined.items() if verdict.passed] == ["clean"]
    assert examined["clean"].figures["under_way"] == LIMITS.in_flight


@pytest.mark.parametrize(("fault", "grace"), [("drops", 60.0), ("slow", 0.0)])
def test_requests_lost_at_the_end_are_found(
    light: Path, packed: probe.Proposals, tmp_path: Path, fault: str, grace: float
) -> None:
    with started(light, tmp_path) as (url, server):
        verdict = examine_shutdown(url, asked(packed, fault), lambda: server.stop(grace), LIMITS)
    assert not verdict.passed
    assert f"8 of {LIMITS.in_flight} requests were lost" in verdict.reason


def test_figures_are_read_from_the_metrics() -> None:
    text = b'# TYPE under_way gauge\nunder_way{endpoint="/match"} 3\nunder_way{endpoint="/readyz"} 1\nlost NaN\n'
    with scripted(lambda *_: (200, text)) as url, asking(url, 10) as client:
        assert gauge(client, "under_way") == 4
        assert gauge(client, "under_way", endpoint="/match") == 3
        for name in ("memory", "lost"):
            with pytest.raises(AnswerError, match=f"does not tell {name}"):
                gauge(client, name)


# What is sealed.

IMAGE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
ACCEPTED = Acceptance(
    subject=IMAGE,
    model=Version("models", "c" * 64),
    limits=Limits(p99_milliseconds=123.0),
    when=datetime(2024, 6, 1, 12, 30, tzinfo=UTC),
    verdicts=[Verdict(name, True, "it holds", {"figure": 0.1}) for name in CHECKS],
)
RECORDS: dict[str, CheckRecord | None] = {name: CheckRecord(True, IMAGE) for name in CHECKS}


def test_an_acceptance_is_kept_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path)
    version = acceptance.write(store, ACCEPTED)
    assert version.kind == "acceptances"
    assert acceptance.read(store, version) == ACCEPTED
    assert acceptance.write(store, ACCEPTED) == version
    path = next((tmp_path / version.folder).glob("acceptance.json"))
    path.chmod(0o644)
    path.write_text(path.read_text().replace("true", "false"))
    with pytest.raises(StoreError):
        acceptance.read(store, version)


def test_what_was_accepted_may_be_deployed() -> None:
    assert obstacles(ACCEPTED, RECORDS, IMAGE) == []


def test_what_was_never_accepted_may_not() -> None:
    assert obstacles(None, RECORDS, IMAGE) == ["nothing has been accepted yet: materialize staging"]


def test_another_image_may_not() -> None:
    found = obstacles(ACCEPTED, RECORDS, OTHER)
    assert found[0].startswith("what was accepted is sha256:aaaa")
    assert len(found) == 1 + len(CHECKS)


def without(check: str, verdict: Verdict | None) -> Acceptance:
    kept = [one for one in ACCEPTED.verdicts if one.check != check]
    return replace(ACCEPTED, verdicts=[*kept, verdict] if verdict else kept)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    ("record", "verdict", "told"),
    [
        (None, True, "was never made"),
        (CheckRecord(False, IMAGE), True, "failed"),
        (CheckRecord(True, OTHER), True, "materialize staging again"),
        (CheckRecord(True, IMAGE), None, "says nothing about"),
        (CheckRecord(True, IMAGE), False, "too slow"),
    ],
)
def test_each_check_can_keep_it_back(check: str, record: CheckRecord | None, verdict: bool | None, told: str) -> None:
    sealed = without(check, None if verdict is None else Verdict(check, verdict, "too slow"))
    (sentence,) = obstacles(sealed, RECORDS | {check: record}, IMAGE)
    assert f"'{check}'" in sentence
    assert told in sentence


RECORD = st.none() | st.builds(CheckRecord, passed=st.booleans(), subject=st.sampled_from([IMAGE, OTHER]))


@given(
    records=st.dictionaries(st.sampled_from(CHECKS), RECORD),
    passed=st.dictionaries(st.sampled_from(CHECKS), st.booleans()),
    subject=st.sampled_from([IMAGE, OTHER]),
)
def test_only_what_passed_every_check_may_be_deployed(
    records: dict[str, CheckRecord | None], passed: dict[str, bool], subject: str
) -> None:
    sealed = replace(ACCEPTED, verdicts=[Verdict(name, holds, "") for name, holds in passed.items()])
    allowed = subject == IMAGE and all(
        records.get(name) == CheckRecord(True, subject) and passed.get(name, False) for name in CHECKS
    )
    assert (obstacles(sealed, records, subject) == []) == allowed
