"""Has proposed anew, by the champion, for whom the decisions concern."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from matching_platform.desk.books import Shelf
from matching_platform.desk.proposing import Proposer
from matching_platform.environment import Platform
from matching_platform.matching.again import MONTHS_KEPT, Again
from matching_platform.matching.arrays import Ints
from matching_platform.matching.evidence import SETTLED_MEANWHILE
from matching_platform.matching.matcher import Matched, Matcher
from matching_platform.review.decider import Decider
from matching_platform.review.decisions import Decision
from matching_platform.review.standing import Other, Proposal, Standing
from matching_platform.store.versions import Version


@dataclass(frozen=True)
class _Champion:
    """The model that proposes anew, beside the ledger as it was when it was loaded."""

    model: Version
    again: Again


class Follower:
    """Puts on the list of `proposer` whom decisions concern, and works on it. Safe for threads, of which one loads."""

    def __init__(self, platform: Platform, decider: Decider, shelf: Shelf) -> None:
        self._platform, self._decider, self._shelf = platform, decider, shelf
        # Replaced as a whole, and read once for what belongs together.
        self._champion: _Champion | None = None
        self._followed = 0
        self.proposer = Proposer(self._propose)

    @property
    def is_ready(self) -> bool:
        """Whether the champion proposes anew; before, proposals only lose what is settled."""
        return self._champion is not None

    def books_changed(self) -> None:
        """All is to be followed again, and the champion, who knows the former books, loaded again."""
        with self._decider.lock:
            self._champion, self._followed = None, 0

    def load(self) -> None:
        """Gets the champion ready to propose anew, where it is another one, or the books are, which stay so meanwhile."""
        promotion, held = self._platform.registry.champion(), self._champion
        if promotion is None or (held is not None and held.model == promotion.model):
            return
        matcher = Matcher.load(self._platform.store.fetch(promotion.model))
        again = Again(matcher, self._shelf.ledger())
        with self._decider.lock:
            months, force = self._decider.standing.waiting(), self._decider.standing.frame()
        for month in months[-MONTHS_KEPT:]:
            again.prepare(month, *_in_force(force))
        with self._decider.lock:
            # What was decided before he was ready is followed, too.
            self._champion, self._followed = _Champion(promotion.model, again), 0

    def follow(self) -> bool:
        """Has proposed anew what the decisions concern that were not followed yet; whether there were any."""
        with self._decider.lock:
            standing = self._decider.standing
            fresh = [one for number, one in standing.numbered.items() if number > self._followed]
            if not fresh:
                return False
            self._followed = standing.last
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
        return True

    def _propose(self, transfers: list[str]) -> None:
        """Proposes anew with what is in force now; without a model, at least nothing that is settled."""
        champion = self._champion
        with self._decider.lock:
            standing, frame = self._decider.standing, self._decider.standing.frame()
        matched = None if champion is None else champion.again.propose(transfers, *_in_force(frame))
        with self._decider.lock:
            if self._decider.standing is not standing:
                self.proposer.ask(transfers)
                return
            for transfer_id in transfers:
                place = standing.at(transfer_id)
                if champion is None or matched is None:
                    proposal = _without_settled(standing, place)
                else:
                    proposal = _made(standing, place, matched, champion.model.name)
                standing.propose(place, proposal)


def other_sets(standing: Standing, runners_up: pl.DataFrame) -> tuple[Other, ...]:
    """The runners-up (schema RUNNERS_UP) of one transfer."""
    return tuple(
        Other(float(rows["share"][0]), _parts(standing, rows))
        for rows in runners_up.sort("rank").partition_by("rank", maintain_order=True)
    )


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
        other_sets(standing, matched.runners_up.filter(pl.col("transfer_id") == name)),
    )


def _without_settled(standing: Standing, transfer: int) -> Proposal:
    """A transfer's proposal without what is settled meanwhile, of which nobody is sure any more."""
    shown = standing.original(transfer)
    parts = {one: amount for one, amount in shown.parts.items() if abs(standing.open(one, transfer)) >= abs(amount)}
    if len(parts) == len(shown.parts):
        return shown
    said = (*shown.evidence, SETTLED_MEANWHILE.format(len(shown.parts) - len(parts)))
    return replace(shown, decision="review" if parts else "none", confidence=0.0, parts=parts, evidence=said)


def _parts(standing: Standing, rows: pl.DataFrame) -> dict[int, int]:
    named = rows.select("invoice_id", "amount").drop_nulls().iter_rows()
    at = standing.books.invoice_at
    return {at[invoice]: amount for invoice, amount in named if invoice in at}
