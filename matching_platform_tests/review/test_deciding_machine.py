"""Whatever two people do at two desks, the data are corrected and finance tags, in whatever order: no invoice is settled
twice, and nothing is lost."""

from collections import Counter, defaultdict
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from matching_platform.database import connect
from matching_platform.review.decider import Decider
from matching_platform.review.decisions import (
    Action,
    Allocation,
    ConflictError,
    Decision,
    DecisionError,
    Wanted,
    in_force,
)
from matching_platform_tests.review.bench import books, invoice, proposal, transfer, undo

TRANSFERS = [transfer(f"T{number}", 100) for number in range(4)]
INVOICES = [invoice("A", 100), invoice("B", 60), invoice("C", 40), invoice("CREDIT", -10)]
IDS = [str(one["invoice_id"]) for one in INVOICES]
PROPOSALS = [
    proposal("T0", ("A", 100), decision="auto", confidence=0.99),
    proposal("T1", ("A", 100)),
    proposal("T2", ("B", 60), ("C", 40), decision="auto", confidence=0.99),
    proposal("T3"),
]
HELD = books(TRANSFERS, INVOICES, PROPOSALS)
BEFORE, AFTER = date(2020, 1, 1), date(2100, 1, 1)  # each decision
SHRUNK = [invoice("A", 50), *INVOICES[1:]]
LOADED = [
    HELD,
    books(TRANSFERS, INVOICES, PROPOSALS, [("T0", "A", 100, BEFORE)]),
    books(TRANSFERS, INVOICES, PROPOSALS, [("T0", "A", 100, AFTER), ("T3", None, None, AFTER)]),
    books(TRANSFERS, INVOICES, PROPOSALS, [("T1", "B", 60, AFTER), ("T2", "A", 40, BEFORE)]),
    books(TRANSFERS, SHRUNK, PROPOSALS, [("T1", "A", 50, AFTER)]),
    books(TRANSFERS, INVOICES[1:], PROPOSALS),
    books(TRANSFERS[1:], INVOICES, PROPOSALS[1:]),
]

transfers = st.sampled_from([str(one["transfer_id"]) for one in TRANSFERS])
people = st.sampled_from(["anna", "ben"])
desks = st.integers(0, 1)
amounts = st.sampled_from([-10, 10, 40, 50, 60, 100])
parts = st.lists(st.builds(Allocation, st.sampled_from(IDS), amounts), max_size=3).map(tuple)
actions = st.sampled_from([Action.ACCEPT, Action.CHANGE, Action.CHANGE, Action.NOTHING, Action.LATER])


class Deciding(RuleBasedStateMachine):
    """Two desks at one database."""

    @initialize()
    def open(self) -> None:
        self.folder = TemporaryDirectory()
        self.engines = [connect(f"sqlite:///{Path(self.folder.name, 'desk.sqlite')}") for _ in range(2)]
        self.desks = [Decider(engine) for engine in self.engines]
        self.books = HELD
        for desk in self.desks:
            desk.replace(HELD)
        self.made: list[Decision] = []
        self.seen: Counter[str] = Counter()

    @rule(desk=desks)
    def book(self, desk: int) -> None:
        self.desks[desk].replace(self.books, self.books.proposals.decision == 0)

    @rule(number=st.integers(0, len(LOADED) - 1), first=desks, may_book=st.booleans())
    def load(self, number: int, first: int, may_book: bool) -> None:
        self.books = LOADED[number]
        for desk in (self.desks[first], self.desks[1 - first]):
            desk.replace(self.books, self.books.proposals.decision == 0 if may_book else None)

    @rule(desk=desks, name=transfers, action=actions, chosen=parts, person=people, stale=st.booleans())
    def decide(
        self, desk: int, name: str, action: Action, chosen: tuple[Allocation, ...], person: str, stale: bool
    ) -> None:
        standing = self.desks[desk].standing
        if name not in self.books.transfer_at:
            return
        if action is Action.ACCEPT:
            chosen = standing.allocations(standing.proposal(standing.at(name)).parts)
        if action in (Action.NOTHING, Action.LATER):
            chosen = ()
        expected = self.seen[name] if stale else self._last(name)
        try:
            (decision,) = self.desks[desk].decide([Wanted(name, action, chosen, expected)], person)
        except ConflictError as conflict:
            assert conflict.theirs.number == self._last(name) != expected
        except DecisionError:
            assert self._last(name) == expected
        else:
            self._keep(decision, expected)

    @rule(desk=desks, person=people, first=transfers, second=transfers, chosen=parts)
    def decide_two(self, desk: int, person: str, first: str, second: str, chosen: tuple[Allocation, ...]) -> None:
        wanted = [Wanted(name, Action.CHANGE, chosen, self._last(name)) for name in (first, second)]
        try:
            made = self.desks[desk].decide(wanted, person)
        except DecisionError:
            assert len(self.desks[desk].decisions.read()) == len(self.made)
        else:
            for decision in made:
                self._keep(decision, self._last(decision.transfer_id))

    @rule(desk=desks, person=people, data=st.data())
    def undo(self, desk: int, person: str, data: st.DataObject) -> None:
        if not self.made:
            return
        chosen = data.draw(st.sampled_from(self.made))
        try:
            decision = undo(self.desks[desk], chosen.number, person)
        except DecisionError:
            return
        self._keep(decision, self._last(chosen.transfer_id))

    @rule(name=transfers)
    def look(self, name: str) -> None:
        self.seen[name] = self._last(name)

    @rule(desk=desks)
    def restart(self, desk: int) -> None:
        self.desks[desk] = Decider(self.engines[desk])
        self.desks[desk].replace(self.books)

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "desks"):
            return
        assert self.desks[0].decisions.read() == self.made
        replayed = Decider(self.engines[0])
        assert replayed.replace(self.books) == []
        settled = replayed.standing.settled
        assert (np.abs(settled) <= np.abs(self.books.worth)).all()
        assert (settled * self.books.worth >= 0).all()
        for desk in self.desks:
            desk.catch_up()
            assert desk.standing.status.tolist() == replayed.standing.status.tolist()
            assert desk.standing.settled.tolist() == settled.tolist()
        self._journal_holds_what_is_in_force(replayed)

    def _journal_holds_what_is_in_force(self, replayed: Decider) -> None:
        """Or nothing, where finance has tagged it by itself."""
        entries, standing = replayed.bookings.read(), replayed.standing
        booked: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for one in entries:
            booked[one.transfer_id][one.invoice_id] += one.amount if one.entry == "book" else -one.amount
        for name in map(str, (one["transfer_id"] for one in TRANSFERS)):
            held = {invoice_id: amount for invoice_id, amount in booked[name].items() if amount}
            row = self.books.transfer_at.get(name)
            force = {} if row is None else standing.settles(row)
            wanted = {part.invoice_id: part.amount for part in standing.allocations(force)}
            by_finance = row is not None and self.books.tagged[row] and force == self.books.tags.at(row)
            assert held == wanted or (by_finance and not held)
        assert [one.number for one in entries] == list(range(1, len(entries) + 1))

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            for engine in self.engines:
                engine.dispose()
            self.folder.cleanup()

    def _last(self, name: str) -> int:
        return max((one.number for one in self.made if one.transfer_id == name), default=0)

    def _keep(self, decision: Decision, expected: int) -> None:
        """What was made is new, and follows what was expected; or it had been made just so."""
        if decision in self.made:
            return
        assert decision.number == len(self.made) + 1
        assert (decision.supersedes or 0) == self._last(decision.transfer_id) == expected
        self.made.append(decision)
        history = [one for one in self.made if one.transfer_id == decision.transfer_id]
        if decision.action is not Action.WITHDRAW:
            assert in_force(history) == decision


TestDeciding = Deciding.TestCase
TestDeciding.settings = settings(max_examples=15, stateful_step_count=20, deadline=None, derandomize=True)
