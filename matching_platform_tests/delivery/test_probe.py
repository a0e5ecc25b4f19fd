"""When a server that answers otherwise than packed is a wrong one."""

from typing import Any

import pytest

from matching_platform.delivery import probe


def row(transfer: str, invoice: str | None, decision: str, confidence: float = 0.99) -> dict[str, Any]:
    amount = 10.0 if invoice else None
    return {
        "transfer_id": transfer,
        "invoice_id": invoice,
        "amount": amount,
        "decision": decision,
        "confidence": confidence,
    }


PACKED = [row("a", "1", "auto"), row("a", "2", "auto"), row("b", "3", "review", 0.5), row("c", None, "none")]


def decided(*decisions: str) -> list[dict[str, Any]]:
    return [{**one, "decision": decision} for one, decision in zip(PACKED, decisions, strict=True)]


@pytest.mark.parametrize(
    ("given", "mistakes", "differences"),
    [
        (PACKED, 0, 0),
        (decided("review", "review", "review", "none"), 0, 1),
        (decided("review", "auto", "review", "none"), 1, 1),
        (decided("auto", "auto", "auto", "none"), 1, 1),
        (decided("none", "none", "review", "none"), 1, 1),
        (decided("auto", "auto", "none", "none"), 1, 1),
        (decided("auto", "auto", "review", "review"), 1, 1),
        ([*decided("review", "review", "review", "none")[:3]], 1, 2),
        ([{**one, "confidence": 0.9} for one in decided("review", "review", "review", "none")], 3, 3),
        ([row("a", "1", "review"), row("a", "3", "review"), *PACKED[2:]], 1, 1),
    ],
)
def test_a_server_may_be_more_careful_than_packed_and_nothing_else(
    given: list[dict[str, Any]], mistakes: int, differences: int
) -> None:
    assert len(probe.mistakes(PACKED, given)) == mistakes
    assert len(probe.differences(PACKED, given)) == differences
