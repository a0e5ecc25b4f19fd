"""Which invoices a transfer may pay: rules as data, each a name, two key spaces and a limit, read as one join of arrays."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from matching_platform.matching.arrays import Flags, Ints
from matching_platform.matching.compiled import compiled
from matching_platform.matching.text import LONGEST_KEY, Digits, deletions

# Shorter windows of digits occur by chance; such numbers count only where they stand alone, as whole groups.
_SHORTEST_EMBEDDED: Final = 6
_SHORTEST_ALONE: Final = 3
_SHORTEST_TYPO: Final = 6
_GROUPS_OF_A_NUMBER: Final = 5
_COUNTERPARTIES_NAMED: Final = 3  # more share a number by chance
# Slots per transfer, after the likeliest; the longest list of open invoices that people still pay in one transfer.
SLOTS: Final = 60
# What people agree to pay of an invoice at once: instalments, tenths, and the rest after a cash discount.
SHARES: Final = (
    *(Fraction(1, n) for n in (2, 3, 4)),
    *(Fraction(n, 10) for n in (1, 2, 3, 4, 6, 7, 8, 9)),
    *(Fraction(n, 100) for n in (95, 96, 97, 98, 99)),
    Fraction(2, 3),
    Fraction(3, 4),
)
CHARGES: Final = tuple(100 * units for units in (5, 10, 15, 20, 25, 30, 40, 50))  # minor units; what banks deduct
_PAIRS_AT_ONCE: Final = 2_000_000  # some hundred bytes each while a rule is read
_LONGEST_RUN: Final = 16  # invoices
CURRENCY_SPAN: Final = 1024  # above every code of a currency


@dataclass(frozen=True)
class Rule:
    """Pairs whose keys are equal: `transfer_key` and `invoice_key` name key spaces, `limit` the most pairs per transfer.

    `worth` decides which pairs stay where a list is too long for its slots.
    """

    name: str
    transfer_key: str
    invoice_key: str
    limit: int
    worth: int


RULES: Final = (
    Rule("number", "digits", "number", 30, worth=12),
    Rule("reference", "digits", "reference", 30, worth=12),
    Rule("number without zeros", "digits without zeros", "number without zeros", 30, worth=12),
    Rule("number, a digit missing", "digits, one missing", "less one", 10, worth=5),
    Rule("number, a digit too many", "digits less one", "number or reference", 10, worth=5),
    Rule("number, a digit wrong", "digits less one", "less one", 10, worth=5),
    Rule("counterparty", "payer", "counterparty", 60, worth=6),
    Rule("counterparty of a number named", "named", "counterparty", 60, worth=3),
    Rule("payout of a collector", "collected", "mark", 60, worth=5),
    Rule("counterparty named in the title", "written name", "counterparty", 40, worth=3),
    Rule("amount", "amount", "open amount", 8, worth=8),
    Rule("share of the amount", "whole", "open amount", 8, worth=7),
    Rule("sum of a run", "run", "run", 32, worth=8),
)
RULE_INDEX: Final = {rule.name: index for index, rule in enumerate(RULES)}
# These read a number as it stands; a typo of one number is often another number.
SPELLED_OUT: Final = ("number", "reference", "number without zeros")
READ_FROM_TITLE: Final = range(RULE_INDEX["number, a digit wrong"] + 1)


@dataclass(frozen=True)
class Keys:
    """One key space of one side: `row` int64[K] of the table, `key` int64[K], and a `weight` float32[K].

    The weight of a title's or number's key is its count of digits where it stands alone, negative where it is embedded.
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


def title_keys(written: pl.Series, lengths: set[int], numbers: Ints) -> dict[str, Keys]:
    """The key spaces of the folded remittance texts, with windows of the `lengths` that numbers have.

    What stands there as one of the known `numbers`, keys in ascending order, is not read as a typo of another one.
    """
    digits = Digits.of(written)
    typed = digits.without(_spelled_out(digits, lengths, numbers))
    shorter = {length - 1 for length in lengths if length >= _SHORTEST_TYPO} - lengths
    return {
        "digits": _title_windows(digits, lengths, embedded=True),
        "digits, one missing": _title_windows(typed, shorter | lengths, embedded=False),
        "digits without zeros": _title_windows(digits.without_leading_zeros(), lengths, embedded=False),
        "digits less one": _less_one(_title_windows(typed, {n + d for n in lengths for d in (0, 1)}, embedded=False)),
    }


def _spelled_out(digits: Digits, lengths: set[int], numbers: Ints) -> Flags:
    """bool[D]: which digits belong to a known number that stands alone and is too long to do so by chance."""
    change = np.zeros(len(digits.value) + 1, np.int64)
    groups = np.cumsum(digits.starts)
    for length, at, key in digits.windows(max(lengths, default=0)):
        if length not in lengths or length < _SHORTEST_EMBEDDED or not len(numbers):
            continue
        last = at + length - 1
        place = np.searchsorted(numbers, key).clip(max=len(numbers) - 1)
        known = (numbers[place] == key) & digits.starts[at] & digits.ends[last]
        known &= groups[last] - groups[at] < _GROUPS_OF_A_NUMBER
        np.add.at(change, at[known], 1)
        np.add.at(change, last[known] + 1, -1)
    return np.cumsum(change[:-1]) > 0


def number_keys(numbers: pl.Series, references: pl.Series) -> dict[str, Keys]:
    """The key spaces of invoice numbers and machine references; both are mistyped alike."""
    digits = Digits.of(numbers)
    number, reference = _wholes(digits), _wholes(Digits.of(references))
    both = Keys.joined([number, reference])
    return {
        "number": number.ascending(),
        "reference": reference.ascending(),
        "number without zeros": _wholes(digits.without_leading_zeros()).ascending(),
        "number or reference": both.ascending(),
        "less one": _less_one(both).ascending(),
    }


def wholes(row: Ints, amount: Ints) -> tuple[Ints, Ints]:
    """(row int64[W], amount int64[W]): every amount of which `amount` int64[N], minor units, is one of SHARES, rounded, or
    what one of CHARGES left."""
    rows, amounts = [np.repeat(row, len(CHARGES))], [np.add.outer(amount, CHARGES).ravel()]
    for share in SHARES:
        least = -((1 - 2 * amount) * share.denominator // (2 * share.numerator))
        most = (2 * amount + 1) * share.denominator // (2 * share.numerator)
        count = most - least + 1
        rows.append(np.repeat(row, count))
        amounts.append(expanded(least, count))
    return np.concatenate(rows), np.concatenate(amounts)


@compiled
def amount_key(currency: Ints, sale: Flags, amount: Ints) -> Ints:
    """The key of amounts in minor units, for rows or for one: equal where a transfer's settles an invoice's to the cent."""
    return (np.abs(amount) * CURRENCY_SPAN + currency) * 2 + (sale == (amount > 0))


@compiled
def runs(group: Ints, currency: Ints, sale: Flags, opening: Ints, wanted: Ints) -> tuple[Ints, Ints, Ints]:
    """(first int64[H], size int64[H], key int64[H]): the runs of invoices, two or more, that follow each other within a
    `group` and whose sum has one of the `wanted` keys of amounts.

    `group` int64[N] ascends, `opening` int64[N] are amounts in the order in which invoices follow, `wanted` ascends.
    """
    first, size, key = [np.int64(0)], [np.int64(0)], [np.int64(0)]
    for start in range(len(group)):
        total = opening[start]
        for stop in range(start + 1, min(start + _LONGEST_RUN, len(group))):
            if group[stop] != group[start]:
                break
            total += opening[stop]
            code = amount_key(currency[start], sale[start], total)
            place = np.searchsorted(wanted, code)
            if place < len(wanted) and wanted[place] == code:
                first.append(np.int64(start))
                size.append(np.int64(stop - start + 1))
                key.append(np.int64(code))
    return np.array(first)[1:], np.array(size)[1:], np.array(key)[1:]


def named(digits: Keys, number: Keys, counterparty: Ints) -> Keys:
    """The counterparties whose invoice numbers stand in a title: who pays under another name still names his invoices.

    `counterparty` int64[N] is each invoice's.
    """
    alone = np.flatnonzero(digits.weight >= _SHORTEST_EMBEDDED)
    at_left, at_right = join(digits.key[alone], number.key)
    transfer = digits.row[alone[at_left]]
    size = int(counterparty.max(initial=0)) + 1
    code = np.unique(transfer * size + counterparty[number.row[at_right]])
    few = np.bincount(code // size, minlength=1)[code // size] <= _COUNTERPARTIES_NAMED
    return Keys(code[few] // size, code[few] % size, np.ones(int(few.sum()), np.float32))


def _wholes(digits: Digits) -> Keys:
    row, key, length = digits.wholes()
    keep = length >= _SHORTEST_ALONE
    return Keys(row[keep], key[keep], length[keep].astype(np.float32))


def _title_windows(digits: Digits, lengths: set[int], *, embedded: bool) -> Keys:
    parts = [Keys(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    groups = np.cumsum(digits.starts)
    for length, at, key in digits.windows(min(LONGEST_KEY, max(lengths, default=0))):
        if length not in lengths or length < _SHORTEST_ALONE:
            continue
        last = at + length - 1
        alone = digits.starts[at] & digits.ends[last] & (groups[last] - groups[at] < _GROUPS_OF_A_NUMBER)
        keep = alone | (embedded & (length >= _SHORTEST_EMBEDDED))
        weight = np.where(alone, length, -length).astype(np.float32)
        parts.append(Keys(digits.text[at[keep]], key[keep], weight[keep]))
    return Keys.joined(parts)


def _less_one(keys: Keys) -> Keys:
    parts = [Keys(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    length = np.abs(keys.weight).astype(np.int64)
    for size in np.unique(length[(length >= _SHORTEST_TYPO) & (keys.weight > 0)]):
        rows = (length == size) & (keys.weight > 0)
        for shorter in deletions(keys.key[rows], int(size)):
            parts.append(Keys(keys.row[rows], shorter, keys.weight[rows] - 1))
    return Keys.joined(parts)


def find(
    transfer_keys: dict[str, Keys],
    invoice_keys: dict[str, Keys],
    allowed: Callable[[Rule, Ints, Ints], Flags],
    preference: Callable[[Ints, Ints], npt.NDArray[np.float32]],
) -> Pairs:
    """All pairs that some rule finds, at most its limit for each transfer and SLOTS together.

    `allowed(rule, transfers, invoices)` says which pairs can be at all (issued before, still open or named in the title),
    `preference` which come first where a limit cuts: smaller is better.
    """
    size = 1 + max((int(keys.row.max(initial=-1)) for keys in invoice_keys.values()), default=0)
    codes, weights, rules = [], [], []
    for index, rule in enumerate(RULES):
        for left in _portions(transfer_keys[rule.transfer_key], invoice_keys[rule.invoice_key]):
            code, weight = _found_by(rule, left, invoice_keys[rule.invoice_key], size, allowed, preference)
            codes.append(code)
            weights.append(weight)
            rules.append(np.full(len(code), index))
    code, position = np.unique(np.concatenate(codes), return_inverse=True)
    found = np.zeros((len(code), len(RULES)), np.float32)
    found[position, np.concatenate(rules)] = np.concatenate(weights)
    pairs = Pairs(code // size, code % size, found)
    keep = np.ones(len(pairs), bool)
    many = np.flatnonzero(np.bincount(pairs.transfer, minlength=1)[pairs.transfer] > SLOTS)
    if len(many):
        worth = (found[many] != 0) @ np.array([rule.worth for rule in RULES])
        transfer = pairs.transfer[many]
        keep[many] = rank_within(transfer, -worth, preference(transfer, pairs.invoice[many])) < SLOTS
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
    rule: Rule,
    left: Keys,
    right: Keys,
    size: int,
    allowed: Callable[[Rule, Ints, Ints], Flags],
    preference: Callable[[Ints, Ints], npt.NDArray[np.float32]],
) -> tuple[Ints, npt.NDArray[np.float32]]:
    """(transfer · size + invoice, weight) of the pairs that one rule finds, within its limit."""
    at_left, at_right = join(left.key, right.key)
    transfer, invoice = left.row[at_left], right.row[at_right]
    weight = np.where(np.abs(left.weight[at_left]) > 0, left.weight[at_left], right.weight[at_right])
    keep = allowed(rule, transfer, invoice)
    code, weight = _distinct(transfer[keep] * size + invoice[keep], weight[keep])
    many = np.flatnonzero(np.bincount(code // size, minlength=1)[code // size] > rule.limit)
    if len(many):
        transfer, invoice = code[many] // size, code[many] % size
        over = rank_within(transfer, -np.abs(weight[many]), preference(transfer, invoice)) >= rule.limit
        code, weight = np.delete(code, many[over]), np.delete(weight, many[over])
    return code, weight


def _distinct(code: Ints, weight: npt.NDArray[np.float32]) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Each code once, with its greatest weight: a number standing alone beats the same digits embedded."""
    order = np.lexsort((-weight, code))
    first = np.r_[True, np.diff(code[order]) != 0] if len(code) else np.zeros(0, bool)
    return code[order][first], weight[order][first]
