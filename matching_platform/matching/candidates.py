"""Which invoices a transfer may pay: the rules read as one join of arrays."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from matching_platform.matching.arrays import Doubles, Flags, Floats, Ints
from matching_platform.matching.balances import Settlements, open_amounts
from matching_platform.matching.rules import DAYS_BEFORE_ISSUE, RULE_INDEX, RULES, SLOTS, SPELLED_OUT, Rule

# Days: behind everything else.
FAR: Final = 100_000.0
_PAIRS_AT_ONCE: Final = 2_000_000  # some hundred bytes each while a rule is read


@dataclass(frozen=True)
class Keys:
    """One key space of one side: `row` int64[K] of the table, `key` int64[K], and a `weight` float32[K].

    The weight of a title's or number's key is its count of digits where it stands alone, negative where it is embedded.
    A pair has that of the transfer's key, which is never zero.
    """

    row: Ints
    key: Ints
    weight: npt.NDArray[np.float32]

    @classmethod
    def of(cls, row: Ints, key: Ints) -> "Keys":
        """Keys that all weigh one."""
        return cls(row, key, np.ones(len(row), np.float32))

    @classmethod
    def joined(cls, parts: list["Keys"]) -> "Keys":
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("row", "key", "weight")))

    def take(self, rows: Ints | Flags) -> "Keys":
        return Keys(self.row[rows], self.key[rows], self.weight[rows])

    def ascending(self) -> "Keys":
        """In order of keys, as the right side of a join has to be."""
        return self.take(np.argsort(self.key, kind="stable"))


@dataclass(frozen=True)
class Pairs:
    """Candidate pairs, sorted by transfer: rows of both tables int64[P], and the weight of each rule float32[P, R].

    Zero: the rule did not find the pair. A title rule's weight is the number of digits that agree, negative where they
    stand embedded in more digits.
    """

    transfer: Ints
    invoice: Ints
    found: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.transfer)

    def spelled_out(self) -> Flags:
        """bool[P]: whether the title holds the invoice's number or reference, standing alone."""
        columns = self.found[:, [RULE_INDEX[name] for name in SPELLED_OUT]]
        return columns.max(axis=1) > 0

    def take(self, rows: Ints | Flags) -> "Pairs":
        return Pairs(self.transfer[rows], self.invoice[rows], self.found[rows])

    @classmethod
    def of(cls, code: Ints, rule: Ints, weight: Floats, size: int) -> "Pairs":
        """From what each rule found: `code` int64[F] is transfer · size + invoice, `rule` int64[F], `weight` float32[F]."""
        codes, position = np.unique(code, return_inverse=True)
        found = np.zeros((len(codes), len(RULES)), np.float32)
        found[position, rule] = weight
        return cls(codes // size, codes % size, found)


@dataclass(frozen=True)
class TransferSide:
    """T transfers as the join sees them: `keys` by key space; `booked` int64[T] days, `amount` int64[T] minor units,
    `currency` int64[T], `incoming` bool[T], `moment` int64[T]; `collects` bool[T] and the usual `age` float64[T], days, of
    what a collector pays; `dated` bool[T], whether the title speaks of days, `dates_from` and `dates_to` int64[T]."""

    keys: dict[str, Keys]
    booked: Ints
    amount: Ints
    currency: Ints
    incoming: Flags
    moment: Ints
    collects: Flags
    age: Doubles
    dated: Flags
    dates_from: Ints
    dates_to: Ints

    @property
    def asked(self) -> Ints:
        """The rows that have keys, ascending: the transfers that are asked about."""
        return np.unique(np.concatenate([keys.row for keys in self.keys.values()]))


@dataclass(frozen=True)
class InvoiceSide:
    """N invoices as the join sees them: `keys` by key space, in ascending order; `issued` and `due` int64[N] days, `amount`
    int64[N] minor units, `currency` int64[N], `sale` bool[N]; `settlements` index them."""

    keys: dict[str, Keys]
    issued: Ints
    due: Ints
    amount: Ints
    currency: Ints
    sale: Flags
    settlements: Settlements


@dataclass(frozen=True)
class Question:
    """Which of the invoices may each transfer pay? Transfers without keys are not asked about."""

    transfers: TransferSide
    invoices: InvoiceSide

    @property
    def size(self) -> int:
        """Above every row of an invoice."""
        return max(1, len(self.invoices.amount))

    def open(self, transfer: Ints, invoice: Ints) -> Ints:
        """What is open of each `invoice` at the moment of its `transfer`, minor units."""
        settled = self.invoices.settlements.before(invoice, self.transfers.moment[transfer])
        return open_amounts(self.invoices.amount[invoice], settled)

    def allowed(self, rule: Rule, transfer: Ints, invoice: Ints) -> Flags:
        """Which pairs can be at all: of the same direction, issued before, and still open unless the title names them."""
        t, i = self.transfers, self.invoices
        known = (i.issued[invoice] <= t.booked[transfer] + DAYS_BEFORE_ISSUE) & (
            i.sale[invoice] == t.incoming[transfer]
        )
        if rule.same_currency:
            known &= i.currency[invoice] == t.currency[transfer]
        if not rule.closed_too:
            known[known] = self.open(transfer[known], invoice[known]) != 0
        return known

    def preference(self, transfer: Ints, invoice: Ints) -> Doubles:
        """Which pairs come first where a limit cuts, smaller is better: the exact amount, then what is due about now; of a
        collector, what is of the usual age and of the days that he names."""
        t, i = self.transfers, self.invoices
        since_due, age = t.booked[transfer] - i.due[invoice], t.booked[transfer] - i.issued[invoice]
        late = np.abs(np.where(t.collects[transfer], age - t.age[transfer], since_due))
        late += FAR * (t.collects[transfer] & t.dated[transfer] & ~self.on_dates(transfer, invoice))
        return np.where(self.open(transfer, invoice) == t.amount[transfer], late - 2 * FAR, late)

    def on_dates(self, transfer: Ints, invoice: Ints) -> Flags:
        """Whether each invoice was issued on the days of which the title speaks."""
        issued = self.invoices.issued[invoice]
        return (issued >= self.transfers.dates_from[transfer]) & (issued <= self.transfers.dates_to[transfer])


def join(left: Ints, right: Ints) -> tuple[Ints, Ints]:
    """All pairs of positions with equal keys, as (left int64[P], right int64[P]), ordered by left; `right` ascends."""
    first = np.searchsorted(right, left, "left")
    count = np.searchsorted(right, left, "right") - first
    hit = np.flatnonzero(count)
    return np.repeat(hit, count[hit]), expanded(first[hit], count[hit])


def expanded(first: Ints, count: Ints) -> Ints:
    """The numbers first, first + 1, … of each of N spans of `count`, one after another."""
    return np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())


def rank_within(group: Ints, *by: npt.NDArray[np.generic]) -> Ints:
    """The rank, from 0, of each row within its group in ascending order of `by` (the first key decides)."""
    order = np.lexsort((*reversed(by), group))
    starts = np.r_[True, np.diff(group[order]) != 0] if len(group) else np.zeros(0, bool)
    position = np.arange(len(group))
    rank = np.empty(len(group), np.int64)
    rank[order] = position - np.maximum.accumulate(np.where(starts, position, 0))
    return rank


Finder = Callable[[Question], Pairs]


def find(question: Question) -> Pairs:
    """All pairs that some rule finds, at most its limit for each transfer and SLOTS together."""
    size = question.size
    codes, weights, rules = [], [], []
    for index, rule in enumerate(RULES):
        right = question.invoices.keys[rule.invoice_key]
        for left in _portions(question.transfers.keys[rule.transfer_key], right):
            code, weight = _found_by(rule, left, right, size, question)
            codes.append(code)
            weights.append(weight)
            rules.append(np.full(len(code), index))
    pairs = Pairs.of(np.concatenate(codes), np.concatenate(rules), np.concatenate(weights), size)
    keep = np.ones(len(pairs), bool)
    many = np.flatnonzero(np.bincount(pairs.transfer, minlength=1)[pairs.transfer] > SLOTS)
    if len(many):
        worth = (pairs.found[many] != 0) @ np.array([rule.worth for rule in RULES])
        transfer = pairs.transfer[many]
        keep[many] = rank_within(transfer, -worth, question.preference(transfer, pairs.invoice[many])) < SLOTS
    return pairs.take(keep)


def _most_alike(ascending: Ints) -> int:
    """How often the most frequent of the keys occurs."""
    last = np.flatnonzero(np.diff(ascending, append=-1))
    return int(np.diff(last, prepend=-1).max(initial=0))


def _portions(left: Keys, right: Keys) -> Iterator[Keys]:
    """`left` by whole transfers, as many at once as make no more pairs than memory bears."""
    if len(left.key) * _most_alike(right.key) <= _PAIRS_AT_ONCE:
        yield left
        return
    count = np.searchsorted(right.key, left.key, "right") - np.searchsorted(right.key, left.key, "left")
    of_transfer = np.bincount(left.row, count)
    portion = (np.cumsum(of_transfer) // _PAIRS_AT_ONCE)[left.row]
    for number in np.unique(portion):
        yield left.take(portion == number)


def _found_by(
    rule: Rule, left: Keys, right: Keys, size: int, question: Question
) -> tuple[Ints, npt.NDArray[np.float32]]:
    """(transfer · size + invoice, weight) of the pairs that one rule finds, within its limit."""
    at_left, at_right = join(left.key, right.key)
    transfer, invoice = left.row[at_left], right.row[at_right]
    keep = question.allowed(rule, transfer, invoice)
    code, weight = _distinct(transfer[keep] * size + invoice[keep], left.weight[at_left][keep])
    many = np.flatnonzero(np.bincount(code // size, minlength=1)[code // size] > rule.limit)
    if len(many):
        transfer, invoice = code[many] // size, code[many] % size
        over = rank_within(transfer, -np.abs(weight[many]), question.preference(transfer, invoice)) >= rule.limit
        code, weight = np.delete(code, many[over]), np.delete(weight, many[over])
    return code, weight


def _distinct(code: Ints, weight: npt.NDArray[np.float32]) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Each code once, with its greatest weight: a number standing alone beats the same digits embedded."""
    order = np.lexsort((-weight, code))
    first = np.r_[True, np.diff(code[order]) != 0] if len(code) else np.zeros(0, bool)
    return code[order][first], weight[order][first]
