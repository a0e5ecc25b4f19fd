import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from matching_platform.access import Role
from matching_platform.delivery.acceptance.server import gauge
from matching_platform.delivery.probe import REQUEST, differences
from matching_platform.delivery.serving.front import SERVED_BY
from matching_platform.desk.app import create_app
from matching_platform.ledger.schema import PROPOSALS
from matching_platform.ledger.wire import to_rows
from matching_platform_tests.delivery.parts import VERSION, Batch
from matching_platform_tests.desk.companies import desk_company
from matching_platform_tests.desk.served import served
from matching_platform_tests.fuzzing import fuzz


@pytest.fixture(scope="module")
def client(url: str) -> Any:
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        yield client


def request(**changes: Any) -> dict[str, Any]:
    """A good request, with `transfer` or `invoice` saying what is otherwise in the second row of that table."""
    tables = {name: [dict(row) for row in rows] for name, rows in REQUEST.items()}
    for name, change in changes.items():
        row = tables[f"{name}s"][1]
        tables[f"{name}s"][1] = {key: value for key, value in {**row, **change}.items() if value is not ...}
    return tables


def match(client: httpx.Client, tables: Any) -> list[dict[str, Any]]:
    response = client.post("/match", json=tables)
    assert response.status_code == 200, response.text
    assert response.json()["model"] == VERSION
    return response.json()["proposals"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/livez"])
def test_probes_are_answered(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200


def test_front_and_server_listen_on_the_loopback_alone(client: httpx.Client) -> None:
    """Neither asks who somebody is: the desk does."""
    server = int(client.get("/model").headers[SERVED_BY].rpartition(":")[2])
    listening = [each.laddr for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    for port in (server, client.base_url.port):
        assert {each.ip for each in listening if each.port == port} == {"127.0.0.1"}


def test_the_model_tells_what_it_is(client: httpx.Client, model: Path) -> None:
    card = json.loads((model / "card.json").read_text())
    assert client.get("/model").json() == {**card, "version": VERSION}


def test_a_proposal_has_the_columns_of_the_contract(client: httpx.Client) -> None:
    proposals = match(client, request())
    assert {row["transfer_id"] for row in proposals} == {row["transfer_id"] for row in REQUEST["transfers"]}
    for row in proposals:
        assert list(row) == list(PROPOSALS)
        assert 0 <= row["confidence"] <= 1
        assert row["decision"] in ("auto", "review", "none")
        assert (row["invoice_id"] is None) == (row["amount"] is None) == (row["decision"] == "none")


SAME = {
    "amounts as numbers": request(transfer={"amount": 1540.5}, invoice={"amount": 310.5}),
    "a sum of floats": request(transfer={"amount": 1540.2 + 0.1 + 0.2}),
    "the open amount where it is the amount": request(invoice={"open_amount": "310.50"}),
    "no open amount": request(invoice={"open_amount": None}),
    "what may be null left out": request(invoice={"counterparty_tax_id": ..., "reference": ...}),
    "keys nobody knows": request(transfer={"colour": "green"}, invoice={"colour": [1]}),
}


@pytest.mark.parametrize("tables", SAME.values(), ids=SAME)
def test_the_same_said_otherwise_is_answered_the_same(client: httpx.Client, tables: Any) -> None:
    assert differences(match(client, request()), match(client, tables)) == []


def test_nothing_is_settled_beyond_what_is_open(client: httpx.Client, batch: Batch) -> None:
    invoices = [{**row, "open_amount": "0.00"} for row in to_rows(batch.invoices)]
    proposals = match(client, {"transfers": to_rows(batch.transfers), "invoices": invoices})
    assert all(row["amount"] in (None, 0.0) for row in proposals)


def test_no_transfers_have_no_proposals(client: httpx.Client) -> None:
    assert match(client, {**request(), "transfers": []}) == []


def test_without_invoices_nothing_is_settled(client: httpx.Client) -> None:
    assert {row["decision"] for row in match(client, {**request(), "invoices": []})} == {"none"}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5000, b'{"transfers": NaN}', b"null", b"3"]
)
def test_what_is_hardly_json_is_refused(client: httpx.Client, body: bytes) -> None:
    response = client.post("/match", content=body)
    assert response.status_code == 400
    assert response.json()["error"]


@pytest.mark.parametrize("told", [True, False], ids=["its size is told", "in chunks"])
def test_a_body_that_is_too_large_is_refused(client: httpx.Client, told: bool) -> None:
    chunk, chunks = b" " * 2**20, 65
    response = client.post("/match", content=chunk * chunks if told else (chunk for _ in range(chunks)))
    assert response.status_code == 413
    assert response.json()["error"] == "the body is larger than 64 MiB; send fewer rows at a time"
    assert match(client, request())


def test_a_client_that_goes_away_is_no_error_of_ours(client: httpx.Client) -> None:
    host, port = client.get("/model").headers[SERVED_BY].split(":")
    before = answered(client)
    with socket.create_connection((host, int(port))) as gone:
        gone.sendall(b'POST /match HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n{"transfers"')
    deadline = time.monotonic() + 10
    while answered(client) == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert answered(client) == {**before, "400": before.get("400", 0) + 1}


def answered(client: httpx.Client) -> dict[str, float]:
    """How many requests of /match were answered with which status."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = (sample for family in families for sample in family.samples)
    name, of = "bentoml_service_request_total", {"endpoint": "/match"}
    found = (one for one in samples if one.name == name and of.items() <= one.labels.items())
    return {one.labels["http_response_code"]: one.value for one in found}


WRONG = [
    ("transfer", "transfer_id", 5, "is not text"),
    ("transfer", "transfer_id", "", "is missing"),
    ("transfer", "transfer_id", None, "is missing"),
    ("transfer", "transfer_id", ..., "is missing"),
    ("transfer", "transfer_id", "probe-single", "appears more than once"),
    ("transfer", "transfer_id", "half a pair \ud800", "is not text"),
    ("transfer", "booked_on", "28.05.2024", "is not a date"),
    ("transfer", "booked_on", "2024-02-31", "is not a date"),
    ("transfer", "booked_on", 20240528, "is not a date"),
    ("transfer", "amount", float("nan"), "is not an amount"),
    ("transfer", "amount", float("inf"), "is not an amount"),
    pytest.param("transfer", "amount", 10**400, "is not an amount", id="transfer-amount-huge"),
    ("transfer", "amount", 1e300, "is not an amount"),
    ("transfer", "amount", 1.005, "is not an amount"),
    ("transfer", "amount", "1,50", "is not an amount"),
    ("transfer", "amount", True, "is not an amount"),
    ("transfer", "amount", [], "is not an amount"),
    ("transfer", "amount", None, "is missing"),
    ("transfer", "amount", 0, "is not above zero"),
    ("transfer", "amount", -1, "is not above zero"),
    ("transfer", "currency", "EURO", "is not an ISO 4217 currency"),
    ("transfer", "direction", "sale", "is not 'in' or 'out'"),
    ("transfer", "title", {"text": "FV"}, "is not text"),
    ("transfer", "title", ..., "is missing"),
    ("invoice", "invoice_id", ["a"], "is not text"),
    ("invoice", "direction", "in", "is not 'purchase' or 'sale'"),
    ("invoice", "issued_on", None, "is missing"),
    ("invoice", "counterparty_account", 12, "is not text"),
    ("invoice", "open_amount", "much", "is not an amount"),
    ("invoice", "open_amount", {}, "is not an amount"),
]


@pytest.mark.parametrize(("table", "column", "value", "problem"), WRONG)
def test_a_wrong_value_is_refused_with_table_row_and_column(
    client: httpx.Client, table: str, column: str, value: Any, problem: str
) -> None:
    response = client.post("/match", content=json.dumps(request(**{table: {column: value}})))
    answer = response.json()
    assert response.status_code == 400, answer
    assert (answer["table"], answer["row"], answer["column"]) == (f"{table}s", 2, column)
    assert problem in answer["error"]
    assert f"{table}s: row 2, column {column}: " in answer["error"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/match", 405), ("GET", "/nothing", 404)])
def test_other_requests_are_refused(client: httpx.Client, method: str, path: str, status: int) -> None:
    assert client.request(method, path).status_code == status


def test_memory_and_start_are_told(client: httpx.Client) -> None:
    match(client, request())
    memory, peak, start = (
        gauge(client, f"matching_{name}") for name in ("memory_bytes", "peak_memory_bytes", "start_time_seconds")
    )
    assert 1e8 < memory <= peak * 1.05 < 1e10
    assert time.time() - 3600 < start < time.time()


def test_decisions_are_counted(client: httpx.Client) -> None:
    match(client, request())
    assert 'matching_transfers_total{decision="' in client.get("/metrics").text


# No description says that ids are unique, and that an amount has two places.
DESCRIBED = """
[[operations]]
include-path = "/match"
checks.positive_data_acceptance.enabled = false
"""


def test_the_service_is_what_it_says(client: httpx.Client, tmp_path: Path) -> None:
    fuzz(f"{client.base_url}/openapi.json", tmp_path, DESCRIBED)


def test_the_desk_passes_requests_on(client: httpx.Client, tmp_path: Path) -> None:
    """Programs ask the desk, with a token; the service itself is not asked who they are."""
    app = create_app(desk_company(tmp_path, transfers=10, port=client.base_url.port))
    token = app.state.access.issue_token("finance", Role.BOOKER, "test")
    headers = {"Authorization": f"Bearer {token}"}
    with served(app) as url, httpx.Client(base_url=f"{url}/api", headers=headers, trust_env=False) as desk:
        assert desk.post("/match", json=request()).json() == client.post("/match", json=request()).json()
        assert desk.get("/model").json() == client.get("/model").json()
        wrong = request(transfer={"amount": "much"})
        answers = [each.post("/match", json=wrong) for each in (desk, client)]
        assert [answer.status_code for answer in answers] == [400, 400]
        assert answers[0].json() == answers[1].json()


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
JUNK = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUIET
@given(body=JUNK | st.fixed_dictionaries({"transfers": JUNK, "invoices": JUNK}))
def test_junk_is_never_an_error_of_ours(client: httpx.Client, body: Any) -> None:
    response = client.post("/match", content=json.dumps(body))
    assert response.status_code in (200, 400), response.text


@QUIET
@given(
    column=st.sampled_from([(name, column) for name, rows in REQUEST.items() for column in rows[0]]),
    value=JUNK | st.sampled_from(["0001-01-01", "9999-12-31", "9999999999999.99", "-9999999999999.99", "\0", "٣٤"]),
)
def test_junk_in_one_cell_is_never_an_error_of_ours(client: httpx.Client, column: tuple[str, str], value: Any) -> None:
    table, name = column
    response = client.post("/match", content=json.dumps(request(**{table.removesuffix("s"): {name: value}})))
    assert response.status_code in (200, 400), response.text
