"""Files on the desk: shown first, then taken, whole or not at all; and what a first visit says."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from matching_platform.access import Role, passwords
from matching_platform.desk.app import create_app
from matching_platform.desk.held import Held, Look
from matching_platform.environment import DEFAULTS, Platform, Settings
from matching_platform.intake.incoming import IntakeError
from matching_platform_tests.access.people import PASSWORD, QUICK, add
from matching_platform_tests.desk.asking import asking
from matching_platform_tests.desk.reading import Read

INVOICES = """Invoice number;Customer number;Customer name;Invoice date;Due date;Gross amount;Currency;Direction
FV/1;C1;Łódź Papier;2024-03-01;2024-03-15;1 234,56;PLN;sale
FV/2;C2;"<b>Brown</b>";2024-03-02;2024-03-16;99,00;EUR;sale
""".encode()
CUT = b""":20:X
:25:DE89370400440532013000
:28C:7
:60F:C240301EUR100,00
:61:2403050305C10,00NTRFNONREF//B1
:62F:C240331EUR120,00
-
"""
BANK = b"""Booking date;Counterparty;Title;Amount;Currency;Direction
2024-03-01;Acme;FV/1;5,00;PLN;in
"""
UNKNOWN = b"a;b;c\n2024-03-01;x;1,00\n"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FastAPI]:
    monkeypatch.setattr(passwords, "_HASHER", QUICK)
    local = {"warehouse": tmp_path / "warehouse.duckdb", "store": str(tmp_path / "store")}
    platform = Platform(Settings(**{**DEFAULTS["local"], **local}))
    made = create_app(platform)
    for name, role in {"anna": Role.BOOKER, "bert": Role.BOOKER, "rita": Role.READER}.items():
        add(made.state.access, name, role)
    yield made
    platform.database.dispose()


def logged_in(app: FastAPI, name: str = "anna") -> httpx.Client:
    client = asking(app)
    assert client.post("/login", data={"name": name, "password": PASSWORD}).status_code == 303
    return client


@pytest.fixture
def anna(app: FastAPI) -> Iterator[httpx.Client]:
    with closing(logged_in(app)) as client:
        yield client


def brought(client: httpx.Client, **files: bytes) -> Read:
    """The page after files were chosen."""
    form = Read(client.get("/imports")).form("//form[contains(@class,'upload')]")
    chosen = [("file", (name.replace("_", "."), content)) for name, content in files.items()]
    token = {"csrf_token": form.fields["csrf_token"]}
    answer = client.post("/imports", data=token, files=chosen)
    if answer.status_code != 303:
        return Read(answer)
    return Read(client.get(answer.headers["Location"]))


def followed(client: httpx.Client, answer: httpx.Response) -> Read:
    assert answer.status_code == 303, answer.text
    return Read(client.get(answer.headers["Location"]))


def test_a_first_visit_says_what_to_do(anna: httpx.Client) -> None:
    assert anna.get("/").headers["Location"] == "/start"
    page = Read(anna.get("/start"))
    assert [text.split(" ")[0] for text in page.texts("//ol/li/h2")] == ["Data", "A", "Proposals"]
    assert page.texts("//li[@aria-current='step']//code") == ["make demo", "matching-platform load FOLDER"]
    assert page.values("//li[@aria-current='step']//a/@href") == ["/imports"]
    for address in ("/booked", "/decisions", "/imports"):
        assert anna.get(address).status_code == 200


def test_what_was_taken_and_nobody_has_read_yet_is_not_missing(app: FastAPI, anna: httpx.Client) -> None:
    followed(anna, brought(anna, bank_csv=BANK).form("//form[@action='/imports/take']").sent(anna))
    step = "//li[@aria-current='step']"
    page = Read(anna.get("/start"))
    assert page.texts(f"{step}//span") == ["in the warehouse, not read yet"]
    assert page.texts(f"{step}//code") == ["make dev"]


def test_months_that_no_run_will_see_are_told_before_and_after(app: FastAPI, anna: httpx.Client) -> None:
    page = brought(anna, bank_csv=BANK.replace(b"2024", b"2019"))
    told = "March 2019 lies outside the months that the platform works on"
    assert told in page.text("//article//p[@role='alert']")
    done = followed(anna, page.form("//form[@action='/imports/take']").sent(anna))
    assert told in done.text("//p[@role='alert']")
    assert "The next run proposes" not in done.text()
    start = Read(anna.get("/start"))
    assert start.texts("//li[@aria-current='step']//span") == ["in the warehouse, but outside the configured months"]


def test_a_file_is_shown_and_then_taken_once(app: FastAPI, anna: httpx.Client) -> None:
    page = brought(anna, invoices_csv=INVOICES)
    assert page.texts("//article/div/h3") == ["invoices.csv"]
    told = page.text("//article")
    assert "EUR 99.00, PLN 1,234.56" in told
    assert "March 2024" in told
    assert "<b>Brown</b>" in told
    assert not app.state.intake.history()
    done = followed(anna, page.form("//form[@action='/imports/take']").sent(anna))
    assert done.text("//p[@role='status']").startswith("Taken: invoices.csv, 2 new rows.")
    assert done.texts("//section[@aria-labelledby='taken-title']//tbody/tr/th") == ["invoices.csv"]
    assert not done.values("//article")
    (taken,) = app.state.intake.history()
    assert (taken.actor, taken.new) == ("anna", 2)
    again = brought(anna, again_csv=INVOICES)
    assert "This very file was taken already." in again.text("//article")
    assert again.texts("//div[@id='waiting']//h2") == ["Taken already"], "it does not wait to be taken"
    fresh = brought(anna, fresh_csv=INVOICES.replace(b"FV/1", b"FV/7"))
    assert fresh.texts("//div[@id='waiting']//h2") == ["To be taken", "Taken already"]
    assert not again.values("//form[@action='/imports/take']")


def test_what_is_to_be_mended_in_the_columns_is_open(anna: httpx.Client) -> None:
    page = brought(anna, fresh_csv=INVOICES)
    followed(anna, page.form("//form[@action='/imports/take']").sent(anna))
    known = brought(anna, known_csv=INVOICES.replace(b"FV/1", b"FV/8"))
    mapping = "//details[summary='Which column is which']"
    assert not known.values(f"{mapping}/@open"), "it was seen before"
    form = known.form("//form[@action='/imports/mapping']")
    broken = followed(anna, form.sent(anna, **{"column-currency": "", "constant-currency": "EURO"}))
    assert broken.texts("//article/p[@role='alert']")
    assert broken.values(f"{mapping}/@open")


def test_no_two_landmarks_have_one_name(app: FastAPI, anna: httpx.Client) -> None:
    brought(anna, same_csv=INVOICES)
    page = brought(anna, same_csv=INVOICES.replace(b"99,00", b"98,00"))
    assert page.texts("//article/div/h3") == ["same.csv", "same.csv"]
    named = page.values("//nav/@aria-label | //*[@role='region']/@aria-label")
    named += [page.text(f"//*[@id='{title}']") for title in page.values("//section/@aria-labelledby")]
    assert sorted(named) == ["Pages", "Taken before", "To be taken"]


def test_columns_that_nobody_knows_are_mapped(app: FastAPI, anna: httpx.Client) -> None:
    page = brought(anna, strange_csv=INVOICES.replace(b"Gross amount", b"Wert").replace(b"Direction", b"Seite"))
    assert page.texts("//article//p[@role='alert']")[0].startswith("It cannot be taken like this.")
    form = page.form("//form[@action='/imports/mapping']")
    mapped = followed(anna, form.sent(anna, **{"column-amount": '["Wert"]', "constant-direction": "sale"}))
    assert not mapped.texts("//article//p[@role='alert']")
    followed(anna, mapped.form("//form[@action='/imports/take']").sent(anna))
    assert [one.new for one in app.state.intake.history()] == [2]


def test_a_broken_file_is_one_clear_message_and_can_be_put_aside(anna: httpx.Client) -> None:
    page = brought(anna, good_csv=INVOICES, broken_xml=b"<Document><broken")
    assert page.texts("//article/div/h3") == ["good.csv", "broken.xml"]
    (told,) = page.texts("//article//p[@role='alert']")
    assert told.startswith("This file cannot be taken. broken.xml:")
    assert "Traceback" not in page.answer.text
    rest = followed(anna, page.form("(//form[@action='/imports/drop'])[2]").sent(anna))
    assert rest.texts("//article/div/h3") == ["good.csv"]


def test_what_differs_from_what_is_there_is_shown_and_not_taken(anna: httpx.Client) -> None:
    named = INVOICES.replace(b"Invoice number", b"Invoice id;Invoice number").replace(b"\nFV", b"\nI;FV")
    first = named.replace(b"\nI;FV/1", b"\nI1;FV/1").replace(b"\nI;FV/2", b"\nI2;FV/2")
    followed(anna, brought(anna, a_csv=first).form("//form[@action='/imports/take']").sent(anna))
    page = brought(anna, b_csv=first.replace(b"99,00", b"98,00"))
    assert "It cannot be taken like this." in page.text("//article")
    assert page.texts("//div[starts-with(@aria-label, 'Differences')]//tbody/tr/td")[1:] == [
        "I2",
        "amount",
        "99.00",
        "98.00",
    ]
    assert not page.values("//form[@action='/imports/take']")


def test_a_statement_that_does_not_add_up_needs_a_tick(app: FastAPI, anna: httpx.Client) -> None:
    page = brought(anna, cut_sta=CUT)
    (warned,) = page.texts("//article//*[@role='alert']")
    assert "Statement 7 of DE89370400440532013000 does not add up" in warned
    assert "10.00 away" in warned
    assert page.values("//form[@action='/imports/take']//input[@type='checkbox']/@required")
    form = page.form("//form[@action='/imports/take']")
    unticked = Read(form.sent(anna))
    assert unticked.status == 422
    assert unticked.text("//p[@role='alert']").startswith("This statement does not add up. Tick")
    assert unticked.texts("//article/div/h3") == ["cut.sta"], "it can still be ticked"
    assert not app.state.intake.history()
    done = followed(anna, form.sent(anna, unbalanced="yes"))
    assert done.texts("//section[@aria-labelledby='taken-title']//tbody/tr/th") == [
        "cut.sta taken although it did not add up"
    ]
    (taken,) = app.state.intake.history()
    assert taken.contradictions


def test_what_is_taken_stands_in_the_audit_log(app: FastAPI, anna: httpx.Client) -> None:
    form = brought(anna, invoices_csv=INVOICES).form("//form[@action='/imports/take']")
    assert not app.state.access.audit("imported")
    followed(anna, form.sent(anna))
    (line,) = app.state.access.audit("imported")
    digest = hashlib.sha256(INVOICES).hexdigest()
    assert (line.actor, line.about, line.address) == ("anna", f"invoices.csv {digest[:12]}", "127.0.0.1")
    with closing(logged_in(app, "bert")) as bert:
        brought(bert, again_csv=INVOICES)
        token = Read(bert.get("/imports")).form("//form[@action='/logout']").fields["csrf_token"]
        assert bert.post("/imports/take", data={"csrf_token": token, "key": digest}).status_code == 303
    assert len(app.state.access.audit("imported")) == 1, "it was taken once"


def test_the_sign_can_tell_the_direction(app: FastAPI, anna: httpx.Client) -> None:
    page = brought(anna, bank_csv=b"Booking date;Title;Amount;Currency\n2024-03-01;INV 1;5,00;EUR\n")
    form = page.form("//form[@action='/imports/mapping']")
    mapped = followed(anna, form.sent(anna, **{"constant-direction": "signed"}))
    again = mapped.form("//form[@action='/imports/mapping']")
    assert again.fields["constant-direction"] == ["signed"], "it is not lost when something else is mapped"
    followed(anna, mapped.form("//form[@action='/imports/take']").sent(anna))
    later = b"Booking date;Title;Amount;Currency\n2024-03-02;INV 2;-6,00;EUR\n"
    assert app.state.intake.look("later.csv", later).frame["direction"].to_list() == ["out"]


def test_everyone_sees_his_own_files_and_a_reader_brings_none(app: FastAPI, anna: httpx.Client) -> None:
    form = brought(anna, invoices_csv=INVOICES).form("//form[@action='/imports/take']")
    with closing(logged_in(app, "bert")) as bert:
        page = Read(bert.get("/imports"))
        assert not page.values("//article")
        token = page.form("//form[contains(@class,'upload')]").fields["csrf_token"]
        assert form.sent(bert, csrf_token=token).status_code == 409
    with closing(logged_in(app, "rita")) as rita:
        page = Read(rita.get("/imports"))
        assert not page.values("//input[@type='file']")
        token = page.form("//form[@action='/logout']").fields["csrf_token"]
        assert rita.post("/imports", data={"csrf_token": token}, files={"file": ("x.csv", INVOICES)}).status_code == 403


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/imports", {}, 422),
        ("/imports/take", {"key": "0" * 64}, 409),
        ("/imports/take", {}, 409),
        ("/imports/mapping", {"key": "x"}, 409),
    ],
)
def test_forms_without_a_file_are_answered_with_a_page(
    anna: httpx.Client, path: str, fields: dict[str, str], status: int
) -> None:
    token = Read(anna.get("/imports")).form("//form[@action='/logout']").fields["csrf_token"]
    page = Read(anna.post(path, data={"csrf_token": token, **fields}))
    assert page.status == status
    assert page.texts("//main//h1")


@pytest.mark.parametrize(
    "change", [{"table": "people"}, {"column-amount": "Wert"}, {"column-amount": "{}"}, {"dates": "YDM"}]
)
def test_a_mapping_that_is_not_ours_is_refused(anna: httpx.Client, change: dict[str, str]) -> None:
    form = brought(anna, a_csv=INVOICES).form("//form[@action='/imports/mapping']")
    assert form.sent(anna, **change).status_code == 400


def test_a_file_of_which_nothing_is_known_can_still_be_looked_at(anna: httpx.Client) -> None:
    page = brought(anna, a_csv=UNKNOWN)
    assert page.status == 200
    assert page.texts("//article//p[@role='alert']")


def test_held_files_make_room_for_newer_ones() -> None:
    class Large:
        content = b"x" * 40_000
        problem = None

    held = Held(room=100_000)
    for key in "abc":
        held.put("anna", Look(key, key, Large()))  # type: ignore[arg-type]
    held.put("bert", Look("d", "d", None))
    assert [look.key for look in held.of("anna")] == ["b", "c"]
    assert held.get("anna", "a") is None
    assert held.get("bert", "b") is None
    held.drop("anna", "b")
    held.drop("anna", "b")
    assert [look.key for look in held.of("anna")] == ["c"]
    assert [look.key for look in held.of("bert")] == ["d"]


def test_files_that_cannot_be_read_are_held_in_bounds(app: FastAPI) -> None:
    held = Held()
    held.put("bert", Look("z", "z", None))
    for number in range(60):
        held.put("anna", Look("n", str(number), None, IntakeError("n", "is no table")))
    assert [look.key for look in held.of("anna")] == [str(number) for number in range(10, 60)], "the oldest go first"
    assert [look.key for look in held.of("bert")] == ["z"]
    crowded = Held(room=10_000)
    for number in range(100):
        crowded.put(f"person {number}", Look("n", "n", None))
    assert sum(bool(crowded.of(f"person {number}")) for number in range(100)) < 10


def test_what_was_read_of_a_file_counts_and_its_error_holds_nothing(app: FastAPI) -> None:
    preview = app.state.intake.look("a.csv", INVOICES.replace(b"sale", b"Q"))
    look = Look("a.csv", "a", preview)
    assert look.size > len(INVOICES) + preview.first_rows.estimated_size() > len(INVOICES)
    held = Held()
    held.put("anna", look)
    assert preview.problem.__traceback__ is preview.problem.__context__ is preview.problem.__cause__ is None
    try:
        app.state.intake.look("b.csv", b"\x00\x01")
    except IntakeError as error:
        held.put("anna", Look("b.csv", "b", None, error))
        assert error.__traceback__ is error.__context__ is error.__cause__ is None
