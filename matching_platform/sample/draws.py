"""Random columns, and choices by column. One NumPy generator feeds them all, so one seed makes one company."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl


def weighted(rng: np.random.Generator, count: int, weights: Mapping[str, float]) -> pl.Series:
    """`count` keys of `weights`, drawn in proportion to their weights."""
    keys, shares = list(weights), np.array(list(weights.values()))
    return pl.Series(keys).gather(rng.choice(len(keys), count, p=shares / shares.sum()))


def words(rng: np.random.Generator, count: int, choices: Sequence[str]) -> pl.Series:
    """`count` of `choices`, all equally likely."""
    return pl.Series(list(choices)).gather(rng.integers(len(choices), size=count))


def words_for(rng: np.random.Generator, keys: pl.Series, table: Mapping[str, Sequence[str]]) -> pl.Series:
    """For each key one of the words that `table` holds for it, all equally likely."""
    held = pl.DataFrame({"key": list(table), "words": [list(words) for words in table.values()]})
    return (
        pl.DataFrame({"key": keys, "u": rng.random(len(keys))})
        .join(held, on="key", how="left", maintain_order="left")
        .select(pl.col("words").list.get((pl.col("u") * pl.col("words").list.len()).cast(pl.Int64)))
        .to_series()
    )


def digits(rng: np.random.Generator, count: int, length: int) -> pl.Series:
    """`count` strings of `length` digits, of which the first is not zero."""
    return pl.Series(rng.integers(10 ** (length - 1), 10**length, size=count)).cast(pl.String)


def logs(rng: np.random.Generator, count: int, sigma: float) -> np.ndarray:
    """`count` factors around one, their logarithms normal with deviation `sigma`."""
    return rng.lognormal(0.0, sigma, count)


def chance(rng: np.random.Generator, count: int, share: float) -> pl.Expr:
    """True in about `share` of `count` rows."""
    return pl.lit(pl.Series(rng.random(count) < share))


def choose(column: str, by_value: Mapping[str, pl.Expr]) -> pl.Expr:
    """The expression that stands for the value of `column`; null where none does."""
    return pl.coalesce(pl.when(pl.col(column) == value).then(text) for value, text in by_value.items())
