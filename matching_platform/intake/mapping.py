"""Which column of a sheet is which of the contract: proposed by the headers, confirmed by a person, and remembered."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, replace
from typing import Final, get_args

import polars as pl
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from matching_platform.intake.followed import Followed
from matching_platform.intake.incoming import Incomings
from matching_platform.intake.sheets import Sheet, folding
from matching_platform.intake.synonyms import (
    AMOUNT_IN,
    AMOUNT_OUT,
    ANY_ACCOUNTS,
    OWN_ACCOUNT,
    OWN_ACCOUNTS,
    SIGNED,
    SYNONYMS,
    TELLING,
    THEIR_ACCOUNTS,
)
from matching_platform.intake.values import SIGNS, Decimal, Order, UnreadableError, amounts, dates
from matching_platform.ledger.money import CURRENCIES
from matching_platform.ledger.schema import TABLES, Kind
from matching_platform.store.versions import Store

RECORD: Final = "imports/mappings"

_ALIKE: Final = 88.0  # of 100, for a header that is not quite one of the names
_SAMPLE: Final = 200  # rows by which a column's content is judged
# A header that promises one of these is taken at its word where no other has it: what is wrong below it is told then.
_PROMISED: Final = ("booked_on", "issued_on", "amount")
_STANDING_FOR: Final = {"amount": (AMOUNT_IN, AMOUNT_OUT)}
_IBAN: Final = r"^([A-Z]{2}\d{2}[A-Z0-9]{10,30}|\d{26})$"


@dataclass(frozen=True)
class ColumnMapping:
    """What a sheet holds: `columns` of the contract by their headers, several of which are joined by a blank, and
    `constants` for columns that no header tells. `dates` and `decimal` say what a column leaves open."""

    table: Incomings
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    dates: Order = ""
    decimal: Decimal = ""

    def changed(
        self,
        columns: Mapping[str, tuple[str, ...]],
        constants: Mapping[str, str],
        dates: Order = "",
        decimal: Decimal = "",
    ) -> "ColumnMapping":
        """With some columns told anew; what is told as a constant comes from no column any more, and the other way."""
        kept = {name: headers for name, headers in self.columns.items() if name not in constants}
        fixed = {name: value for name, value in self.constants.items() if name not in columns}
        return replace(
            self,
            columns={**kept, **columns},
            constants={**fixed, **constants},
            dates=dates or self.dates,
            decimal=decimal or self.decimal,
        )


_MAPPING: Final = TypeAdapter(ColumnMapping)


class Mappings:
    """The confirmed mappings of a store, by the fingerprint of the row of headers; the last one counts."""

    def __init__(self, store: Store) -> None:
        self._confirmed = Followed(store, RECORD)

    def of(self, fingerprint: str) -> ColumnMapping | None:
        entries = (entry.payload for entry in reversed(self._confirmed.entries()))
        found = next((entry["mapping"] for entry in entries if entry["headers"] == fingerprint), None)
        return _MAPPING.validate_python(found) if found else None

    def remember(self, fingerprint: str, mapping: ColumnMapping, actor: str) -> None:
        """Saying the same again adds nothing to the record."""
        if self.of(fingerprint) != mapping:
            payload = {"headers": fingerprint, "mapping": _MAPPING.dump_python(mapping, mode="json")}
            self._confirmed.record.append(payload, actor=actor)


def propose(sheet: Sheet, table: Incomings | None = None) -> ColumnMapping:
    """The likeliest mapping; of both tables the one of which more columns are found, where `table` names none."""
    tables: Iterable[Incomings] = (table,) if table else get_args(Incomings)
    proposed = [ColumnMapping(one, _columns(sheet, one), {}) for one in tables]
    best = max(proposed, key=lambda mapping: len(TELLING[mapping.table] & mapping.columns.keys()))
    currency = {} if "currency" in best.columns else _currency(best)
    return replace(best, constants={**currency, **_signed(sheet, best)})


def _columns(sheet: Sheet, table: str) -> dict[str, tuple[str, ...]]:
    """Each column of the contract with the header that is most like one of its names; no header serves twice."""
    from rapidfuzz import fuzz

    headers = list(zip(sheet.headers, folding(list(sheet.headers)), strict=True))
    scored = []
    for order, (target, names) in enumerate(SYNONYMS[table].items()):
        for rank, name in enumerate(folding(list(names))):
            for header, words in headers:
                likeness = fuzz.token_sort_ratio(_bare(words), name)
                if likeness >= _ALIKE:
                    scored.append((likeness - rank / 10, -order, target, header))
    found: dict[str, str] = {}
    for _, _, target, header in sorted(scored, reverse=True):
        if target not in found and header not in found.values() and _fits(sheet, table, target, header):
            found[target] = header
    for _, _, target, header in sorted(scored, reverse=True):
        wanting = target in _PROMISED and not found.keys() & {target, *_STANDING_FOR.get(target, ())}
        if wanting and header not in found.values():
            found[target] = header
    return {target: (header,) for target, header in found.items()}


def _bare(words: str) -> str:
    """A header without the currency that it may name: AMOUNT EUR."""
    kept = [word for word in words.split() if word not in CURRENCIES]
    return " ".join(kept) or words


def _fits(sheet: Sheet, table: str, target: str, header: str) -> bool:
    """Whether the content may be what the header promises; words below a column of dates or amounts are no part of it."""
    values = sheet.frame[header].drop_nulls().head(_SAMPLE)
    told = values.filter(values.str.contains(r"\d"))
    kinds = {column.name: column.kind for column in TABLES[table].columns}
    kind = kinds.get(target, Kind.AMOUNT if target.startswith("amount") else Kind.TEXT)
    if kind is Kind.DATE:
        return not told.is_empty() and _reads(lambda: dates(told))
    if kind is Kind.AMOUNT:
        return _reads(lambda: amounts(told))
    if target == "currency":
        return bool(values.str.to_uppercase().is_in(list(CURRENCIES)).all())
    return _is_fitting_party(sheet, target, header) if table == "transfers" else True


def _is_fitting_party(sheet: Sheet, target: str, header: str) -> bool:
    """Whether a column may hold names, accounts of others, or our own account."""
    (words,) = folding([header])
    if target == "counterparty_name":
        return not _holds_accounts(sheet.frame[header])
    if target == OWN_ACCOUNT:
        return words in OWN_ACCOUNTS or _is_own(sheet, header, words)
    if target == "counterparty_account":
        return not _is_own(sheet, header, words) and (words != "COUNTERPARTY" or _holds_accounts(sheet.frame[header]))
    return True


def _is_own(sheet: Sheet, header: str, words: str) -> bool:
    """Whether an account is ours where its header does not say: it is the same in every row, and another column holds
    those of others."""
    cells = sheet.frame[header]
    if words not in ANY_ACCOUNTS or cells.has_nulls() or cells.n_unique() > 1:
        return False
    others = [(folding([other])[0], sheet.frame[other]) for other in sheet.headers if other != header]
    return any(
        _holds_accounts(values) and (values.n_unique() > 1 or other in THEIR_ACCOUNTS)
        for other, values in others
        if other not in OWN_ACCOUNTS
    )


def _holds_accounts(values: pl.Series) -> bool:
    told = values.drop_nulls()
    return not told.is_empty() and bool(told.str.replace_all(r"[\s']", "").str.contains(_IBAN).all())


def _reads(read: Callable[[], object]) -> bool:
    """Whether a column can be read; what can be read in two ways can be read."""
    try:
        read()
    except UnreadableError as error:
        return error.advice.startswith("say")
    return True


def _currency(mapping: ColumnMapping) -> dict[str, str]:
    """The one currency that the headers of amounts name."""
    headers = [header for target, names in mapping.columns.items() if target.startswith("amount") for header in names]
    named = [_codes(header) for header in headers]
    codes = set().union(*named)
    return {"currency": codes.pop()} if len(codes) == 1 and all(named) else {}


def _signed(sheet: Sheet, mapping: ColumnMapping) -> dict[str, str]:
    """That amounts of transfers have signs, where nothing else tells their direction."""
    if mapping.table != "transfers" or "direction" in mapping.columns or "amount" not in mapping.columns:
        return {}
    (header,) = mapping.columns["amount"]
    negative = sheet.frame[header].str.contains(r"^\D*[-−–(]\D*\d|\d\D*[-−–]\D*$")
    return {"direction": SIGNED} if negative.any() else {}


def _codes(text: str) -> set[str]:
    words = {word for word in re.findall(r"\b[A-Z]{3}\b", text) if word in CURRENCIES}
    return words | {codes[0] for sign, codes in SIGNS.items() if len(codes) == 1 and sign in text}
