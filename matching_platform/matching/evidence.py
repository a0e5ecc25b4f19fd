"""What speaks for and against a settlement, in a bookkeeper's words, read from the very numbers that the model read."""

import re
from functools import lru_cache
from typing import Final

import numpy as np
import polars as pl

from matching_platform.matching import decisions
from matching_platform.matching.arrays import Ints
from matching_platform.matching.features import CONTEXT_FEATURES, Lists, P
from matching_platform.matching.rules import SLOTS
from matching_platform.matching.set_features import SET_FEATURES
from matching_platform.matching.settlement import Sets, members

# A column of facts, when it speaks, and what it says; `{}` takes the columns named behind it.
_Statement = tuple[pl.Expr, str, tuple[str, ...]]

_SINGLE: Final = pl.col("single") > 0
_SET: Final = pl.col("invoices") > 1
_PAYS: Final = pl.col("invoices") > 0
_EXACT: Final = pl.col("sum equals amount") > 0

_SECOND_NOTHING: Final = "runner-up: settles nothing"
_SECOND: Final = "runner-up: another set of {} invoices"
# What is said where others were decided on since the proposal was made.
SETTLED_MEANWHILE: Final = "against: {} of the proposed invoices are settled meanwhile"
BEING_PROPOSED_ANEW: Final = "against: another decision concerns this transfer, and it is being proposed anew"
_OLDER: Final = "against: {} older invoices of the same amount stay open"

_STATEMENTS: Final[tuple[_Statement, ...]] = (
    (_SINGLE & _EXACT, "amount equals what is open on the invoice", ()),
    (_SET & _EXACT, "amount equals the sum of {} open invoices", ("invoices",)),
    (_PAYS & ~_EXACT & (pl.col("sum within rounding") > 0), "amount differs from what is open by rounding only", ()),
    (
        _PAYS & ~_EXACT & (pl.col("amount below sum") > 0) & (pl.col("sum within rounding") == 0),
        "amount is {} % of what is open: a part payment, discount or fee",
        ("percent",),
    ),
    (_SINGLE & ~_EXACT & (pl.col("an agreed share") > 0), "that is a share people agree on, to the cent", ()),
    (
        _PAYS & (pl.col("amount above sum") > 0) & (pl.col("sum within rounding") == 0),
        "against: amount is more than what is open",
        (),
    ),
    (_SINGLE & (pl.col("named") > 0), "title names the invoice", ()),
    (_SET & (pl.col("named") > 0), "title names {} of the {} invoices", ("named", "invoices")),
    (_PAYS & (pl.col("named") == 0), "against: title names none of the invoices", ()),
    (_PAYS & (pl.col("inside range") > 0), "{} of them lie inside the range that the title gives", ("inside range",)),
    (_PAYS & (pl.col("left out") > 0), "against: title names {} more that are left out", ("left out",)),
    (_PAYS & (pl.col("name in the title") > 0), "title says the counterparty's name", ()),
    (_PAYS & (pl.col("collected") > 0), "this payer collects for many, and {} of them bear his mark", ("collected",)),
    (_PAYS & (pl.col("issued after booking") > 0), "against: issued after the payment was booked", ()),
    (_PAYS & (pl.col("older twins") > 0), _OLDER, ("older twins",)),
    (_PAYS & (pl.col("account known") > 0), "account is known to be the counterparty's", ()),
    (_PAYS & (pl.col("name known") > 0), "payer's name is the counterparty's", ()),
    (
        _PAYS & (pl.col("account known") == 0) & (pl.col("name known") == 0) & (pl.col("remembered") > 0),
        "this payer has paid the counterparty's invoices before",
        (),
    ),
    (
        _PAYS & (pl.col("account known") == 0) & (pl.col("name known") == 0) & (pl.col("remembered") == 0),
        "against: payer is not known to pay for this counterparty",
        (),
    ),
    (_PAYS & (pl.col("foreign") > 0), "converted from the invoice's currency at a recent rate", ()),
    (_PAYS & (pl.col("credit notes") > 0), "{} credit notes are netted in", ("credit notes",)),
    (_PAYS & (pl.col("equal sums") > 0), "against: {} other sets would fit to the cent too", ("equal sums",)),
    (
        ~_PAYS & (pl.col("closed invoices named") > 0),
        "title names {} invoices that are settled already",
        ("closed invoices named",),
    ),
    (~_PAYS & (pl.col("candidates") == 0), "no open invoice has anything in common with it", ()),
    (~_PAYS & (pl.col("unsettling") > 0), "this payer's transfers settled nothing {} times before", ("unsettling",)),
    (~_PAYS & (pl.col("words: nothing, strongest") > 1), "title reads like transfers that settle nothing", ()),
    (~_PAYS & (pl.col("same amount and payer lately") > 0), "same payer brought the same amount shortly before", ()),
    (~_PAYS & (pl.col("candidates") > 0), "none of the {} candidates fits well enough", ("candidates",)),
)

# All sentences that evidence is made of, with `{}` where a number or a word stands: what a translation has to know.
TEMPLATES: Final = (
    *(text for _, text, _ in _STATEMENTS),
    _SECOND_NOTHING,
    _SECOND,
    SETTLED_MEANWHILE,
    BEING_PROPOSED_ANEW,
    *decisions.TEMPLATES,
)


def _reading(text: str) -> re.Pattern[str]:
    place = "(.*)" if text in decisions.WORDED else r"(-?\d+(?:\.\d+)?)"
    return re.compile(re.escape(text).replace(r"\{\}", place), re.DOTALL)


_READINGS: Final = {text: _reading(text) for text in TEMPLATES}


@lru_cache(10_000)
def template_of(sentence: str) -> tuple[str, tuple[str, ...]]:
    """Which of TEMPLATES a sentence of evidence was made from, and what stands in its places, as written; a sentence that
    is made from none is its own template."""
    for text, reading in _READINGS.items():
        if found := reading.fullmatch(sentence):
            return text, found.groups()
    return sentence, ()


def evidence(lists: Lists, sets: Sets, best: Ints, rival: Ints) -> pl.Series:
    """list[str][T]: the statements that hold for the set in row `best` int64[T] of `sets`, and who comes second."""
    facts = _facts(lists, sets, best)
    rival_size = members(sets.mask[rival]).sum(1)
    facts = facts.with_columns(rival=pl.Series(np.where(rival == best, -1, rival_size)))
    runner_up = (
        pl.when(pl.col("rival") == 0)
        .then(pl.lit(_SECOND_NOTHING))
        .when(pl.col("rival") > 0)
        .then(pl.format(_SECOND, "rival"))
    )
    said = [
        pl.when(holds).then(
            pl.format(text, *(pl.col(name).round().cast(pl.Int64) for name in named)) if named else pl.lit(text)
        )
        for holds, text, named in _STATEMENTS
    ]
    return facts.select(pl.concat_list([*said, runner_up]).list.drop_nulls().alias("evidence"))["evidence"]


def without_age(evidence: pl.Expr) -> pl.Expr:
    """Evidence without what speaks of older invoices, for a settlement that changed places with an older one's."""
    other = ~pl.element().str.contains(_OLDER.split("{}")[1], literal=True)
    return evidence.list.eval(pl.element().filter(other))


def _facts(lists: Lists, sets: Sets, best: Ints) -> pl.DataFrame:
    """A row per transfer: the features of its best set, counts in their own units, and of its context."""
    chosen = {name: sets.features[best, index] for index, name in enumerate(SET_FEATURES)}
    context = {name: lists.context[:, index] for index, name in enumerate(CONTEXT_FEATURES)}
    inside = members(sets.mask[best])
    at = lists.pairs.transfer
    slot = np.arange(len(at)) - np.searchsorted(at, at)
    member = inside[at, np.minimum(slot, SLOTS - 1)]

    party = np.full(len(best), -1)
    np.maximum.at(party, at[member], lists.counterparty[member])
    left_out = lists.pairs.spelled_out() & ~member & (lists.open != 0) & (lists.counterparty == party[at])

    def members_with(*names: str) -> Ints:
        holds = np.any([lists.pair[:, P[name]] > 0 for name in names], axis=0)
        return np.bincount(at[member & holds], minlength=len(best))

    return pl.DataFrame(
        {
            **{name: chosen[name] for name in ("single", "sum equals amount", "sum within rounding")},
            **{name: chosen[name] for name in ("amount below sum", "amount above sum", "foreign")},
            **{name: np.expm1(chosen[name]) for name in ("credit notes", "equal sums")},
            **{name: chosen[name] for name in ("an agreed share", "name in the title", "issued after booking")},
            "collected": np.expm1(chosen["members of a payout"]),
            "older twins": np.expm1(chosen["older twins left out"]),
            "invoices": inside.sum(1),
            "percent": 100 * np.exp(chosen["amount ratio"]),
            "named": np.expm1(chosen["named members"]),
            "left out": np.bincount(at[left_out], minlength=len(best)),
            "inside range": np.expm1(chosen["members inside range"]),
            "account known": members_with("account", "account_seen"),
            "name known": members_with("name"),
            "remembered": members_with("name_seen", "tax_id"),
            "unsettling": np.expm1(
                np.maximum(context["account known to settle nothing"], context["name known to settle nothing"])
            ),
            **{name: np.expm1(context[name]) for name in ("closed invoices named", "candidates")},
            **{name: context[name] for name in ("words: nothing, strongest", "same amount and payer lately")},
        }
    )
