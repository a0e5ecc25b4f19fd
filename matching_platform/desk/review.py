"""The review room as pages and the API call it: the platform's data, decisions, and what follows from them at once."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import Event, Lock, Thread
from typing import Final

import numpy as np
import polars as pl

from matching_platform.desk.books import Shelf, may_book
from matching_platform.desk.outbox import Outbox
from matching_platform.desk.proposing import Proposer
from matching_platform.environment import Platform
from matching_platform.matching.again import MONTHS_KEPT, Again
from matching_platform.matching.arrays import Ints
from matching_platform.matching.evidence import BEING_PROPOSED_ANEW, SETTLED_MEANWHILE
from matching_platform.matching.marks import marks
from matching_platform.matching.matcher import Matched, Matcher
from matching_platform.monitoring.promise import interval
from matching_platform.review import listing
from matching_platform.review.bookings import Booking
from matching_platform.review.books import Books
from matching_platform.review.cases import (
    Case,
    Filter,
    Mark,
    Offer,
    OpenInvoice,
    Option,
    Page,
    Precision,
    Row,
    Status,
    Summary,
)
from matching_platform.review.decider import Also, Decider
from matching_platform.review.decisions import Decision, DecisionError, Wanted
from matching_platform.review.standing import Other, Proposal, Standing
from matching_platform.store.unattended import NEVER, Permission
from matching_platform.store.versions import Version

_LOOK_SECONDS: Final = 10.0
# How long a case waits for being proposed anew, before it shows what was proposed before.
_PATIENCE: Final = 2.0
_LONGEST_PAGE: Final = 1000
_MAY_BE_MEANT: Final = 50  # invoices
_NAMES: Final = ("invoice_id", "number", "reference", "counterparty_name")
_LOG: Final = logging.getLogger(__name__)


class Review:
    """Safe for many threads, and for several desks at one database."""

    def __init__(self, platform: Platform) -> None:
        """Reads all there is; `start` does the rest."""
        self._platform = platform
        self._decider = Decider(platform.database)
        self._shelf = Shelf(platform)
        self._permission = Permission(None, {})
        self._own: dict[str, float] = {}
        self._looking = Lock()
        self._again: Again | None = None
        self._learned: Version | None = None
        self._seen = 0
        self._judged: dict[str, tuple[Version, pl.DataFrame]] = {}
        self.outbox = Outbox(platform.warehouse, self._decider.decisions, self._decider.bookings)
        self.proposer = Proposer(self._propose)
        self._wake, self._ends = Event(), Event()
        self._watcher = Thread(target=self._watch, name="looking for new versions", daemon=True)
        self.look()

    def start(self) -> None:
        """From now on looks for new versions, proposes anew and carries decisions to the warehouse, in the background."""
        for part in (self._watcher, self.proposer, self.outbox):
            part.start()
        self.outbox.wake()
        self._wake.set()

    def close(self) -> None:
        """Ends what `start` started."""
        self._ends.set()
        self._wake.set()
        if self._watcher.is_alive():
            self._watcher.join()
        self.proposer.close()
        self.outbox.close()

    def refresh(self) -> None:
        """Takes in what other desks decided; new versions are looked for in the background, see `look`."""
        if self._decider.catch_up():
            self._follow()

    def look(self) -> None:
        """Reads what changed in the platform, and books what may be booked unattended."""
        with self._looking:
            changed = self._shelf.look()
            permission = self._platform.unattended.permission()
            if changed:
                books = self._shelf.books()
                self._own = self._shelf.own_thresholds()
            else:
                books = self._decider.standing.books
            if changed or permission != self._permission:
                may = None if self.outbox.refusal else may_book(books, permission, self._own)
                if self._decider.replace(books, may):
                    self.outbox.wake()
                self._warm()
                if changed:
                    with self._decider.lock:
                        self._again, self._seen = None, 0
                # Last, as what failed is tried again at the next look.
                self._permission = permission
                self._shelf.is_shown = True
            self._read_judged()
        self._follow()

    @property
    def is_ready(self) -> bool:
        """Whether the champion proposes anew; before, proposals only lose what is settled."""
        return self._again is not None

    def months(self) -> list[str]:
        """The months of which something is proposed, the first one first."""
        with self._decider.lock:
            return self._standing.books.months()

    def summary(self, month: str) -> Summary:
        """The numbers of a month."""
        with self._decider.lock:
            precision = self._precision(month)
            return listing.summary(self._standing, month, precision, self._permission.told)

    def queue(self, month: str, filter: Filter | None = None, page: int = 1, size: int = 50) -> Page[Row]:  # noqa: A002
        """The transfers of a month that `filter` lists, the most valuable doubt first."""
        with self._decider.lock:
            found = listing.ordered(self._standing, month, filter or Filter())
            return self._page(found, page, size)

    def booked(self, month: str, text: str = "", page: int = 1, size: int = 50) -> Page[Row]:
        """What was booked unattended in a month."""
        return self.queue(month, Filter(frozenset({Status.BOOKED}), text), page, size)

    def case(self, transfer_id: str) -> Case:
        """All about a transfer; LookupError where nothing is proposed for it.

        Where a decision on another one concerns it, it is proposed anew before it is shown.
        """
        up_to_date = self.proposer.wait([transfer_id], _PATIENCE)
        with self._decider.lock:
            standing = self._standing
            transfer = self._at(transfer_id)
            row = listing.rows(standing, [transfer])[0]
            shown, history = standing.proposal(transfer), standing.past(transfer)
            settled = None
            if row.status not in (Status.WAITING, Status.LATER):
                settled = listing.settles(standing, transfer, standing.settles(transfer))
            others = shown.others or self._others(transfer_id)
            options = (self._option(transfer, other) for other in others)
            return Case(
                row=row,
                account=standing.books.transfers["counterparty_account"][transfer],
                proposal=listing.option(standing, transfer, shown.confidence, shown.parts),
                # What others have settled since can be taken no more.
                runners_up=tuple(option for option in options if option.is_open),
                evidence=shown.evidence if up_to_date else (*shown.evidence, BEING_PROPOSED_ANEW),
                marks=self._marks(transfer, [shown.parts, *(other.parts for other in others)]),
                model=shown.model,
                booked_from=self._permission.auto_from(shown.model, self._own.get(shown.model, NEVER)),
                history=tuple(history),
                rates=standing.books.rates_to(row.currency),
                settled=settled,
                expected=history[-1].number if history else 0,
            )

    def row(self, transfer_id: str) -> Row:
        """A transfer as a list shows it; LookupError where nothing is proposed for it."""
        with self._decider.lock:
            (found,) = listing.rows(self._standing, [self._at(transfer_id)])
            return found

    def proposed(self, transfer_ids: Sequence[str]) -> list[Offer]:
        """What is proposed for each of some transfers, to be accepted together; LookupError where there is none for one."""
        with self._decider.lock:
            return listing.offers(self._standing, [self._at(transfer_id) for transfer_id in transfer_ids])

    def invoice(self, invoice_id: str) -> OpenInvoice:
        """An invoice with what is open on it; LookupError where there is none."""
        with self._decider.lock:
            place = self._standing.books.invoice_at.get(invoice_id)
            if place is None:
                raise LookupError(f"there is no invoice '{invoice_id}'; perhaps its month is not accepted yet")
            (found,) = listing.open_invoices(self._standing, None, [place])
            return found

    def neighbours(self, transfer_id: str, filter: Filter) -> tuple[str | None, str | None]:  # noqa: A002
        """Who comes before and after a transfer in the list of its month; one that is not listed stands where its stake
        belongs."""
        with self._decider.lock:
            standing = self._standing
            transfer = self._at(transfer_id)
            listed = listing.ordered(standing, f"{standing.books.transfers['booked_on'][transfer]:%Y-%m}", filter)
            place = np.flatnonzero(listed == transfer)
            at = int(place[0]) if len(place) else int((standing.stake[listed] > standing.stake[transfer]).sum())
            after = at + 1 if len(place) else at
            ids = standing.books.transfers["transfer_id"]
            return (
                ids[int(listed[at - 1])] if at > 0 else None,
                ids[int(listed[after])] if after < len(listed) else None,
            )

    def search(self, transfer_id: str, text: str = "", limit: int = 50) -> list[OpenInvoice]:
        """Open invoices that a transfer may settle, with `text` in number, name, reference or amount; its payer's first."""
        with self._decider.lock:
            return listing.search(self._standing, self._at(transfer_id), text, limit)

    def alike(self, transfer_id: str) -> list[Row]:
        """What waits in the same month and rests on the same evidence for the same counterparty, the transfer among it."""
        with self._decider.lock:
            return listing.rows(self._standing, listing.alike(self._standing, self._at(transfer_id)))

    def decide(self, wanted: Sequence[Wanted], actor: str, also: Also | None = None) -> list[Decision]:
        """Makes all of the decisions, or none; `also` writes with those that are new, in their transaction.

        DecisionError where one cannot be taken, ConflictError where somebody decided since, OverSettledError where an
        invoice has less open. What the same person has decided just so already is answered with that decision.
        """
        self._check_database()
        made = self._decider.decide(wanted, actor, also)
        self._follow()
        return made

    def undo(self, number: int, actor: str, also: Also | None = None) -> Decision:
        """Withdraws decision `number`, the one in force for its transfer: what was before it is in force again."""
        (made,) = self._undo([number], actor, also)
        return made

    def undo_all(self, numbers: Sequence[int], actor: str, also: Also | None = None) -> list[Decision]:
        """Withdraws all of the decisions, which `actor` made, each of another transfer, in that order, or none."""
        self.refresh()
        with self._decider.lock:
            held = [(number, self._standing.by_number(number)) for number in numbers]
        for number, one in held:
            if one is None:
                raise DecisionError(f"there is no decision {number} to undo")
            if one.actor != actor:
                raise DecisionError(f"decision {number} was made by {one.actor}; open its transfer to take it back")
        return self._undo(numbers, actor, also)

    def _undo(self, numbers: Sequence[int], actor: str, also: Also | None) -> list[Decision]:
        self._check_database()
        made = self._decider.undo_all(numbers, actor, also)
        self._follow()
        return made

    def decisions(
        self, month: str | None = None, actor: str | None = None, text: str = "", page: int = 1, size: int = 50
    ) -> Page[Decision]:
        """What was decided, the last one first; `text` in transfer, payer, invoices, actor or note."""
        sought = text.strip().casefold()
        with self._decider.lock:
            found = [
                one
                for one in reversed(self._standing.numbered.values())
                if (month is None or f"{one.booked_on:%Y-%m}" == month)
                and (actor is None or one.actor == actor)
                and (not sought or sought in _text(self._standing.books, one))
            ]
        places, number, pages = listing.page_of(range(len(found)), page, size)
        return Page([found[place] for place in places], number, pages, len(found))

    def decisions_after(self, after: int = 0, limit: int = 1000) -> list[Decision]:
        """Decisions above a number, in the order in which they were made."""
        return self._decider.decisions.read(after, limit)

    def bookings(self, after: int = 0, limit: int = 1000) -> list[Booking]:
        """Entries of the journal above a number, the first one first."""
        return self._decider.bookings.read(after, limit)

    def named(self, bookings: Sequence[Booking]) -> pl.DataFrame:
        """invoice_number, counterparty and payer of each booking, in that order; null where their month is gone."""
        with self._decider.lock:
            books = self._standing.books
        ids = [(one.invoice_id, one.transfer_id) for one in bookings]
        asked = pl.DataFrame(ids, {"invoice_id": pl.String, "transfer_id": pl.String}, orient="row")
        invoices = books.invoices.select("invoice_id", invoice_number="number", counterparty="counterparty_name")
        transfers = books.transfers.select("transfer_id", payer="counterparty_name")
        found = asked.join(invoices, on="invoice_id", how="left", maintain_order="left")
        found = found.join(transfers, on="transfer_id", how="left", maintain_order="left")
        return found.drop("invoice_id", "transfer_id")

    @property
    def _standing(self) -> Standing:
        return self._decider.standing

    def _check_database(self) -> None:
        """DecisionError where the warehouse goes on from another database."""
        if self.outbox.refusal:
            raise DecisionError(self.outbox.refusal)

    def _at(self, transfer_id: str) -> int:
        transfer = self._standing.at(transfer_id)
        if not self._standing.books.proposals.listed[transfer]:
            raise LookupError(
                f"nothing is proposed for transfer '{transfer_id}' yet: materialize proposals for its month"
            )
        return transfer

    def _page(self, found: Ints, page: int, size: int) -> Page[Row]:
        chosen, number, pages = listing.page_of(found, page, min(size, _LONGEST_PAGE))
        return Page(listing.rows(self._standing, chosen), number, pages, len(found))

    def _option(self, transfer: int, other: Other) -> Option:
        return listing.option(self._standing, transfer, other.share, other.parts)

    def _others(self, transfer_id: str) -> tuple[Other, ...]:
        """The runners-up that were kept with a proposal."""
        return _sets(self._standing, self._shelf.others(transfer_id))

    def _marks(self, transfer: int, sets: Sequence[Mapping[int, int]]) -> tuple[Mark, ...]:
        """What the title says of the invoices that are shown, and of others that its payer may mean."""
        books = self._standing.books
        shown = [invoice for parts in sets for invoice in parts]
        others = listing.sought_of(self._standing, transfer)[:_MAY_BE_MEANT].tolist()
        named = books.invoices.select(_NAMES)[list(dict.fromkeys([*shown, *others]))]
        return tuple(Mark(*found) for found in marks(books.transfers["title"][transfer], named))

    def _warm(self) -> None:
        """Makes what the first question would wait for."""
        books = self._standing.books
        for name in ("money", "party", "payer", "named", "transfer_text", "invoice_text", "due", "sale", "worth"):
            getattr(books, name)

    def _watch(self) -> None:
        while not self._ends.is_set():
            self._wake.wait(_LOOK_SECONDS)
            self._wake.clear()
            if self._ends.is_set():
                return
            try:
                self.look()
                self.refresh()
                self._load()
            except Exception:  # noqa: BLE001 - told with its traceback
                # The desk goes on with what it has.
                _LOG.exception("could not look for new versions")

    def _load(self) -> None:
        """Gets the champion ready to propose anew, where it is another one, or the books are."""
        promotion = self._platform.registry.champion()
        if promotion is None or (self._again is not None and self._learned == promotion.model):
            return
        with self._looking:
            matcher = Matcher.load(self._platform.store.fetch(promotion.model))
            again = Again(matcher, self._shelf.ledger())
            with self._decider.lock:
                months, force = self._standing.waiting(), self._standing.frame()
            for month in months[-MONTHS_KEPT:]:
                again.prepare(month, *_in_force(force))
            with self._decider.lock:
                self._again, self._learned = again, promotion.model
                # What was decided before he was ready is followed, too.
                self._seen = 0
        self._follow()

    def _follow(self) -> None:
        """Has proposed anew what the decisions concern that were not followed yet, and carries them on."""
        with self._decider.lock:
            standing = self._standing
            fresh = [one for number, one in standing.numbered.items() if number > self._seen]
            if not fresh:
                return
            self._seen = standing.last
            found: dict[int, Ints] = {}
            touched: list[int] = []
            for month, since in self._shelf.since.items():
                # What was proposed since knows of it already.
                later = [one for one in fresh if one.decided_at > since]
                if later:
                    if len(later) not in found:
                        found[len(later)] = _touched(standing, later)
                    inside = standing.books.month(month)
                    rows = found[len(later)]
                    touched += rows[(rows >= inside.start) & (rows < inside.stop)].tolist()
            ids = standing.books.transfers["transfer_id"].gather(touched).to_list()
        self.proposer.ask(ids)
        self.outbox.wake()

    def _propose(self, transfers: list[str]) -> None:
        """Proposes anew with what is in force now; without a model, at least nothing that is settled."""
        again = self._again
        with self._decider.lock:
            standing, frame = self._standing, self._standing.frame()
        matched = None if again is None else again.propose(transfers, *_in_force(frame))
        with self._decider.lock:
            if self._standing is not standing:
                self.proposer.ask(transfers)
                return
            for transfer_id in transfers:
                place = standing.at(transfer_id)
                if matched is None:
                    proposal = _without_settled(standing, place)
                else:
                    proposal = _made(standing, place, matched, self._learned.name if self._learned else "")
                standing.propose(place, proposal)

    def _read_judged(self) -> None:
        """What realised quality found of unattended bookings: transfer_id and exact, by month."""
        latest = self._platform.catalog.latest("realised_quality")
        for month, current in latest.items():
            if month not in self._judged or self._judged[month][0] != current.version:
                path = self._platform.store.fetch(current.version) / "bookings.parquet"
                judged = pl.read_parquet(path).select("transfer_id", "exact").drop_nulls()
                self._judged[month] = (current.version, judged)

    def _precision(self, month: str) -> Precision | None:
        """Of all unattended bookings up to the month's end; what people decide at the desk counts at once."""
        standing = self._standing
        held = {
            transfer: exact
            for name, (_, judged) in self._judged.items()
            if name <= month
            for transfer, exact in judged.iter_rows()
        }
        ids = standing.books.transfers["transfer_id"]
        for transfer in standing.decided_on_booked():
            if f"{standing.books.transfers['booked_on'][transfer]:%Y-%m}" <= month:
                held[ids[transfer]] = set(standing.settles(transfer)) == set(standing.booked.at(transfer))
        if not held:
            return None
        right = sum(held.values())
        return Precision(right, len(held), *interval(right, len(held)))


def _touched(standing: Standing, decisions: Sequence[Decision]) -> Ints:
    """The rows of the waiting transfers that decisions concern: what they settle now, and what they ever did."""
    names = {one.transfer_id for one in decisions}
    decided = [standing.books.transfer_at[name] for name in names if name in standing.books.transfer_at]
    parts = {part.invoice_id for name in names for one in standing.history[name] for part in one.allocations}
    invoices = {standing.books.invoice_at[name] for name in parts if name in standing.books.invoice_at}
    for transfer in decided:
        invoices |= {*standing.settles(transfer), *standing.proposal(transfer).parts}
    return standing.touched(decided, invoices)


def _in_force(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """All of `Standing.frame`, and what people said of it."""
    return frame.drop("said"), frame.filter("said").drop("said")


def _made(standing: Standing, transfer: int, matched: Matched, model: str) -> Proposal:
    """What was proposed anew for a transfer: never to be booked without a person."""
    name = standing.books.transfers["transfer_id"][transfer]
    rows = matched.proposals.filter(pl.col("transfer_id") == name)
    parts = _parts(standing, rows)
    return Proposal(
        "review" if parts else "none",
        float(rows["confidence"][0]),
        parts,
        tuple(rows["evidence"][0]),
        model,
        _sets(standing, matched.runners_up.filter(pl.col("transfer_id") == name)),
    )


def _without_settled(standing: Standing, transfer: int) -> Proposal:
    """A transfer's proposal without what is settled meanwhile, of which nobody is sure any more."""
    shown = standing.original(transfer)
    parts = {one: amount for one, amount in shown.parts.items() if abs(standing.open(one, transfer)) >= abs(amount)}
    if len(parts) == len(shown.parts):
        return shown
    said = (*shown.evidence, SETTLED_MEANWHILE.format(len(shown.parts) - len(parts)))
    return replace(shown, decision="review" if parts else "none", confidence=0.0, parts=parts, evidence=said)


def _sets(standing: Standing, runners_up: pl.DataFrame) -> tuple[Other, ...]:
    """The runners-up (schema RUNNERS_UP) of one transfer."""
    return tuple(
        Other(float(rows["share"][0]), _parts(standing, rows))
        for rows in runners_up.sort("rank").partition_by("rank", maintain_order=True)
    )


def _parts(standing: Standing, rows: pl.DataFrame) -> dict[int, int]:
    named = rows.select("invoice_id", "amount").drop_nulls().iter_rows()
    at = standing.books.invoice_at
    return {at[invoice]: amount for invoice, amount in named if invoice in at}


def _text(books: Books, decision: Decision) -> str:
    """What is searched of a decision."""
    ids = [part.invoice_id for part in decision.allocations]
    numbers, payers = books.invoices["number"], books.transfers["counterparty_name"]
    # What was decided stays on record, whatever became of its month.
    named = [numbers[books.invoice_at[one]] for one in ids if one in books.invoice_at]
    at = books.transfer_at.get(decision.transfer_id)
    payer = "" if at is None else payers[at]
    return "\n".join((decision.transfer_id, payer, decision.actor, decision.note, *ids, *named)).casefold()
