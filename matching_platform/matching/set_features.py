"""What speaks for and against each candidate set, from the numbers of its members and of what it leaves out."""

from typing import Final

import numpy as np
import numpy.typing as npt

from matching_platform.matching.arrays import Doubles, Flags, Floats, Ints
from matching_platform.matching.compiled import compiled
from matching_platform.matching.features import C, Lists, P
from matching_platform.matching.sets import LARGEST_DISCOUNT, ROUNDING, Slots

# A bank's fee, minor units, as evidence only.
_LARGEST_FEE: Final = 5_000
_LARGEST_PERCENTAGE: Final = 10  # of a discount or a withheld tax

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
    "shortfall in whole units",
    "shortfall in whole percents",
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
    "contiguous by issue",
    "contiguous by number",
    "oldest open",
    "older left out",
    "all open of the payer",
    "twins left out",
    "older twins left out",
    "equal sums",
    "equal sums of this size",
    "credit notes",
    "credit notes left out",
    "latest due",
    "earliest due",
    "days from usual, least",
    "days from usual, most",
    "issued after booking",
    "foreign",
    "rate difference",
    "usual share",
    "an agreed share",
    "payer known",
    "payer less known than others",
    "name in the title",
    "spelling of weakest",
    "partly settled members",
    "usual size",
    "members off the dates",
    "on the dates left out",
    "members of a payout",
    "payout left out between",
    "payout left out before",
    "commission from usual in spreads",
)

# Of which columns the members' sum, least and greatest are taken, and of those left out the sum and the greatest.
_SUMS: Final = (
    "log chance",
    "logit",
    "converted",
    "named",
    "inside range",
    "credit note",
    "partly settled",
    "on the title's dates",
    "paid by a collector",
)
_LEAST: Final = ("logit", "days since due", "days from usual in spreads", "known", "spelling")
_MOST: Final = (
    "days since due",
    "days from usual in spreads",
    "issued after booking",
    "rate known",
    "share of the open amount is usual",
    "an agreed share",
    "name in the title",
)
_SUMS_LEFT: Final = ("log rest", "chance", "named", "inside range", "on the title's dates")
_MOST_LEFT: Final = ("logit",)


def describe(lists: Lists, slots: Slots, transfer: Ints, mask: Ints) -> Floats:
    """float32[S, len(SET_FEATURES)] of the sets `mask` int64[S] of the transfers `transfer` int64[S], ascending."""
    columns = _columns(lists, slots)
    inside, outside = _reduced(slots, transfer, mask, columns)
    own = dict(zip(_RELATIONS, _related(slots, transfer, mask).T, strict=True))
    size = own["size"]
    some, one = size > 0, size == 1
    total, amount = inside["sum converted"], lists.amount[transfer].astype(float)
    gap = total - amount
    shortfall = np.where(total > 0, gap / np.maximum(total, 1), 0)
    short, exact = (shortfall > 0) & (shortfall <= LARGEST_DISCOUNT), some & (gap == 0)
    percents = np.rint(100 * shortfall)
    ratio = np.where(total > 0, amount / np.maximum(total, 1), 0)
    likelihood = inside["sum log chance"] + outside["sum log rest"]
    foreign = inside["most rate known"] > 0
    features = {
        "nothing": ~some,
        "invoices": np.log1p(size),
        "single": one,
        "sum equals amount": exact,
        "sum within rounding": some & (np.abs(gap) <= np.maximum(ROUNDING, amount * 1e-5)),
        "amount ratio": np.where(ratio > 0, np.log(np.maximum(ratio, 1e-6)), 0).clip(-4, 4),
        "amount below sum": some & (gap > 0),
        "amount above sum": some & (gap < 0),
        "shortfall of a discount": some & short,
        "shortfall of a fee": some & (gap > 0) & (gap <= _LARGEST_FEE),
        "shortfall in whole units": some & (gap > 0) & (gap <= _LARGEST_FEE) & (gap % 100 == 0),
        "shortfall in whole percents": some
        & (percents >= 1)
        & (percents <= _LARGEST_PERCENTAGE)
        & (np.abs(gap - percents / 100 * total) <= size),
        "difference": np.where(some, np.log1p(np.abs(gap)) / 10, 0),
        "chances of members": inside["sum logit"].clip(-30, 60),
        "weakest member": inside["least logit"].clip(-10, 10),
        "mean member": inside["sum logit"] / np.maximum(size, 1),
        "strongest left out": np.where(np.isfinite(outside["most logit"]), outside["most logit"], -12).clip(-12, 12),
        "expected left out": np.log1p(outside["sum chance"]),
        "likelihood": likelihood.clip(-60, 0),
        "likelihood below best": (likelihood - _greatest(transfer, likelihood)).clip(-40, 0),
        "named members": np.log1p(inside["sum named"]),
        "named left out": np.log1p(outside["sum named"]),
        "members not named": np.log1p(size - inside["sum named"]),
        "members inside range": np.log1p(inside["sum inside range"]),
        "inside range left out": np.log1p(outside["sum inside range"]),
        "counterparties": own["counterparties"] > 1,
        "contiguous by issue": np.where(some, size / np.maximum(size + own["between by issue"], 1), 0),
        "contiguous by number": np.where(some, size / np.maximum(size + own["between by number"], 1), 0),
        "oldest open": some & (own["older"] == 0),
        "older left out": np.log1p(own["older"]),
        "all open of the payer": some & (own["left out"] == 0),
        "twins left out": np.log1p(own["twins"]),
        "older twins left out": np.log1p(own["older twins"]),
        "equal sums": np.log1p(_others(transfer, exact)),
        "equal sums of this size": np.log1p(_others(transfer * (size.max(initial=0) + 1) + size, exact)),
        "credit notes": np.log1p(inside["sum credit note"]),
        "credit notes left out": np.log1p(own["credit notes"]),
        "latest due": inside["least days since due"],
        "earliest due": inside["most days since due"],
        "days from usual, least": inside["least days from usual in spreads"],
        "days from usual, most": inside["most days from usual in spreads"],
        "issued after booking": inside["most issued after booking"],
        "foreign": foreign,
        "rate difference": np.where(foreign, np.abs(gap) / amount, 0).clip(0, 1),
        "usual share": np.where(one, inside["most share of the open amount is usual"], 0),
        "an agreed share": np.where(one, inside["most an agreed share"], 0),
        "payer known": inside["least known"],
        "payer less known than others": np.where(
            some, _greatest_pair(slots, columns["known"])[transfer] - inside["least known"], 0
        ),
        "name in the title": inside["most name in the title"],
        "spelling of weakest": inside["least spelling"],
        "partly settled members": np.log1p(inside["sum partly settled"]),
        "usual size": np.where(
            some, np.abs(np.log1p(size) - lists.context[transfer, C["invoices usually paid at once"]]), 0
        ),
        "members off the dates": np.log1p(size - inside["sum on the title's dates"])
        * lists.context[transfer, C["title gives dates"]],
        "on the dates left out": np.log1p(outside["sum on the title's dates"]),
        "members of a payout": np.log1p(inside["sum paid by a collector"]),
        "payout left out between": np.log1p(own["payout between"]),
        "payout left out before": np.log1p(own["payout before"]),
        "commission from usual in spreads": np.where(
            some & (inside["sum paid by a collector"] > 0),
            (shortfall * 50 - lists.context[transfer, C["collector's commission"]])
            / (lists.context[transfer, C["spread of the commission"]] + 0.01),
            0,
        ).clip(-8, 8),
    }
    return np.stack([features[name] for name in SET_FEATURES], axis=1).astype(np.float32)


def _columns(lists: Lists, slots: Slots) -> dict[str, npt.NDArray[np.floating]]:
    """The columns of pairs that sets are described by; those of `lists.pair`, and some more."""
    chance = 1 / (1 + np.exp(-slots.logit))
    pair = {name: lists.pair[:, index] for name, index in P.items()}
    return pair | {
        "logit": slots.logit,
        "chance": chance,
        "log chance": np.log(np.maximum(chance, 1e-6)),
        "log rest": np.log(np.maximum(1 - chance, 1e-6)),
        "converted": slots.converted,
        "named": slots.named,
        "inside range": slots.inside,
        "known": pair["account"] + pair["account_share"] + pair["name"] + pair["name_share"] + pair["tax_id"],
    }


def _reduced(
    slots: Slots, transfer: Ints, mask: Ints, columns: dict[str, npt.NDArray[np.floating]]
) -> tuple[dict[str, Doubles], dict[str, Doubles]]:
    """`sum`, `least` and `most` of columns over each set's members, 0 for none, and over what it leaves out."""
    wanted = (_SUMS, _LEAST, _MOST, _SUMS_LEFT, _MOST_LEFT)
    parts = _reduce(slots.first, slots.usable, transfer, mask, *(_matrix(columns, names) for names in wanted))
    kinds = ("sum", "least", "most", "sum", "most")
    named = [
        {f"{kind} {name}": part[:, index] for index, name in enumerate(names)}
        for kind, names, part in zip(kinds, wanted, parts, strict=True)
    ]
    return named[0] | named[1] | named[2], named[3] | named[4]


def _matrix(columns: dict[str, npt.NDArray[np.floating]], names: tuple[str, ...]) -> Doubles:
    return np.stack([columns[name].astype(np.float64) for name in names], axis=1)


@compiled
def _reduce(
    first: Ints,
    usable: Flags,
    transfer: Ints,
    mask: Ints,
    sums: Doubles,
    least: Doubles,
    most: Doubles,
    sums_left: Doubles,
    most_left: Doubles,
) -> tuple[Doubles, Doubles, Doubles, Doubles, Doubles]:
    count = len(mask)
    sums_out = np.zeros((count, sums.shape[1]))
    least_out = np.zeros((count, least.shape[1]))
    most_out = np.zeros((count, most.shape[1]))
    sums_left_out = np.zeros((count, sums_left.shape[1]))
    most_left_out = np.full((count, most_left.shape[1]), -np.inf)
    for row in range(count):
        low, high = first[transfer[row]], first[transfer[row] + 1]
        empty = True
        for pair in range(low, high):
            if (mask[row] >> (pair - low)) & 1:
                for column in range(sums.shape[1]):
                    sums_out[row, column] += sums[pair, column]
                for column in range(least.shape[1]):
                    if empty or least[pair, column] < least_out[row, column]:
                        least_out[row, column] = least[pair, column]
                for column in range(most.shape[1]):
                    if empty or most[pair, column] > most_out[row, column]:
                        most_out[row, column] = most[pair, column]
                empty = False
            elif usable[pair]:
                for column in range(sums_left.shape[1]):
                    sums_left_out[row, column] += sums_left[pair, column]
                for column in range(most_left.shape[1]):
                    most_left_out[row, column] = max(most_left_out[row, column], most_left[pair, column])
    return sums_out, least_out, most_out, sums_left_out, most_left_out


_RELATIONS: Final = (
    "size",
    "counterparties",
    "left out",
    "between by issue",
    "between by number",
    "older",
    "credit notes",
    "twins",
    "older twins",
    "payout between",
    "payout before",
)


@compiled
def _related(s: Slots, transfer: Ints, mask: Ints) -> Ints:
    """int64[S, len(_RELATIONS)]: how many members, of how many counterparties (at most two are counted), and how many open
    invoices of the first one's counterparty are left out: at all, between the members, older than all of them, credit
    notes, of a member's amount, and of a member's amount and older than it; then how many that the payer collects are left
    out, of anybody: between the members and before them."""
    out = np.zeros((len(mask), 11), np.int64)
    for row in range(len(mask)):
        low, high = s.first[transfer[row]], s.first[transfer[row] + 1]
        own = np.int64(-1)
        place_low, place_high = np.int64(1 << 60), np.int64(-1)
        number_low, number_high = np.int64(1 << 60), np.int64(-1)
        for pair in range(low, high):
            if (mask[row] >> (pair - low)) & 1:
                out[row, 0] += 1
                if own < 0:
                    own, out[row, 1] = s.counterparty[pair], 1
                elif s.counterparty[pair] != own:
                    out[row, 1] = 2
                place_low, place_high = min(place_low, s.place[pair]), max(place_high, s.place[pair])
                number_low, number_high = (
                    min(number_low, s.number_place[pair]),
                    max(number_high, s.number_place[pair]),
                )
        for pair in range(low, high):
            if (mask[row] >> (pair - low)) & 1 or not s.usable[pair]:
                continue
            if s.collected[pair] and mask[row]:
                out[row, 9] += 0 < mask[row] & ((np.int64(1) << (pair - low)) - 1) < mask[row]
                out[row, 10] += mask[row] & ((np.int64(1) << (pair - low)) - 1) == 0
            if s.counterparty[pair] != own:
                continue
            out[row, 2] += 1
            out[row, 3] += place_low <= s.place[pair] <= place_high
            out[row, 4] += number_low <= s.number_place[pair] <= number_high
            out[row, 5] += s.place[pair] < place_low
            out[row, 6] += s.converted[pair] < 0
            twin, older = False, False
            for other in range(low, high):
                if (mask[row] >> (other - low)) & 1 and s.converted[other] == s.converted[pair]:
                    twin, older = True, older or s.place[pair] < s.place[other]
            out[row, 7] += twin
            out[row, 8] += older
    return out


def _greatest(group: Ints, value: Doubles) -> Doubles:
    best = np.full(int(group.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(best, group, value)
    return best[group]


def _greatest_pair(slots: Slots, value: npt.NDArray[np.floating]) -> Doubles:
    """The greatest value float64[T] of each transfer's open candidates, 0 for none."""
    best = np.zeros(len(slots.amount))
    owner = np.repeat(np.arange(len(slots.amount)), np.diff(slots.first))
    np.maximum.at(best, owner[slots.usable], value[slots.usable])
    return best


def _others(group: Ints, counted: Flags) -> Ints:
    """How many other rows of each row's group are `counted`."""
    code, inverse = np.unique(group, return_inverse=True)
    return np.bincount(inverse[counted], minlength=len(code))[inverse] - counted
