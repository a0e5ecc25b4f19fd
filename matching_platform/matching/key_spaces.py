"""Key spaces: what transfers and invoices have in common when they belong together, as int64 keys by row."""

from fractions import Fraction
from typing import Final

import numpy as np
import polars as pl

from matching_platform.matching.arrays import Flags, Ints
from matching_platform.matching.candidates import Keys, expanded, join
from matching_platform.matching.compiled import compiled
from matching_platform.matching.text import LONGEST_KEY, Digits, deletions

# Shorter windows of digits occur by chance; such numbers count only where they stand alone, as whole groups.
_SHORTEST_EMBEDDED: Final = 6
_SHORTEST_ALONE: Final = 3
_SHORTEST_TYPO: Final = 6
_GROUPS_OF_A_NUMBER: Final = 5
_COUNTERPARTIES_NAMED: Final = 3  # more share a number by chance
# What people agree to pay of an invoice at once: instalments, tenths, and the rest after a cash discount.
SHARES: Final = (
    *(Fraction(1, n) for n in (2, 3, 4)),
    *(Fraction(n, 10) for n in (1, 2, 3, 4, 6, 7, 8, 9)),
    *(Fraction(n, 100) for n in (95, 96, 97, 98, 99)),
    Fraction(2, 3),
    Fraction(3, 4),
)
CHARGES: Final = tuple(100 * units for units in (5, 10, 15, 20, 25, 30, 40, 50))  # minor units; what banks deduct
_LONGEST_RUN: Final = 16  # invoices
CURRENCY_SPAN: Final = 1024  # above every code of a currency


def title_keys(written: pl.Series, lengths: set[int], numbers: Ints) -> dict[str, Keys]:
    """The key spaces of the folded remittance texts, with windows of the `lengths` that numbers have.

    What stands there as one of the known `numbers`, keys in ascending order, is not read as a typo of another one.
    """
    digits = Digits.of(written)
    typed = digits.without(spelled_out(digits, lengths, numbers))
    return {
        "digits": _title_windows(digits, lengths, embedded=True),
        "digits, one missing": _title_windows(typed, one_missing(lengths), embedded=False),
        "digits without zeros": _title_windows(digits.without_leading_zeros(), lengths, embedded=False),
        "digits less one": less_one(_title_windows(typed, one_too_many(lengths), embedded=False)),
    }


def one_missing(lengths: set[int]) -> set[int]:
    """The lengths that numbers of such `lengths` have in a title that leaves out a digit, or none."""
    return lengths | {length - 1 for length in lengths if length >= _SHORTEST_TYPO}


def one_too_many(lengths: set[int]) -> set[int]:
    """The lengths that they have with a digit more, or none."""
    return {length + more for length in lengths for more in (0, 1)}


def spelled_out(digits: Digits, lengths: set[int], numbers: Ints) -> Flags:
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
        "less one": less_one(both).ascending(),
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
    windows = windows_read(digits, lengths, embedded=embedded)
    return Keys(digits.text[windows.row], windows.key, windows.weight)


def windows_read(digits: Digits, lengths: set[int], *, embedded: bool) -> Keys:
    """The windows of titles' digits that may be numbers of such `lengths`, by the digit with which each begins."""
    parts = [Keys(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    groups = np.cumsum(digits.starts)
    for length, at, key in digits.windows(min(LONGEST_KEY, max(lengths, default=0))):
        if length not in lengths or length < _SHORTEST_ALONE:
            continue
        last = at + length - 1
        alone = digits.starts[at] & digits.ends[last] & (groups[last] - groups[at] < _GROUPS_OF_A_NUMBER)
        keep = alone | (embedded & (length >= _SHORTEST_EMBEDDED))
        weight = np.where(alone, length, -length).astype(np.float32)
        parts.append(Keys(at[keep], key[keep], weight[keep]))
    return Keys.joined(parts)


def less_one(keys: Keys) -> Keys:
    """The keys that are left when one digit is dropped of those that stand alone and are long enough for a typo."""
    parts = [Keys(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    length = np.abs(keys.weight).astype(np.int64)
    for size in np.unique(length[(length >= _SHORTEST_TYPO) & (keys.weight > 0)]):
        rows = (length == size) & (keys.weight > 0)
        for shorter in deletions(keys.key[rows], int(size)):
            parts.append(Keys(keys.row[rows], shorter, keys.weight[rows] - 1))
    return Keys.joined(parts)
