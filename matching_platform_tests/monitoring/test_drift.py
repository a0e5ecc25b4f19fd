"""A column that moved is found, one that did not is left alone, and the page stands alone."""

import numpy as np
import polars as pl
import pytest

from matching_platform.monitoring.drift import drift


def month(seed: int, *, shift: float = 0.0, cards: float = 0.2, missing: float = 0.05) -> pl.DataFrame:
    rng, count = np.random.default_rng(seed), 1500
    countries, absent = rng.choice(["PL", "DE", "CZ"], count).tolist(), rng.random(count) < missing
    return pl.DataFrame(
        {
            "amount": rng.normal(shift, 1.0, count),
            "invoices": rng.integers(1, 4, count),
            "card": rng.random(count) < cards,
            "account": pl.Series(
                [None if gone else code for code, gone in zip(countries, absent, strict=True)], dtype=pl.String
            ),
            "constant": np.ones(count),
        }
    )


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({}, []),
        ({"shift": 1.0}, ["amount"]),
        ({"cards": 0.7}, ["card"]),
        ({"missing": 0.5}, ["account"]),
        ({"missing": 1.0, "shift": 2.0}, ["amount", "account"]),
    ],
)
def test_what_moved_is_named(change: dict[str, float], moved: list[str]) -> None:
    report = drift(month(1), month(2, **change))
    assert report.moved == moved
    assert report.figures["share_moved"] == len(moved) / 5
    assert {"amount", "missing.account"} <= report.figures.keys()


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = drift(month(1), month(2)).html
    assert page.lstrip().lower().startswith("<")
    assert "amount" in page
    assert '<script src="http' not in page


@pytest.mark.parametrize(
    ("current", "named"),
    [
        (month(1).clear(), "needs rows"),
        (month(1).drop("card"), "same columns"),
    ],
)
def test_frames_that_cannot_be_compared_are_refused(current: pl.DataFrame, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        drift(month(1), current)


def test_a_column_that_has_no_distribution_is_named() -> None:
    dated = pl.DataFrame({"booked_on": [None]}, schema={"booked_on": pl.Date})
    with pytest.raises(ValueError, match="booked_on"):
        drift(dated, dated)
