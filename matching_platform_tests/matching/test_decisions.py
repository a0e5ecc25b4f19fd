"""Decisions where more is asked for unattended bookings than a model's own threshold."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matching_platform.ledger.schema import PROPOSALS
from matching_platform.matching.decisions import BY_RECORD, decided

OWN, RAISED, NEVER = 0.9, 0.97, 1.1
WHY = f"{BY_RECORD}limited"


def rows(*decided_at: tuple[str | None, float, str]) -> pl.DataFrame:
    """A transfer each: its invoice, confidence and decision."""
    return pl.DataFrame(
        [(f"t{i}", one, 100 if one else None, sure, said, ["title"]) for i, (one, sure, said) in enumerate(decided_at)],
        schema=PROPOSALS,
        orient="row",
    )


@pytest.mark.parametrize(
    ("own", "auto_from", "confidence", "before", "after"),
    [
        (OWN, OWN, 0.95, "auto", "auto"),
        (OWN, RAISED, 0.95, "auto", "review"),
        (OWN, RAISED, 0.98, "auto", "auto"),
        (OWN, NEVER, 1.0, "auto", "review"),
        (OWN, OWN, 0.95, "review", "auto"),  # What was lifted returns.
        (OWN, OWN, 0.85, "review", "review"),
        (OWN, NEVER, 0.85, "review", "review"),
        (None, 0.0, 0.95, "review", "review"),  # Nobody knows why a person was asked.
        (None, RAISED, 0.95, "auto", "review"),
        (None, RAISED, 0.98, "auto", "auto"),
    ],
)
def test_a_decision_in_force(own: float | None, auto_from: float, confidence: float, before: str, after: str) -> None:
    found = decided(rows(("i", confidence, before), (None, 1.0, "none")), own, auto_from, WHY)
    assert found["decision"].to_list() == [after, "none"]
    lowered = after == "review" and (before == "auto" or (own or NEVER) <= confidence)
    assert found["evidence"].to_list() == [["title", WHY] if lowered else ["title"], ["title"]]


CONFIDENCES = st.floats(0, 1)
PROPOSED = st.lists(st.tuples(st.sampled_from(["i", None]), CONFIDENCES), max_size=5).map(
    lambda some: rows(
        *((one, sure, "none" if one is None else "auto" if sure >= OWN else "review") for one, sure in some)
    )
)


@given(PROPOSED, st.floats(OWN, NEVER), st.floats(OWN, NEVER))
def test_what_is_in_force_depends_on_the_last_rule_alone(proposed: pl.DataFrame, first: float, second: float) -> None:
    once = decided(proposed, OWN, first, WHY)
    assert decided(once, OWN, first, WHY).equals(once)
    assert decided(once, OWN, second, WHY).equals(decided(proposed, OWN, second, WHY))
    assert decided(once, OWN, OWN, WHY).equals(proposed)
    # Where a model's own threshold is not known, nothing is ever booked that was not.
    blind = decided(once, None, second, WHY)
    assert not ((blind["decision"] == "auto") & (once["decision"] != "auto")).any()
    booked = proposed.filter((pl.col("confidence") >= first) & pl.col("invoice_id").is_not_null())
    assert once.filter(decision="auto")["transfer_id"].to_list() == booked["transfer_id"].to_list()
