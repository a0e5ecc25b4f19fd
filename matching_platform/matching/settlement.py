"""Which set of invoices a transfer settles: sets are proposed by families, described, and allocated to the cent.

A set is an int64 bit mask over the slots of a transfer's candidate list; no bit is "nothing".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from matching_platform.matching.arrays import Doubles, Flags, Floats, Ints
from matching_platform.matching.candidates import SLOTS, rank_within
from matching_platform.matching.features import CONTEXT_FEATURES, C, Lists, P

# What a payment may fall short of a set of invoices that it settles whole, as a share: cash discount, fee, commission.
LARGEST_DISCOUNT: Final = 0.05
# What it may differ in any case, minor units: rounding.
ROUNDING: Final = 100
# A bank's fee, minor units, as evidence only.
LARGEST_FEE: Final = 5_000

SETS_KEPT: Final = 40  # per transfer, after the likeliest
_SINGLES: Final = 20
_PREFIX: Final = 14
_SUBSET_SLOTS: Final = 12
_SUBSETS_KEPT: Final = 12
_CHUNK: Final = 512  # transfers worked on at once; bounds the memory of subsets and pairs of flips

SET_FEATURES: Final = (
    "nothing",
    "invoices",
    "single",
    "sum equals amount",
    "sum within rounding",
    "amount ratio",
    "amount below sum",
    "amount above sum",
    "shortfall of a discount",
    "shortfall of a fee",
    "difference",
    "chances of members",
    "weakest member",
    "mean member",
    "strongest left out",
    "expected left out",
    "likelihood",
    "likelihood below best",
    "named members",
    "named left out",
    "members not named",
    "members inside range",
    "inside range left out",
    "counterparties",
    "contiguous",
    "oldest open",
    "all open of the payer",
    "equal sums",
    "equal sums of this size",
    "credit notes",
    "credit notes left out",
    "latest due",
    "earliest due",
    "days from usual",
    "foreign",
    "rate difference",
    "usual share",
    "payer known",
    "payer less known than others",
    "spelling of weakest",
    "round share",
    "partly settled members",
    "usual size",
)


@dataclass(frozen=True)
class Padded:
    """Candidate lists as matrices [T, SLOTS]; `pair` int64 is the row in the flat lists, -1 where a slot is empty."""

    pair: Ints
    usable: Flags
    converted: Ints
    logit: Doubles
    counterparty: Ints
    order: Ints
    named: Flags
    inside: Flags

    @classmethod
    def of(cls, lists: Lists, logit: Floats) -> "Padded":
        at = lists.pairs.transfer
        slot = rank_within(at, np.arange(len(at)))
        shape = (len(lists.amount), SLOTS)
        pair = np.full(shape, -1)
        pair[at, slot] = np.arange(len(at))
        there = pair >= 0

        def filled(values: npt.NDArray[np.generic], empty: float) -> npt.NDArray[np.generic]:
            out = np.full(shape, empty, dtype=values.dtype)
            out[at, slot] = values
            return out

        comparable = (lists.pair[:, P["currency equal"]] > 0) | (lists.pair[:, P["rate known"]] > 0)
        return cls(
            pair,
            there & filled(lists.open != 0, 0).astype(bool),
            np.where(filled(comparable, 0).astype(bool), filled(lists.converted, 0), 0).astype(np.int64),
            filled(logit.astype(float), -20.0).astype(float),
            filled(lists.counterparty, -1).astype(np.int64),
            filled(lists.order, -1).astype(np.int64),
            filled(is_named(lists), 0).astype(bool),
            filled(lists.pair[:, P["number sorts inside range"]] > 0, 0).astype(bool),
        )

    def rows(self, part: slice) -> "Padded":
        return Padded(*(getattr(self, name)[part] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Sets:
    """Candidate sets of T transfers, sorted by transfer: `transfer` int64[S], `mask` int64[S], `features` float32[S, F]."""

    transfer: Ints
    mask: Ints
    features: Floats


@dataclass(frozen=True)
class _Part:
    """So many transfers of `lists` as are worked on at once: their padded lists, amounts and contexts."""

    lists: Lists
    padded: Padded
    amount: Ints
    context: Floats


def is_named(lists: Lists) -> Flags:
    """Whether the title names the invoice: its digits alone, without zeros, with one typo, or its bare running number."""
    column = lists.pair
    embedded = column[:, P["number embedded"]] > 0
    return (
        ((column[:, P["digits agreeing"]] >= 0.3) & ~embedded)
        | (column[:, P["bare number"]] > 0.4)
        | (embedded & (column[:, P["digits agreeing"]] >= 0.8))
    )


def propose(lists: Lists, logit: Floats) -> Sets:
    """The sets worth judging, "nothing" first for each transfer; `logit` float32[P] of each pair, from the scorer."""
    padded = Padded.of(lists, logit)
    parts = [_propose_part(lists, padded, start) for start in range(0, len(lists.amount), _CHUNK)] or [
        Sets(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, len(SET_FEATURES)), np.float32))
    ]
    return Sets(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("transfer", "mask", "features")))


def _propose_part(lists: Lists, padded: Padded, start: int) -> Sets:
    part = slice(start, start + _CHUNK)
    few = _Part(lists, padded.rows(part), lists.amount[part], lists.context[part])
    nothing = (np.arange(len(few.amount)), np.zeros(len(few.amount), np.int64))
    transfer, mask = (
        np.concatenate(column) for column in zip(nothing, *_families(few.padded, few.amount), strict=True)
    )
    transfer, mask = np.unique(np.stack([transfer, mask], 1), axis=0).T
    features = _described(few, transfer, mask)
    keep = rank_within(transfer, mask != 0, -_promise(features)) < SETS_KEPT
    return Sets(transfer[keep] + start, mask[keep], features[keep])


def members(mask: Ints) -> Flags:
    """bool[S, SLOTS]: which slots each set holds."""
    return (mask[:, None] >> np.arange(SLOTS)) & 1 == 1


def _bits(flags: Flags) -> Ints:
    return flags @ (1 << np.arange(SLOTS, dtype=np.int64))


def _families(p: Padded, amount: Ints) -> Iterator[tuple[Ints, Ints]]:
    """(transfer int64[S], mask int64[S]) of each family of sets, for a chunk of transfers."""
    every = np.arange(len(amount))
    chance = np.where(p.usable, p.logit, -99.0)
    ranked = np.argsort(-chance, axis=1, kind="stable")
    usable_ranked = np.take_along_axis(p.usable, ranked, 1)
    one = np.int64(1) << ranked
    yield _kept(every, one[:, :_SINGLES], usable_ranked[:, :_SINGLES])
    likely = usable_ranked & (np.take_along_axis(chance, ranked, 1) > -5)
    yield _kept(every, np.cumsum(np.where(likely, one, 0), 1)[:, 1:_PREFIX], likely[:, 1:_PREFIX])
    yield from _subsets(p, amount, ranked, usable_ranked)
    yield from _runs(p, amount)
    payer = _likeliest_counterparty(p, chance)
    own = p.usable & (p.counterparty == payer[:, None])
    named = p.usable & (p.named | p.inside)
    bases = [
        named,
        named & own,
        p.usable & p.named,
        p.usable & (chance > 0),
        p.usable & (chance > -1.5),
        own,
        own & (p.converted > 0),
        np.zeros_like(own),
    ]
    for base in bases:
        yield every, _bits(base)
        yield from _flips(p, amount, base)


def _kept(every: Ints, masks: Ints, keep: Flags) -> tuple[Ints, Ints]:
    return np.repeat(every, keep.sum(1)), masks[keep]


def _likeliest_counterparty(p: Padded, chance: Doubles) -> Ints:
    best = np.argmax(chance, axis=1)
    return p.counterparty[np.arange(len(best)), best]


def _short(total: Ints | Doubles, amount: Ints | Doubles) -> tuple[Flags, Flags]:
    """Whether sums meet the amount to the cent, and whether they meet it less a discount, a fee or rounding."""
    gap = total - amount
    near = (gap >= -ROUNDING) & (gap <= np.maximum(LARGEST_DISCOUNT * np.abs(amount), ROUNDING)) & (gap != 0)
    return gap == 0, near


_ALL_SUBSETS: Final = ((np.arange(1 << _SUBSET_SLOTS)[:, None] >> np.arange(_SUBSET_SLOTS)) & 1).astype(np.float64)


def _subsets(p: Padded, amount: Ints, ranked: Ints, usable: Flags) -> Iterator[tuple[Ints, Ints]]:
    """Every subset of the likeliest slots whose sum meets the amount, or nearly; the likeliest of each."""
    slots, fit = ranked[:, :_SUBSET_SLOTS], usable[:, :_SUBSET_SLOTS]
    worth = np.where(fit, np.take_along_axis(p.converted, slots, 1), 0).astype(np.float64)
    total = worth @ _ALL_SUBSETS.T
    exact, near = _short(total, amount[:, None].astype(np.float64))
    for chosen in (exact, near):
        transfer, subset = np.nonzero(chosen)
        whole = ~(_ALL_SUBSETS[subset].astype(bool) & ~fit[transfer]).any(1)
        transfer, subset = transfer[whole], subset[whole]
        logit = np.take_along_axis(p.logit, slots, 1)[transfer]
        likelihood = (_ALL_SUBSETS[subset] * logit).sum(1)
        keep = rank_within(transfer, -likelihood) < _SUBSETS_KEPT
        bits = (_ALL_SUBSETS[subset[keep]].astype(np.int64) << slots[transfer[keep]]).sum(1)
        yield transfer[keep], bits


def _runs(p: Padded, amount: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Invoices of one counterparty that follow each other in order of issue and whose sum meets the amount."""
    key = np.where(p.usable, p.counterparty * (1 << 40) + p.order, np.iinfo(np.int64).max)
    ranked = np.argsort(key, axis=1, kind="stable")
    usable = np.take_along_axis(p.usable, ranked, 1)
    counterparty = np.take_along_axis(p.counterparty, ranked, 1)
    worth = np.where(usable, np.take_along_axis(p.converted, ranked, 1), 0)
    total = np.concatenate([np.zeros((len(amount), 1), np.int64), np.cumsum(worth, 1)], 1)
    bits = np.concatenate(
        [np.zeros((len(amount), 1), np.int64), np.cumsum(np.where(usable, np.int64(1) << ranked, 0), 1)], 1
    )
    width = int(usable.sum(1).max(initial=0))
    for size in range(2, width + 1):
        run = total[:, size : width + 1] - total[:, : width + 1 - size]
        same = counterparty[:, size - 1 : width] == counterparty[:, : width + 1 - size]
        there = usable[:, size - 1 : width]
        exact, near = _short(run, amount[:, None])
        transfer, start = np.nonzero((exact | near) & same & there)
        yield transfer, bits[transfer, start + size] - bits[transfer, start]


def _flips(p: Padded, amount: Ints, base: Flags) -> Iterator[tuple[Ints, Ints]]:
    """A base set with one or two slots put in or taken out so that the sum meets the amount to the cent."""
    change = np.where(p.usable, np.where(base, -p.converted, p.converted), 0)
    gap = amount - np.where(base, p.converted, 0).sum(1)
    mask = _bits(base)
    open_ = np.flatnonzero(gap != 0)
    transfer, slot = np.nonzero((change[open_] == gap[open_, None]) & (change[open_] != 0))
    transfer = open_[transfer]
    yield transfer, mask[transfer] ^ (np.int64(1) << slot)
    width = int(np.flatnonzero(p.usable.any(axis=0)).max(initial=-1)) + 1
    if width == 0:
        return
    left = gap[open_, None] - change[open_][:, :width]
    for step in range(1, width):
        hit = (left[:, :-step] == change[open_][:, step:width]) & (change[open_][:, step:width] != 0)
        hit &= change[open_][:, : width - step] != 0
        at, slot = np.nonzero(hit)
        where = open_[at]
        yield where, mask[where] ^ (np.int64(1) << slot) ^ (np.int64(1) << (slot + step))


def _promise(features: Floats) -> Floats:
    """A rough order of sets, to keep the best of too many: how likely its members are, and that its sum fits."""
    f = {name: features[:, index] for index, name in enumerate(SET_FEATURES)}
    return f["likelihood"] + 3 * f["sum equals amount"] + 1.5 * f["sum within rounding"] - 0.5 * f["amount above sum"]


def _described(part: _Part, transfer: Ints, mask: Ints) -> Floats:
    """float32[S, len(SET_FEATURES)] of the sets `mask` int64[S] of the part's transfers `transfer` int64[S]."""
    lists, p, count = part.lists, part.padded, len(part.amount)
    inside = members(mask)
    size = inside.sum(1)
    some = size > 0
    amount = part.amount[transfer].astype(float)
    usable = p.usable[transfer]
    outside = usable & ~inside
    logit = p.logit[transfer]
    total = (p.converted[transfer] * inside).sum(1).astype(float)
    gap = total - amount
    ratio = np.where(total > 0, amount / np.maximum(total, 1), 0)
    exact = some & (gap == 0)
    chance = 1 / (1 + np.exp(-logit))
    likelihood = (
        np.where(inside, np.log(np.maximum(chance, 1e-6)), 0)
        + np.where(outside, np.log(np.maximum(1 - chance, 1e-6)), 0)
    ).sum(1)
    best = np.full(count, -np.inf)
    np.maximum.at(best, transfer, likelihood)
    named, ranged = p.named[transfer], p.inside[transfer]
    counterparty = p.counterparty[transfer]
    first_party = np.where(inside, counterparty, np.iinfo(np.int64).max).min(1)
    last_party = np.where(inside, counterparty, -1).max(1)
    own = usable & (counterparty == first_party[:, None])
    order = p.order[transfer]
    earliest = np.where(inside, order, np.iinfo(np.int64).max).min(1)
    latest = np.where(inside, order, -1).max(1)
    between = (own & (order >= earliest[:, None]) & (order <= latest[:, None])).sum(1)
    equal_sums = np.bincount(transfer[exact], minlength=count)[transfer] - exact
    code = transfer * (SLOTS + 1) + size
    equal_size = np.bincount(code[exact], minlength=count * (SLOTS + 1))[code] - exact

    def column(name: str) -> Floats:
        values = lists.pair[:, P[name]]
        return np.where(p.pair[transfer] >= 0, values[p.pair[transfer]] if len(values) else 0, 0)

    def least(name: str) -> Floats:
        return np.where(some, np.where(inside, column(name), np.inf).min(1), 0)

    def most(name: str) -> Floats:
        return np.where(some, np.where(inside, column(name), -np.inf).max(1), 0)

    shortfall = np.where(total > 0, gap / np.maximum(total, 1), 0)
    known = column("account") + column("account_share") + column("name") + column("name_share") + column("tax_id")
    credit = column("credit note") > 0
    columns = {
        "nothing": ~some,
        "invoices": np.log1p(size),
        "single": size == 1,
        "sum equals amount": exact,
        "sum within rounding": some & (np.abs(gap) <= np.maximum(ROUNDING, amount * 1e-5)),
        "amount ratio": np.where(ratio > 0, np.log(np.maximum(ratio, 1e-6)), 0).clip(-4, 4),
        "amount below sum": some & (gap > 0),
        "amount above sum": some & (gap < 0),
        "shortfall of a discount": some & (shortfall > 0) & (shortfall <= LARGEST_DISCOUNT),
        "shortfall of a fee": some & (gap > 0) & (gap <= LARGEST_FEE),
        "difference": np.where(some, np.log1p(np.abs(gap)) / 10, 0),
        "chances of members": np.where(inside, logit, 0).sum(1).clip(-30, 60),
        "weakest member": np.where(some, np.where(inside, logit, np.inf).min(1), 0).clip(-10, 10),
        "mean member": np.where(inside, logit, 0).sum(1) / np.maximum(size, 1),
        "strongest left out": np.where(outside, logit, -12).max(1).clip(-12, 12),
        "expected left out": np.log1p(np.where(outside, chance, 0).sum(1)),
        "likelihood": likelihood.clip(-60, 0),
        "likelihood below best": (likelihood - best[transfer]).clip(-40, 0),
        "named members": np.log1p((named & inside).sum(1)),
        "named left out": np.log1p((named & outside).sum(1)),
        "members not named": np.log1p((~named & inside).sum(1)),
        "members inside range": np.log1p((ranged & inside).sum(1)),
        "inside range left out": np.log1p((ranged & outside).sum(1)),
        "counterparties": some & (first_party != last_party),
        "contiguous": np.where(some, size / np.maximum(between, 1), 0),
        "oldest open": some & ~(own & (order < earliest[:, None])).any(1),
        "all open of the payer": some & ((own & ~inside).sum(1) == 0),
        "equal sums": np.log1p(equal_sums),
        "equal sums of this size": np.log1p(equal_size),
        "credit notes": np.log1p((credit & inside).sum(1)),
        "credit notes left out": np.log1p((credit & own & outside).sum(1)),
        "latest due": least("days since due"),
        "earliest due": most("days since due"),
        "days from usual": least("days from usual"),
        "foreign": most("rate known"),
        "rate difference": np.where(most("rate known") > 0, np.abs(gap) / amount, 0).clip(0, 1),
        "usual share": np.where(size == 1, most("share of the open amount is usual"), 0),
        "payer known": np.where(some, np.where(inside, known, np.inf).min(1), 0),
        "payer less known than others": np.where(
            some, np.where(usable, known, 0).max(1) - np.where(inside, known, np.inf).min(1), 0
        ),
        "spelling of weakest": least("spelling"),
        "round share": (size == 1) & (np.abs(ratio * 20 - np.rint(ratio * 20)) < 2e-3) & (ratio < 0.999),
        "partly settled members": np.log1p((inside & (column("partly settled") > 0)).sum(1)),
        "usual size": np.where(
            some, np.abs(np.log1p(size) - part.context[transfer, C["invoices usually paid at once"]]), 0
        ),
    }
    return np.stack([columns[name] for name in SET_FEATURES], axis=1).astype(np.float32)


def allocate(lists: Lists, transfer: Ints, mask: Ints) -> tuple[Ints, Ints, Ints]:
    """(row of the chosen set, row of the pair, amount) int64 of every invoice settled, in the invoice's currency.

    The whole open amount where the transfer brings it, less a discount, fee or rounding; else the invoices are settled in
    order of issue until the money is spent. Credit notes are always netted whole. Never more than is open.
    """
    pair = np.full((len(lists.amount), SLOTS), -1)
    at = lists.pairs.transfer
    pair[at, rank_within(at, np.arange(len(at)))] = np.arange(len(at))
    row, slot = np.nonzero(members(mask))
    chosen = pair[transfer[row], slot]
    order = np.lexsort((lists.order[chosen], lists.open[chosen] > 0, row))
    row, chosen = row[order], chosen[order]
    comparable = (lists.pair[chosen, P["currency equal"]] + lists.pair[chosen, P["rate known"]]) > 0
    # At an unknown rate nobody can say how much of the money an invoice takes.
    converted, still_open = np.where(comparable, lists.converted[chosen], 0), lists.open[chosen]
    total = np.bincount(row, weights=converted, minlength=len(mask)).astype(np.int64)
    amount = lists.amount[transfer]
    single = np.bincount(row, minlength=len(mask)) == 1
    foreign = lists.pair[chosen, P["currency equal"]] == 0
    _, nearly = _short(total, amount)
    whole = (total <= amount) | (nearly & ~single)
    spent = np.cumsum(converted) - converted
    first = np.r_[True, np.diff(row) != 0] if len(row) else np.zeros(0, bool)
    start = np.maximum.accumulate(np.where(first, np.arange(len(row)), 0)) if len(row) else row
    left = amount[row] - (spent - spent[start] if len(row) else spent)
    part = np.minimum(converted, np.maximum(left, 0))
    rate_back = np.where(foreign & (converted != 0), still_open / np.where(converted == 0, 1, converted), 1.0)
    partial = np.rint(part * rate_back).astype(np.int64)
    close = np.abs(converted - part) <= 0.03 * np.abs(converted)
    partial = np.where(foreign & close, still_open, partial)
    settled = np.where(whole[row] | (converted < 0) | ~comparable, still_open, np.minimum(partial, still_open))
    keep = settled != 0
    return row[keep], chosen[keep], settled[keep]


def set_context(lists: Lists, nothing: Floats) -> Floats:
    """float32[T, len(CONTEXT_FEATURES) + 1]: the context of each transfer with the scorer's logit of "nothing"."""
    assert lists.context.shape[1] == len(CONTEXT_FEATURES)
    return np.concatenate([lists.context, nothing[:, None]], axis=1).astype(np.float32)
