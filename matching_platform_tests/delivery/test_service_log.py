"""A real server keeps what it answers: all of it at a clean end, all but the last moment when it is killed."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from matching_platform.delivery.packing import build_bento
from matching_platform.delivery.probe import REQUEST
from matching_platform.delivery.serving.processes import child
from matching_platform.matching.decisions import BY_RECORD
from matching_platform.matching.matcher import Matcher
from matching_platform.predictions import reading, states
from matching_platform.predictions.headers import PROBE, PURPOSE, REQUEST_ID
from matching_platform.predictions.settings import PredictionSettings, passed_on
from matching_platform.store.files import Files
from matching_platform.store.unattended import NEVER, Unattended
from matching_platform.store.versions import Store
from matching_platform_tests.delivery.parts import VERSION, Batch, free_port
from matching_platform_tests.waiting import until

WORKER = "_bentoml_impl.worker.service"
SETTINGS = PredictionSettings(mask_key="the secret of the tests")
# Values that nothing else holds.
NAMES = ("QWIRKELBRUNN MASCHINEN", "XEROPHANT TRADING")
ACCOUNT, TAX_ID, TITLE = "DE99QWXY00001111222233", "ATU98761234", "ZAHLUNG VON FRAU KLARA ZYMBEL"


@dataclass
class Server:
    """`bentoml serve` over a store."""

    url: str
    process: psutil.Popen
    log: Path
    store: Path
    answered: dict[str, datetime] = field(default_factory=dict)

    @property
    def files(self) -> Files:
        return Files(str(self.store / "predictions"))

    @property
    def kept(self) -> pl.DataFrame:
        found = [reading.read(self.files, day) for day in reading.days(self.files)]
        return pl.concat([reading.nothing(), *found])

    @property
    def worker(self) -> psutil.Process:
        found = child(self.process, WORKER)
        assert found is not None
        return found

    def match(self, request: Any = REQUEST, **headers: str) -> httpx.Response:
        answer = httpx.post(f"{self.url}/match", json=request, headers=headers, timeout=120, trust_env=False)
        assert answer.status_code == 200, answer.text
        self.answered[answer.headers[REQUEST_ID]] = datetime.now(UTC)
        return answer

    def metric(self, name: str, **labels: str) -> float:
        text = httpx.get(f"{self.url}/metrics", timeout=60, trust_env=False).text
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())

    def end(self, how: int = signal.SIGTERM) -> None:
        if how == signal.SIGKILL:
            for one in self.process.children(recursive=True):
                one.kill()
        self.process.send_signal(how)
        self.process.wait(120)


@contextmanager
def serving(bento: Path, folder: Path, **variables: str) -> Iterator[Server]:
    """A server whose log lies below `folder`, which is gone at the end."""
    port, log, store = free_port(), folder / f"server-{free_port()}.log", folder / "store"
    Unattended(Store(store)).open()
    environment = {**os.environ, "BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "true"}
    environment |= {**passed_on(SETTINGS, str(store)), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    command = [sys.executable, "-m", "bentoml", "serve", str(bento), "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as output:
        process = psutil.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", process, log, store)
    try:
        until(lambda: _is_ready(server), log.read_text)
        yield server
    finally:
        if process.is_running():
            server.end(signal.SIGKILL)


def _is_ready(server: Server) -> bool:
    assert server.process.poll() is None, server.log.read_text()
    return httpx.get(f"{server.url}/readyz", timeout=60, trust_env=False).is_success


def personal() -> dict[str, Any]:
    """The probe's request, about people that can be found again."""
    transfers = [
        {**row, "counterparty_name": NAMES[0], "counterparty_account": ACCOUNT, "title": TITLE}
        for row in REQUEST["transfers"]
    ]
    invoices = [
        {**row, "counterparty_name": NAMES[1], "counterparty_account": ACCOUNT, "counterparty_tax_id": TAX_ID}
        for row in REQUEST["invoices"]
    ]
    return {"transfers": transfers, "invoices": invoices}


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It serves a model that learned little and books a lot."""
    folder = tmp_path_factory.mktemp("bold")
    bold = Matcher.load(model)
    bold.auto_from = 0.5
    bold.save(folder / "model")
    bento = build_bento(folder / "model", VERSION, folder / "bento").path
    with serving(bento, tmp_path_factory.mktemp("log")) as server:
        yield server


def logged(server: Server, answer: httpx.Response) -> dict[str, Any]:
    """What the log keeps of an answer, as soon as it does."""
    asked = answer.headers[REQUEST_ID]
    until(lambda: asked in server.kept["request_id"], server.log.read_text)
    return server.kept.row(by_predicate=pl.col("request_id") == asked, named=True)


def test_what_was_answered_is_kept(server: Server) -> None:
    before, answer = datetime.now(UTC), server.match()
    row = logged(server, answer)
    said = {"evidence": None}
    proposals = [{**one, "amount": one["amount"] and float(one["amount"])} for one in row["proposals"]]
    assert proposals == [{**one, **said} for one in answer.json()["proposals"]]
    assert [one["transfer_id"] for one in row["transfers"]] == [one["transfer_id"] for one in REQUEST["transfers"]]
    assert [one["invoice_id"] for one in row["invoices"]] == [one["invoice_id"] for one in REQUEST["invoices"]]
    assert before <= row["received_at"] <= datetime.now(UTC)
    assert 0 < row["milliseconds"] < (datetime.now(UTC) - before).total_seconds() * 1000
    assert (row["model"], row["purpose"]) == (VERSION, "asked")
    assert logged(server, server.match(**{PURPOSE: PROBE}))["purpose"] == PROBE


def test_nothing_personal_is_in_any_file(server: Server) -> None:
    row = logged(server, server.match(personal()))
    assert len({one["counterparty_name"] for one in row["transfers"]}) == 1
    assert row["transfers"][0]["counterparty_account"] == row["invoices"][0]["counterparty_account"]
    files = [path.read_bytes() for path in server.store.rglob("*") if path.is_file()]
    files += [frame.write_json().encode() for frame in [server.kept]]
    for secret in (*NAMES, ACCOUNT, TAX_ID, TITLE, SETTINGS.mask_key.get_secret_value()):
        for word in secret.split():
            if len(word) > 4:
                assert not any(word.encode() in data for data in files), word


def test_a_freeze_takes_effect_and_is_kept(server: Server, batch: Batch) -> None:
    unattended, request = Unattended(Store(server.store)), batch.request
    before = server.match(request).json()["proposals"]
    unattended.freeze(actor="jana", reason="a test")
    until(lambda: server.metric("matching_frozen") == 1, server.log.read_text)
    answer = server.match(request)
    frozen = {"auto": {"decision": "review"}}
    proposals = answer.json()["proposals"]
    said = [one["evidence"].pop() for one, own in zip(proposals, before, strict=True) if own["decision"] == "auto"]
    assert said and all(f"{BY_RECORD}frozen since" in one and "jana (a test)" in one for one in said)
    # Which transfer pays which of two alike is not for the record to say.
    assert proposals == [{**one, **frozen.get(one["decision"], {})} for one in before]
    assert logged(server, answer)["booked_from"] == server.metric("matching_booked_from") == NEVER
    unattended.unfreeze(actor="jana", reason="a test")
    until(lambda: server.metric("matching_frozen") == 0, server.log.read_text)
    assert server.metric("matching_permission_age_seconds") < 60


def test_the_metrics_count_what_happened(server: Server) -> None:
    names = ("matching_requests_total", "matching_request_seconds_count", "matching_confidence_count")
    before = {name: server.metric(name) for name in names}
    refused = server.metric(names[0], outcome="refused")
    answer = server.match()
    assert httpx.post(f"{server.url}/match", content=b"{", timeout=60, trust_env=False).status_code == 400
    transfers = len(REQUEST["transfers"])
    grown = {name: server.metric(name) - before[name] for name in names}
    assert grown == dict(zip(names, (2, 2, transfers), strict=True))
    assert server.metric(names[0], outcome="refused") == refused + 1
    assert server.metric("matching_confidence_bucket", le="+Inf") == before[names[2]] + transfers
    card = httpx.get(f"{server.url}/model", timeout=60, trust_env=False).json()
    assert server.metric("matching_model_info", version=VERSION, trained_until=card["trained_until"]) == 1
    logged(server, answer)
    until(lambda: server.metric("matching_log_backlog_requests") == 0, server.log.read_text)
    assert server.metric("matching_log_written_total") == len(server.kept)
    assert server.metric("matching_log_dropped_total") == 0
    assert time.time() - server.metric("matching_log_flushed_timestamp_seconds") < 60


def test_paths_that_somebody_makes_up_do_not_grow_the_metrics(server: Server) -> None:
    def lines() -> int:
        return len(httpx.get(f"{server.url}/metrics", timeout=60, trust_env=False).text.splitlines())

    assert httpx.get(f"{server.url}/made-up", timeout=60, trust_env=False).status_code == 404
    before = lines()
    for number in range(20):
        assert httpx.get(f"{server.url}/made-up/{number}", timeout=60, trust_env=False).status_code == 404
    assert lines() == before


def test_a_clean_end_loses_nothing(bento: Path, tmp_path: Path) -> None:
    with serving(bento, tmp_path) as server:
        for _ in range(5):
            server.match()
        server.end()
        assert set(server.kept["request_id"]) == set(server.answered)
        (state,) = states.load(server.files, states.names(server.files))
        assert (state.end, state.written, state.dropped) == ("closed", 5, 0)


def test_a_store_that_cannot_be_written_fails_no_request(bento: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "predictions").write_text("in the way")
    queue = {"MATCHING_PLATFORM_SERVICE_QUEUE": str(2**20)}
    # Much to keep and little to match: what was bought is paid by no transfer that came in.
    bought = {**REQUEST["invoices"][0], "direction": "purchase"}
    bulk = [{**bought, "invoice_id": f"bought-{number}"} for number in range(3000)]
    many = {**REQUEST, "invoices": [*REQUEST["invoices"], *bulk]}
    with serving(bento, tmp_path, **queue) as server:
        until(
            lambda: bool(server.match(many)) and server.metric("matching_log_dropped_total") > 0, server.log.read_text
        )
        until(lambda: server.metric("matching_log_failures_total") > 0, server.log.read_text)
        assert server.metric("matching_log_backlog_bytes") <= 2**21
        server.end()
        assert server.log.read_text().count("waits in memory") == 1
        assert "requests are lost to the prediction log" in server.log.read_text()


def test_killed_at_random_moments_only_the_last_moment_is_lost(bento: Path, tmp_path: Path) -> None:
    """The worker alone is killed, and its supervisor starts another, which tells of it."""
    moments = random.Random(0)
    with serving(bento, tmp_path) as server, _asked_all_the_time(server):
        for life in (1, 2):
            answered = len(server.answered)
            until(lambda answered=answered: len(server.answered) >= answered + 5, server.log.read_text)
            time.sleep(moments.uniform(0, 2))
            worker = server.worker
            killed = datetime.now(UTC)
            worker.kill()
            until(
                lambda life=life: server.log.read_text().count("without closing its log") == life, server.log.read_text
            )
            known = {one.pid: one for one in states.load(server.files, states.names(server.files))}
            state = known[worker.pid]
            assert state.end == "lost"
            assert state.whole_until <= killed
            kept = set(server.kept["request_id"])
            answers = server.answered.copy().items()
            assert {asked for asked, at in answers if state.opened_at < at < state.whole_until} <= kept
            assert state.told in reading.report(server.files, killed, state.opened_at).problems


@contextmanager
def _asked_all_the_time(server: Server) -> Iterator[None]:
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                server.match()
            except (httpx.HTTPError, AssertionError):
                done.wait(0.05)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
