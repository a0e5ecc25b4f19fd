"""Where every transfer and every invoice stands now: books, what was booked unattended, and all decisions together."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from matching_platform.matching.arrays import Flags, Ints
from matching_platform.review.bookings import Booking, net
from matching_platform.review.books import AUTO, DECISIONS, Books, keys_of
from matching_platform.review.cases import Status
from matching_platform.review.decisions import Allocation, Decision, Proposed
from matching_platform.review.force import Force
from matching_platform.review.parts import Parts, either

STATUSES: Final = tuple(Status)
_AT: Final = {status: place for place, status in enumerate(STATUSES)}


@dataclass(frozen=True)
class Other:
    """A set that was not proposed, amounts by row of the invoice; empty: nothing. `share` is what the model gives it."""

    share: float
    parts: Mapping[int, int]


@dataclass(frozen=True)
class Proposal:
    """What `model` proposes for a transfer now, and by which `decision`; amounts by row of the invoice, none: nothing."""

    decision: str
    confidence: float
    parts: Mapping[int, int]
    evidence: tuple[str, ...]
    model: str
    others: tuple[Other, ...] = ()


class Standing:
    """Changes with each decision; whoever uses it holds a lock.

    What is in force for a transfer: the last decision that nobody withdrew, unless finance has since tagged it otherwise;
    else what finance tagged; else what was booked unattended. What the desk put in force holds as long as the journal
    does: what newer books have no place for is reversed there, and then the transfer waits again.
    """

    def __init__(self, books: Books, journal: pl.DataFrame, decisions: Iterable[Decision] = ()) -> None:
        """`journal`: all of its entries, schema `bookings.JOURNAL`."""
        self.books = books
        transfers, invoices = len(books.transfers), len(books.invoices)
        # Minor units by invoice that the journal holds of a transfer; none is empty.
        self.held: dict[str, dict[str, int]] = {}
        for transfer_id, invoice_id, amount in net(journal).iter_rows():
            self.held.setdefault(transfer_id, {})[invoice_id] = amount
        held = _whole(books, net(journal))
        self.booked = _whole(books, net(journal.filter("unattended")))
        unattended = self.booked.size > 0
        # A tag that repeats what was booked says nothing else.
        own = books.proposals.parts.signature()
        automatic = (books.proposals.decision == AUTO) & books.proposals.advance
        tags = books.tags.signature()
        confirmed = books.tagged & np.where(unattended, tags == self.booked.signature(), automatic & (tags == own))
        unconfirmed = books.tagged & ~confirmed
        self._force = Force(books, self.booked, unconfirmed)
        self._base = either(books.tagged, books.tags, held)
        self.status: npt.NDArray[np.int8] = np.full(transfers, _AT[Status.WAITING], np.int8)
        self.status[(held.size > 0) | confirmed] = _AT[Status.BOOKED]
        self.status[unconfirmed] = _AT[Status.TAGGED]
        self.settled = self._base.sums(invoices)
        self.history: defaultdict[str, list[Decision]] = defaultdict(list)
        self.last = 0
        self.numbered: dict[int, Decision] = {}
        self._settles: dict[int, dict[int, int]] = {}
        self._by_invoice: defaultdict[int, set[int]] = defaultdict(set)
        self._anew: dict[int, Proposal] = {}
        self.confidence = books.proposals.confidence.copy()
        self.decision = books.proposals.decision.copy()
        self.key = books.proposals.key.copy()
        self.stake = np.rint(books.money * (1 - self.confidence)).astype(np.int64)
        self.first = books.proposals.parts.first.copy()
        self.size = books.proposals.parts.size.copy()
        self.add(decisions)

    def add(self, decisions: Iterable[Decision], entries: Iterable[Booking] = ()) -> None:
        """Takes decisions and the entries of the journal into account, in their order."""
        names: dict[str, None] = {}
        for entry in entries:
            names[entry.transfer_id] = None
            parts = self.held.setdefault(entry.transfer_id, {})
            if entry.entry == "book":
                parts[entry.invoice_id] = entry.amount
            else:
                parts.pop(entry.invoice_id, None)
            if not parts:
                del self.held[entry.transfer_id]
        for decision in decisions:
            names[decision.transfer_id] = None
            self.history[decision.transfer_id].append(decision)
            self.numbered[decision.number] = decision
            self.last = max(self.last, decision.number)
        for transfer in (self.books.transfer_at.get(name) for name in names):
            if transfer is not None:
                self._settle(transfer, *self._stands(transfer))

    def at(self, transfer_id: str) -> int:
        """The row of a transfer; LookupError where there is none."""
        try:
            return self.books.transfer_at[transfer_id]
        except KeyError:
            raise LookupError(f"there is no transfer '{transfer_id}'; perhaps its month is not accepted yet") from None

    def status_of(self, transfer: int) -> Status:
        return STATUSES[self.status[transfer]]

    def is_in(self, *statuses: Status) -> Flags:
        """bool[T]"""
        return np.isin(self.status, [_AT[status] for status in statuses])

    def past(self, transfer: int) -> Sequence[Decision]:
        """The decisions on a transfer, the first one first."""
        return self.history.get(self.books.transfers["transfer_id"][transfer], ())

    def by_number(self, number: int) -> Decision | None:
        return self.numbered.get(number)

    def settles(self, transfer: int) -> dict[int, int]:
        """What is in force: amounts by row of the invoice."""
        found = self._settles.get(transfer)
        return self._base.at(transfer) if found is None else found

    def open(self, invoice: int, without: int | None = None, more: int = 0) -> int:
        """What of an invoice is open, all but one transfer counted, and `more` that is to be settled; never of the other
        sign."""
        worth = int(self.books.worth[invoice])
        settled = int(self.settled[invoice]) + more
        if without is not None:
            settled -= self.settles(without).get(invoice, 0)
        left = worth - settled
        return left if (left > 0) == (worth > 0) else 0

    def left(self) -> Ints:
        """int64[N]: what of each invoice is open."""
        worth = self.books.worth
        left = worth - self.settled
        return np.where(np.sign(left) == np.sign(worth), left, 0)

    def settlers(self, invoice: int) -> list[int]:
        """The rows of the transfers that settle a part of an invoice."""
        base = self._base.transfer[self._base.invoice == invoice]
        return sorted({int(one) for one in base if int(one) not in self._settles} | self._by_invoice[invoice])

    def proposal(self, transfer: int) -> Proposal:
        """What is proposed for a transfer."""
        return self._anew.get(transfer) or self.original(transfer)

    def original(self, transfer: int) -> Proposal:
        """What the month's proposals say of a transfer."""
        held = self.books.proposals
        return Proposal(
            DECISIONS[held.decision[transfer]],
            float(held.confidence[transfer]),
            held.parts.at(transfer),
            tuple(held.evidence[transfer]),
            held.model[transfer],
        )

    def proposed(self, transfer: int) -> Proposed:
        """The same as a decision keeps it."""
        shown = self.proposal(transfer)
        return Proposed(shown.model, shown.decision, shown.confidence, self.allocations(shown.parts))

    def allocations(self, parts: Mapping[int, int]) -> tuple[Allocation, ...]:
        ids = self.books.invoices["invoice_id"]
        return tuple(Allocation(ids[invoice], amount) for invoice, amount in parts.items())

    def propose(self, transfer: int, proposal: Proposal) -> None:
        """Puts a newer proposal in the place of a transfer's own."""
        self._anew[transfer] = proposal
        self.confidence[transfer] = proposal.confidence
        self.decision[transfer] = DECISIONS.index(proposal.decision)
        self.stake[transfer] = round(int(self.books.money[transfer]) * (1 - proposal.confidence))
        self.first[transfer] = next(iter(proposal.parts), -1)
        self.size[transfer] = len(proposal.parts)
        who = self.books.who(transfer, int(self.first[transfer]))
        rows = pl.DataFrame(
            {"who": [who], "decision": [proposal.decision], "evidence": [list(proposal.evidence)]},
            schema={"who": pl.String, "decision": pl.String, "evidence": pl.List(pl.String)},
        )
        self.key[transfer] = keys_of(rows)[0]

    def take_over(self, before: "Standing") -> None:
        """Puts in place what was proposed anew when the same books stood otherwise."""
        for transfer, proposal in before._anew.items():
            self.propose(transfer, proposal)

    def parties(self, transfer: int) -> set[int]:
        """Whom a transfer's proposals, the first one and the last, its runners-up and what is in force concern."""
        shown, first = self.proposal(transfer), self.books.proposals.parts.at(transfer)
        others = (one for other in shown.others for one in other.parts)
        invoices = {*first, *shown.parts, *others, *self.settles(transfer)}
        return {int(self.books.party[invoice]) for invoice in invoices}

    def touched(self, transfers: Iterable[int], invoices: Iterable[int]) -> Ints:
        """The rows of waiting transfers that decisions on `transfers` about `invoices` may concern: of the same payer, or
        proposed for one of their counterparties. The most valuable doubt first."""
        books, decided = self.books, np.array([*transfers], np.int64)
        account, name = books.payer
        accounts, names = account[decided], name[decided]
        parties = books.party[np.array([*invoices], np.int64)]
        same = np.isin(account, accounts[accounts > 0]) | np.isin(name, names[names > 0])
        about = np.zeros(len(same), bool)
        about[self.first >= 0] = np.isin(books.party[self.first[self.first >= 0]], parties)
        for transfer in self._anew:
            about[transfer] = bool(self.parties(transfer) & set(parties.tolist()))
        found = np.flatnonzero((same | about) & books.proposals.listed & self.is_in(Status.WAITING, Status.LATER))
        found = found[~np.isin(found, decided[~self.is_in(Status.WAITING, Status.LATER)[decided]])]
        return found[np.argsort(-self.stake[found], kind="stable")]

    def paid_by(self, transfers: Flags) -> list[int]:
        """The invoices that some transfers bool[T] settle."""
        found = set(self._base.invoice[transfers[self._base.transfer]].tolist())
        return sorted(found.union(*(parts for transfer, parts in self._settles.items() if transfers[transfer])))

    def decided_on_booked(self) -> list[int]:
        """The rows of transfers that were booked unattended, and on which somebody has decided since."""
        decided = (transfer for transfer in self._settles if self.status[transfer] == _AT[Status.DECIDED])
        return [transfer for transfer in decided if self.booked.size[transfer] > 0]

    def waiting(self) -> list[str]:
        """The months of which something waits, the first one first."""
        return self.books.months_of(self.books.proposals.listed & self.is_in(Status.WAITING, Status.LATER))

    def frame(self) -> pl.DataFrame:
        """transfer_id, invoice_id (null: settles nothing), amount and `said`, whether a person said so, of all in force;
        in order of booking, so that a decision moves no other row."""
        base, changed = self._base, np.zeros(len(self.books.transfers), bool)
        changed[list(self._settles)] = True
        keep = ~changed[base.transfer]
        decided = [(t, i, amount) for t, parts in self._settles.items() for i, amount in parts.items()]
        more = np.array(decided, np.int64).reshape(-1, 3)
        nothing = np.flatnonzero(self.is_in(Status.DECIDED, Status.TAGGED) & ~self._pays())
        transfer = np.r_[base.transfer[keep], more[:, 0], nothing]
        invoice = np.r_[base.invoice[keep], more[:, 1], np.full(len(nothing), -1)]
        amount = np.r_[base.amount[keep], more[:, 2], np.zeros(len(nothing), np.int64)]
        order = np.lexsort((invoice, transfer))
        transfer, invoice, amount = transfer[order], invoice[order], amount[order]
        settles = pl.Series(invoice >= 0)
        ids = self.books.invoices["invoice_id"]
        frame = pl.DataFrame(
            {
                "transfer_id": self.books.transfers["transfer_id"].gather(transfer),
                "invoice_id": ids.gather(np.maximum(invoice, 0)) if len(ids) else pl.Series([], dtype=pl.String),
                "amount": amount,
                "said": (self.is_in(Status.DECIDED, Status.TAGGED) | self.books.tagged)[transfer],
            }
        )
        return frame.with_columns(
            pl.when(settles).then("invoice_id").alias("invoice_id"), pl.when(settles).then("amount").alias("amount")
        )

    def _pays(self) -> Flags:
        pays = self._base.size > 0
        for transfer, parts in self._settles.items():
            pays[transfer] = bool(parts)
        return pays

    def after(self, transfer: int, history: Sequence[Decision]) -> dict[int, int]:
        """What would be in force with another history, amounts by row of the invoice."""
        return self._force.of(transfer, history)[0]

    def wanted(self, transfer_id: str, history: Sequence[Decision]) -> dict[str, int]:
        """What the journal is to hold of a transfer with a history, minor units by invoice."""
        transfer = self.books.transfer_at.get(transfer_id)
        if transfer is None:
            return {}
        parts = self._force.of(transfer, history)[0]
        wanted = self._named(parts)
        if parts != self._force.tag(transfer, history) or wanted == self.held.get(transfer_id, {}):
            return wanted
        # Finance has it booked by itself, unless it repeats what was booked here.
        return wanted if self._force.repeats_booking(transfer, history) else {}

    def outdated(self) -> list[str]:
        """The transfers whose bookings newer books, or a tag of finance, leave no place for; whose bookings exceed an
        invoice comes after all others, and then the latest decision first."""
        unfit = [name for name, held in self.held.items() if self.wanted(name, self.history.get(name, ())) != held]
        return unfit or self._exceeding()

    def _exceeding(self) -> list[str]:
        settled, worth = self.settled.copy(), self.books.worth
        found: dict[int, None] = {}
        for invoice in np.flatnonzero((np.abs(settled) > np.abs(worth)) & (settled != 0)).tolist():
            for transfer in sorted(self.settlers(invoice), key=self._lately, reverse=True):
                if abs(settled[invoice]) <= abs(worth[invoice]):
                    break
                if transfer not in found and self._is_ours(transfer):
                    found[transfer] = None
                    for one, amount in self.settles(transfer).items():
                        settled[one] -= amount
        ids = self.books.transfers["transfer_id"]
        return [ids[transfer] for transfer in found]

    def _lately(self, transfer: int) -> tuple[int, int]:
        past = self.past(transfer)
        return past[-1].number if past else 0, transfer

    def _is_ours(self, transfer: int) -> bool:
        """Whether what is in force rests on the journal, and not on a tag of finance."""
        held = self.held.get(self.books.transfers["transfer_id"][transfer])
        return held is not None and self.settles(transfer) != self._force.tag(transfer, self.past(transfer))

    def _stands(self, transfer: int) -> tuple[dict[int, int], Status]:
        """What is in force now: what the desk decided or booked only as long as the journal holds it."""
        history = self.past(transfer)
        parts, status = self._force.of(transfer, history)
        held = self.held.get(self.books.transfers["transfer_id"][transfer], {})
        if self._named(parts) == held or parts == self._force.tag(transfer, history) or status is Status.LATER:
            return parts, status
        if status in (Status.DECIDED, Status.BOOKED):
            return {}, Status.WAITING
        return parts, status

    def _named(self, parts: Mapping[int, int]) -> dict[str, int]:
        return {one.invoice_id: one.amount for one in self.allocations(parts)}

    def _settle(self, transfer: int, parts: dict[int, int], status: Status) -> None:
        for invoice, amount in self.settles(transfer).items():
            self.settled[invoice] -= amount
            self._by_invoice[invoice].discard(transfer)
        for invoice, amount in parts.items():
            self.settled[invoice] += amount
            self._by_invoice[invoice].add(transfer)
        self._settles[transfer] = parts
        self.status[transfer] = _AT[status]


def _whole(books: Books, booked: pl.DataFrame) -> Parts:
    """What was booked (transfer_id, invoice_id, amount), of the transfers all of whose invoices are there."""
    transfer = booked["transfer_id"].replace_strict(books.transfer_at, default=None, return_dtype=pl.Int64)
    invoice = booked["invoice_id"].replace_strict(books.invoice_at, default=None, return_dtype=pl.Int64)
    rows = booked.with_columns(transfer=transfer, invoice=invoice).drop_nulls("transfer")
    return Parts.of(len(books.transfers), rows.filter(~pl.col("invoice").is_null().any().over("transfer")))
