"""The desk's pages, as a person uses them without JavaScript: the list, a transfer, decisions, and what others did."""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from babel import Locale
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.access import Role, passwords
from matching_platform.desk.app import create_app
from matching_platform.desk.formats import money
from matching_platform.desk.outbox import OTHER_DATABASE
from matching_platform.desk.pages.done import MOST, numbers_of, spans_of
from matching_platform.desk.review import Review
from matching_platform.environment import DEFAULTS, Platform, Settings
from matching_platform.matching.marks import Mark
from matching_platform.review.cases import Filter, Option, Page, Row, Status
from matching_platform.review.decisions import Action, Allocation, Wanted
from matching_platform_tests.access.people import PASSWORD, QUICK, add
from matching_platform_tests.desk.asking import asking
from matching_platform_tests.desk.companies import OPEN, desk_company
from matching_platform_tests.desk.reading import Read

EN = Locale.parse("en")
LIST = f"/months/{OPEN}"


@pytest.fixture(autouse=True)
def hashes_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_HASHER", QUICK)


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once; every test has a copy."""
    folder = tmp_path_factory.mktemp("company")
    desk_company(folder, 60)
    return folder


@pytest.fixture
def platform(company: Path, tmp_path: Path) -> Iterator[Platform]:
    copy = shutil.copytree(company, tmp_path / "company")
    given = {"warehouse": copy / "warehouse.duckdb", "store": str(copy / "store")}
    made = Platform(Settings(**{**DEFAULTS["local"], **given}))
    yield made
    made.database.dispose()


@pytest.fixture
def app(platform: Platform) -> Iterator[FastAPI]:
    made = create_app(platform)
    add(made.state.access, "anna", Role.BOOKER)
    add(made.state.access, "bert", Role.BOOKER)
    add(made.state.access, "rita", Role.READER)
    made.state.review.start()
    yield made
    made.state.review.close()


@pytest.fixture
def review(app: FastAPI) -> Review:
    found: Review = app.state.review
    return found


Login = Callable[..., httpx.Client]


@pytest.fixture
def login(app: FastAPI) -> Iterator[Login]:
    opened = []

    def of(name: str = "anna", language: str = "en") -> httpx.Client:
        client = asking(app)
        client.headers["Accept-Language"] = language
        assert client.post("/login", data={"name": name, "password": PASSWORD}).status_code == 303
        opened.append(client)
        return client

    yield of
    for client in opened:
        client.close()


@pytest.fixture
def anna(login: Login) -> httpx.Client:
    return login()


def read(client: httpx.Client, address: str, status: int = 200) -> Read:
    page = Read(client.get(address))
    assert page.status == status, page.text("//body")
    return page


def followed(client: httpx.Client, answer: httpx.Response) -> Read:
    """The page to which an answer sends."""
    assert answer.status_code == 303, answer.text
    return read(client, answer.headers["Location"])


def waiting(review: Review, text: str = "") -> list[Row]:
    return list(review.queue(OPEN, Filter(text=text)).rows)


def paying(review: Review) -> Row:
    """A transfer that waits, for which one invoice is proposed in its own currency."""
    for row in waiting(review):
        parts = review.case(row.transfer_id).proposal.parts
        if len(parts) == 1 and parts[0].invoice.currency == row.currency and parts[0].amount == row.amount:
            return row
    raise AssertionError("the company has no such transfer")


def csrf(client: httpx.Client) -> str:
    return read(client, LIST).values("//input[@name='csrf_token']/@value")[0]


def case(row: Row) -> str:
    return f"/cases/{row.transfer_id}"


def test_a_stranger_is_led_to_the_login_and_back(app: FastAPI) -> None:
    with asking(app) as client:
        answer = client.get(LIST)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=%2Fmonths%2F2024-03")
        assert client.post("/cases/x/decision", data={"action": "accept"}).status_code in (303, 401)


def test_the_front_page_leads_to_the_newest_month_with_something_to_do(anna: httpx.Client, review: Review) -> None:
    assert anna.get("/").headers["Location"] == LIST
    page = read(anna, LIST)
    assert page.text("//h1") == "March 2024"
    rows = waiting(review)
    assert page.values("//tr//a[@data-row]/@href") == [case(row) for row in rows[:50]]
    assert page.texts("//section[@class='figures']//dt") == [
        "Booked unattended",
        "Waiting",
        "Doubtful money",
        "Realised precision",
    ]
    summary = review.summary(OPEN)
    assert page.texts("//section[@class='figures']//dd")[1].startswith(f"{summary.waiting} PLN")
    assert page.texts("//nav[@class='tabs']/a")[0] == f"Waiting {summary.waiting}"


def test_a_list_can_be_searched_and_leads_to_cases_that_stay_in_it(anna: httpx.Client, review: Review) -> None:
    row = waiting(review)[3]
    page = Read(
        read(anna, LIST).form("//form[@role='search' and contains(@class,'search')]").sent(anna, text=row.transfer_id)
    )
    (address,) = page.values("//tr//a[@data-row]/@href")
    assert address == f"{case(row)}?text={row.transfer_id}"
    assert page.values("//input[@id='text']/@value") == [row.transfer_id]
    inside = read(anna, address)
    assert not inside.values("//a[@rel='next' or @rel='prev']")
    assert inside.values("//a[@data-key='q']/@href") == [f"{LIST}?text={row.transfer_id}"]
    nothing = read(anna, f"{LIST}?text=%22%3E%3Cscript%3E")
    assert nothing.text("//p[@class='empty']").startswith('Nothing here holds “"><script>”.')


def test_what_was_booked_unattended_says_why(anna: httpx.Client, review: Review) -> None:
    page = read(anna, f"/booked?month={OPEN}")
    booked = review.booked(OPEN).rows
    assert page.values("//tr//a[@data-row]/@href") == [f"{case(row)}?show=booked" for row in booked[:50]]
    inside = read(anna, f"{case(booked[0])}?show=booked")
    assert "from which it books" in inside.text("//section[@aria-labelledby='settled-title']")
    assert read(anna, f"/booked?month={OPEN}&text=nothing-like-that").texts("//p[@class='empty']")


def test_a_case_shows_what_is_proposed_and_that_the_sum_meets_the_amount(anna: httpx.Client, review: Review) -> None:
    row = paying(review)
    page, found = read(anna, case(row)), review.case(row.transfer_id)
    assert page.text("//h1").startswith(row.payer)
    invoice = found.proposal.parts[0].invoice
    assert invoice.number in page.text("//section[@aria-labelledby='proposal-title']//tbody")
    assert page.text("//tr[contains(@class,'difference')]/td") == f"✓ {row.currency} 0.00"
    assert page.texts("//ul[@class='evidence']/li") == [
        f"{'✗' if said.startswith('against') else '·' if said.startswith('runner') else '✓'} {said}"
        for said in found.evidence
    ]
    assert set(page.values("//*[@data-key]/@data-key")) >= {"a", "c", "n", "l", "q", "?"}


def test_where_nothing_was_booked_unattended_it_is_said_why(
    anna: httpx.Client, platform: Platform, review: Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = read(anna, f"/booked?month={OPEN}")
    assert "The model booked these itself" in page.text()
    assert page.values("//main//a[@download]/@href") == [f"/api/bookings.csv?month={OPEN}", "/api/bookings.csv"]
    platform.unattended.freeze(actor="rita", reason="the bank changed its titles")
    review.look()
    monkeypatch.setattr(review, "booked", lambda *_: Page([], 1, 1, 0))
    empty = read(anna, f"/booked?month={OPEN}")
    assert "the bank changed its titles" in empty.text("//p[@role='alert']")
    assert "The model booked these itself" not in empty.text()


def test_another_currency_is_converted_at_a_rate_that_is_shown(anna: httpx.Client, review: Review) -> None:
    cases = (review.case(row.transfer_id) for row in waiting(review))
    found = next(
        one
        for one in cases
        if {part.invoice.currency for part in one.proposal.parts} - {one.row.currency} and one.rates
    )
    (currency,) = {part.invoice.currency for part in found.proposal.parts}
    told = read(anna, case(found.row)).text("//section[@aria-labelledby='proposal-title']//tfoot")
    total = round(sum(part.amount for part in found.proposal.parts) * found.rates[currency])
    sums = [money(amount, found.row.currency, EN).replace("\xa0", " ") for amount in (total, found.row.amount - total)]
    assert told.startswith(f"≈ {sums[0]} 1 {currency} = ")
    assert f"about {sums[1]}" in told
    assert f"1 {currency} = " in read(anna, f"{case(found.row)}/change").text("//div[@id='sums']")


def test_runners_up_stand_by_rank_and_without_a_number_to_compare_with_the_confidence(
    anna: httpx.Client, review: Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = paying(review)
    found = review.case(row.transfer_id)
    others = tuple(Option(share, ()) for share in (0.41, 0.06, 0.001))
    monkeypatch.setattr(review, "case", lambda *_: replace(found, runners_up=others))
    ranked = "//ol[@class='runners']/li"
    page = read(anna, case(row))
    assert page.texts(f"{ranked}//span[@class='hint']") == ["close behind", "behind", "far behind"]
    assert "%" not in page.text(ranked)
    assert not page.values(f"{ranked}//meter")


def test_a_title_with_marks_is_the_title(anna: httpx.Client, review: Review) -> None:
    marked = 0
    for row in waiting(review)[:20]:
        page = read(anna, case(row))
        marked += len(page.tree.xpath("//p[@class='remittance']/mark"))
        for hidden in page.tree.xpath("//p[@class='remittance']//span"):
            hidden.drop_tree()
        found = page.tree.xpath("//p[@class='remittance']")[0].text_content()
        assert found == row.title
    assert marked


def test_a_mark_says_whether_it_is_the_number_or_resembles_it(
    anna: httpx.Client, review: Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = paying(review)
    found = review.case(row.transfer_id)
    (part,) = found.proposal.parts
    invoice = part.invoice
    marks = (Mark(0, 1, "number", invoice.invoice_id), Mark(2, 3, "number", invoice.invoice_id, is_exact=False))
    titled = replace(found, row=replace(row, title="1 2 3"), marks=marks)
    monkeypatch.setattr(review, "case", lambda *_: titled)
    page = read(anna, case(row))
    assert page.values("//mark/@title") == [
        f"number of invoice {invoice.number}",
        f"resembles the number of invoice {invoice.number}",
    ]
    assert page.texts("//mark[@class='like']") == [f"2 (resembles the number of invoice {invoice.number})"]


def test_accepting_goes_on_to_the_next_one_and_undo_leads_back(
    app: FastAPI, anna: httpx.Client, review: Review
) -> None:
    row = paying(review)
    place = [one.transfer_id for one in waiting(review)].index(row.transfer_id)
    after = (waiting(review)[place + 1 :] or [waiting(review)[place - 1]])[0]
    page = followed(anna, read(anna, case(row)).key("a").sent(anna))
    assert page.text("//h1").startswith(after.payer or "(no name)")
    assert page.values("//a[@data-key='q']/@href") == [LIST]
    assert page.text("//div[@class='toast']/p").startswith(f"Accepted: {row.payer}")
    (made,) = review.decisions(OPEN).rows
    assert (made.transfer_id, made.actor, made.action, made.corrects) == (row.transfer_id, "anna", Action.ACCEPT, False)
    back = followed(anna, page.key("u").sent(anna))
    assert back.text("//h1").startswith(row.payer)
    assert back.text("//div[@class='toast']").startswith("Taken back")
    assert back.texts("//ol[@class='history']/li/p/strong") == ["anna", "anna"]
    assert review.case(row.transfer_id).row.status is Status.WAITING
    undone, decided = app.state.access.audit(row.transfer_id)
    assert (decided.actor, decided.action) == ("anna", "decided")
    assert (undone.actor, undone.action) == ("anna", "undone")


@pytest.mark.parametrize(("key", "status"), [("n", Status.DECIDED), ("l", Status.LATER)])
def test_pays_nothing_and_ask_later(anna: httpx.Client, review: Review, key: str, status: Status) -> None:
    row = paying(review)
    followed(anna, read(anna, case(row)).key(key).sent(anna))
    assert review.case(row.transfer_id).row.status is status
    tab = "decided" if status is Status.DECIDED else "later"
    assert read(anna, f"{LIST}?show={tab}").values("//tr//a[@data-row]/@href") == [f"{case(row)}?show={tab}"]


def test_after_the_last_one_of_a_list_comes_the_list(anna: httpx.Client, review: Review) -> None:
    row = paying(review)
    page = followed(anna, read(anna, f"{case(row)}?text={row.transfer_id}").key("a").sent(anna))
    assert page.text("//h1") == "March 2024"
    assert page.text("//p[@class='empty']").startswith("Nothing here holds")
    assert page.texts("//div[@class='toast']")


def test_other_invoices_are_searched_ticked_and_added_up_before_anything_is_recorded(
    anna: httpx.Client, review: Review
) -> None:
    row = paying(review)
    own = review.case(row.transfer_id).proposal.parts[0].invoice
    page = read(anna, f"{case(row)}/change")
    form = page.form("//form[@id='choice']")
    assert form.fields["invoice"] == [own.invoice_id]
    assert "meets the amount to the cent" in page.text("//div[@id='sums']")
    other = next(
        one
        for one in review.search(row.transfer_id, "")
        if one.invoice_id != own.invoice_id and one.currency == row.currency and one.open > 100
    )
    found = Read(_looked_at(anna, row, page, {"search": other.number, "note": "as they wrote"}))
    assert other.invoice_id in found.values("//input[@name='invoice']/@value")
    assert found.values("//input[@name='invoice' and @checked]/@value") == [own.invoice_id]
    assert found.values("//input[@id='note']/@value") == ["as they wrote"]
    amounts = {f"amount-{other.invoice_id}": "1.00", f"amount-{own.invoice_id}": ""}
    both = {"invoice": [own.invoice_id, other.invoice_id], **amounts}
    added = Read(_looked_at(anna, row, found, both))
    assert "2 invoices" in added.text("//div[@id='sums']")
    assert "meets the amount to the cent" in added.text("//div[@id='sums']")
    assert not review.decisions(OPEN).rows
    followed(anna, added.form("//form[@id='choice']").sent(anna))
    (made,) = review.decisions(OPEN).rows
    assert made.action is Action.CHANGE
    assert made.corrects
    assert {(part.invoice_id, part.amount) for part in made.allocations} == {
        (own.invoice_id, row.amount - 100),
        (other.invoice_id, 100),
    }
    assert made.note == "as they wrote"


def _looked_at(client: httpx.Client, row: Row, page: Read, fields: dict[str, object]) -> httpx.Response:
    form = page.form("//form[@id='choice']")
    return client.post(f"{case(row)}/change", data=form.fields | fields)


@pytest.mark.parametrize("by", ["a person", "the model"])
def test_what_is_settled_already_can_be_changed_after_a_search(anna: httpx.Client, review: Review, by: str) -> None:
    if by == "a person":
        row = paying(review)
        followed(anna, read(anna, case(row)).key("a").sent(anna))
    else:
        row = next(
            one
            for one in review.booked(OPEN).rows
            if [(part.invoice.currency, part.amount) for part in review.case(one.transfer_id).settled or ()]
            == [(one.currency, one.amount)]
        )
    (own,) = review.case(row.transfer_id).settled or ()
    page = Read(_looked_at(anna, row, read(anna, f"{case(row)}/change"), {"search": "zzzz"}))
    name = own.invoice.invoice_id
    assert page.values(f"//input[@name='open-{name}']/@value") == [str(own.amount)]
    assert "meets the amount to the cent" in page.text("//div[@id='sums']")
    unticked = Read(_looked_at(anna, row, page, {"search": "", "invoice": []}))
    assert page.values(f"//input[@name='open-{name}']/@value") == unticked.values(
        f"//input[@name='open-{name}']/@value"
    )
    other = next(
        one
        for one in review.search(row.transfer_id, "")
        if one.invoice_id != name and one.currency == row.currency and one.open > 100
    )
    both = Read(
        _looked_at(anna, row, page, {"invoice": [name, other.invoice_id], f"amount-{other.invoice_id}": "1.00"})
    )
    assert "meets the amount to the cent" in both.text("//div[@id='sums']")
    form = both.form("//form[@id='choice']")
    answer = form.sent(anna, invoice=[name, other.invoice_id], **{f"amount-{other.invoice_id}": "1.00"})
    followed(anna, answer)
    made = review.decisions().rows[0]
    expected = {(name, row.amount - 100), (other.invoice_id, 100)}
    assert {(part.invoice_id, part.amount) for part in made.allocations} == expected
    held = review.case(row.transfer_id).settled or ()
    assert {(part.invoice.invoice_id, part.amount) for part in held} == expected


def test_a_second_invoice_of_the_same_amount_is_not_met_by_one_that_is_settled(
    anna: httpx.Client, review: Review
) -> None:
    row = paying(review)
    followed(anna, read(anna, case(row)).key("a").sent(anna))
    (own,) = review.case(row.transfer_id).settled or ()
    other = next(
        one
        for one in review.search(row.transfer_id, "")
        if one.invoice_id != own.invoice.invoice_id and one.currency == row.currency and one.open > 0
    )
    both = {"invoice": [own.invoice.invoice_id, other.invoice_id], "search": other.number}
    page = Read(_looked_at(anna, row, read(anna, f"{case(row)}/change"), both))
    (said,) = page.texts("//div[@id='sums']//li")
    assert said == f"{other.number}: The amount is used up before this invoice; untick it."


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("999999", "Only %(open)s of the invoice is open."),
        ("-5", "Of this invoice, only an amount above 0 can be settled."),
        ("0", "Nothing of the invoice would be settled; untick it."),
    ],
)
def test_an_amount_that_cannot_be_is_said_at_its_field_and_not_counted(
    anna: httpx.Client, review: Review, typed: str, said: str
) -> None:
    row = paying(review)
    (own,) = review.case(row.transfer_id).proposal.parts
    other = next(
        one
        for one in review.search(row.transfer_id, "")
        if one.invoice_id != own.invoice.invoice_id and one.currency == row.currency and one.open > 0
    )
    told = said % {"open": money(other.open, other.currency, EN)} if "open" in said else said
    name = f"amount-{other.invoice_id}"
    wanted = {"invoice": [own.invoice.invoice_id, other.invoice_id], "search": other.number, name: typed}
    page = Read(_looked_at(anna, row, read(anna, f"{case(row)}/change"), wanted))
    assert page.values(f"//input[@name='{name}']/@aria-invalid") == ["true"]
    assert page.texts("//td/span[@class='error']") == [" ".join(told.split())], "the other one is not to blame"
    assert page.text("//div[@id='sums']") == f"{other.number}: {' '.join(told.split())}"
    refused = Read(page.form("//form[@id='choice']").sent(anna))
    assert refused.status == 422
    assert refused.texts("//td/span[@class='error']") == [" ".join(told.split())]
    assert not review.decisions().rows


def test_what_is_no_amount_is_said_beside_it_and_nothing_typed_is_lost(login: Login, review: Review) -> None:
    polish, row = login(language="pl"), paying(review)
    form = read(polish, f"{case(row)}/change").form("//form[@id='choice']")
    name = f"amount-{form.fields['invoice'][0]}"
    page = Read(form.sent(polish, **{name: "12,3x", "note": "uwaga"}))
    assert page.status == 422
    assert page.values(f"//input[@name='{name}']/@value") == ["12,3x"]
    assert page.values(f"//input[@name='{name}']/@aria-invalid") == ["true"]
    assert page.texts("//td/span[@class='error']") == [
        "To nie jest kwota; wpisz ją z dwoma miejscami po przecinku, na przykład 1234,56."
    ]
    assert page.values("//input[@id='note']/@value") == ["uwaga"]
    assert not review.decisions(OPEN).rows
    followed(
        polish, page.form("//form[@id='choice']").sent(polish, **{name: f"{row.amount // 100},{row.amount % 100:02}"})
    )
    assert review.case(row.transfer_id).row.status is Status.DECIDED


def test_the_second_person_sees_what_the_first_did_before_anything_is_lost(login: Login, review: Review) -> None:
    row, anna, bert = paying(review), login("anna"), login("bert")
    shown = read(anna, case(row))
    followed(bert, read(bert, case(row)).key("n").sent(bert))
    page = Read(shown.key("a").sent(anna))
    assert page.status == 409
    assert page.text("//section[@role='alert']/h2") == "bert decided on this transfer while you looked at it"
    theirs, mine = page.texts("//div[@class='versus']/div")
    assert "pays nothing" in theirs
    number = review.case(row.transfer_id).proposal.parts[0].invoice.number
    assert "accepted, not recorded yet" in mine
    assert number in mine
    assert [one.actor for one in review.case(row.transfer_id).history] == ["bert"]
    keys = set(page.values("//main//*[@data-key]/@data-key"))
    assert keys <= {"q", "j", "k"}, "no key decides before she has chosen between the two"
    assert page.texts("//main//*[contains(@class, 'primary')]") == ["Leave theirs"]
    followed(anna, page.form("//div[@class='versus']//form").sent(anna))
    first, second = review.case(row.transfer_id).history
    assert (first.actor, second.actor, second.action, second.supersedes) == (
        "bert",
        "anna",
        Action.ACCEPT,
        first.number,
    )


def test_an_invoice_that_somebody_settled_meanwhile_is_named_and_the_choice_kept(login: Login, review: Review) -> None:
    row, anna = paying(review), login("anna")
    invoice = review.case(row.transfer_id).proposal.parts[0].invoice
    shown = read(anna, f"{case(row)}/change")
    thief = next(
        one
        for one in waiting(review)
        if one.transfer_id != row.transfer_id and (one.currency, one.direction) == (row.currency, row.direction)
    )
    taken = Allocation(invoice.invoice_id, min(invoice.open, thief.amount))
    review.decide([Wanted(thief.transfer_id, Action.CHANGE, (taken,), 0)], "bert")
    page = Read(shown.form("//form[@id='choice']").sent(anna, note="mine"))
    assert page.status == 409
    said = page.text("//section[@role='alert']")
    assert invoice.number in said
    assert "bert" in said
    assert page.values("//input[@id='note']/@value") == ["mine"]
    assert page.values("//input[@name='invoice' and @checked]/@value") == [invoice.invoice_id]
    assert review.case(row.transfer_id).row.last is None


def test_what_is_alike_is_accepted_and_taken_back_at_once(app: FastAPI, anna: httpx.Client, review: Review) -> None:
    row = next(one for one in waiting(review) if len(review.alike(one.transfer_id)) > 2)
    group = {one.transfer_id for one in review.alike(row.transfer_id)}
    (link,) = read(anna, case(row)).values("//a[@data-key='m']/@href")
    page = read(anna, link)
    form = page.form("//form[.//input[@name='transfer']]")
    assert set(form.fields["transfer"]) == group
    left = next(iter(group - {row.transfer_id}))
    done = followed(anna, form.sent(anna, transfer=sorted(group - {left})))
    assert done.text("//div[@class='toast']/p") == f"{len(group) - 1} transfers accepted" if len(group) > 2 else True
    decided = {one.transfer_id for one in review.decisions(OPEN).rows}
    assert decided == group - {left}
    back = followed(anna, done.key("u").sent(anna))
    count = len(group) - 1
    assert back.text("//div[@class='toast']") == f"{count} decision{'s' if count > 1 else ''} taken back"
    assert {review.case(name).row.status for name in group} == {Status.WAITING}
    assert [one.action for one in app.state.access.audit(left)] == []
    assert [one.action for one in app.state.access.audit(row.transfer_id)] == ["undone", "decided"]
    assert Read(form.sent(anna, transfer=None)).status == 422


def test_what_goes_out_is_told_with_its_sign_among_what_is_alike(
    anna: httpx.Client, review: Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = next(one for one in waiting(review) if len(review.alike(one.transfer_id)) > 2)
    group = [one.transfer_id for one in review.alike(row.transfer_id)]
    offers = {one.row.transfer_id: one for one in review.proposed(group)}
    first = offers[group[0]]
    offers[group[0]] = replace(first, row=replace(first.row, direction="out"))
    monkeypatch.setattr(review, "proposed", lambda names: [offers[name] for name in names])
    page = read(anna, f"{case(row)}/alike")
    shown = dict(zip(page.values("//input[@name='transfer']/@value"), page.texts("//tbody/tr/td[4]"), strict=True))
    assert {name for name, text in shown.items() if text.startswith("−")} == {
        name for name, one in offers.items() if one.row.direction == "out"
    }
    assert shown[group[0]].endswith("outgoing")
    sums: dict[tuple[str, str], int] = {}
    for one in offers.values():
        key = one.row.direction, one.row.currency
        sums[key] = sums.get(key, 0) + (-one.row.amount if one.row.direction == "out" else one.row.amount)
    told = page.texts("//p[@class='facts']/span")[1].removeprefix("Sum: ")
    expected = [money(total, currency, EN).replace("\xa0", " ") for (_, currency), total in sums.items()]
    assert sorted(told.split(", ")) == sorted(", ".join(expected).split(", "))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"is_anew": True}, "what is proposed anew after people's decisions is never booked unattended."),
        ({"booked_from": 1.1, "is_anew": True}, "what is proposed anew after people's decisions is never booked"),
        ({"booked_from": 1.1}, "the model books nothing unattended."),
        ({"booked_from": 0.9804}, "the model books unattended from 98.04%."),
        ({"proposal": Option(0.9, ())}, "that a transfer pays nothing is never booked unattended."),
    ],
)
def test_what_waits_says_why(
    anna: httpx.Client, review: Review, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], said: str
) -> None:
    found = review.case(paying(review).transfer_id)
    sure = replace(found, row=replace(found.row, confidence=0.98), **changes)  # type: ignore[arg-type]
    monkeypatch.setattr(review, "case", lambda *_: sure)
    page = read(anna, case(sure.row))
    told = page.text("//section[@aria-labelledby='proposal-title']")
    assert f"It waits for a person: {said}" in told
    assert ("98.00%" in told) == ("98.04%" in said), "the two confidences are told apart"
    model = page.texts("//section[@aria-labelledby='history-title']/p")[-1]
    assert ("Proposed anew by model" in model) == sure.is_anew


def test_a_transfer_that_is_proposed_anew_is_known(review: Review) -> None:
    row = paying(review)
    before = review.case(row.transfer_id)
    thief = next(
        one
        for one in waiting(review)
        if one.transfer_id != row.transfer_id and (one.currency, one.direction) == (row.currency, row.direction)
    )
    (part,) = before.proposal.parts
    taken = Allocation(part.invoice.invoice_id, min(part.invoice.open, thief.amount))
    review.decide([Wanted(thief.transfer_id, Action.CHANGE, (taken,), 0)], "bert")
    assert (before.is_anew, review.case(row.transfer_id).is_anew) == (False, True)


def test_what_is_left_over_is_told(anna: httpx.Client, review: Review) -> None:
    row = next(one for one in waiting(review) if one.transfer_id == paying(review).transfer_id)
    form = read(anna, f"{case(row)}/change").form("//form[@id='choice']")
    amount = {f"amount-{form.fields['invoice'][0]}": "1.00"}
    page = followed(anna, form.sent(anna, note="so they said", **amount))
    left = money(row.amount - 100, row.currency, EN).replace("\xa0", " ")
    assert page.text("//div[@class='toast']/p").endswith(f"; {left} of the transfer is left over")
    whole = paying(review)
    page = followed(anna, read(anna, case(whole)).key("a").sent(anna))
    assert "left over" not in page.text("//div[@class='toast']/p")


def test_who_comes_too_late_to_undo_is_told_in_words(login: Login, review: Review) -> None:
    row, anna = paying(review), login("anna", language="en-GB")
    page = followed(anna, read(anna, case(row)).key("n").sent(anna))
    review.decide([Wanted(row.transfer_id, Action.LATER, (), review.decisions().rows[0].number)], "bert")
    refused = Read(page.key("u").sent(anna))
    assert refused.status == 409
    said = refused.texts("//section[@role='alert']/p")[1]
    assert re.search(r"bert decided on \d+ \w+ \d{4}, \d\d:\d\d UTC: ask later\.$", said), said
    assert refused.values("//html/@lang") == ["en-GB"], "the browser's clock is told in that form, too"


def test_an_unknown_month_is_said_once(anna: httpx.Client) -> None:
    assert read(anna, "/months/2031-01", 404).texts("//main//p")[1:3] == [
        "There are no proposals of 2031-01.",
        "The list shows what there is.",
    ]


def test_the_audit_log_is_told_in_polish(app: FastAPI, login: Login, review: Review) -> None:
    add(app.state.access, "adam", Role.ADMIN)
    rita, row, anna = login("rita"), paying(review), login("anna")
    token = csrf(rita)
    assert rita.post(f"{case(row)}/decision", data={"csrf_token": token, "action": "later"}).status_code == 403
    group = next(one for one in waiting(review) if len(review.alike(one.transfer_id)) > 2)
    followed(anna, read(anna, f"{case(group)}/alike").form("//form[.//input[@name='transfer']]").sent(anna))
    told = read(login("adam", language="pl"), "/admin/audit").texts("//td[@data-label='Czego dotyczy']")
    assert any("potrzebna rola: księgowanie" in one for one in told), told
    assert any(re.match(r"#1–#\d+, decyzje \(\d+\): ", one) for one in told), told
    assert not [one for one in told if " decisions" in one or "needs" in one or " as " in one]


def test_who_decided_what_can_be_looked_up(anna: httpx.Client, review: Review) -> None:
    row = paying(review)
    assert read(anna, "/decisions").text("//p[@class='empty']") == "Nobody has decided anything yet."
    followed(anna, read(anna, case(row)).key("a").sent(anna))
    page = read(anna, f"/decisions?month={OPEN}&text={row.transfer_id}")
    (line,) = page.texts("//tbody/tr")
    assert "anna" in line
    assert "accepted" in line
    number = review.case(row.transfer_id).proposal.parts[0].invoice.number
    assert number in line
    assert row.payer in line
    assert row.currency in line
    for sought in (number.lower(), row.payer):
        (link,) = read(anna, f"/decisions?text={quote(sought)}").values("//tbody//a[@data-row]/@href")
        assert link.startswith(case(row))
    assert read(anna, "/decisions?actor=bert").text("//p[@class='empty']") == "No decision is like that."


def test_a_reader_sees_all_and_decides_nothing(login: Login, review: Review) -> None:
    rita, row = login("rita"), paying(review)
    page = read(rita, case(row))
    assert not page.values("//*[@data-key='a' or @data-key='n' or @data-key='c']")
    csrf = page.values("//input[@name='csrf_token']/@value")[0]
    answer = rita.post(f"{case(row)}/decision", data={"csrf_token": csrf, "action": "nothing", "expected": "0"})
    assert answer.status_code == 403
    assert not review.decisions(OPEN).rows


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"csrf_token": None}, 403),
        ({"csrf_token": "0" * 64}, 403),
        ({"action": "withdraw"}, 400),
        ({"action": "something"}, 400),
        ({"action": None}, 400),
        ({"expected": "x"}, 400),
        ({"expected": "9" * 30}, 400),
        ({"expected": "²"}, 400),
        ({"part": ["x:y"]}, 400),
        ({"part": ["1:no such invoice"]}, 409),
        ({"expected": "7"}, 409),
    ],
)
def test_a_form_that_is_not_ours_records_nothing_and_is_answered_with_a_page(
    anna: httpx.Client, review: Review, change: dict[str, object], status: int
) -> None:
    page = Read(read(anna, case(paying(review))).key("a").sent(anna, **change))
    assert page.status == status, page.text("//body")
    assert page.texts("//main//h1")
    assert not review.decisions(OPEN).rows


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/months/2031-01", 404),
        ("/months/x", 404),
        (f"{LIST}?show=nothing", 404),
        (f"{LIST}?page=0", 404),
        (f"{LIST}?text={'x' * 500}", 404),
        ("/cases/nobody", 404),
        ("/cases/nobody/change", 404),
        ("/cases/nobody/alike", 404),
        ("/nowhere", 404),
        (f"{LIST}?page=99999", 200),
        ("/booked?month=x", 200),
        ("/decisions?month=x", 200),
    ],
)
def test_what_is_not_there_is_a_page_too(anna: httpx.Client, address: str, status: int) -> None:
    page = read(anna, address, status)
    assert page.texts("//main//h1")
    assert page.texts("//header//nav") or status == 404


def test_a_form_that_is_too_large_is_refused(anna: httpx.Client, review: Review) -> None:
    address = f"{case(paying(review))}/decision"
    assert anna.post(address, data={"note": "x" * 3 * 2**20}).status_code == 413


def test_an_error_of_ours_is_a_page_without_its_details(
    app: FastAPI, anna: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("secret")

    monkeypatch.setattr(app.state.review, "months", broken)
    page = read(anna, "/", 500)
    assert page.text("//h1") == "Something broke"
    assert page.values("//header//nav"), "it is a page like all others"
    assert "secret" not in page.answer.text
    assert "default-src 'none'" in page.answer.headers["Content-Security-Policy"]
    assert page.answer.headers["Cache-Control"] == "no-store"


def test_a_refusal_is_told_in_the_readers_language(login: Login, review: Review) -> None:
    row = paying(review)
    form = {"action": "change", "expected": "0", "part": "100:nobody"}
    polish, english = login(language="pl"), login("bert", language="en")
    sent = [Read(who.post(f"{case(row)}/decision", data=form | {"csrf_token": csrf(who)})) for who in (polish, english)]
    assert [one.status for one in sent] == [409, 409]
    said = [one.texts("//section[@role='alert']/p")[1] for one in sent]
    assert said == [
        "Nie ma faktury „nobody”; być może jej miesiąc nie jest jeszcze przyjęty.",
        "There is no invoice 'nobody'; perhaps its month is not accepted yet.",
    ]


def test_where_one_of_those_alike_cannot_be_accepted_the_others_stay_ticked(anna: httpx.Client, review: Review) -> None:
    row = next(one for one in waiting(review) if len(review.alike(one.transfer_id)) > 2)
    page = read(anna, f"{case(row)}/alike")
    form = page.form("//form[.//input[@name='transfer']]")
    group = set(form.fields["transfer"])
    assert {one.row.transfer_id for one in review.proposed(sorted(group))} == group
    other = min(group - {row.transfer_id})
    (theirs,) = review.decide([Wanted(other, Action.LATER)], "bert")
    shown = Read(form.sent(anna))
    assert shown.status == 409
    assert review.row(other).payer in shown.text("//p[@role='alert']")
    assert set(shown.values("//input[@name='transfer' and @checked]/@value")) == group - {other}
    assert [one.number for one in review.decisions().rows] == [theirs.number], "none of them was accepted"


def test_what_was_accepted_at_once_is_taken_back_whole_or_not_at_all(anna: httpx.Client, review: Review) -> None:
    row = next(one for one in waiting(review) if len(review.alike(one.transfer_id)) > 2)
    form = read(anna, f"{case(row)}/alike").form("//form[.//input[@name='transfer']]")
    undo = followed(anna, form.sent(anna)).key("u")
    made = list(review.decisions().rows)
    review.undo(made[-1].number, "bert")
    assert undo.sent(anna).status_code == 409
    assert {review.row(one.transfer_id).status for one in made[:-1]} == {Status.DECIDED}


def test_what_others_did_meanwhile_is_not_taken_back_with_it(anna: httpx.Client, review: Review) -> None:
    row = next(one for one in waiting(review) if len(review.alike(one.transfer_id)) > 3)
    alike = [one.transfer_id for one in review.alike(row.transfer_id)]
    rest = [one.transfer_id for one in waiting(review) if one.transfer_id not in alike]
    form = read(anna, f"{case(row)}/alike").form("//form[.//input[@name='transfer']]")
    # One of them in another tab, then somebody else works on, then she sends her page.
    accepted = form.sent(anna, transfer=alike[:1])
    (early,) = review.decisions().rows
    theirs = [review.decide([Wanted(name, Action.NOTHING)], "bert")[0] for name in rest[:3]]
    done = followed(anna, form.sent(anna))
    assert done.text("//div[@class='toast']/p") == f"{len(alike) - 1} transfers accepted"
    followed(anna, done.key("u").sent(anna))
    assert {review.row(name).status for name in alike[1:]} == {Status.WAITING}
    assert review.row(early.transfer_id).status is Status.DECIDED
    assert {review.row(one.transfer_id).status for one in theirs} == {Status.DECIDED}
    assert accepted.status_code == 303
    undo = read(anna, f"{LIST}?done={early.number}-{theirs[-1].number}").key("u")
    refused = undo.sent(anna)
    assert refused.status_code == 409
    assert "was made by bert" in Read(refused).text("//main")
    assert {review.row(one.transfer_id).status for one in theirs} == {Status.DECIDED}


@given(st.sets(st.integers(1, 10**15 - 1), min_size=1, max_size=40), st.integers(0, MOST - 40))
def test_numbers_are_handed_on_as_they_are(numbers: set[int], more: int) -> None:
    start = max(numbers) + 1
    every = tuple(sorted(numbers | set(range(start, start + more))))
    if every[-1] < 10**15:
        assert numbers_of(spans_of(every)) == every


@pytest.mark.parametrize("text", ["", "3", "3-", "5-4", f"1-{MOST + 1}", "1-2,", "1-2;4-4", "1-1" + ",1-1" * 5000])
def test_what_is_not_numbers_is_not_taken_for_them(text: str) -> None:
    assert numbers_of(text) == ()


def test_who_cannot_decide_is_told_why(anna: httpx.Client, review: Review) -> None:
    review.outbox.close()
    review.outbox.refusal = OTHER_DATABASE
    assert "restore the newer database" in read(anna, LIST).text("//p[@role='alert']")
    row = paying(review)
    page = Read(read(anna, case(row)).key("a").sent(anna))
    assert page.status == 409
    assert "restore the newer database" in page.text("//section[@role='alert']")
    assert anna.get("/readyz").json() == {"status": "ready", "problem": OTHER_DATABASE}


def test_what_cannot_be_noted_is_not_decided(
    anna: httpx.Client, review: Review, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = read(anna, case(paying(review))).key("a")
    monkeypatch.setattr("matching_platform.access.log.write", lambda *_: 1 / 0)
    page = Read(form.sent(anna))
    assert page.status == 500
    assert "Look whether" in page.text("//main")
    assert review.decisions_after() == []
    assert review.bookings(len(review.bookings())) == []


def test_many_decisions_are_one_line_of_the_audit_log(app: FastAPI, anna: httpx.Client, review: Review) -> None:
    row = next(one for one in waiting(review) if len(review.alike(one.transfer_id)) > 2)
    form = read(anna, f"{case(row)}/alike").form("//form[.//input[@name='transfer']]")
    followed(anna, form.sent(anna))
    (line,) = app.state.access.audit(row.transfer_id)
    count = len(review.decisions_after())
    assert line.about.startswith(f"#1–#{count}, {count} decisions: ")
    assert len(line.about) <= 300


def test_language_colours_and_keys_are_kept(anna: httpx.Client) -> None:
    form = read(anna, LIST).form("//form[@action='/preferences']")
    assert form.fields["back"] == [LIST]
    page = followed(anna, form.sent(anna, language="pl", theme="dark", keys="off"))
    assert page.values("//html/@lang") + page.values("//html/@data-theme") + page.values("//html/@data-keys") == [
        "pl",
        "dark",
        "off",
    ]
    assert page.text("//h1") == "marzec 2024"
    elsewhere = form.sent(anna, back="//elsewhere.example", language="xx")
    assert elsewhere.headers["Location"] == "/"
    assert "set-cookie" not in elsewhere.headers or "language" not in elsewhere.headers["set-cookie"]


def test_pages_read_as_polish_and_hold_no_english(login: Login, review: Review) -> None:
    polish = login(language="pl")
    page = read(polish, LIST)
    assert page.texts("//section[@class='figures']//dt") == [
        "Zaksięgowane automatycznie",
        "Oczekują",
        "Kwota niepewna",
        "Faktyczna trafność",
    ]
    inside = read(polish, case(paying(review)))
    assert inside.text("//h2[@id='proposal-title']") == "Propozycja"
    assert re.search(r"0,00\s(zł|€|\w{3})$", inside.text("//tr[contains(@class,'difference')]/td"))


def test_nothing_on_a_page_is_inline(anna: httpx.Client, review: Review) -> None:
    row = waiting(review)[0]
    for address in (
        LIST,
        case(row),
        f"{case(row)}/change",
        f"{case(row)}/alike",
        "/booked",
        "/decisions",
        "/imports",
        "/start",
    ):
        page = read(anna, address)
        assert not page.values("//@style | //style | //*[@*[starts-with(name(), 'on')]] | //script[not(@src)]")
        assert page.values("//script/@src")
        levels = [
            int(tag[1]) for tag in page.values("//main//*[self::h1 or self::h2 or self::h3]") for tag in [tag.tag]
        ]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        ids = page.values("//@id")
        assert len(ids) == len(set(ids)), address


def test_what_is_not_proposed_anew_yet(anna: httpx.Client, review: Review, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who can ask again sees nothing that could be decided; who cannot sees what was proposed before, and that it was."""
    monkeypatch.setattr(review.proposer, "wait", lambda transfers, seconds: False)
    address = f"/cases/{review.queue(OPEN).rows[0].transfer_id}"
    asking_again = Read(anna.get(address, headers={"HX-Request": "true", "HX-Boosted": "true"}))
    assert asking_again.values("//*[@data-awaits]/@hx-get") == [address]
    assert asking_again.values("//*[@id='case']//button") == []
    for headers in ({}, {"HX-Request": "true"}):
        page = Read(anna.get(address, headers=headers))
        assert page.values("//*[@data-awaits]") == []
        assert page.values("//button[@data-key='a']")
        assert "it is being proposed anew" in page.text("//*[@class='evidence']")
