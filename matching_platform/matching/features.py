"""What speaks for and against each candidate: one row of numbers per pair, one per transfer, none tied to a data set."""

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from rapidfuzz import fuzz, process

from matching_platform.matching import key_spaces, payers
from matching_platform.matching.arrays import Flags, Floats, Ints
from matching_platform.matching.balances import Settlements, open_amounts
from matching_platform.matching.candidates import (
    Finder,
    InvoiceSide,
    Keys,
    Pairs,
    Question,
    TransferSide,
    expanded,
    find,
    join,
    rank_within,
)
from matching_platform.matching.collectors import Collectors
from matching_platform.matching.columns import (
    NO_DATE,
    Habits,
    InvoiceColumns,
    Rates,
    TitleColumns,
    TransferColumns,
)
from matching_platform.matching.key_spaces import CURRENCY_SPAN, amount_key
from matching_platform.matching.keys import keyed_invoices, keyed_transfers
from matching_platform.matching.memory import Memory
from matching_platform.matching.rules import DAYS_BEFORE_ISSUE, READ_FROM_TITLE, RULE_INDEX

PAIR_FEATURES: Final = (
    "number or reference",
    "number without zeros",
    "number with a typo",
    "number embedded",
    "digits agreeing",
    "numbers with these digits",
    "bare number",
    "bare number is last",
    "spelling",
    "spelling above others",
    "issued inside range",
    "number inside range",
    "name in the title",
    "on the title's dates",
    "paid by a collector",
    "age from the collector's in spreads",
    *payers.SIGNS,
    "amount equal",
    "amount ratio",
    "amount below open",
    "amount difference",
    "amount nearly equal",
    "amounts equal in list",
    "share of the open amount is usual",
    "an agreed share",
    "in a run that sums",
    "others open with this amount",
    "older ones with this amount",
    "currency equal",
    "rate known",
    "rate difference",
    "days since issue",
    "days since due",
    "days from usual",
    "days from usual in spreads",
    "issued after booking",
    "age rank",
    "oldest",
    "partly settled",
    "closed",
    "credit note",
    "candidates",
    "foreign candidates of the payer",
)
_READINGS: Final = {
    "number or reference": ("number", "reference"),
    "number without zeros": ("number without zeros",),
    "number with a typo": ("number, a digit missing", "number, a digit too many", "number, a digit wrong"),
}
CONTEXT_FEATURES: Final = (
    "incoming",
    "amount",
    "amount in tens",
    "amount in hundreds",
    "title has digits",
    "title length",
    "title cut",
    "range",
    "numbers read",
    "closed invoices named",
    "account known to settle nothing",
    "account known to settle",
    "name known to settle nothing",
    "name known to settle",
    "words: nothing, mean",
    "words: nothing, strongest",
    "words known",
    "candidates",
    "payer's counterparties",
    "invoices usually paid at once",
    "same amount and payer lately",
    "same title, too",
    "title gives dates",
    "collector's payouts",
    "collector's commission",
    "spread of the commission",
)
COLLECTED: Final = RULE_INDEX["payout of a collector"]
P: Final = {name: index for index, name in enumerate(PAIR_FEATURES)}
C: Final = {name: index for index, name in enumerate(CONTEXT_FEATURES)}


@dataclass(frozen=True)
class World:
    """What is known when a batch of transfers is read: keyed tables, memory, and what was settled before.

    `lately` are keyed transfers of the days before. `moment` int64[T] orders the transfers; `settlements` carry the same
    moments, history lies before all of them. `find` joins the candidates.
    """

    transfers: pl.DataFrame
    lately: pl.DataFrame
    invoices: pl.DataFrame
    memory: Memory
    settlements: Settlements
    find: Finder = find

    @classmethod
    def of(
        cls,
        transfers: pl.DataFrame,
        invoices: pl.DataFrame,
        memory: Memory,
        settlements: Settlements | None = None,
        lately: pl.DataFrame | None = None,
    ) -> "World":
        """Keys of the tables are made here; `settlements` index rows of `invoices`."""
        before = transfers.clear() if lately is None else lately
        return cls(
            keyed_transfers(transfers),
            keyed_transfers(before),
            keyed_invoices(invoices),
            memory,
            settlements or Settlements.none(),
        )


@dataclass(frozen=True)
class Lists:
    """The candidate lists of T transfers: P pairs sorted by transfer.

    `moment` int64[T]; `open` int64[P] open balance in the invoice's currency and `converted` int64[P] in the transfer's,
    minor units; `pair` float32[P, len(PAIR_FEATURES)]; `context` float32[T, len(CONTEXT_FEATURES)]; `order` int64[P] and
    `number_order` int64[P] the places of the invoice among its counterparty's by issue and by number. `closes`
    bool[…]: whether a lone payment so many percent short of an invoice settles it whole; never beyond its end.
    """

    pairs: Pairs
    open: Ints
    converted: Ints
    amount: Ints
    counterparty: Ints
    order: Ints
    number_order: Ints
    pair: Floats
    context: Floats
    closes: Flags = field(default_factory=lambda: np.zeros(1, bool))

    def of(self, rows: Ints) -> "Lists":
        """The lists of the transfers in `rows`, ascending, which hold all the pairs there are."""
        pairs = replace(self.pairs, transfer=np.searchsorted(rows, self.pairs.transfer))
        return replace(self, pairs=pairs, amount=self.amount[rows], context=self.context[rows])


@dataclass(frozen=True)
class Owed:
    """What of keyed invoices neither memory nor balances change: columns, key spaces, the `lengths` of numbers, the
    distinct `parties` (the counterparties' columns alone), and the rows in both orders in which a counterparty's follow
    each other."""

    columns: InvoiceColumns
    keys: dict[str, Keys]
    lengths: set[int]
    parties: pl.DataFrame
    orders: tuple[Ints, Ints]

    @classmethod
    def of(cls, invoices: pl.DataFrame) -> "Owed":
        columns = InvoiceColumns.of(invoices)
        keys = key_spaces.number_keys(invoices["number"], invoices["reference"])
        spaces = [keys[space] for space in ("number", "number without zeros", "reference")]
        keys["counterparty"] = Keys.of(np.arange(len(invoices)), columns.counterparty).ascending()
        place, number_place = (
            np.lexsort((order, columns.currency, columns.counterparty * 2 + columns.sale))
            for order in (columns.place, columns.number_place)
        )
        lengths = {int(n) for space in spaces for n in np.unique(np.abs(space.weight))}
        return cls(columns, keys, lengths, payers.parties(invoices), (place, number_place))


class Reader:
    """Reads the candidate lists of a batch of transfers; texts are read once, balances as often as they change.

    What is at hand of the invoices, `owed`, and of their counterparties' `habits` is not read again.
    """

    def __init__(self, world: World, owed: Owed | None = None, habits: Habits | None = None) -> None:
        self.world = world
        self._owed = owed or Owed.of(world.invoices)
        self._invoice = self._owed.columns
        self._habits = habits or Habits.of(world.memory, _month_of(world.transfers), self._invoice.codes)
        self._transfer = TransferColumns.of(world.transfers)
        self._payers = payers.resolve(world.transfers, self._owed.parties, world.memory)
        self._rates = Rates.of(world.memory)
        self._collectors = Collectors.of(world.transfers, world.memory, _month_of(world.transfers))
        marks = _marked(world.invoices["mark"], self._collectors.mark).ascending()
        self._invoice_keys = {**self._owed.keys, "mark": marks}
        self._transfer_keys = self._keys_of_transfers()
        self._transfer_keys["named"] = key_spaces.named(
            self._transfer_keys["digits"], self._invoice_keys["number"], self._invoice.counterparty
        )
        self._title = TitleColumns.of(world.transfers, world.lately, world.memory)

    def read(self, rows: Ints, moment: Ints, settlements: Settlements) -> Lists:
        """The lists of the transfers in `rows` int64[N], ascending, with balances as of their `moment` int64[N]."""
        question = self._question(rows, moment, settlements)
        pairs = self.world.find(question)
        return self._described(pairs, question).of(rows)

    def _question(self, rows: Ints, moment: Ints, settlements: Settlements) -> Question:
        t, i, c = self._transfer, self._invoice, self._collectors
        wanted = np.zeros(len(t.amount), bool)
        wanted[rows] = True
        moments = np.zeros(len(wanted), np.int64)
        moments[rows] = moment
        transfer_keys = {name: keys.take(wanted[keys.row]) for name, keys in self._transfer_keys.items()}
        left, open_keys = self._open_at(int(moment.min(initial=0)), settlements)
        transfer_keys["run"], run_keys = self._runs(transfer_keys["amount"], left)
        invoice_keys = {**self._invoice_keys, "open amount": open_keys, "run": run_keys}
        return Question(
            TransferSide(
                transfer_keys,
                booked=t.booked,
                amount=t.amount,
                currency=t.currency,
                incoming=t.incoming,
                moment=moments,
                collects=c.payouts > 0,
                age=c.age.astype(np.float64),
                dated=t.dates_from != NO_DATE,
                dates_from=t.dates_from,
                dates_to=t.dates_to,
            ),
            InvoiceSide(invoice_keys, i.issued, i.due, i.amount, i.currency, i.sale, settlements),
        )

    def _open_at(self, moment: int, settlements: Settlements) -> tuple[Ints, Keys]:
        """What is open of every invoice, int64[N], and the key space of it."""
        i = self._invoice
        every = np.arange(len(i.amount))
        left = open_amounts(i.amount, settlements.before(every, np.full(len(every), moment)))
        row = np.flatnonzero(left)
        return left, Keys.of(row, amount_key(i.currency[row], i.sale[row], left[row])).ascending()

    def _runs(self, amounts: Keys, left: Ints) -> tuple[Keys, Keys]:
        """Transfers and the invoices of one counterparty that follow each other and whose open amounts sum to theirs."""
        i = self._invoice
        wanted = amounts.ascending()
        none = Keys.of(np.zeros(0, np.int64), np.zeros(0, np.int64))
        transfers, invoices = [none], [none]
        hits = 0
        for order in self._owed.orders:
            row = order[left[order] != 0]
            group = (i.counterparty[row] * 2 + i.sale[row]) * CURRENCY_SPAN + i.currency[row]
            first, size, key = key_spaces.runs(group, i.currency[row], i.sale[row], left[row], wanted.key)
            at, to = join(key, wanted.key)
            hit = np.arange(hits, hits + len(at))
            transfers.append(Keys.of(wanted.row[to], hit))
            invoices.append(Keys.of(row[expanded(first[at], size[at])], np.repeat(hit, size[at])))
            hits += len(at)
        return Keys.joined(transfers), Keys.joined(invoices).ascending()

    def _keys_of_transfers(self) -> dict[str, Keys]:
        transfers, columns = self.world.transfers, self._transfer
        every = np.arange(len(transfers))
        payer = (
            transfers.select("account", "name", "tax_id")
            .with_row_index("row")
            .join(
                self._payers,
                left_on=["account", "name", "tax_id"],
                right_on=["payer_account", "payer_name", "payer_tax_id"],
                nulls_equal=True,
                suffix="_sign",
            )
        )
        self._payer_of = payer.select(
            pl.col("row").cast(pl.Int64),
            pl.col("counterparty_id").replace_strict(self._invoice.codes, return_dtype=pl.Int64).alias("counterparty"),
            *(
                pl.col(f"{sign}_sign" if sign in ("account", "name", "tax_id") else sign).alias(sign)
                for sign in payers.SIGNS
            ),
        ).sort("row", "counterparty")
        written_name = payers.named_in_title(transfers, self._owed.parties)
        whole_row, whole = key_spaces.wholes(every, columns.amount)
        numbers = self._invoice_keys["number or reference"].key
        return {
            **key_spaces.title_keys(transfers["written"], self._owed.lengths, numbers),
            "payer": Keys.of(self._payer_of["row"].to_numpy(), self._payer_of["counterparty"].to_numpy()),
            "written name": Keys.of(
                written_name["row"].to_numpy(),
                written_name["counterparty_id"]
                .replace_strict(self._invoice.codes, return_dtype=pl.Int64)
                .cast(pl.Int64)
                .to_numpy(),
            ),
            "collected": Keys.of(self._collectors.row, _marked(self._collectors.mark, self._collectors.mark).key),
            "amount": Keys.of(every, amount_key(columns.currency, columns.incoming, columns.amount)),
            "whole": Keys.of(whole_row, amount_key(columns.currency[whole_row], columns.incoming[whole_row], whole)),
        }

    def _described(self, pairs: Pairs, question: Question) -> Lists:
        t, i = self._transfer, self._invoice
        at, to = pairs.transfer, pairs.invoice
        still_open = question.open(at, to)
        converted, rate_known = self._rates.convert(still_open, i.currency[to], t.currency[at])
        columns = {
            **self._title_evidence(pairs, question),
            **self._payer_evidence(at, i.counterparty[to]),
            **self._amount_evidence(pairs, still_open, converted, rate_known),
            **self._date_evidence(at, to),
        }
        count = np.bincount(at, minlength=len(t.amount))
        columns["candidates"] = np.log1p(count[at])
        best_payer = np.zeros(len(t.amount), np.float32)
        known = columns["account"] + columns["account_share"] + columns["name"] + columns["name_share"]
        np.maximum.at(best_payer, at, known.astype(np.float32))
        columns["foreign candidates of the payer"] = best_payer[at] - known
        pair = np.stack([columns[name] for name in PAIR_FEATURES], axis=1).astype(np.float32)
        lists = Lists(
            pairs,
            still_open,
            converted,
            t.amount,
            i.counterparty[to],
            i.place[to],
            i.number_place[to],
            pair,
            np.zeros((0, 0), np.float32),
            self.world.memory.closes(),
        )
        return replace(lists, context=self._context(lists, count))

    def _title_evidence(self, pairs: Pairs, question: Question) -> dict[str, npt.NDArray[np.floating]]:
        found = pairs.found[:, READ_FROM_TITLE]
        # A reference counts as a number: a company that gives none must not leave its weight to chance.
        columns = {
            name: (found[:, [RULE_INDEX[rule] for rule in rules]] != 0).any(1) * 1.0
            for name, rules in _READINGS.items()
        }
        strongest = np.abs(found).max(axis=1, initial=0)
        columns["number embedded"] = ((found < 0).any(1) & ~(found > 0).any(1)) * 1.0
        columns["digits agreeing"] = strongest / 10
        columns["numbers with these digits"] = np.log1p(self._invoice.same_number[pairs.invoice]) * (strongest > 0)
        bare, bare_last = self._title.bare_numbers(pairs, self._invoice)
        columns["bare number"], columns["bare number is last"] = bare, bare_last
        spelling = self._spelling(pairs)
        columns["spelling"] = spelling
        columns["spelling above others"] = spelling - _best_other(pairs.transfer, spelling)
        named = (strongest > 0) | (bare > 0.4)
        for column, place in (("issued", self._invoice.place), ("number", self._invoice.number_place)):
            columns[f"{column} inside range"] = self._inside_range(pairs, named, place[pairs.invoice])
        at, to = pairs.transfer, pairs.invoice
        columns["on the title's dates"] = (question.transfers.dated[at] & question.on_dates(at, to)) * 1.0
        columns["paid by a collector"] = (pairs.found[:, COLLECTED] > 0) * 1.0
        age = (self._transfer.booked[at] - self._invoice.issued[to] - self._collectors.age[at]).astype(float)
        columns["age from the collector's in spreads"] = np.where(
            self._collectors.payouts[at] > 0, (age / (self._collectors.age_spread[at] + 1)).clip(-8, 8), 0
        )
        columns["name in the title"] = (pairs.found[:, RULE_INDEX["counterparty named in the title"]] > 0) * 1.0
        return columns

    def _spelling(self, pairs: Pairs) -> Floats:
        """How well the number's letters and digits are found anywhere in the title, 0 to 1."""
        written, number = self._title.squeezed, self._invoice.squeezed
        ratio = np.zeros(len(pairs), np.float32)
        worth = np.flatnonzero(self._title.has_digits[pairs.transfer])
        if len(worth):
            ratio[worth] = process.cpdist(
                number[pairs.invoice[worth]],
                written[pairs.transfer[worth]],
                scorer=fuzz.partial_ratio,
                dtype=np.float32,
                score_cutoff=50,
            )
        return (ratio / 100).astype(np.float32)

    def _inside_range(self, pairs: Pairs, named: Flags, place: Ints) -> Floats:
        """1 between the first and last named invoices of one counterparty, by `place` int64[P], where the title speaks of a
        range."""
        at, counterparty = pairs.transfer, self._invoice.counterparty[pairs.invoice]
        group = at * (self._invoice.counterparty.max(initial=0) + 1) + counterparty
        codes, inverse = np.unique(group, return_inverse=True)
        low = np.full(len(codes), np.iinfo(np.int64).max)
        high = np.full(len(codes), -1)
        np.minimum.at(low, inverse[named], place[named])
        np.maximum.at(high, inverse[named], place[named])
        inside = (place >= low[inverse]) & (place <= high[inverse]) & self._transfer.is_range[at]
        return inside.astype(np.float32)

    def _payer_evidence(self, at: Ints, counterparty: Ints) -> dict[str, npt.NDArray[np.floating]]:
        size = self._invoice.counterparty.max(initial=0) + 2
        known = self._payer_of["row"].to_numpy() * size + self._payer_of["counterparty"].to_numpy()
        wanted = at * size + counterparty
        place = np.searchsorted(known, wanted)
        place[place == len(known)] = 0
        hit = (known[place] == wanted) if len(known) else np.zeros(len(wanted), bool)
        return {
            sign: np.where(hit, self._payer_of[sign].to_numpy()[place], 0.0) if len(known) else np.zeros(len(wanted))
            for sign in payers.SIGNS
        }

    def _amount_evidence(
        self, pairs: Pairs, still_open: Ints, converted: Ints, rate_known: Flags
    ) -> dict[str, npt.NDArray[np.floating]]:
        t, i, at, to = self._transfer, self._invoice, pairs.transfer, pairs.invoice
        amount = t.amount[at].astype(float)
        comparable = (t.currency[at] == i.currency[to]) | rate_known
        foreign = t.currency[at] != i.currency[to]
        base = np.where(converted == 0, 1, converted).astype(float)
        ratio = np.where(comparable & (converted != 0), amount / base, 0)
        with np.errstate(divide="ignore"):
            log_ratio = np.where(ratio > 0, np.log(np.maximum(ratio, 1e-9)), 0).clip(-3, 3)
        difference = np.where(comparable, amount - converted, 0)
        relative = np.abs(difference) / amount
        equal = (difference == 0) & ~foreign & (still_open != 0)
        listed = np.bincount(at[equal], minlength=len(t.amount))
        return {
            "amount equal": equal * 1.0,
            "amount ratio": log_ratio,
            "amount below open": (comparable & (difference < 0) & (converted > 0)) * 1.0,
            "amount difference": np.where(comparable, np.log1p(np.abs(difference)) / 10, 1.5),
            "amount nearly equal": comparable * np.exp(-relative * 50),
            "amounts equal in list": np.log1p(listed[at] - equal),
            "share of the open amount is usual": self._habits.usual_share(i.counterparty[to], ratio),
            "an agreed share": (pairs.found[:, RULE_INDEX["share of the amount"]] > 0) * 1.0,
            "in a run that sums": (pairs.found[:, RULE_INDEX["sum of a run"]] > 0) * 1.0,
            **self._twins(at, to, still_open),
            "currency equal": (~foreign) * 1.0,
            "rate known": (foreign & rate_known) * 1.0,
            "rate difference": np.where(foreign & rate_known, relative.clip(0, 1), 0),
            "partly settled": ((still_open != i.amount[to]) & (still_open != 0)) * 1.0,
            "closed": (still_open == 0) * 1.0,
            "credit note": (i.amount[to] < 0) * 1.0,
        }

    def _twins(self, at: Ints, to: Ints, still_open: Ints) -> dict[str, npt.NDArray[np.floating]]:
        """How many other candidates of the same counterparty have the same amount open, and how many of them are older."""
        i = self._invoice
        order = np.lexsort((i.place[to], i.due[to], still_open, i.counterparty[to], at))
        columns = (at[order], i.counterparty[to][order], still_open[order])
        new = np.any([np.diff(column, prepend=-1) != 0 for column in columns], axis=0) if len(at) else np.zeros(0, bool)
        first = np.flatnonzero(new)
        size = np.diff(np.append(first, len(at)))
        others, older = np.empty(len(at)), np.empty(len(at))
        others[order] = np.repeat(size, size) - 1
        older[order] = np.arange(len(at)) - np.repeat(first, size)
        there = still_open != 0
        return {
            "others open with this amount": np.log1p(others) * there,
            "older ones with this amount": np.log1p(older) * there,
        }

    def _date_evidence(self, at: Ints, to: Ints) -> dict[str, npt.NDArray[np.floating]]:
        t, i = self._transfer, self._invoice
        since_issue = (t.booked[at] - i.issued[to]).astype(float)
        since_due = (t.booked[at] - i.due[to]).astype(float)
        usual, spread = self._habits.delay[i.counterparty[to]], self._habits.spread[i.counterparty[to]]
        size = i.counterparty.max(initial=0) + 1
        rank = rank_within(at * size + i.counterparty[to], i.due[to], i.place[to])
        return {
            "days since issue": (since_issue / 30).clip(-1, 12),
            "days since due": (since_due / 30).clip(-6, 12),
            "days from usual": np.abs((since_due - usual) / 30).clip(0, 6),
            "days from usual in spreads": (np.abs(since_due - usual) / (spread + 1)).clip(0, 8),
            "issued after booking": (-since_issue).clip(0, DAYS_BEFORE_ISSUE) / DAYS_BEFORE_ISSUE,
            "age rank": np.log1p(rank),
            "oldest": (rank == 0) * 1.0,
        }

    def _context(self, lists: Lists, count: Ints) -> Floats:
        t, title, at = self._transfer, self._title, lists.pairs.transfer
        size = len(t.amount)
        digits_read = (lists.pair[:, P["digits agreeing"]] > 0) & (lists.pair[:, P["number embedded"]] == 0)
        closed = lists.pair[:, P["closed"]] > 0
        counterparties = np.bincount(self._payer_of["row"].to_numpy(), minlength=size)
        batch = np.zeros(size)
        np.maximum.at(batch, at, self._habits.batch[self._invoice.counterparty[lists.pairs.invoice]])
        columns = {
            "incoming": t.incoming * 1.0,
            "amount": np.log1p(t.amount) / 20,
            "amount in tens": (t.amount % 1_000 == 0) * 1.0,
            "amount in hundreds": (t.amount % 10_000 == 0) * 1.0,
            "title has digits": title.has_digits * 1.0,
            "title length": title.length / 70,
            "title cut": title.cut * 1.0,
            "range": t.is_range * 1.0,
            "numbers read": np.log1p(np.bincount(at[digits_read], minlength=size)),
            "closed invoices named": np.log1p(np.bincount(at[digits_read & closed], minlength=size)),
            **title.memory_evidence,
            "candidates": np.log1p(count),
            "payer's counterparties": np.log1p(counterparties),
            "invoices usually paid at once": np.log1p(batch),
            **title.repeated,
            "title gives dates": (t.dates_from != NO_DATE) * 1.0,
            "collector's payouts": self._collectors.payouts,
            "collector's commission": self._collectors.commission * 50,
            "spread of the commission": self._collectors.commission_spread * 50,
        }
        return np.stack([columns[name] for name in CONTEXT_FEATURES], axis=1).astype(np.float32)


def _marked(marks: pl.Series, known: pl.Series) -> Keys:
    """The rows whose mark is one of the `known` ones, with its code."""
    codes = {mark: code for code, mark in enumerate(known.unique().sort())}
    code = marks.replace_strict(codes, default=-1, return_dtype=pl.Int64).to_numpy()
    row = np.flatnonzero(code >= 0)
    return Keys.of(row, code[row])


def _month_of(transfers: pl.DataFrame) -> str:
    """The month of the transfer in the middle of a batch, so that no odd date decides; any, where it is empty."""
    booked = transfers["booked_on"].sort()
    return str(booked[len(booked) // 2])[:7] if len(booked) else "2000-01"


def _best_other(group: Ints, value: Floats) -> Floats:
    """For each row the greatest value of the other rows of its group, 0 where it is alone."""
    order = np.lexsort((-value, group))
    rank = rank_within(group, -value)
    size = int(group.max(initial=-1)) + 1
    best, second = np.zeros(size, np.float32), np.zeros(size, np.float32)
    best[group[order][rank[order] == 0]] = value[order][rank[order] == 0]
    second[group[order][rank[order] == 1]] = value[order][rank[order] == 1]
    return np.where(rank == 0, second[group], best[group])
