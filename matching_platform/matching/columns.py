"""Both sides of a pair as arrays, one entry per row: what the features of many pairs are gathered from."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from matching_platform.ledger.money import CURRENCIES
from matching_platform.matching.arrays import Flags, Floats, Ints
from matching_platform.matching.candidates import Pairs, rank_within
from matching_platform.matching.history import REPEATED_WITHIN
from matching_platform.matching.key_spaces import CURRENCY_SPAN
from matching_platform.matching.memory import NOTHING, Memory
from matching_platform.matching.text import Digits, folded, words

NO_DATE: Final = -1
BARE_NUMBER: Final = 7  # digits; longer groups are whole numbers, and the number rules read those
_RUNNING_ENDS: Final = (3, 4, 5)  # digits of a running number at the end of a longer group
_GROUP_SPAN: Final = 10 ** (BARE_NUMBER + 2)  # above every key of a bare number
_GROUPS_COMPARED: Final = 4  # of a number's digits; a fifth one tells numbers apart no more
_TITLE_LENGTHS: Final = (35, 70, 140)  # where banks cut a remittance text (SWIFT and SEPA lines)
_SHARES: Final = 200  # hundredths of an open amount; twice an invoice is no habit of paying it
_SPREAD_UNKNOWN: Final = 10.0  # days around his usual delay, of a payer who was never seen
_WORD_SEEN: Final = 3  # times before a word's promise is heeded
_CURRENCY_CODES: Final = {code: index for index, code in enumerate(sorted(CURRENCIES))}


def _days(column: pl.Series) -> Ints:
    return column.cast(pl.Int64).fill_null(NO_DATE).to_numpy()


def _currency_codes(column: pl.Series) -> Ints:
    return column.replace_strict(_CURRENCY_CODES, return_dtype=pl.Int64).to_numpy()


@dataclass(frozen=True)
class TransferColumns:
    booked: Ints
    amount: Ints
    currency: Ints
    incoming: Flags
    is_range: Flags
    dates_from: Ints  # days, NO_DATE where the title speaks of none
    dates_to: Ints

    @classmethod
    def of(cls, transfers: pl.DataFrame) -> "TransferColumns":
        return cls(
            _days(transfers["booked_on"]),
            transfers["amount"].to_numpy(),
            _currency_codes(transfers["currency"]),
            (transfers["direction"] == "in").to_numpy(),
            transfers["is_range"].fill_null(False).to_numpy(),
            *(_days(transfers[name]) for name in ("dates_from", "dates_to")),
        )


@dataclass(frozen=True)
class InvoiceColumns:
    issued: Ints
    due: Ints
    amount: Ints
    currency: Ints
    sale: Flags
    counterparty: Ints
    codes: dict[str, int]
    place: Ints  # among the counterparty's invoices, in order of issue and number
    number_place: Ints  # the same in order of number alone
    same_number: Ints  # invoices whose number has the same digits
    squeezed: npt.NDArray[np.object_]
    groups: tuple[Ints, Ints, Flags]  # (invoice, key, is the number's last), sorted by invoice

    @classmethod
    def of(cls, invoices: pl.DataFrame) -> "InvoiceColumns":
        names = invoices["counterparty_id"].unique().sort().to_list()
        codes = {name: code for code, name in enumerate(names)}
        # The cast is for no invoices at all: without codes, polars leaves text.
        counterparty = (
            invoices["counterparty_id"].replace_strict(codes, return_dtype=pl.Int64).cast(pl.Int64).to_numpy()
        )
        issued = _days(invoices["issued_on"])
        number = invoices["number"].str.to_uppercase().str.replace_all(r"[^\p{L}\p{N}]+", "")
        number_place = _number_places(invoices["number"], counterparty, issued)
        whole = np.zeros(len(invoices), np.int64)
        row, key, _ = Digits.of(invoices["number"]).wholes()
        whole[row] = key
        _, inverse, count = np.unique(whole, return_inverse=True, return_counts=True)
        return cls(
            issued=issued,
            due=_days(invoices["due_on"]),
            amount=invoices["amount"].to_numpy(),
            currency=_currency_codes(invoices["currency"]),
            sale=(invoices["direction"] == "sale").to_numpy(),
            counterparty=counterparty,
            codes=codes,
            place=rank_within(counterparty, issued, number_place),
            number_place=number_place,
            same_number=count[inverse],
            squeezed=number.to_numpy(),
            groups=number_groups(invoices["number"]),
        )


@dataclass(frozen=True)
class Habits:
    """How each of C counterparties pays, float32[C]: the usual `delay` in days after the due date, its `spread`, how many
    invoices at once; and `shares` float32[C, _SHARES], how often, 0 to 1, so many hundredths of an open amount."""

    delay: Floats
    spread: Floats
    batch: Floats
    shares: Floats

    @classmethod
    def of(cls, memory: Memory, now: str, codes: dict[str, int]) -> "Habits":
        """As of the month `now`, by the counterparties' `codes`."""
        payments, days, squares, batch = _habits(memory, now, codes)
        delay = days / (payments + 1)
        spread = np.sqrt(np.maximum((squares + _SPREAD_UNKNOWN**2) / (payments + 1) - delay**2, 0))
        shares = _shares(memory, now, codes)
        shares = shares / (shares.sum(axis=1, keepdims=True) + 1)
        columns = (delay, spread, (batch + 1) / (payments + 1), shares)
        return cls(*(column.astype(np.float32) for column in columns))

    def but(self, codes: Ints, other: "Habits") -> "Habits":
        """These, but of the counterparties `codes` int64[M] what `other`, of M counterparties, says."""
        columns = [(column.copy(), getattr(other, name)) for name, column in vars(self).items()]
        for column, theirs in columns:
            column[codes] = theirs
        return Habits(*(column for column, _ in columns))

    def usual_share(self, counterparty: Ints, share: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """How often, 0 to 1, each counterparty paid this share of an open amount before."""
        hundredths = np.rint(share * 100).astype(np.int64)
        known = self.shares[counterparty, hundredths.clip(0, _SHARES - 1)]
        return np.where((hundredths >= 0) & (hundredths < _SHARES), known, 0)


def _habits(memory: Memory, now: str, codes: dict[str, int]) -> npt.NDArray[np.float64]:
    """[4, counterparties] of payments, days after the due date, their squares and invoices paid at once, summed."""
    habits = memory.habits("habit", now)
    parts = [habits.filter(pl.col("value") == name) for name in ("payments", "days", "days squared", "invoices")]
    return np.stack([_summed(part["count"], _coded(part["key"], codes), len(codes)) for part in parts])


def _shares(memory: Memory, now: str, codes: dict[str, int]) -> npt.NDArray[np.float64]:
    """[counterparties, _SHARES]: how often each paid so many hundredths of an open amount."""
    paid = memory.habits("share", now).with_columns(share=pl.col("value").cast(pl.Int64))
    paid = paid.filter(pl.col("share").is_between(0, _SHARES - 1))
    row = _coded(paid["key"], codes)
    cell = np.where(row < 0, -1, row * _SHARES + paid["share"].to_numpy())
    return _summed(paid["count"], cell, len(codes) * _SHARES).reshape(len(codes), _SHARES)


def _coded(keys: pl.Series, codes: dict[str, int]) -> Ints:
    """The code of each counterparty, -1 where it has no invoices here."""
    return keys.replace_strict(codes, default=-1, return_dtype=pl.Int64).to_numpy()


def _summed(values: pl.Series, cell: Ints, size: int) -> npt.NDArray[np.float64]:
    return np.bincount(cell[cell >= 0], values.to_numpy()[cell >= 0], size).astype(np.float64)


def _number_places(numbers: pl.Series, counterparty: Ints, issued: Ints) -> Ints:
    """The place of each number among those of its counterparty, as a person sorts numbers.

    The groups of digits are compared from the left (`2024/07/218`) or from the right (`218/07/2024`), whichever agrees
    better with the order of issue.
    """
    row, key, length = Digits.of(numbers).groups()
    value = key - 10**length
    from_left = np.arange(len(row)) - np.searchsorted(row, row, "left")
    from_right = np.searchsorted(row, row, "right") - 1 - np.arange(len(row))
    places = []
    for position in (from_left, from_right):
        groups = np.full((_GROUPS_COMPARED, len(numbers)), -1)
        few = position < _GROUPS_COMPARED
        groups[position[few], row[few]] = value[few]
        places.append(rank_within(counterparty, *groups, issued))
    order = np.lexsort((issued, counterparty))
    follows = (np.diff(counterparty[order]) == 0) & (np.diff(issued[order]) > 0)
    size = int(counterparty.max(initial=-1)) + 1
    agrees = [np.bincount(counterparty[order][1:], follows & (np.diff(place[order]) > 0), size) for place in places]
    return np.where((agrees[1] > agrees[0])[counterparty], places[1], places[0])


def number_groups(numbers: pl.Series) -> tuple[Ints, Ints, Flags]:
    """(row, key, is the last): each group of a number without its zeros, and the running ends of long groups: `202404066`
    ends in `066`."""
    digits = Digits.of(numbers)
    row, key, length = digits.without_leading_zeros().groups()
    last = np.diff(row, append=-1) != 0
    short = length <= BARE_NUMBER
    parts = [(row[short], key[short], last[short])]
    full_row, full_key, full_length = digits.groups()
    full_last = np.diff(full_row, append=-1) != 0
    for size in _RUNNING_ENDS:
        rows = full_length > size + 2
        value = (full_key[rows] - 10 ** full_length[rows]) % 10**size
        # The same form as a group without zeros: its digits behind a one.
        width = np.maximum(1, np.floor(np.log10(np.maximum(value, 1))).astype(np.int64) + 1)
        parts.append((full_row[rows], value + 10**width, full_last[rows]))
    joined = [np.concatenate([part[n] for part in parts]) for n in range(3)]
    order = np.argsort(joined[0], kind="stable")
    return joined[0][order], joined[1][order], joined[2][order]


@dataclass(frozen=True)
class TitleColumns:
    squeezed: npt.NDArray[np.object_]
    has_digits: Flags
    length: Ints
    cut: Flags
    groups: Ints  # sorted codes of (transfer, key)
    memory_evidence: dict[str, npt.NDArray[np.floating]]
    repeated: dict[str, Floats]

    @classmethod
    def of(cls, transfers: pl.DataFrame, lately: pl.DataFrame, memory: Memory) -> "TitleColumns":
        written = transfers["written"].fill_null("")
        length = transfers["title"].str.len_chars().to_numpy().astype(np.int64)
        row, key, size = Digits.of(written).without_leading_zeros().groups()
        short = size <= BARE_NUMBER
        return cls(
            squeezed=written.str.replace_all(r"[^\p{L}\p{N}]+", "").to_numpy(),
            has_digits=written.str.contains(r"\d").to_numpy(),
            length=length,
            cut=np.isin(length, _TITLE_LENGTHS),
            groups=np.unique(row[short] * _GROUP_SPAN + key[short]),
            memory_evidence=_settles_nothing(transfers, memory),
            repeated=_repeated(transfers, lately),
        )

    def bare_numbers(self, pairs: Pairs, invoices: InvoiceColumns) -> tuple[Floats, Floats]:
        """(score, is last) of each pair: 1 where a number standing alone in the title is a group of this invoice's number
        and of no other in the list, less where others have it too."""
        row, key, last = invoices.groups
        first = np.searchsorted(row, pairs.invoice, "left")
        count = np.searchsorted(row, pairs.invoice, "right") - first
        pair = np.repeat(np.arange(len(pairs)), count)
        group = np.repeat(first, count) + np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        code = pairs.transfer[pair] * _GROUP_SPAN + key[group]
        place = np.searchsorted(self.groups, code).clip(max=max(0, len(self.groups) - 1))
        hit = self.groups[place] == code if len(self.groups) else np.zeros(len(code), bool)
        pair, code, last = pair[hit], code[hit], last[group[hit]]
        _, inverse, shared = np.unique(code, return_inverse=True, return_counts=True)
        score, score_last = np.zeros(len(pairs), np.float32), np.zeros(len(pairs), np.float32)
        worth = (1 / shared[inverse]).astype(np.float32)
        np.maximum.at(score, pair, worth)
        np.maximum.at(score_last, pair[last], worth[last])
        return score, score_last


def _settles_nothing(transfers: pl.DataFrame, memory: Memory) -> dict[str, npt.NDArray[np.floating]]:
    """What memory says of transfers of this account, this name and these words settling anything at all."""
    columns: dict[str, npt.NDArray[np.floating]] = {}
    numbered = transfers.select("account", "name", "title").with_row_index("row")
    for space in ("account", "name"):
        totals = (
            memory.space(space)
            .group_by("key")
            .agg(
                nothing=pl.col("count").filter(pl.col("value") == NOTHING).sum(),
                something=pl.col("count").filter(pl.col("value") != NOTHING).sum(),
            )
        )
        seen = numbered.join(totals, left_on=space, right_on="key", how="left", maintain_order="left")
        for kind, words_ in (("nothing", "settle nothing"), ("something", "settle")):
            columns[f"{space} known to {words_}"] = seen[kind].fill_null(0.0).log1p().to_numpy()
    odds = (
        memory.space("word")
        .group_by("key")
        .agg(nothing=pl.col("count").filter(pl.col("value") == NOTHING).sum(), total=pl.col("count").sum())
    )
    odds = odds.filter(pl.col("total") >= _WORD_SEEN).with_columns(
        odds=((pl.col("nothing") + 0.5) / (pl.col("total") - pl.col("nothing") + 0.5)).log().clip(-5, 5)
    )
    spoken = numbered.select("row", word=words(folded(pl.col("title")))).explode(
        "word", empty_as_null=True, keep_nulls=True
    )
    told = (
        spoken.join(odds, left_on="word", right_on="key")
        .group_by("row")
        .agg(mean=pl.col("odds").mean(), strongest=pl.col("odds").max(), known=pl.len().log1p())
    )
    told = numbered.select("row").join(told, on="row", how="left", maintain_order="left").fill_null(0.0)
    columns["words: nothing, mean"] = told["mean"].to_numpy()
    columns["words: nothing, strongest"] = told["strongest"].to_numpy()
    columns["words known"] = told["known"].to_numpy()
    return columns


def _repeated(transfers: pl.DataFrame, lately: pl.DataFrame) -> dict[str, Floats]:
    """1 where the same payer brought the same amount in the days before, and where he wrote the same title, too."""
    columns = ("name", "amount", "direction", "booked_on", "title")
    # Of what came lately, next to nothing is like one of a few transfers.
    lately = lately.join(transfers, on=columns[:3], how="semi", nulls_equal=True)
    both = pl.concat([frame.select("transfer_id", *columns) for frame in (lately, transfers)]).with_row_index("row")
    both = both.sort("booked_on", "transfer_id")
    flags = {}
    for name, same in (("same amount and payer lately", columns[:3]), ("same title, too", (*columns[:3], "title"))):
        gap = (pl.col("booked_on") - pl.col("booked_on").shift(1)).dt.total_days().over(*same)
        flags[name] = (gap <= REPEATED_WITHIN).fill_null(False)
    found = both.with_columns(**flags).sort("row")[len(lately) :]
    return {name: found[name].to_numpy().astype(np.float32) for name in flags}


@dataclass(frozen=True)
class Rates:
    codes: Ints  # sorted codes of (invoice currency, transfer currency)
    rates: npt.NDArray[np.float64]

    @classmethod
    def of(cls, memory: Memory) -> "Rates":
        known = memory.rate_of()
        halves = known["pair"].str.split("/")
        code = _currency_codes(halves.list.get(0)) * CURRENCY_SPAN + _currency_codes(halves.list.get(1))
        order = np.argsort(code)
        return cls(code[order], known["rate"].to_numpy()[order])

    def convert(self, amount: Ints, currency: Ints, to: Ints) -> tuple[Ints, Flags]:
        """`amount` in minor units of currency `to`, and whether the rate is known; unknown rates leave it as it is."""
        same = currency == to
        if not len(self.codes):
            return amount, same
        wanted = currency * CURRENCY_SPAN + to
        place = np.searchsorted(self.codes, wanted).clip(max=len(self.codes) - 1)
        known = self.codes[place] == wanted
        rate = np.where(known & ~same, self.rates[place], 1.0)
        return np.rint(amount * rate).astype(np.int64), known | same
