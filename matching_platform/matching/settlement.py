"""Which set of invoices a transfer settles: the sets worth judging, described, and the chosen ones allocated to the cent."""

from dataclasses import dataclass

import numpy as np

from matching_platform.matching.arrays import Flags, Floats, Ints
from matching_platform.matching.features import CONTEXT_FEATURES, Lists, P
from matching_platform.matching.rules import SLOTS
from matching_platform.matching.set_features import describe
from matching_platform.matching.sets import LARGEST_DISCOUNT, ROUNDING, Slots, masks


@dataclass(frozen=True)
class Sets:
    """Candidate sets of T transfers, sorted by transfer: `transfer` int64[S], `mask` int64[S], `features` float32[S, F]."""

    transfer: Ints
    mask: Ints
    features: Floats


def propose(lists: Lists, logit: Floats) -> Sets:
    """The sets worth judging, "nothing" first for each transfer; `logit` float32[P] of each pair, from the scorer."""
    slots = slots_of(lists, logit)
    transfer, mask = masks(slots)
    return Sets(transfer, mask, describe(lists, slots, transfer, mask))


def slots_of(lists: Lists, logit: Floats) -> Slots:
    """The candidate lists in the form in which sets are made of them."""
    comparable = (lists.pair[:, P["currency equal"]] > 0) | (lists.pair[:, P["rate known"]] > 0)
    inside = (lists.pair[:, P["issued inside range"]] > 0) | (lists.pair[:, P["number inside range"]] > 0)
    return Slots(
        first=first_pairs(lists),
        amount=lists.amount,
        usable=lists.open != 0,
        converted=np.where(comparable, lists.converted, 0),
        logit=logit.astype(np.float64),
        counterparty=lists.counterparty,
        place=lists.order,
        number_place=lists.number_order,
        named=is_named(lists),
        inside=inside,
        collected=lists.pair[:, P["paid by a collector"]] > 0,
        dated=lists.pair[:, P["on the title's dates"]] > 0,
    )


def first_pairs(lists: Lists) -> Ints:
    """int64[T + 1]: where each transfer's pairs begin, and where the last one's end."""
    return np.searchsorted(lists.pairs.transfer, np.arange(len(lists.amount) + 1))


def is_named(lists: Lists) -> Flags:
    """Whether the title names the invoice: its digits alone, without zeros, with one typo, or its bare running number."""
    column = lists.pair
    embedded = column[:, P["number embedded"]] > 0
    return (
        ((column[:, P["digits agreeing"]] >= 0.3) & ~embedded)
        | (column[:, P["bare number"]] > 0.4)
        | (embedded & (column[:, P["digits agreeing"]] >= 0.8))
    )


def is_hinted(lists: Lists) -> Flags:
    """Whether anything in the title points to the invoice, be it a part of its number."""
    hints = ("digits agreeing", "bare number", "spelling above others", "on the title's dates")
    return np.any([lists.pair[:, P[name]] > 0 for name in hints], axis=0)


def members(mask: Ints) -> Flags:
    """bool[S, SLOTS]: which places of the candidate list each set holds."""
    return (mask[:, None] >> np.arange(SLOTS)) & 1 == 1


def allocate(lists: Lists, transfer: Ints, mask: Ints) -> tuple[Ints, Ints, Ints]:
    """(row of the chosen set, row of the pair, amount) int64 of every invoice settled, in the invoice's currency.

    The whole open amount where the transfer brings it, less a discount, fee or rounding; else the invoices are settled in
    order of issue until the money is spent. A lone invoice is settled whole by somewhat less only where this company's
    people do so. Credit notes are always netted whole. Never more than is open.
    """
    row, place = np.nonzero(members(mask))
    chosen = first_pairs(lists)[transfer[row]] + place
    order = np.lexsort((lists.order[chosen], lists.open[chosen] > 0, row))
    row, chosen = row[order], chosen[order]
    comparable = (lists.pair[chosen, P["currency equal"]] + lists.pair[chosen, P["rate known"]]) > 0
    # At an unknown rate nobody can say how much of the money an invoice takes.
    converted, still_open = np.where(comparable, lists.converted[chosen], 0), lists.open[chosen]
    total = np.bincount(row, weights=converted, minlength=len(mask)).astype(np.int64)
    amount = lists.amount[transfer]
    single = np.bincount(row, minlength=len(mask)) == 1
    foreign = lists.pair[chosen, P["currency equal"]] == 0
    percent = np.rint(100 * (total - amount) / np.maximum(total, 1)).astype(np.int64)
    closed = (percent < len(lists.closes)) & lists.closes[percent.clip(0, len(lists.closes) - 1)]
    whole = (total <= amount) | np.where(single, closed, _nearly(total, amount))
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


def _nearly(total: Ints, amount: Ints) -> Flags:
    """Whether sums meet the amounts less a discount, a fee or rounding."""
    gap = total - amount
    return (gap >= -ROUNDING) & (gap <= np.maximum(LARGEST_DISCOUNT * np.abs(amount), ROUNDING))


def set_context(lists: Lists, nothing: Floats) -> Floats:
    """float32[T, len(CONTEXT_FEATURES) + 1]: the context of each transfer with the scorer's logit of "nothing"."""
    assert lists.context.shape[1] == len(CONTEXT_FEATURES)
    return np.concatenate([lists.context, nothing[:, None]], axis=1).astype(np.float32)
