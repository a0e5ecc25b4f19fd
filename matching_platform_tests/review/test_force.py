"""Who has the last word on a transfer: people, finance or the machine."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from matching_platform.review.cases import Status
from matching_platform.review.decisions import Action, Allocation, Decision
from matching_platform.review.force import Force
from matching_platform.review.parts import Parts
from matching_platform_tests.review.bench import DAY, books, invoice, transfer

AT = datetime(2024, 3, 12, 12, tzinfo=UTC)
ON, NEXT = AT.date(), AT.date() + timedelta(days=2)  # a tag of the next day surely came later
A, B, GONE = {"A": 100}, {"B": 60}, {"GONE": 100}

Told = tuple[Action, dict[str, int]]
ACCEPT: Told = (Action.ACCEPT, A)
CHANGE: Told = (Action.CHANGE, B)
NOTHING: Told = (Action.NOTHING, {})
LATER: Told = (Action.LATER, {})
UNDO: Told = (Action.WITHDRAW, {})


def history(told: list[Told]) -> list[Decision]:
    return [
        Decision(number, "T", DAY, AT, "anna", action, tuple(Allocation(*part) for part in parts.items()), None, None)
        for number, (action, parts) in enumerate(told, 1)
    ]


@pytest.mark.parametrize(
    ("tag", "tagged_on", "booked", "told", "status", "settles"),
    [
        (None, ON, {}, [], Status.WAITING, {}),
        (None, ON, A, [], Status.BOOKED, A),
        (None, ON, A, [CHANGE], Status.DECIDED, B),
        (None, ON, A, [CHANGE, UNDO], Status.BOOKED, A),
        (None, ON, A, [NOTHING], Status.DECIDED, {}),
        (None, ON, {}, [ACCEPT, LATER], Status.LATER, {}),
        (None, ON, {}, [ACCEPT, LATER, UNDO], Status.DECIDED, A),
        (None, ON, {}, [(Action.ACCEPT, GONE)], Status.WAITING, {}),
        (None, ON, {}, [(Action.CHANGE, {"A": 101})], Status.WAITING, {}),
        (A, ON, {}, [], Status.TAGGED, A),
        (A, ON, A, [], Status.BOOKED, A),
        (A, ON, {}, [LATER], Status.LATER, A),
        (A, ON, {}, [CHANGE], Status.DECIDED, B),
        (A, NEXT, {}, [CHANGE], Status.TAGGED, A),
        # What was decided comes back as a tag: it is no word of finance.
        (A, ON, {}, [ACCEPT, UNDO], Status.WAITING, {}),
        (A, ON, {}, [ACCEPT, LATER], Status.LATER, {}),
        (A, NEXT, {}, [ACCEPT], Status.DECIDED, A),
        (A, NEXT, {}, [CHANGE, NOTHING], Status.TAGGED, A),
        (A, ON, {}, [(Action.ACCEPT, GONE)], Status.TAGGED, A),
    ],
)
def test_the_last_word(
    tag: dict[str, int] | None,
    tagged_on: date,
    booked: dict[str, int],
    told: list[Told],
    status: Status,
    settles: dict[str, int],
) -> None:
    tags = [("T", *part, tagged_on) for part in (tag or {}).items()]
    held = books([transfer("T", 100)], [invoice("A", 100), invoice("B", 60)], tags=tags)
    rows = {"A": 0, "B": 1}
    amounts = {"transfer": [0] * len(booked), "invoice": [rows[one] for one in booked], "amount": [*booked.values()]}
    parts = Parts.of(1, pl.DataFrame(amounts))
    force = Force(held, parts, np.array([tag is not None and tag != booked]))
    assert force.of(0, history(told)) == ({rows[one]: amount for one, amount in settles.items()}, status)
