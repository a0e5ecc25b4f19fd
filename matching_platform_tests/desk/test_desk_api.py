"""The desk for programs: what is asked is answered in one form, decisions hold, and bookings can be read on and on."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import httpx
import polars as pl
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from matching_platform.access import Role
from matching_platform.desk.api.bookings import as_csv
from matching_platform.desk.app import create_app
from matching_platform.ledger.openapi import asked
from matching_platform.ledger.schema import TABLES
from matching_platform.review.bookings import Booking
from matching_platform_tests.desk.companies import OPEN, desk_company
from matching_platform_tests.desk.served import client, served

STATEMENT = b"""transfer_id,booked_on,amount,currency,direction,counterparty_name,counterparty_account,title
API1,2024-03-05,120.00,EUR,in,ACME,,FV 1
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return create_app(desk_company(tmp_path_factory.mktemp("company")))


@pytest.fixture(scope="module")
def tokens(app: FastAPI) -> dict[Role, str]:
    return {role: app.state.access.issue_token(f"a-{role}", role, "test") for role in Role}


@pytest.fixture(scope="module")
def url(app: FastAPI, tokens: dict[Role, str]) -> Iterator[str]:
    with served(app) as url:
        yield url


@pytest.fixture(scope="module")
def booker(url: str, tokens: dict[Role, str]) -> Iterator[httpx.Client]:
    with client(url, tokens[Role.BOOKER]) as program:
        yield program


@pytest.fixture(scope="module")
def reader(url: str, tokens: dict[Role, str]) -> Iterator[httpx.Client]:
    with client(url, tokens[Role.READER]) as program:
        yield program


def got(program: httpx.Client, path: str, **query: Any) -> Any:
    answer = program.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def waiting(program: httpx.Client) -> list[dict[str, Any]]:
    """What waits for a person and has an invoice proposed."""
    return [row for row in got(program, f"/api/months/{OPEN}/queue", size=500)["rows"] if row["invoices"]]


def accepted(program: httpx.Client, transfer_id: str) -> dict[str, Any]:
    """The decision that accepts what is proposed for a transfer."""
    case = got(program, f"/api/transfers/{transfer_id}")
    parts = [
        {"invoice_id": part["invoice"]["invoice_id"], "amount": part["amount"]} for part in case["proposal"]["parts"]
    ]
    return {"transfer_id": transfer_id, "action": "accept", "allocations": parts, "expected": case["expected"]}


def decide(program: httpx.Client, *wanted: dict[str, Any]) -> httpx.Response:
    return program.post("/api/decisions", json={"decisions": wanted})


# -- reading


def test_a_month_and_its_queue(reader: httpx.Client) -> None:
    assert got(reader, "/api/months") == {"months": [OPEN]}
    summary = got(reader, f"/api/months/{OPEN}/summary")
    first = got(reader, f"/api/months/{OPEN}/queue", size=10)
    assert (first["number"], first["total"]) == (1, summary["waiting"])
    pages = [got(reader, f"/api/months/{OPEN}/queue", size=10, page=page) for page in range(1, first["pages"] + 1)]
    rows = [row for page in pages for row in page["rows"]]
    assert len({row["transfer_id"] for row in rows}) == first["total"]
    stakes = [Decimal(row["stake"]) for row in rows]
    assert stakes == sorted(stakes, reverse=True)
    assert sum(stakes) == Decimal(summary["doubtful_money"])
    booked = got(reader, f"/api/months/{OPEN}/queue", status="booked", size=500)
    assert {row["status"] for row in booked["rows"]} == {"booked"}
    assert booked["total"] == summary["booked"]


def test_a_case_and_the_invoices_it_may_pay(reader: httpx.Client) -> None:
    row = waiting(reader)[0]
    case = got(reader, f"/api/transfers/{row['transfer_id']}")
    assert case["row"] == row
    part = case["proposal"]["parts"][0]
    found = got(reader, f"/api/transfers/{row['transfer_id']}/invoices", text=part["invoice"]["number"])["invoices"]
    assert part["invoice"]["invoice_id"] in {invoice["invoice_id"] for invoice in found}


def test_amounts_are_text_with_two_places(reader: httpx.Client) -> None:
    rows = got(reader, f"/api/months/{OPEN}/queue", size=500)["rows"]
    assert rows
    assert all(Decimal(row[name]).as_tuple().exponent == -2 for row in rows for name in ("amount", "stake"))


# -- who may

WHO = [
    ("GET", "/api/months", None, Role.READER),
    ("GET", "/api/bookings.csv", None, Role.READER),
    ("GET", "/api/model", None, Role.READER),
    ("POST", "/api/decisions", {"decisions": []}, Role.BOOKER),
    ("POST", "/api/decisions/1/undo", None, Role.BOOKER),
    ("POST", "/api/imports?name=a.sta", None, Role.BOOKER),
    ("POST", "/api/match", {}, Role.BOOKER),
]


@pytest.mark.parametrize(("method", "path", "body", "needed"), WHO)
def test_who_may_ask(url: str, tokens: dict[Role, str], method: str, path: str, body: Any, needed: Role) -> None:
    with client(url) as stranger:
        for headers in ({}, {"Authorization": "Bearer mp_nothing"}, {"Authorization": "Basic YTpi"}):
            answer = stranger.request(method, path, json=body, headers=headers)
            assert answer.status_code == 401, answer.text
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "token" in answer.json()["error"]
        for role, token in tokens.items():
            answer = stranger.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"})
            assert (answer.status_code == 403) is not role.covers(needed), answer.text


def test_a_token_that_is_revoked_opens_nothing(app: FastAPI, url: str) -> None:
    token = app.state.access.issue_token("short", Role.READER, "test")
    with client(url, token) as program:
        assert program.get("/api/months").status_code == 200
        app.state.access.revoke_token("short", "test")
        assert program.get("/api/months").status_code == 401


# -- deciding


def test_a_decision_is_booked_and_taken_back(app: FastAPI, booker: httpx.Client) -> None:
    transfer = waiting(booker)[0]["transfer_id"]
    last = got(booker, "/api/bookings", limit=10_000)["last"]
    wanted = accepted(booker, transfer)
    answer = decide(booker, wanted)
    assert answer.status_code == 201, answer.text
    (made,) = answer.json()["decisions"]
    assert (made["actor"], made["action"], made["allocations"]) == ("token:a-booker", "accept", wanted["allocations"])
    booked = got(booker, "/api/bookings", after=last)["bookings"]
    assert [(one["invoice_id"], one["amount"]) for one in booked] == [
        (part["invoice_id"], part["amount"]) for part in wanted["allocations"]
    ]
    assert {(one["transfer_id"], one["entry"], one["by"], one["decision"]) for one in booked} == {
        (transfer, "book", "person", made["number"])
    }
    undone = booker.post(f"/api/decisions/{made['number']}/undo")
    assert undone.status_code == 201
    assert (undone.json()["action"], undone.json()["supersedes"]) == ("withdraw", made["number"])
    entries = got(booker, "/api/bookings", after=last)["bookings"]
    assert [one["entry"] for one in entries] == ["book"] * len(booked) + ["reverse"] * len(booked)
    assert [one["number"] for one in got(booker, "/api/decisions", after=made["number"] - 1)["decisions"]] == [
        made["number"],
        undone.json()["number"],
    ]
    assert got(booker, f"/api/transfers/{transfer}")["row"]["status"] == "waiting"
    noted = app.state.access.audit(f"{transfer} #")
    assert [(one.actor, one.action, one.about) for one in noted] == [
        ("token:a-booker", "undone", f"{transfer} #{undone.json()['number']}"),
        ("token:a-booker", "decided", f"{transfer} #{made['number']}"),
    ]


def test_the_second_sees_what_the_first_did(booker: httpx.Client) -> None:
    transfer = waiting(booker)[1]["transfer_id"]
    wanted = accepted(booker, transfer)
    (made,) = decide(booker, wanted).json()["decisions"]
    refused = decide(booker, {**wanted, "action": "nothing", "allocations": []})
    assert refused.status_code == 409
    assert refused.json()["theirs"] == made
    assert transfer in refused.json()["error"]


def test_all_of_them_or_none(booker: httpx.Client) -> None:
    one, other = waiting(booker)[:2]
    before = got(booker, "/api/decisions")
    wanted = [
        accepted(booker, one["transfer_id"]),
        {**accepted(booker, other["transfer_id"]), "transfer_id": "nowhere"},
    ]
    refused = decide(booker, *wanted)
    assert refused.status_code == 400
    assert "nowhere" in refused.json()["error"]
    assert got(booker, "/api/decisions") == before


def test_an_invoice_is_never_settled_beyond_what_is_open(booker: httpx.Client) -> None:
    found = (accepted(booker, row["transfer_id"]) for row in waiting(booker))
    wanted = next(one for one in found if not one["allocations"][0]["amount"].startswith("-"))
    (part, *_) = wanted["allocations"]
    refused = decide(booker, {**wanted, "action": "change", "allocations": [{**part, "amount": "9999999999.00"}]})
    assert refused.status_code == 409
    assert refused.json()["invoice_id"] == part["invoice_id"]


# -- what is refused, and how

GOOD = {"transfer_id": "T1", "action": "later"}
PART = {"invoice_id": "I1", "amount": "1.00"}
WRONG = [
    ({"decisions": []}, None, "decisions"),
    ({}, None, "decisions"),
    ({"decisions": [GOOD], "more": 1}, None, "more"),
    ({"decisions": [GOOD, {**GOOD, "action": "withdraw"}]}, 2, "action"),
    ({"decisions": [GOOD, {**GOOD, "colour": "green"}]}, 2, "colour"),
    ({"decisions": [{"transfer_id": "T1"}]}, 1, "action"),
    ({"decisions": [{**GOOD, "transfer_id": 5}]}, 1, "transfer_id"),
    ({"decisions": [{**GOOD, "transfer_id": ""}]}, 1, "transfer_id"),
    ({"decisions": [{**GOOD, "transfer_id": "a\0b"}]}, 1, "transfer_id"),
    ({"decisions": [{**GOOD, "note": "half a pair \ud800"}]}, 1, "note"),
    ({"decisions": [{**GOOD, "note": "x" * 2001}]}, 1, "note"),
    ({"decisions": [{**GOOD, "expected": -1}]}, 1, "expected"),
    ({"decisions": [{**GOOD, "expected": 2**63}]}, 1, "expected"),
    ({"decisions": [{**GOOD, "expected": True}]}, 1, "expected"),
    ({"decisions": [{**GOOD, "expected": 1.5}]}, 1, "expected"),
    *(
        ({"decisions": [{**GOOD, "allocations": [PART, {**PART, "amount": amount}]}]}, 1, "allocations.1.amount")
        for amount in (1.5, 120, "1.5", "1,50", "NaN", float("nan"), "1e9", "٣.٠٠", "99999999999999.00", None, "")
    ),
    ({"decisions": [GOOD] * 1001}, None, "decisions"),
]


@pytest.mark.parametrize(("body", "row", "field"), WRONG)
def test_what_is_wrong_is_named(booker: httpx.Client, body: Any, row: int | None, field: str) -> None:
    content = json.dumps(body)
    answer = booker.post("/api/decisions", content=content, headers={"Content-Type": "application/json"})
    told = answer.json()
    assert answer.status_code == 400, told
    assert (told.get("row"), told["field"]) == (row, field)
    assert field in told["error"]


HARDLY_JSON = [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5000, b"null", b"3", b"[]", b'{"decisions": NaN}']


@pytest.mark.parametrize("body", HARDLY_JSON)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", None])
def test_what_is_hardly_json_is_refused_by_the_desk(booker: httpx.Client, body: bytes, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = booker.post("/api/decisions", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]


ADDRESSES = [
    ("/api/months/2024-3/summary", 400, "month"),
    ("/api/months/2024-13/summary", 400, "month"),
    ("/api/months/0000-01/summary", 404, "0000-01"),
    ("/api/months/9999-12/queue", 404, "9999-12"),
    (f"/api/months/{OPEN}/queue?page=0", 400, "page"),
    (f"/api/months/{OPEN}/queue?page=99999999999999999999", 400, "page"),
    (f"/api/months/{OPEN}/queue?size=501", 400, "size"),
    (f"/api/months/{OPEN}/queue?status=asleep", 400, "status"),
    (f"/api/months/{OPEN}/queue?text=%00", 400, "text"),
    ("/api/transfers/nobody", 404, "nobody"),
    ("/api/transfers/nobody/invoices", 404, "nobody"),
    ("/api/transfers/a%2Fb", 404, "a/b"),
    ("/api/transfers/%00", 400, "transfer_id"),
    ("/api/bookings?after=-1", 400, "after"),
    ("/api/bookings?after=NaN", 400, "after"),
    ("/api/bookings?limit=0", 400, "limit"),
    ("/api/bookings.csv?month=2024", 400, "month"),
    ("/api/decisions?after=9223372036854775808", 400, "after"),
    ("/api/nothing", 404, "/api/openapi.json"),
    ("/api/", 404, "/api/openapi.json"),
]


@pytest.mark.parametrize(("address", "status", "told"), ADDRESSES)
def test_what_is_not_there_or_not_understood(reader: httpx.Client, address: str, status: int, told: str) -> None:
    answer = reader.get(address)
    assert answer.status_code == status, answer.text
    assert told in answer.json()["error"]


def test_other_methods_are_refused(reader: httpx.Client) -> None:
    answer = reader.delete("/api/decisions")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, POST"
    assert answer.json()["error"]


@pytest.mark.parametrize(("path", "size"), [("/api/decisions", 5), ("/api/imports?name=a", 65), ("/api/match", 65)])
@pytest.mark.parametrize("told", [True, False], ids=["its size is told", "in chunks"])
def test_a_request_that_is_too_large_is_refused(booker: httpx.Client, path: str, size: int, told: bool) -> None:
    chunk = b" " * 2**20
    content = chunk * size if told else (chunk for _ in range(size))
    answer = booker.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413, answer.text
    assert booker.get("/api/months").status_code == 200


def test_a_database_that_is_away_is_said(tmp_path_factory: pytest.TempPathFactory) -> None:
    app = create_app(desk_company(tmp_path_factory.mktemp("away"), transfers=10))
    with served(app) as url, client(url) as program:
        assert program.get("/readyz").status_code == 200
        app.state.platform.database.dispose()
        folder = app.state.platform.home
        kept = folder.rename(folder.with_name("elsewhere"))
        assert program.get("/readyz").status_code == 503
        answer = program.get("/api/bookings")
        kept.rename(folder)
    assert answer.status_code == 503
    assert answer.json() == {"error": "the desk's database does not answer; try again in a minute"}


def test_a_matching_service_that_is_away_is_said(reader: httpx.Client) -> None:
    answer = reader.get("/api/model")
    assert answer.status_code == 503
    assert answer.json()["error"].startswith("the matching service does not answer; ")


# -- bookings


def test_bookings_are_read_piece_by_piece(reader: httpx.Client) -> None:
    everything = got(reader, "/api/bookings", limit=10_000)
    assert not everything["more"]
    after, pieces = 0, []
    while True:
        piece = got(reader, "/api/bookings", after=after, limit=7)
        pieces += piece["bookings"]
        assert piece == got(reader, "/api/bookings", after=after, limit=7)
        after = piece["last"]
        if not piece["more"]:
            break
    assert pieces == everything["bookings"]
    assert got(reader, "/api/bookings", after=after) == {"bookings": [], "last": after, "more": False}


def test_bookings_as_csv_are_the_same(reader: httpx.Client) -> None:
    answer = reader.get("/api/bookings.csv", params={"month": OPEN})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["content-disposition"] == f'attachment; filename="bookings-{OPEN}.csv"'
    assert answer.content.count(b"\r\n") == answer.content.count(b"\n") == len(answer.text.splitlines())
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    wanted = got(reader, "/api/bookings", limit=10_000)["bookings"]
    assert [{name: row[name] or None for name in wanted[0]} for row in rows] == [
        {name: value if value is None else str(value) for name, value in one.items()} for one in wanted
    ]
    sign = {"book": "", "reverse": "-"}
    assert [row["signed_amount"] for row in rows] == [f"{sign[row['entry']]}{row['amount']}" for row in rows]
    assert all(row["invoice_number"] and row["counterparty"] and row["payer"] for row in rows)
    assert (
        reader.get("/api/bookings.csv", params={"month": "1999-01"}).text.splitlines() == answer.text.splitlines()[:1]
    )
    last = wanted[-1]["number"]
    assert len(reader.get("/api/bookings.csv", params={"after": last - 1}).text.splitlines()) == 2


CELLS = [
    ("INV-1", "INV-1"),
    ("=HYPERLINK(A1)", "'=HYPERLINK(A1)"),
    ("+48 1", "'+48 1"),
    ("-12", "'-12"),
    ("@sum", "'@sum"),
    ("\tx", "'\tx"),
    ('a "quoted", name', 'a "quoted", name'),
    ("Zażółć\r\ngęślą", "Zażółć\r\ngęślą"),
]


@pytest.mark.parametrize(("text", "shown"), CELLS)
def test_no_cell_is_a_formula_and_amounts_are_numbers(text: str, shown: str) -> None:
    at = datetime(2024, 3, 31, 23, 59, 59, 123456, tzinfo=UTC)
    booking = Booking(7, at, "T1", date(2024, 3, 1), text, -12345, "EUR", "reverse", "person", "ada", 3)
    named = pl.DataFrame({"invoice_number": [text], "counterparty": ["Acme"], "payer": [None]})
    written = as_csv([], named.clear(), header=True) + as_csv([booking], named)
    (row,) = csv.DictReader(io.StringIO(written, newline=""))
    assert row["invoice_id"] == row["invoice_number"] == shown
    assert (row["signed_amount"], row["counterparty"], row["payer"]) == ("123.45", "Acme", "")
    assert (row["amount"], row["booked_at"]) == ("-123.45", "2024-03-31T23:59:59.123456Z")
    assert pl.read_csv(io.BytesIO(written.encode()))["amount"].dtype == pl.Float64


# -- files


CUT = b""":20:X
:25:DE89370400440532013000
:28C:7
:60F:C240301EUR100,00
:61:2403050305C10,00NTRFNONREF//B1
:62F:C240331EUR120,00
-
"""


def sent(program: httpx.Client, name: str, content: bytes, **query: Any) -> httpx.Response:
    return program.post("/api/imports", params={"name": name, **query}, content=content)


@pytest.fixture(scope="module")
def confirmed(app: FastAPI) -> None:
    """Somebody took a file with the columns of STATEMENT at the desk."""
    earlier = STATEMENT.replace(b"API1", b"API0")
    app.state.intake.take(app.state.intake.look("february.csv", earlier), "anna")


def test_columns_that_nobody_has_confirmed_are_not_taken(booker: httpx.Client) -> None:
    strange = STATEMENT.replace(b"title", b"Memo")
    assert sent(booker, "strange.csv", strange).json()["problem"] is None
    refused = sent(booker, "strange.csv", strange, take=True)
    assert refused.status_code == 400
    assert "strange.csv: nobody has confirmed yet which of its columns is which" in refused.json()["error"]
    assert "strange.csv" not in {one["name"] for one in got(booker, "/api/imports")["imports"]}


@pytest.mark.usefixtures("confirmed")
def test_a_file_is_shown_and_taken_once(app: FastAPI, booker: httpx.Client) -> None:
    looked = sent(booker, "march.csv", STATEMENT)
    assert looked.status_code == 200, looked.text
    assert (looked.json()["table"], looked.json()["new"], looked.json()["problem"]) == ("transfers", 1, None)
    assert looked.json()["taken"] is None
    taken = sent(booker, "march.csv", STATEMENT, take=True).json()["taken"]
    assert (taken["actor"], taken["rows"], taken["new"], taken["months"]) == ("token:a-booker", 1, 1, ["2024-03"])
    assert sent(booker, "again.csv", STATEMENT, take=True).json()["taken"] == taken
    assert got(booker, "/api/imports")["imports"][-1] == taken
    (line,) = app.state.access.audit("march.csv")
    assert (line.actor, line.action, line.about) == ("token:a-booker", "imported", f"march.csv {taken['sha256'][:12]}")
    assert not app.state.access.audit("again.csv")


@pytest.mark.usefixtures("confirmed")
def test_a_broken_file_is_refused_with_its_place(booker: httpx.Client) -> None:
    broken = STATEMENT.replace(b"120.00", b"much")
    assert "much" in sent(booker, "broken.csv", broken).json()["problem"]
    refused = sent(booker, "broken.csv", broken, take=True)
    assert refused.status_code == 400
    assert "broken.csv: row 2, field amount: 'much'" in refused.json()["error"]
    assert refused.json()["field"] == "amount"


def test_a_statement_that_does_not_add_up_is_taken_only_knowingly(booker: httpx.Client) -> None:
    looked = sent(booker, "cut.sta", CUT).json()
    assert (looked["problem"], len(looked["contradictions"])) == (None, 1)
    assert "the closing balance is 120.00 EUR, 10.00 away" in looked["contradictions"][0]
    refused = sent(booker, "cut.sta", CUT, take=True)
    assert (refused.status_code, looked["contradictions"][0] in refused.json()["error"]) == (400, True)
    taken = sent(booker, "cut.sta", CUT, take=True, unbalanced=True).json()["taken"]
    assert (taken["new"], taken["contradictions"]) == (1, looked["contradictions"])


# -- description and metrics


def test_the_description_names_every_answer(reader: httpx.Client) -> None:
    described = got(reader, "/api/openapi.json")
    assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert {"401", "403", "503"} <= operation["responses"].keys(), path
            assert operation["security"] == [{"token": []}], path
            assert operation["summary"], (path, method)
    assert described["components"]["schemas"]["Matching"]["properties"]["transfers"]["items"] == asked(
        TABLES["transfers"]
    )


def test_requests_and_decisions_are_counted(booker: httpx.Client) -> None:
    booker.get("/api/months/1999-12/summary")
    booker.get("/nothing/of/the/kind")
    families = text_string_to_metric_families(booker.get("/metrics").text)
    samples = {(one.name, *sorted(one.labels.values())): one.value for family in families for one in family.samples}
    assert samples["desk_requests_total", "/api/months/{month}/summary", "404", "GET"] >= 1
    assert samples["desk_request_seconds_count", "/api/months/{month}/summary", "GET"] >= 1
    assert not [labels for labels in samples if "/nothing/of/the/kind" in labels]
    made = got(booker, "/api/decisions", limit=10_000)["decisions"]
    for action in ("accept", "withdraw", "later"):
        assert samples["desk_decisions_total", action] == sum(one["action"] == action for one in made)
    assert samples["desk_waiting_transfers", OPEN] == got(booker, f"/api/months/{OPEN}/summary")["waiting"]
    assert samples["desk_refusals_total", "refused"] >= 1
    assert samples["desk_warehouse_answers",] == 1
    assert samples["desk_warehouse_agrees",] == 1
