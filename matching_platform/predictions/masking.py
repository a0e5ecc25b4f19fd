"""Personal data out of what is kept."""

from collections.abc import Collection
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import polars as pl

# Free text may say anything, so nothing of it is kept, nor of what speaks about it.
_FREE: Final = {"title": ("title", "evidence")}
_DIGEST_BYTES: Final = 16


@dataclass(frozen=True)
class Masking:
    """Replaces `columns` by keyed pseudonyms (BLAKE2b, 32 hexadecimal digits), and drops free text.

    Equal values get equal pseudonyms, in every column and table and under the same key, so that one can count and join
    but not look back; who has the key can only try values. What stays as it was: ids, invoice numbers, references, dates,
    amounts, currencies, directions, what was decided, which values are missing or empty, and every column not named.
    """

    columns: frozenset[str]
    _key: bytes

    @classmethod
    def of(cls, columns: Collection[str], secret: bytes) -> "Masking":
        """Masks `columns` under any secret, long or short."""
        return cls(frozenset(columns), blake2b(secret).digest())

    def __call__(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The same rows and columns, masked; of free text, nulls."""
        free = {name for column in self.columns for name in _FREE.get(column, ())}
        named = [name for name in frame.columns if name in self.columns - free]
        emptied = [pl.lit(None, dtype).alias(name) for name, dtype in frame.schema.items() if name in free]
        if not named or frame.is_empty():
            return frame.with_columns(emptied)
        values = pl.concat([frame[name].drop_nulls().rename("value") for name in named]).unique()
        hidden = pl.Series([self.pseudonym(value) for value in values], dtype=pl.String)
        return frame.with_columns(*emptied, pl.col(named).replace_strict(values, hidden, return_dtype=pl.String))

    def pseudonym(self, value: str) -> str:
        """What stands for a value; an empty one stays empty."""
        return blake2b(value.encode(), key=self._key, digest_size=_DIGEST_BYTES).hexdigest() if value else value
