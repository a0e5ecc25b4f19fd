"""Boosted trees over the model's own candidates and features, each pair for itself, then a search for a set that fits.

What one builds in a week from well-kept parts; what a model adds to its features must show against this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from sklearn.ensemble import HistGradientBoostingClassifier

from matching_platform.learning.examples import examples_of
from matching_platform.ledger.months import next_month
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import PROPOSALS
from matching_platform.matching.arrays import Doubles, Flags, Floats, Ints
from matching_platform.matching.candidates import rank_within
from matching_platform.matching.features import Lists, P, Reader, World
from matching_platform.matching.history import History, credible, settled
from matching_platform.matching.memory import Memory
from matching_platform.matching.settlement import allocate

_PROMISED: Final = 0.995
_SUMMED: Final = 12  # likeliest candidates of a transfer, all of whose subsets are summed
_EDGE: Final = 1e-6
_NEVER: Final = -99.0  # the log odds of a candidate that is not there
_AT_ONCE: Final = 512  # transfers; bounds the memory that their subsets take
_SUBSETS: Final = ((np.arange(1 << _SUMMED)[:, None] >> np.arange(_SUMMED)) & 1).astype(np.float64)
# How a set is found; a number in this order goes with it.
_SAYS: Final = pl.Series(
    [
        ["no invoice is likelier paid than not, and none of the likeliest sum to the transfer's amount"],
        ["each of these invoices is likelier paid than not"],
        ["of the likeliest invoices these sum to the transfer's amount"],
    ]
)
_NOTHING, _CHANCE, _SUM = range(3)


@dataclass(frozen=True)
class Trees:
    """Trees that tell how likely a pair is, and what was remembered when they learned, up to the month `until`."""

    classifier: HistGradientBoostingClassifier
    memory: Memory
    until: str

    @classmethod
    def learn(cls, examples: Sequence[pl.DataFrame], ledger: Ledger, until: str) -> "Trees":
        """From `examples`, labelled pairs of months up to `until`, and `ledger`'s matches: what `train` learns from."""
        data = examples_of(list(examples))
        classifier = HistGradientBoostingClassifier(random_state=0).fit(_rows(data.lists), data.label)
        return cls(classifier, Memory.of(settled(ledger, credible(ledger))), until)

    def match(self, ledger: Ledger, months: list[str] | None = None) -> pl.DataFrame:
        """Proposals (schema PROPOSALS, minor units) for the transfers of `months`, all where not given.

        Each month knows the matches of transfers booked before it and, of months that nobody has tagged, what was settled
        here.
        """
        history, parts = History.of(ledger), [pl.DataFrame(schema=PROPOSALS)]
        for month in (month for month in ledger.months() if months is None or month in months):
            parts.append(self._settle(self.world(ledger, history, month)))
            if not history.is_tagged(month):
                history = history.and_also(
                    parts[-1].drop_nulls("invoice_id").select("transfer_id", "invoice_id", "amount")
                )
        return pl.concat(parts)

    def world(self, ledger: Ledger, history: History, month: str) -> World:
        """What is known of `month`; memory is what was remembered and what `history` adds: months after the learning, or
        all of another company's."""
        known = history.month(month)
        since = next_month(self.until) if self.memory.is_of(ledger.invoices) else None
        memory = self.memory.and_also(Memory.of(settled(ledger, history.between(since, month))))
        return World(known.transfers, known.lately, known.invoices, memory, known.settlements(known.earlier))

    def _chances(self, lists: Lists) -> Doubles:
        """How likely each pair float64[P] is one that was paid."""
        rows = _rows(lists)
        return np.asarray(self.classifier.predict_proba(rows)[:, 1]) if len(rows) else np.zeros(0)

    def _settle(self, world: World) -> pl.DataFrame:
        """The surest take what they claim; whoever claims more than they leave open looks again."""
        reader, taken, parts = Reader(world), world.settlements, [pl.DataFrame(schema=PROPOSALS)]
        moment = pending = np.arange(len(world.transfers))
        while len(pending):
            lists = reader.read(pending, moment, taken)
            mask, confidence, found = _chosen(lists, self._chances(lists))
            owner, pair, amount = allocate(lists, np.arange(len(pending)), mask)
            invoice = lists.pairs.invoice[pair]
            fits = _fits(owner, invoice, amount, lists.open[pair], confidence)
            owner, invoice, amount = (column[fits[owner]] for column in (owner, invoice, amount))
            ids = {"row": owner, "invoice_id": world.invoices["invoice_id"].gather(invoice), "amount": amount}
            answers = pl.DataFrame(
                {
                    "row": np.arange(len(pending)),
                    "transfer_id": world.transfers["transfer_id"].gather(pending),
                    "confidence": confidence,
                    "decision": _decided(mask, confidence),
                    "evidence": _SAYS.gather(found),
                }
            ).filter(fits)
            parts.append(
                answers.join(pl.DataFrame(ids), on="row", how="left", maintain_order="left_right").select(
                    list(PROPOSALS)
                )
            )
            taken = taken.and_also(invoice, pending[owner], amount)
            pending = pending[~fits]
            moment = np.full(len(pending), len(world.transfers))
        return pl.concat(parts)


def _rows(lists: Lists) -> Floats:
    """float32[P, features]: what is known of each pair, and of its transfer."""
    return np.concatenate([lists.pair, lists.context[lists.pairs.transfer]], axis=1)


def _chosen(lists: Lists, chance: Doubles) -> tuple[Ints, Doubles, Ints]:
    """The set of each transfer as a mask int64[T] of slots, its confidence float64[T] and how it was found int64[T].

    Confidence is the chance that of all open invoices just these are paid, were the pairs of `chance` float64[P]
    independent.
    """
    at, count = lists.pairs.transfer, len(lists.amount)
    chance = chance.clip(_EDGE, 1 - _EDGE)
    odds = np.log(chance) - np.log1p(-chance)
    usable = lists.open != 0
    comparable = usable & ((lists.pair[:, P["currency equal"]] > 0) | (lists.pair[:, P["rate known"]] > 0))
    place = rank_within(at, ~comparable, -odds)
    first = comparable & (place < _SUMMED)
    worth, weight = np.zeros((count, _SUMMED)), np.full((count, _SUMMED), _NEVER)
    worth[at[first], place[first]], weight[at[first], place[first]] = lists.converted[first], odds[first]
    summed = likeliest_sum(worth, weight, lists.amount)
    sums = np.count_nonzero(summed, axis=1) > 0
    chosen = usable & (chance > 0.5) & ~sums[at]
    chosen[first] |= summed[at[first], place[first]]
    slot = rank_within(at, np.arange(len(at)))
    mask = np.zeros(count, np.int64)
    np.add.at(mask, at[chosen], np.int64(1) << slot[chosen])
    share = np.where(chosen, np.log(chance), np.log1p(-chance))
    confidence = np.exp(np.bincount(at[usable], share[usable], minlength=count))
    return mask, confidence, np.where(sums, _SUM, np.where(mask != 0, _CHANCE, _NOTHING))


def likeliest_sum(worth: Doubles, odds: Doubles, amount: Ints) -> Flags:
    """bool[T, _SUMMED]: the likeliest subset of each row of `worth` that sums to `amount` int64[T]; none where none does."""
    found = np.zeros(worth.shape, bool)
    for start in range(0, len(amount), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        fits = np.equal(worth[part] @ _SUBSETS.T, amount[part, None])
        best = np.where(fits, odds[part] @ _SUBSETS.T, -np.inf).argmax(axis=1)
        found[part] = (_SUBSETS[best] > 0) & fits.any(axis=1, keepdims=True)
    return found


def _fits(owner: Ints, invoice: Ints, amount: Ints, still_open: Ints, confidence: Doubles) -> Flags:
    """bool[T]: whether what each transfer claims is still open once surer ones have taken what they claim."""
    claims = pl.DataFrame(
        {"owner": owner, "invoice": invoice, "amount": abs(amount), "open": abs(still_open), "sure": confidence[owner]}
    ).sort("sure", "owner", descending=[True, False])
    over = claims.filter(pl.col("amount").cum_sum().over("invoice") > pl.col("open"))
    return ~np.isin(np.arange(len(confidence)), over["owner"].to_numpy())


def _decided(mask: Ints, confidence: Doubles) -> pl.Series:
    booked = np.where(confidence >= _PROMISED, "auto", "review")
    return pl.Series(np.where(mask == 0, "none", booked), dtype=pl.String)
