"""With a champion: a correction changes what is proposed for that payer next, at once, and its undoing changes it back."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import polars as pl
import pytest

from matching_platform.desk.review import Review
from matching_platform.environment import Platform
from matching_platform.ledger.months import first_day, month_of
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import RAW_TABLES, TABLES
from matching_platform.matching.again import Again
from matching_platform.matching.history import History
from matching_platform.matching.matcher import Matched, Matcher
from matching_platform.review.cases import Status
from matching_platform.review.decisions import Action, Allocation, Wanted
from matching_platform.review.standing import Proposal, Standing
from matching_platform.store.versions import Version
from matching_platform_tests.desk.companies import bare_platform, propose, store
from matching_platform_tests.waiting import DEADLINE, until


@pytest.fixture
def platform(tmp_path: Path, small_ledger: Ledger, small_model: Path) -> Iterator[Platform]:
    """The newest month is not tagged; the champion proposes for it, and nothing is booked unattended."""
    months = small_ledger.months()
    newest = months[-1]
    platform = bare_platform(tmp_path, months)
    tables = {name: getattr(small_ledger, name) for name in RAW_TABLES}
    booked = small_ledger.transfers.select("transfer_id", "booked_on")
    tables["matches"] = tables["matches"].join(booked, on="transfer_id", maintain_order="left")
    tables["matches"] = tables["matches"].filter(pl.col("booked_on") < first_day(newest))
    for name, frame in tables.items():
        for month in months:
            store(platform, name, month, frame.filter(month_of(TABLES[name].partitioned_by) == month))
    promote(platform, Matcher.load(small_model), tmp_path / "model")
    known = Ledger(tables["invoices"], tables["transfers"], tables["matches"].drop("booked_on"))
    rows = Matcher.load(small_model).match(known, [newest])
    waits = rows.with_columns(
        decision=pl.when(pl.col("decision") == "auto").then(pl.lit("review")).otherwise("decision")
    )
    propose(platform, newest, waits, months[-2])
    yield platform
    platform.database.dispose()


def promote(platform: Platform, matcher: Matcher, folder: Path) -> Version:
    matcher.save(folder)
    model = platform.store.put("models", folder)
    platform.registry.promote(model, platform.store.put_bytes("evaluations", "e.json", b"{}"), "anna", "better")
    return model


def test_a_decision_changes_what_is_proposed_for_whom_it_concerns(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, model = platform.settings.last_month, champion(platform)
    review = Review(platform)
    months_read: list[str] = []
    read = History.month
    monkeypatch.setattr(History, "month", lambda self, month: months_read.append(month) or read(self, month))
    review.start()
    until(lambda: review.is_ready)
    assert months_read == [newest]
    cases = [review.case(row.transfer_id) for row in review.queue(newest, size=1000).rows if row.invoices == 1]
    # Somebody takes the invoice that is proposed for a transfer, for another one that brought enough.
    case, other = next(
        (one, other)
        for one in cases
        for other in cases
        if one is not other
        and one.row.direction == other.row.direction
        and one.row.currency == other.row.currency == one.proposal.parts[0].invoice.currency
        and other.row.amount >= one.proposal.parts[0].amount == one.proposal.parts[0].invoice.open
    )
    (part,) = case.proposal.parts
    taken = (Allocation(part.invoice.invoice_id, part.amount),)
    (made,) = review.decide([Wanted(other.row.transfer_id, Action.CHANGE, taken)], "anna")
    until(lambda: review.proposer.backlog == 0)
    after = review.case(case.row.transfer_id)
    assert part.invoice.invoice_id not in {one.invoice.invoice_id for one in after.proposal.parts}
    assert after.model == model.name
    assert after.row.status is Status.WAITING
    assert after.evidence
    # Another desk has what was decided before it began proposed anew, too, and it says the same.
    other_desk = Review(Platform(platform.settings))
    other_desk.start()
    until(lambda: other_desk.is_ready and other_desk.case(case.row.transfer_id) == after)
    other_desk.close()
    months_read.clear()
    review.undo(made.number, "anna")
    until(lambda: review.proposer.backlog == 0)
    assert review.case(case.row.transfer_id).proposal.parts == case.proposal.parts
    assert months_read == [], "what is prepared of a month serves all questions about it"
    review.close()


def test_a_proposal_names_the_model_that_made_it(
    platform: Platform, small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, may_answer = Event(), Event()
    propose_anew, keep = Again.propose, Standing.propose
    kept: list[Proposal] = []

    def held(self: Again, *question: Any) -> Matched:
        asked.set()
        may_answer.wait(DEADLINE)
        return propose_anew(self, *question)

    def noted(self: Standing, transfer: int, proposal: Proposal) -> None:
        kept.append(proposal)
        keep(self, transfer, proposal)

    monkeypatch.setattr(Again, "propose", held)
    monkeypatch.setattr(Standing, "propose", noted)
    review = Review(platform)
    review._follower.load()
    review.proposer.start()
    first = champion(platform)
    row = review.queue(platform.settings.last_month).rows[0]
    review.decide([Wanted(row.transfer_id, Action.NOTHING)], "anna")
    assert asked.wait(DEADLINE)
    matcher = Matcher.load(small_model)
    matcher.auto_from = 0.5
    second = promote(platform, matcher, tmp_path / "second")
    review._follower.load()
    may_answer.set()
    until(lambda: review.proposer.backlog == 0)
    assert {one.model for one in kept} == {first.name}
    kept.clear()
    # What was decided before he came is his, too.
    review._follower.follow()
    until(lambda: review.proposer.backlog == 0)
    assert {one.model for one in kept} == {second.name}
    review.close()


def champion(platform: Platform) -> Version:
    promotion = platform.registry.champion()
    assert promotion
    return promotion.model
