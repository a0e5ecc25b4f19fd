"""Which characters of a title were recognised: the numbers, references and names that the candidate rules read there."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Final, Literal, NamedTuple

import numpy as np
import polars as pl

from matching_platform.matching import key_spaces
from matching_platform.matching.arrays import Ints
from matching_platform.matching.candidates import Keys, join
from matching_platform.matching.columns import BARE_NUMBER, number_groups
from matching_platform.matching.rules import RULE_INDEX, RULES, SPELLED_OUT
from matching_platform.matching.text import (
    LONGEST_KEY,
    SEPA_REMITTANCE,
    SPLIT_PAYMENT,
    Digits,
    folded,
    remittance,
    without_legal_form,
    words,
)

Kind = Literal["number", "reference", "name"]

_SHORTEST_WORD: Final = 3  # letters; shorter ones name nobody
_SPELLED_IN_A_WORD: Final = ".'’`\""  # what stands inside words without parting them
# Ranks of what was found: what stands alone in the order of the rules, what stands in more digits, a part of a number.
_EMBEDDED: Final = len(RULES)
_EXACT: Final = frozenset(RULE_INDEX[name] for name in SPELLED_OUT)
_IN_FULL: Final = (RULE_INDEX["number"], RULE_INDEX["reference"])
_BARE: Final = 2 * len(RULES)
_NAME: Final = _BARE + 1
_SHARED_BY: Final = 2  # invoices that may have a bare number in common; what more have says nothing
# Days and months as people write them, 2024-12-16, 20241216, 16.12.24, 12/2024, 2024M12: they resemble many numbers.
_YEAR, _MONTH, _DAY = "(?:19|20)[0-9]{2}", "(?:1[0-2]|0?[1-9])", "(?:3[01]|[12][0-9]|0?[1-9])"
_DATE: Final = re.compile(
    rf"(?<![0-9])(?:{_YEAR}[-./M]?{_MONTH}(?:[-./]?{_DAY})?|(?:{_DAY}[-./]?)?{_MONTH}[-./]?{_YEAR}"
    rf"|{_DAY}[-./]{_MONTH}[-./][0-9]{{2}})(?![0-9])"
)


class Mark(NamedTuple):
    """The characters of a title from `start` up to `end`, and of which invoice they are the number, reference or name.

    What is not exact only resembles it: a digit differs, or it stands in more digits, or is a part of the number.
    """

    start: int
    end: int
    kind: Kind
    invoice_id: str
    is_exact: bool = True


def marks(title: str, invoices: pl.DataFrame, others: pl.DataFrame | None = None) -> list[Mark]:
    """What of `title` names one of `invoices`: invoice_id, number, reference (or null), counterparty_name.

    Numbers and references are found as the candidate rules find them, among the given invoices: exactly, which is with any
    separators and zeros; glued to others, with one typo, or as a bare running number that no third one shares. So give all
    that could be meant, and first those that are proposed. Of the `others`, such as settled ones, only what stands there
    exactly is found. A date is a number only where it has all its digits. In order, without overlaps: of what overlaps,
    what is exact stays, then the longest, then what is spelled best, then what belongs to the invoice that comes first.
    """
    written = _Written.of(title)
    every = invoices if others is None else pl.concat([invoices, others.select(invoices.columns)])
    number, reference = every.select(folded(pl.col("number", "reference").cast(pl.String)))
    names = invoices.select(words(without_legal_form(folded(pl.col("counterparty_name"))))).to_series()
    found = {*_numbers(written, number, reference, len(invoices)), *_names(written, names)}
    dates = written.dates()
    taken = np.zeros(len(title), bool)
    kept = []
    for find in sorted(found):
        is_date = find.rank not in _IN_FULL and any(start <= find.start and find.end <= end for start, end in dates)
        if not is_date and not taken[find.start : find.end].any():
            taken[find.start : find.end] = True
            is_exact = find.kind == "name" or not find.is_vague
            kept.append(Mark(find.start, find.end, find.kind, every["invoice_id"][find.invoice], is_exact))
    return sorted(kept)


class _Find(NamedTuple):
    """A mark that may be; the least one is the best."""

    is_vague: bool
    shortness: int  # minus its characters
    rank: int
    start: int
    end: int
    invoice: int
    kind: Kind


@dataclass(frozen=True)
class _Written:
    """A folded remittance text, and of which character of the title each of its characters is."""

    text: str
    place: list[int]
    after: list[int]  # where the title goes on: what folds to nothing belongs to the character before it

    @classmethod
    def of(cls, title: str) -> "_Written":
        pieces = pl.Series([*title], dtype=pl.String).to_frame("title").select(folded(pl.col("title")))["title"]
        place = [index for index, piece in enumerate(pieces) for _ in piece]
        after = [max(this + 1, following) for this, following in pairwise([*place, len(title)])]
        text = "".join(pieces)
        written = str(pl.select(remittance(pl.lit(text))).item())
        start = _remittance_from(text)
        return cls(written, place[start : start + len(written)], after[start : start + len(written)])

    def find(self, first: int, last: int, rank: int, kind: Kind, invoice: int) -> _Find:
        start, end = self.place[first], self.after[last]
        return _Find(rank not in _EXACT, start - end, rank, start, end, invoice, kind)

    def dates(self) -> list[tuple[int, int]]:
        """From where up to where in the title dates stand."""
        return [(self.place[found.start()], self.after[found.end() - 1]) for found in _DATE.finditer(self.text)]


def _remittance_from(text: str) -> int:
    for form in (SPLIT_PAYMENT, SEPA_REMITTANCE):
        # In the regular expressions of polars, a line's end is not the text's.
        if (found := re.search(form.replace("$", r"\Z"), text)) and found[1]:
            return found.start(1)
    return 0


def _numbers(written: _Written, number: pl.Series, reference: pl.Series, owed: int) -> Iterator[_Find]:
    """Of all but the first `owed` invoices, only what is exact."""
    digits = Digits.of(pl.Series([written.text]))
    places = np.array([at for at, character in enumerate(written.text) if character in "0123456789"], np.int64)
    if not len(places):
        return
    # Both in one: the rows behind those of the numbers are references.
    both = pl.concat([number, reference.rename("number")])
    spaces = key_spaces.number_keys(both, pl.repeat(None, len(both), dtype=pl.String, eager=True))
    zeros = spaces["number without zeros"]
    spaces["number without zeros"] = zeros.take(zeros.row < len(reference))
    windows = _readings(digits, places, spaces)
    for index, rule in enumerate(RULES):
        if not rule.closed_too:
            continue
        read, keys = windows[rule.transfer_key], spaces[rule.invoice_key]
        at, to = join(read.keys.key, keys.key)
        ranks = np.where(read.keys.weight[at] > 0, index, _EMBEDDED + index)
        for window, row, rank in zip(read.keys.row[at], keys.row[to], ranks, strict=True):
            kind: Kind = "number" if row < len(reference) else "reference"
            invoice = int(row) % len(reference)
            if invoice >= owed and rank not in _EXACT:
                continue
            yield written.find(read.first[window], read.last[window], int(rank), kind, invoice)
    yield from _bare_numbers(written, digits, places, number.head(owed))


@dataclass(frozen=True)
class _Windows:
    """W windows of digits: `keys` by window, `first` and `last` int64[W] the characters where each begins and ends."""

    keys: Keys
    first: Ints
    last: Ints

    @classmethod
    def of(cls, read: Keys, first: Ints, last: Ints) -> "_Windows":
        """Windows `read` by the digit with which each begins; `first` and `last` say of each digit where it stands."""
        length = np.abs(read.weight).astype(np.int64)
        keys = Keys(np.arange(len(read.row)), read.key, read.weight)
        return cls(keys, first[read.row], last[read.row + length - 1])


def _readings(digits: Digits, places: Ints, spaces: dict[str, Keys]) -> dict[str, _Windows]:
    """What `key_spaces.title_keys` reads in one text for invoices of such key `spaces`, and where; `places` int64[D] are the
    digits' characters."""
    plain = (spaces["number"], spaces["number without zeros"])
    lengths = {int(length) for keys in plain for length in np.unique(np.abs(keys.weight))}
    known = spaces["number or reference"].key
    is_typed = ~key_spaces.spelled_out(digits, lengths, known)
    typed, typed_places = digits.without(~is_typed), places[is_typed]

    def read(digits: Digits, lengths: set[int], first: Ints, last: Ints, *, embedded: bool = False) -> _Windows:
        return _Windows.of(key_spaces.windows_read(digits, lengths, embedded=embedded), first, last)

    too_many = read(typed, key_spaces.one_too_many(lengths), typed_places, typed_places)
    return {
        "digits": read(digits, lengths, places, places, embedded=True),
        "digits without zeros": read(digits.without_leading_zeros(), lengths, *_with_zeros(digits, places)),
        "digits, one missing": read(typed, key_spaces.one_missing(lengths), typed_places, typed_places),
        "digits less one": replace(too_many, keys=key_spaces.less_one(too_many.keys)),
    }


def _with_zeros(digits: Digits, places: Ints) -> tuple[Ints, Ints]:
    """(first, last) character of each significant digit; the first of a group begins where its zeros do."""
    group_start = places[digits.starts][np.cumsum(digits.starts) - 1]
    significant = digits.significant()
    last = places[significant]
    return np.where(digits.without_leading_zeros().starts, group_start[significant], last), last


def _bare_numbers(written: _Written, digits: Digits, places: Ints, number: pl.Series) -> Iterator[_Find]:
    """The groups of digits that are a group of an invoice's number, as `TitleColumns.bare_numbers` reads them."""
    first, last = places[digits.starts], places[digits.ends]
    _, read, length = digits.without_leading_zeros().groups()
    # A group longer than any key is none there.
    bare = Keys.of(np.flatnonzero(_significant_lengths(digits) <= LONGEST_KEY), read).take(length <= BARE_NUMBER)
    row, key, _ = number_groups(number)
    groups = Keys.of(row, key).ascending()
    at, to = join(bare.key, groups.key)
    few = np.bincount(at, minlength=1)[at] <= _SHARED_BY
    for group, invoice in zip(bare.row[at[few]], groups.row[to[few]], strict=True):
        yield written.find(first[group], last[group], _BARE, "number", int(invoice))


def _significant_lengths(digits: Digits) -> Ints:
    return np.bincount(np.cumsum(digits.starts) - 1, digits.significant()).astype(np.int64)


def _names(written: _Written, names: pl.Series) -> Iterator[_Find]:
    """Names of which the text has all the words, legal forms aside; words that follow each other are one mark."""
    spoken = _words(written.text)
    all_words = {word for word, _, _ in spoken}
    for row, name in enumerate(names):
        telling = {word for word in name if len(word) >= _SHORTEST_WORD}
        if not telling or not telling <= all_words:
            continue
        run: list[tuple[int, int]] = []
        for word, first, last in spoken:
            if word not in telling:
                continue
            if run and not any(character.isalnum() for character in written.text[run[-1][1] + 1 : first]):
                run[-1] = (run[-1][0], last)
            else:
                run.append((first, last))
        for first, last in run:
            yield written.find(first, last, _NAME, "name", row)


def _words(text: str) -> list[tuple[str, int, int]]:
    """(word, first, last character) of what `text.words` reads, in order."""
    inside = [(at, character) for at, character in enumerate(text) if character not in _SPELLED_IN_A_WORD]
    found = []
    for is_word, run in groupby(inside, key=lambda one: unicodedata.category(one[1]).startswith("L")):
        letters = list(run)
        if is_word and len(letters) > 1:
            found.append(("".join(character for _, character in letters), letters[0][0], letters[-1][0]))
    return found
