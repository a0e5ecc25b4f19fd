"""The review room as pages and the API call it: the platform's data, decisions, and what follows from them at once."""

import logging
from collections.abc import Mapping, Sequence
from threading import Event, Lock, Thread
from typing import Final

import numpy as np
import polars as pl

from matching_platform.desk.books import Shelf, may_book
from matching_platform.desk.following import Follower, other_sets
from matching_platform.desk.outbox import Outbox
from matching_platform.desk.precision import Judged
from matching_platform.environment import Platform
from matching_platform.matching.arrays import Ints
from matching_platform.matching.evidence import BEING_PROPOSED_ANEW
from matching_platform.matching.marks import Mark, marks
from matching_platform.matching.text import folded
from matching_platform.review import listing
from matching_platform.review.bookings import Booking
from matching_platform.review.books import Books
from matching_platform.review.cases import (
    Case,
    Filter,
    Offer,
    OpenInvoice,
    Option,
    Page,
    Row,
    Status,
    Summary,
)
from matching_platform.review.decider import Also, Decider
from matching_platform.review.decisions import Decision, DecisionError, Wanted
from matching_platform.review.standing import Other, Standing
from matching_platform.store.unattended import NEVER, Permission

_LOOK_SECONDS: Final = 10.0
# How long a case waits for being proposed anew, before it shows what was proposed before.
PATIENCE: Final = 2.0  # seconds
_MAY_BE_MEANT: Final = 50  # invoices
_READ_FOR: Final = 5000  # more invoices of the payer, the newest ones, for which the title is read
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
        self._judged = Judged(platform)
        self._follower = Follower(platform, self._decider, self._shelf)
        self.proposer = self._follower.proposer
        self.outbox = Outbox(platform.warehouse, self._decider.decisions, self._decider.bookings)
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
                    self._follower.books_changed()
                # Last, as what failed is tried again at the next look.
                self._permission = permission
                self._shelf.is_shown = True
            self._judged.look()
        self._follow()

    @property
    def is_ready(self) -> bool:
        """Whether the champion proposes anew; before, proposals only lose what is settled."""
        return self._follower.is_ready

    def months(self) -> list[str]:
        """The months of which something is proposed, the first one first."""
        with self._decider.lock:
            return self._standing.books.months()

    def summary(self, month: str) -> Summary:
        """The numbers of a month."""
        with self._decider.lock:
            precision = self._judged.precision(self._standing, month)
            return listing.summary(self._standing, month, precision, self._permission.told)

    def queue(self, month: str, filter: Filter | None = None, page: int = 1, size: int = 50) -> Page[Row]:  # noqa: A002
        """The transfers of a month that `filter` lists, the most valuable doubt first."""
        with self._decider.lock:
            found = listing.ordered(self._standing, month, filter or Filter())
            return self._page(found, page, size)

    def booked(self, month: str, text: str = "", page: int = 1, size: int = 50) -> Page[Row]:
        """What was booked unattended in a month."""
        return self.queue(month, Filter(frozenset({Status.BOOKED}), text), page, size)

    def case(self, transfer_id: str, patience: float = PATIENCE) -> Case:
        """All about a transfer; LookupError where nothing is proposed for it.

        Where a decision on another one concerns it, it is proposed anew before it is shown, if that takes no longer than
        `patience`, in seconds.
        """
        is_pending = not self.proposer.wait([transfer_id], patience)
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
                evidence=(*shown.evidence, BEING_PROPOSED_ANEW) if is_pending else shown.evidence,
                marks=self._marks(transfer, [shown.parts, *(other.parts for other in others)]),
                model=shown.model,
                is_pending=is_pending,
                is_anew=shown != standing.original(transfer),
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

    def invoice(self, invoice_id: str, transfer_id: str | None = None) -> OpenInvoice:
        """An invoice with what is open on it, or open for a transfer, which may settle anew what it settles itself.

        LookupError where there is none.
        """
        with self._decider.lock:
            place = self._standing.books.invoice_at.get(invoice_id)
            if place is None:
                raise LookupError(f"there is no invoice '{invoice_id}'; perhaps its month is not accepted yet")
            transfer = None if transfer_id is None else self._at(transfer_id)
            (found,) = listing.open_invoices(self._standing, transfer, [place])
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
        with self._decider.lock:
            found = [
                one
                for one in reversed(self._standing.numbered.values())
                if (month is None or f"{one.booked_on:%Y-%m}" == month) and (actor is None or one.actor == actor)
            ]
            if text.strip():
                found = _with(self._standing.books, found, text.strip())
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

    def _follow(self) -> None:
        """Has proposed anew what new decisions concern, and carries them on."""
        if self._follower.follow():
            self.outbox.wake()

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
        chosen, number, pages = listing.page_of(found, page, size)
        return Page(listing.rows(self._standing, chosen), number, pages, len(found))

    def _option(self, transfer: int, other: Other) -> Option:
        return listing.option(self._standing, transfer, other.share, other.parts)

    def _others(self, transfer_id: str) -> tuple[Other, ...]:
        """The runners-up that were kept with a proposal."""
        return other_sets(self._standing, self._shelf.others(transfer_id))

    def _marks(self, transfer: int, sets: Sequence[Mapping[int, int]]) -> tuple[Mark, ...]:
        """What the title says of the invoices that are shown, and of others that its payer may mean."""
        books = self._standing.books
        shown = [invoice for parts in sets for invoice in parts]
        others = listing.sought_of(self._standing, transfer)[:_MAY_BE_MEANT].tolist()
        named = list(dict.fromkeys([*shown, *others]))
        rest = np.setdiff1d(listing.theirs(self._standing, transfer), named)[-_READ_FOR:]
        invoices = books.invoices.select(_NAMES)
        return tuple(marks(books.transfers["title"][transfer], invoices[named], invoices[rest]))

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
                with self._looking:
                    self._follower.load()
                self._follow()
            except Exception:  # noqa: BLE001 - told with its traceback
                # The desk goes on with what it has.
                _LOG.exception("could not look for new versions")


def _with(books: Books, decisions: Sequence[Decision], text: str) -> list[Decision]:
    """The decisions with `text` in what is searched of them, diacritics and case aside."""
    texts = pl.DataFrame({"text": [text, *(_text(books, one) for one in decisions)]})
    wanted, *searched = texts.select(folded(pl.col("text"))).to_series()
    return [one for one, said in zip(decisions, searched, strict=True) if wanted in said]


def _text(books: Books, decision: Decision) -> str:
    """What is searched of a decision."""
    ids = [part.invoice_id for part in decision.allocations]
    numbers, payers = books.invoices["number"], books.transfers["counterparty_name"]
    # What was decided stays on record, whatever became of its month.
    named = [numbers[books.invoice_at[one]] for one in ids if one in books.invoice_at]
    at = books.transfer_at.get(decision.transfer_id)
    payer = "" if at is None else payers[at]
    return "\n".join((decision.transfer_id, payer, decision.actor, decision.note, *ids, *named))
