"""Candidate sets: which sets of a transfer's candidates are worth judging. Compiled: it looks at thousands for each.

A set is an int64 bit mask over the places of a transfer's candidate list; no bit is "nothing". Lists lie one after
another in flat arrays: transfer t has the pairs first[t] … first[t + 1] − 1, the candidate in place k is first[t] + k.
"""

from typing import Final, NamedTuple

import numpy as np

from matching_platform.matching.arrays import Doubles, Flags, Integer, Ints
from matching_platform.matching.compiled import compiled

# What a payment may fall short of a set of invoices that it settles whole, as a share: cash discount, fee, commission.
LARGEST_DISCOUNT: Final = 0.05
# What it may differ in any case, minor units: rounding.
ROUNDING: Final = 100

SETS_KEPT: Final = 32  # per transfer, after the likeliest
_SURELY_KEPT: Final = 6  # however unlikely beside the best
_FAR_BELOW: Final = 16.0  # in log odds; a set that far below the best is not judged
_FOUND: Final = 1024  # sets of one transfer before the likeliest are kept
_SINGLES: Final = 16
_PREFIX: Final = 14
_SUBSET_PLACES: Final = 13
_SUBSETS: Final = 16
_FLIPS: Final = 10  # of one base
_HOPELESS: Final = -7.0  # log odds under which a candidate joins no subset
_BASES: Final = (0.0, -1.5)  # log odds above which candidates form a base set

# What makes a set worth judging beside the odds of its members, in log odds.
_EXACT: Final = 3.0
_NEAR: Final = 1.5
_TOO_MUCH: Final = -0.5
_CONTIGUOUS: Final = 1.5


class Slots(NamedTuple):
    """The candidates of T transfers as flat arrays of P pairs; `first` int64[T + 1], `amount` int64[T] minor units.

    `usable` is whether a pair is open and its rate known; `converted` int64[P] what it has open, in the transfer's currency;
    `place` and `number_place` order a counterparty's invoices by issue and by number.
    """

    first: Ints
    amount: Ints
    usable: Flags
    converted: Ints
    logit: Doubles
    counterparty: Ints
    place: Ints
    number_place: Ints
    named: Flags
    inside: Flags
    collected: Flags  # by the payer, from many
    dated: Flags  # issued on the title's dates


def masks(slots: Slots) -> tuple[Ints, Ints]:
    """(transfer int64[S], mask int64[S]) of the sets worth judging, by transfer, "nothing" first."""
    kept, count = _masks(slots)
    transfer = np.repeat(np.arange(len(count)), count)
    return transfer, kept[np.arange(SETS_KEPT) < count[:, None]]


@compiled
def _short(total: Integer, amount: Integer) -> int:
    """2 where a sum meets the amount to the cent, 1 where less a discount, a fee or rounding, else 0."""
    gap = total - amount
    if gap == 0:
        return 2
    return 1 if -ROUNDING <= gap <= max(LARGEST_DISCOUNT * amount, ROUNDING) else 0


@compiled
def _masks(slots: Slots) -> tuple[Ints, Ints]:
    transfers = len(slots.amount)
    kept = np.zeros((transfers, SETS_KEPT), np.int64)
    count = np.ones(transfers, np.int64)
    found = np.zeros(_FOUND, np.int64)
    for t in range(transfers):
        low, high = slots.first[t], slots.first[t + 1]
        one = Slots(
            slots.first[t : t + 2],
            slots.amount[t : t + 1],
            slots.usable[low:high],
            slots.converted[low:high],
            slots.logit[low:high],
            slots.counterparty[low:high],
            slots.place[low:high],
            slots.number_place[low:high],
            slots.named[low:high],
            slots.inside[low:high],
            slots.collected[low:high],
            slots.dated[low:high],
        )
        size = _families(one, found)
        count[t] = _likeliest(one, found[:size], kept[t])
    return kept, count


@compiled
def _add(found: Ints, size: int, mask: Integer) -> int:
    if mask != 0 and size < len(found):
        found[size] = mask
        return size + 1
    return size


@compiled
def _families(s: Slots, found: Ints) -> int:
    """Writes the sets of all families into `found`, and says how many there are."""
    amount, size = s.amount[0], 0
    usable = np.flatnonzero(s.usable)
    if not len(usable):
        return 0
    ranked = usable[np.argsort(-s.logit[usable], kind="mergesort")]
    older_twin, twins = _twins(s, usable)
    prefix = np.int64(0)
    for rank in range(len(ranked)):
        place = ranked[rank]
        bit = np.int64(1) << place
        if rank < _SINGLES or s.converted[place] == amount:
            size = _add(found, size, bit)
        if rank < _PREFIX and s.logit[place] > -5:
            prefix |= bit
            size = _add(found, size, prefix)
    size = _subsets(s, ranked, found, size)
    size = _bases(s, ranked, found, size)
    for order in (s.place, s.number_place):
        size = _runs(s, usable, order, found, size)
    size = _payouts(s, usable, found, size)
    # Of invoices that are alike in all but their age, people pay the oldest.
    for index in range(size):
        size = _add(found, size, _with_oldest(found[index], usable, older_twin, twins))
    return size


@compiled
def _twins(s: Slots, usable: Ints) -> tuple[Ints, Ints]:
    """For each place the mask of its twins, the same amount open at the same counterparty, that are older; and of all."""
    older = np.zeros(len(s.usable), np.int64)
    every = np.zeros(len(s.usable), np.int64)
    for a in usable:
        for b in usable:
            if s.converted[a] == s.converted[b] and s.counterparty[a] == s.counterparty[b]:
                every[a] |= np.int64(1) << b
                if s.place[b] < s.place[a]:
                    older[a] |= np.int64(1) << b
    return older, every


@compiled
def _bits(mask: Integer) -> int:
    count = 0
    while mask:
        mask &= mask - 1
        count += 1
    return count


@compiled
def _with_oldest(mask: Integer, usable: Ints, older: Ints, twins: Ints) -> Integer:
    """The set with as many of each group of twins as it has, but the oldest ones."""
    out = np.int64(0)
    for place in usable:
        if mask & twins[place] and _bits(older[place]) < _bits(mask & twins[place]):
            out |= np.int64(1) << place
    return out


@compiled
def _subsets(s: Slots, ranked: Ints, found: Ints, size: int) -> int:
    """Every subset of the likeliest places whose sum meets the amount, or nearly; the likeliest of each."""
    amount = s.amount[0]
    places = ranked[:_SUBSET_PLACES]
    places = places[s.logit[places] > _HOPELESS]
    # Of twins the likelier goes first: other choices among them are other families' business.
    before = np.full(len(places), -1)
    for a in range(len(places)):
        for b in range(a):
            if (
                s.converted[places[a]] == s.converted[places[b]]
                and s.counterparty[places[a]] == s.counterparty[places[b]]
            ):
                before[a] = b
    best = np.full((2, _SUBSETS), -np.inf)
    chosen = np.zeros((2, _SUBSETS), np.int64)
    total, odds, inside = np.int64(0), 0.0, np.int64(0)
    for step in range(1, 1 << len(places)):
        # The Gray code changes one place at a time: the lowest bit that is set in the step.
        turn = 0
        while not (step >> turn) & 1:
            turn += 1
        inside ^= np.int64(1) << turn
        sign = 1 if (inside >> turn) & 1 else -1
        total += sign * s.converted[places[turn]]
        odds += sign * s.logit[places[turn]]
        fit = _short(total, amount)
        if fit == 0:
            continue
        worst = np.argmin(best[fit - 1])
        if odds <= best[fit - 1, worst]:
            continue
        canonical = True
        for a in range(len(places)):
            if (inside >> a) & 1 and before[a] >= 0 and not (inside >> before[a]) & 1:
                canonical = False
        if canonical:
            best[fit - 1, worst], chosen[fit - 1, worst] = odds, inside
    for kind in range(2):
        for index in range(_SUBSETS):
            mask = np.int64(0)
            for a in range(len(places)):
                if (chosen[kind, index] >> a) & 1:
                    mask |= np.int64(1) << places[a]
            size = _add(found, size, mask)
    return size


@compiled
def _runs(s: Slots, usable: Ints, order: Ints, found: Ints, size: int) -> int:
    """Invoices of one counterparty that follow each other and whose sum meets the amount, one left out where that helps;
    and his oldest until the money is spent."""
    amount = s.amount[0]
    ranked = usable[np.argsort(order[usable], kind="mergesort")]
    ranked = ranked[np.argsort(s.counterparty[ranked], kind="mergesort")]
    for start in range(len(ranked)):
        counterparty = s.counterparty[ranked[start]]
        oldest = start == 0 or s.counterparty[ranked[start - 1]] != counterparty
        total, mask = np.int64(0), np.int64(0)
        for stop in range(start, len(ranked)):
            place = ranked[stop]
            if s.counterparty[place] != counterparty:
                break
            if oldest and 0 < total < amount < total + s.converted[place]:
                size = _add(found, size, mask | np.int64(1) << place)
            total += s.converted[place]
            mask |= np.int64(1) << place
            if stop == start:
                continue
            if _short(total, amount):
                size = _add(found, size, mask)
            for inner in range(start + 1, stop):
                if total - amount == s.converted[ranked[inner]]:
                    size = _add(found, size, mask ^ np.int64(1) << ranked[inner])
    return size


@compiled
def _payouts(s: Slots, usable: Ints, found: Ints, size: int) -> int:
    """What a collector may pay at once: invoices of anybody, in the order of issue, which is that of lists, less his cut."""
    for dated in range(2):
        sold = usable[s.collected[usable] & (s.dated[usable] if dated else s.usable[usable])]
        for start in range(len(sold)):
            total, mask = np.int64(0), np.int64(0)
            for stop in range(start, len(sold)):
                total += s.converted[sold[stop]]
                mask |= np.int64(1) << sold[stop]
                if _short(total, s.amount[0]):
                    size = _add(found, size, mask)
    return size


@compiled
def _bases(s: Slots, ranked: Ints, found: Ints, size: int) -> int:
    """What the title names, what is likely, all of the payer, nothing; each as it is, and with one or two changes that make
    its sum meet the amount to the cent."""
    own = s.counterparty[ranked[0]]
    bases = np.zeros(12, np.int64)
    for place in ranked:
        bit = np.int64(1) << place
        mine = s.counterparty[place] == own
        for index, holds in enumerate(
            (
                s.named[place] or s.inside[place],
                (s.named[place] or s.inside[place]) and mine,
                s.named[place],
                s.inside[place],
                s.logit[place] > _BASES[0],
                s.logit[place] > _BASES[1],
                mine,
                mine and s.converted[place] > 0,
                s.dated[place],
                s.dated[place] and mine,
                s.dated[place] and s.collected[place],
            )
        ):
            if holds:
                bases[index] |= bit
    for index in range(len(bases)):
        if index == 0 or not np.any(bases[:index] == bases[index]):
            size = _add(found, size, bases[index])
            size = _flips(s, ranked, bases[index], found, size)
    return size


@compiled
def _flips(s: Slots, ranked: Ints, base: Integer, found: Ints, size: int) -> int:
    gap = s.amount[0]
    change = np.empty(len(ranked), np.int64)
    for rank in range(len(ranked)):
        place = ranked[rank]
        inside = (base >> place) & 1
        change[rank] = -s.converted[place] if inside else s.converted[place]
        gap -= s.converted[place] if inside else 0
    if gap == 0:
        return size
    left = _FLIPS
    for a in range(len(ranked)):
        bit = np.int64(1) << ranked[a]
        if change[a] == gap:
            size, left = _add(found, size, base ^ bit), left - 1
        rest = gap - change[a]
        for b in range(a + 1, len(ranked)):
            if change[b] == rest and left > 0:
                size, left = _add(found, size, base ^ bit ^ np.int64(1) << ranked[b]), left - 1
    return size


@compiled
def _likeliest(s: Slots, found: Ints, kept: Ints) -> int:
    """Writes the likeliest of the sets `found` into `kept`, "nothing" first, each once; says how many."""
    found.sort()
    promise = np.full(len(found), -np.inf)
    for index in range(len(found)):
        if index == 0 or found[index] != found[index - 1]:
            promise[index] = _promise(s, found[index])
    order = np.argsort(-promise, kind="mergesort")
    size = 1
    for index in order:
        behind = promise[order[0]] - promise[index]
        if size == SETS_KEPT or promise[index] == -np.inf or (size > _SURELY_KEPT and behind > _FAR_BELOW):
            break
        kept[size] = found[index]
        size += 1
    return size


@compiled
def _promise(s: Slots, mask: Integer) -> float:
    """A rough order of sets, in log odds: those of its members, and that its sum fits."""
    odds, total, size = 0.0, np.int64(0), 0
    low, high, counterparty = np.int64(1 << 60), np.int64(-1), np.int64(-1)
    for place in range(len(s.usable)):
        if (mask >> place) & 1:
            odds += max(s.logit[place], -14.0)
            total += s.converted[place]
            size += 1
            low, high = min(low, s.number_place[place]), max(high, s.number_place[place])
            counterparty = s.counterparty[place]
    fit = _short(total, s.amount[0])
    odds += _EXACT if fit == 2 else _NEAR if fit == 1 else _TOO_MUCH if total < s.amount[0] else 0.0
    if size > 1:
        between = 0
        for place in range(len(s.usable)):
            if s.usable[place] and s.counterparty[place] == counterparty and low <= s.number_place[place] <= high:
                between += 1
        odds += _CONTIGUOUS if between == size else 0.0
    return odds
