"""Titles, numbers and names become keys here, once, so that training, batch and service cannot differ.

A number's key is its digits: letters, separators and leading zeros are written in too many ways to be compared.
Digits of all texts lie in one flat array (`Digits`); a key of length L is a window of it, so a title that squeezes
`FV/2024/03/0123`, breaks it, or glues two numbers together still holds the same window.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from matching_platform.matching.arrays import Flags, Ints

LONGEST_KEY: Final = 17  # digits; one more and the marker below leaves int64

# Letters that Unicode does not decompose.
_UNDECOMPOSED: Final = {"Ł": "L", "Ø": "O", "Đ": "D", "ß": "SS", "ẞ": "SS", "Æ": "AE", "Œ": "OE", "Þ": "TH", "Ħ": "H"}

# Legal forms, after full stops have gone; they tell nothing of who somebody is and are the first thing to be cut.
_LEGAL_FORMS: Final = (
    "SPOLKA Z OGRANICZONA ODPOWIEDZIALNOSCIA",
    "SPOLKA AKCYJNA",
    "SPOLKA KOMANDYTOWA",
    "SP Z O ?O",
    "SPZ ?OO",
    "SP Z?",
    "GESELLSCHAFT MIT BESCHRANKTER HAFTUNG",
    "GMBH",
    "(?:& )?CO KG(?:AA)?",
    "S ?P ?A",
    "S ?A ?R ?L",
    "S ?R ?L",
    "S ?R ?O",
    "P(?:RIVA)?TE? LTD",
    "PVT LTD",
    "PTY LTD",
    "LTD",
    "LIMITED",
    "S ?P ?K",
    "SP ?J",
    *"AB AG APS AS A/S BV CORP DOO EOOD INC KFT KG KK LDA LLC LLP NV OG OU OY OYJ PLC PTE SA SAS SC SCS SE SL SNC".split(),
    *"SRLS UAB UG ZRT".split(),
)
# Scripts without spaces have no word boundaries.
_LEGAL: Final = rf"\b(?:{'|'.join(_LEGAL_FORMS)})(?:\b|$)|株式会社|有限公司"

SEPA_REMITTANCE: Final = r"SVWZ\+(.*?)(?:(?:EREF|KREF|MREF|CRED|DEBT|ABWA|ABWE|IBAN|BIC|PURP)\+|$)"
SPLIT_PAYMENT: Final = r"/INV/(.*?)(?:/TXT/|$)"
_SPLIT_TAX_ID: Final = r"/IDC/([^/]*)"
_RANGE: Final = (
    r"\b(?:OD|VON|FROM|DE|DU|DA|DAL|FRA|FRAN)\b.*\d.*\b(?:DO|BIS|TO|AU|AL|ATE|A|TIL|TILL)\b.*\d"
    r"|\d\s*(?:\b(?:DO|BIS|TO|THRU|THROUGH|AU|AL|TIL|TILL)\b|\.\.+|–|—)\s*[^0-9]*\d"
    r"|\d\s+-\s+[^0-9]*\d|\b\d{1,6}-\d{1,6}\b"
)

# A day or a month of its own, and no part of an invoice's number.
_DAY: Final = r"(?:^|[^\d/-])(?:20\d\d[-./]\d{2}[-./]\d{2}|\d{2}[-./]\d{2}[-./]20\d\d)(?:$|[^\d./-])"
_MONTH_AND_YEAR: Final = r"(?:^|[^\d./-])((?:0?[1-9]|1[0-2])[-/.]20\d\d)(?:$|[^\d./-])"
_YEAR_AND_MONTH: Final = r"(?:^|[^\d./-])(20\d\d[-/.](?:0[1-9]|1[0-2]))(?:$|[^\d./-])"


def folded(text: pl.Expr) -> pl.Expr:
    """Upper case without diacritics; other scripts stay as they are."""
    upper = text.str.to_uppercase().str.normalize("NFKD").str.replace_all(r"\p{M}", "")
    return upper.str.replace_many(list(_UNDECOMPOSED), list(_UNDECOMPOSED.values()))


def remittance(title: pl.Expr) -> pl.Expr:
    """What the payer wrote: the remittance part of SEPA (`SVWZ+`) and split-payment (`/INV/`) titles, else all of it.

    References that the bank adds (`EREF+…`) and tax amounts (`/VAT/…`) would read as numbers of invoices.
    """
    sepa, split = title.str.extract(SEPA_REMITTANCE, 1), title.str.extract(SPLIT_PAYMENT, 1)
    written = pl.coalesce(pl.when(split != "").then(split), pl.when(sepa != "").then(sepa), title)
    # A letter O or I among digits is a misread 0 or 1.
    return (
        written.str.replace_all(r"(\d)O", "${1}0")
        .str.replace_all(r"O(\d)", "0${1}")
        .str.replace_all(r"(\d)[IL](\d|\b)", "${1}1${2}")
    )


def tax_id_of(title: pl.Expr) -> pl.Expr:
    """The payer's tax number in a split-payment title, null elsewhere."""
    return title.str.extract(_SPLIT_TAX_ID, 1)


def names_range(title: pl.Expr) -> pl.Expr:
    """Whether a folded title speaks of a range: `od … do …`, `120-125/03`, `A - B`."""
    return title.str.contains(_RANGE)


def dates_named(title: pl.Expr) -> dict[str, pl.Expr]:
    """dates_from and dates_to: the first and last day that a title speaks of, or the first and last day of the one month."""
    # What stands between two days belongs to both.
    apart = title.str.replace_all(r"[ ,;]|\.\.+", "  ")
    days = apart.str.extract_all(_DAY).list.eval(_as_day(pl.element()))
    month = pl.concat_str(pl.lit("1-"), title.str.extract(_MONTH_AND_YEAR, 1)).str.replace_all("[./]", "-")
    month = month.str.to_date("%d-%m-%Y", strict=False)
    year = pl.concat_str(title.str.extract(_YEAR_AND_MONTH, 1), pl.lit("-1")).str.replace_all("[./]", "-")
    whole = pl.coalesce(month, year.str.to_date("%Y-%m-%d", strict=False))
    return {
        "dates_from": pl.coalesce(days.list.min(), whole),
        "dates_to": pl.coalesce(days.list.max(), whole.dt.month_end()),
    }


def _as_day(written: pl.Expr) -> pl.Expr:
    bare = written.str.extract(r"(\d.*\d)", 1).str.replace_all("[./]", "-")
    return pl.coalesce(bare.str.to_date("%Y-%m-%d", strict=False), bare.str.to_date("%d-%m-%Y", strict=False))


def without_legal_form(name: pl.Expr) -> pl.Expr:
    """A folded name without its legal form and full stops."""
    return name.str.replace_all(r"[.,'’`\"]", "").str.replace_all(_LEGAL, " ")


def name_key(name: pl.Expr) -> pl.Expr:
    """A folded name's letters and digits without its legal form; equal for all spellings of one name."""
    squeezed = without_legal_form(name).str.replace_all(r"[^\p{L}\p{N}]+", "")
    whole = name.str.replace_all(r"[^\p{L}\p{N}]+", "")
    return pl.when(squeezed.str.len_chars() >= 2).then(squeezed).otherwise(whole)


def words(text: pl.Expr) -> pl.Expr:
    """The words of a folded text, of two letters or more, each once."""
    return text.str.replace_all(r"[.'’`\"]", "").str.extract_all(r"\p{L}{2,}").list.unique()


def account_key(account: pl.Expr) -> pl.Expr:
    """An account's letters and digits; null where nothing is left."""
    squeezed = account.str.to_uppercase().str.replace_all(r"[^A-Z0-9]+", "")
    return pl.when(squeezed.str.len_chars() >= 4).then(squeezed)


@dataclass(frozen=True)
class Digits:
    """The digits of N texts in one flat array of length D, with the groups in which they were written.

    `text` int64[D] is the index of the text, `value` int64[D] the digit, `starts` and `ends` bool[D] mark the first and
    last digit of a group (digits with nothing between them).
    """

    text: Ints
    value: Ints
    starts: Flags
    ends: Flags
    count: int

    @classmethod
    def of(cls, texts: pl.Series) -> "Digits":
        """The digits of `texts` (nulls have none)."""
        encoded = texts.fill_null("").cast(pl.Binary)
        lengths = encoded.bin.size().to_numpy().astype(np.int64)
        flat = np.frombuffer(b"".join(encoded.to_list()), dtype=np.uint8)
        is_digit = (flat >= ord("0")) & (flat <= ord("9"))
        owner = np.repeat(np.arange(len(texts)), lengths)
        position = np.flatnonzero(is_digit)
        text = owner[position]
        return cls(text, flat[position].astype(np.int64) - ord("0"), *_edges(text, position), len(texts))

    def without_leading_zeros(self) -> "Digits":
        """The same with each group's leading zeros gone, so that `07/0042` reads as `7/42`."""
        group, keep = np.cumsum(self.starts) - 1, self.significant()
        text, kept_group = self.text[keep], group[keep]
        starts = np.diff(kept_group, prepend=-1) != 0
        ends = np.diff(kept_group, append=-1) != 0
        return Digits(text, self.value[keep], starts, ends, self.count)

    def significant(self) -> Flags:
        """bool[D]: which digits are not leading zeros of their group; of a group of zeros, the last one is not."""
        group = np.cumsum(self.starts) - 1
        nonzero_before = np.cumsum(self.value != 0)
        at_start = nonzero_before[self.starts] - (self.value[self.starts] != 0)
        leading = nonzero_before == at_start[group] if len(group) else np.zeros(0, bool)
        return ~leading | (self.ends & leading)

    def without(self, taken: Flags) -> "Digits":
        """The digits that are not `taken` bool[D], in the groups in which they were written."""
        return Digits(self.text[~taken], self.value[~taken], self.starts[~taken], self.ends[~taken], self.count)

    def windows(self, longest: int = LONGEST_KEY) -> Iterator[tuple[int, Ints, Ints]]:
        """For each length L: (L, positions int64[W] where a window of L digits of one text begins, their keys int64[W])."""
        key = np.zeros(len(self.value), np.int64)
        for length in range(1, min(longest, len(self.value)) + 1):
            count = len(self.value) - length + 1
            key = key[:count] * 10 + self.value[length - 1 :]
            whole = np.flatnonzero(self.text[:count] == self.text[length - 1 :])
            yield length, whole, key[whole] + 10**length

    def groups(self) -> tuple[Ints, Ints, Ints]:
        """Every group as (text int64[G], key int64[G], length int64[G]); groups longer than a key are left out."""
        return self._spans(np.flatnonzero(self.starts), np.flatnonzero(self.ends))

    def wholes(self) -> tuple[Ints, Ints, Ints]:
        """All digits of each text as one key: (text, key, length), without texts that have none or too many."""
        first = np.flatnonzero(np.diff(self.text, prepend=-1) != 0)
        last = np.flatnonzero(np.diff(self.text, append=-1) != 0)
        return self._spans(first, last)

    def _spans(self, first: Ints, last: Ints) -> tuple[Ints, Ints, Ints]:
        length = last - first + 1
        fits = length <= LONGEST_KEY
        first, length = first[fits], length[fits]
        key = np.zeros(len(first), np.int64)
        for step in range(int(length.max(initial=0))):
            more = step < length
            key[more] = key[more] * 10 + self.value[first[more] + step]
        return self.text[first], key + 10**length, length


def _edges(text: Ints, position: Ints) -> tuple[Flags, Flags]:
    breaks = (np.diff(position, prepend=-2) != 1) | (np.diff(text, prepend=-1) != 0)
    return breaks, np.append(breaks[1:], True) if len(breaks) else breaks


def deletions(key: Ints, length: int) -> Iterator[Ints]:
    """The keys int64[N] that are left when one of the `length` digits of each key is dropped, position by position."""
    value = key - 10**length
    for place in range(length):
        power = 10**place
        yield (value // (power * 10)) * power + value % power + 10 ** (length - 1)
