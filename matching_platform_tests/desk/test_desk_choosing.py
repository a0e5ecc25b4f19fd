"""Ticked invoices against what the transfer brings, to the cent; and titles cut where they were recognised."""

from datetime import date

import pytest
from babel import Locale
from hypothesis import given, settings
from hypothesis import strategies as st

from matching_platform.desk.choosing import Rest, choose
from matching_platform.desk.titles import pieces
from matching_platform.matching.marks import Mark
from matching_platform.review.cases import OpenInvoice, Row, Status

EN = Locale.parse("en")


def transfer(amount: int, currency: str = "EUR") -> Row:
    return Row(
        transfer_id="T1",
        booked_on=date(2024, 3, 5),
        amount=amount,
        currency=currency,
        direction="in",
        payer="ACME",
        title="",
        status=Status.WAITING,
        decision="review",
        confidence=0.5,
        stake=0,
        counterparty="",
        invoices=0,
        alike="",
        last=None,
    )


def invoice(name: str, left: int, currency: str = "EUR") -> OpenInvoice:
    day = date(2024, 2, 1)
    return OpenInvoice(name, f"FV/{name}", "C1", "Acme", "sale", day, day, left, left, currency, None)


CASES: list[tuple[str, int, list[tuple[str, int]], dict[str, str], Rest, list[int], int]] = [
    ("meets the amount", 300, [("a", 100), ("b", 200)], {}, "part", [100, 200], 0),
    ("the last one is paid in part", 250, [("a", 100), ("b", 200)], {}, "part", [100, 150], 0),
    ("closed in full", 250, [("a", 100), ("b", 200)], {}, "full", [100, 200], -50),
    ("something is left over", 350, [("a", 100), ("b", 200)], {}, "part", [100, 200], 50),
    ("what is written holds", 250, [("a", 100), ("b", 200)], {"b": "2.00"}, "part", [50, 200], 0),
    ("what is written stays too much", 250, [("a", 100), ("b", 200)], {"a": "1", "b": "2"}, "part", [100, 200], -50),
    ("a credit note is netted", 150, [("a", 200), ("b", -50)], {}, "part", [200, -50], 0),
    ("the amount is written in part", 40, [("a", 100)], {"a": "0.40"}, "part", [40], 0),
]


@pytest.mark.parametrize(
    ("amount", "ticked", "typed", "rest", "settled", "difference"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_the_sum_meets_the_amount(
    amount: int, ticked: list[tuple[str, int]], typed: dict[str, str], rest: Rest, settled: list[int], difference: int
) -> None:
    chosen = choose(transfer(amount), [invoice(*one) for one in ticked], typed, rest, EN)
    assert [line.amount for line in chosen.lines] == settled
    assert [part.amount for part in chosen.allocations] == settled
    assert chosen.difference == difference
    assert not chosen.errors


def test_an_invoice_for_which_nothing_is_left_is_an_error_of_its_line() -> None:
    chosen = choose(transfer(100), [invoice("a", 100), invoice("b", 200)], {}, "part", EN)
    assert [bool(line.error) for line in chosen.lines] == [False, True]
    assert chosen.errors


@pytest.mark.parametrize("typed", ["x", "0", "1.2345"])
def test_what_is_no_amount_is_an_error_of_its_line(typed: str) -> None:
    chosen = choose(transfer(100), [invoice("a", 100), invoice("b", 50)], {"a": typed}, "part", EN)
    assert [bool(line.error) for line in chosen.lines] == [True, False]


def test_currencies_are_not_added_up() -> None:
    chosen = choose(transfer(100, "PLN"), [invoice("a", 25)], {}, "part", EN)
    assert chosen.difference is None
    assert [line.amount for line in chosen.lines] == [25]


@settings(deadline=None)
@given(
    st.integers(1, 10**9),
    st.lists(st.tuples(st.integers(-(10**8), 10**9).filter(bool), st.booleans()), max_size=8),
    st.sampled_from(["part", "full"]),
)
def test_nothing_is_settled_beyond_what_is_open_and_a_part_payment_never_beyond_the_transfer(
    amount: int, ticked: list[tuple[int, bool]], rest: Rest
) -> None:
    invoices = [invoice(str(place), left) for place, (left, _) in enumerate(ticked)]
    typed = {str(place): f"{left / 100:.2f}" for place, (left, wrote) in enumerate(ticked) if wrote}
    chosen = choose(transfer(amount), invoices, typed, rest, EN)
    assert chosen.difference == amount - sum(line.amount for line in chosen.lines) == amount - chosen.sum
    for line in chosen.lines:
        assert abs(line.amount) <= abs(line.invoice.open)
        assert line.amount * line.invoice.open >= 0
        assert line.left == line.invoice.open - line.amount
    if rest == "full":
        assert [line.amount for line in chosen.lines] == [left for left, _ in ticked]
    free = sum(left for left, wrote in ticked if not wrote and left > 0)
    fixed = sum(left for left, wrote in ticked if wrote or left < 0)
    if rest == "part":
        assert chosen.sum == min(free + fixed, max(amount, fixed))


@settings(deadline=None)
@given(st.text(max_size=40), st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=6))
def test_pieces_are_the_title_and_each_knows_its_marks(title: str, spans: list[tuple[int, int]]) -> None:
    marks = [Mark(min(span), max(span), "number", str(place)) for place, span in enumerate(spans)]
    cut = pieces(title, marks)
    assert "".join(piece.text for piece in cut) == title
    assert all(piece.text for piece in cut)
    at = 0
    for piece in cut:
        for place in range(at, at + len(piece.text)):
            assert {mark for mark in marks if mark.start <= place < mark.end} == set(piece.marks)
        at += len(piece.text)
