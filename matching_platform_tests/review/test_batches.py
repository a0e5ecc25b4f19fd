"""What is decided in one go is what it would be one after the other: nothing is settled beyond what is open."""

from collections.abc import Sequence
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matching_platform.database import connect
from matching_platform.review.books import Books
from matching_platform.review.decider import Decider
from matching_platform.review.decisions import Action, Allocation, Decision, DecisionError, OverSettledError, Wanted
from matching_platform_tests.review.bench import accept, books, change, invoice, proposal, transfer

NAMES = ("X", "Y", "Z")
TRANSFERS = [transfer(name, 100_00) for name in NAMES]
INVOICES = [invoice("A", 100_00), invoice("B", 60_00), invoice("CREDIT", -10_00)]
PROPOSALS = [proposal(name, ("A", 100_00)) for name in NAMES]
BEFORE, AFTER = date(2020, 1, 1), date(2100, 1, 1)  # each decision
LATER, NOTHING = Wanted("X", Action.LATER), Wanted("X", Action.NOTHING)

OURS = books(TRANSFERS, INVOICES, PROPOSALS)
# Finance settled A with X; it says so after all that people decide; it settled A twice.
TAGGED = books(TRANSFERS, INVOICES, PROPOSALS, [("X", "A", 100_00, BEFORE)])
OVERRULED = books(TRANSFERS, INVOICES, PROPOSALS, [("X", "A", 100_00, AFTER)])
TWICE = books(TRANSFERS, INVOICES, PROPOSALS, [("X", "A", 100_00, BEFORE), ("Y", "A", 100_00, BEFORE)])

parts = st.lists(
    st.builds(
        Allocation, st.sampled_from(["A", "B", "CREDIT"]), st.sampled_from([-10_00, 10_00, 50_00, 60_00, 100_00])
    ),
    min_size=1,
    max_size=2,
    unique_by=lambda one: one.invoice_id,
).map(tuple)
asked = st.builds(
    lambda name, action, chosen: Wanted(name, action, chosen if action is Action.CHANGE else ()),
    st.sampled_from(NAMES),
    st.sampled_from([Action.CHANGE, Action.CHANGE, Action.NOTHING, Action.LATER]),
    parts,
) | st.sampled_from(NAMES).map(lambda name: accept(name, ("A", 100_00)))
batches = st.lists(asked, min_size=2, max_size=3, unique_by=lambda one: one.transfer_id)


def desk(held: Books) -> Decider:
    made = Decider(connect("sqlite:///:memory:"))
    made.replace(held)
    return made


def expecting(desk: Decider, wanted: Wanted) -> Wanted:
    """The same, when all that was decided has been seen."""
    past = desk.standing.past(desk.standing.at(wanted.transfer_id))
    return Wanted(wanted.transfer_id, wanted.action, wanted.allocations, past[-1].number if past else 0)


def decide(desk: Decider, wanted: Sequence[Wanted]) -> list[Decision]:
    return desk.decide([expecting(desk, one) for one in wanted], "anna")


def one_by_one(desk: Decider, wanted: Sequence[Wanted]) -> bool:
    """Whether each was taken; none comes after one that was not."""
    try:
        for one in wanted:
            decide(desk, [one])
    except DecisionError:
        return False
    return True


@pytest.mark.parametrize(
    ("held", "before", "wanted"),
    [
        (OURS, [accept("X", ("A", 100_00))], [LATER, accept("Y", ("A", 100_00)), accept("Z", ("A", 100_00))]),
        (TAGGED, [change("X", ("B", 60_00))], [LATER, change("Y", ("A", 100_00))]),
        (OVERRULED, [], [NOTHING, accept("Y", ("A", 100_00))]),
        (TWICE, [], [NOTHING, accept("Z", ("A", 100_00))]),
    ],
    ids=["given up once, taken twice", "brought back and taken", "not given up", "settled twice by finance"],
)
def test_what_is_open_once_is_taken_once(held: Books, before: list[Wanted], wanted: list[Wanted]) -> None:
    decider = desk(held)
    decide(decider, before)
    with pytest.raises(OverSettledError):
        decide(decider, wanted)
    assert len(decider.decisions.read()) == len(before)


def test_what_is_put_off_is_free_for_the_next_of_one_go() -> None:
    decider = desk(OURS)
    decide(decider, [accept("X", ("A", 100_00))])
    decide(decider, [LATER, accept("Y", ("A", 100_00))])
    assert decider.standing.held == {"Y": {"A": 100_00}}


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.sampled_from([OURS, TAGGED, OVERRULED, TWICE]), st.lists(asked, max_size=3), batches)
def test_one_go_does_what_one_after_the_other_does(held: Books, before: list[Wanted], wanted: list[Wanted]) -> None:
    together, apart = desk(held), desk(held)
    for one in before:
        assert one_by_one(together, [one]) == one_by_one(apart, [one])
    settled, past = together.standing.settled.copy(), together.decisions.read()
    try:
        decide(together, wanted)
    except DecisionError:
        assert not one_by_one(apart, wanted)
        assert together.decisions.read() == past
        return
    assert one_by_one(apart, wanted)
    alone, standing = apart.standing, together.standing
    assert (standing.settled.tolist(), standing.status.tolist()) == (alone.settled.tolist(), alone.status.tolist())
    assert standing.held == alone.held
    assert standing.outdated() == []
    # Beyond that, only what finance itself has settled.
    assert (np.abs(standing.settled) <= np.maximum(np.abs(held.worth), np.abs(settled))).all()


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.sampled_from([OURS, TAGGED, TWICE]), st.lists(asked, min_size=2, max_size=6), st.data())
def test_what_is_undone_in_one_go(held: Books, before: list[Wanted], data: st.DataObject) -> None:
    together, apart = desk(held), desk(held)
    for one in before:
        assert one_by_one(together, [one]) == one_by_one(apart, [one])
    last = {one.transfer_id: one.number for one in together.decisions.read()}
    numbers = data.draw(st.permutations(sorted(last.values())))
    try:
        together.undo_all(numbers, "anna")
    except DecisionError:
        with pytest.raises(DecisionError):
            for number in numbers:
                apart.undo_all([number], "anna")
        return
    for number in numbers:
        apart.undo_all([number], "anna")
    assert together.standing.settled.tolist() == apart.standing.settled.tolist()
    assert together.standing.held == apart.standing.held
    assert together.standing.outdated() == []
