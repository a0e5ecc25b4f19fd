"""Proposing anew: with the same knowledge it says what `match` says, and what people decide changes what it says next."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from matching_platform.ledger.months import first_day, month_of
from matching_platform.ledger.reading import Ledger
from matching_platform.matching.again import Again
from matching_platform.matching.history import memory_before
from matching_platform.matching.matcher import Matched, Matcher
from matching_platform_tests.matching.worlds import INVOICE, TRANSFER

NOTHING_SAID = pl.DataFrame(schema={"transfer_id": pl.String, "invoice_id": pl.String, "amount": pl.Int64})


@pytest.fixture(scope="module")
def early(small_model: Path, small_ledger: Ledger) -> Matcher:
    """A model that remembers the first months only, so that the later ones teach it something."""
    matcher, months = Matcher.load(small_model), small_ledger.months()
    memory = memory_before(small_ledger, months[2])
    card = matcher.card | {"trained_until": months[1]}
    return Matcher(matcher.pairs, matcher.sets, memory, matcher.calibration, matcher.auto_from, card)


@pytest.fixture(scope="module")
def again(early: Matcher, small_ledger: Ledger) -> Again:
    return Again(early, small_ledger)


@pytest.fixture(scope="module")
def last(small_ledger: Ledger) -> str:
    return small_ledger.months()[-1]


def said_before(ledger: Ledger, month: str) -> pl.DataFrame:
    """The tags of the transfers booked before a month."""
    earlier = ledger.transfers.filter(pl.col("booked_on") < first_day(month))
    return ledger.matches.join(earlier, on="transfer_id", how="semi", maintain_order="left")


def booked_in(ledger: Ledger, month: str) -> list[str]:
    return ledger.transfers.filter(month_of("booked_on") == month)["transfer_id"].to_list()


def test_with_the_same_knowledge_it_says_what_match_says(again: Again, early: Matcher, small_ledger: Ledger) -> None:
    for month in (small_ledger.months()[-1], small_ledger.months()[-3], small_ledger.months()[-1]):
        known = said_before(small_ledger, month)
        anew, matched = (
            again.propose(booked_in(small_ledger, month), known, known),
            early.match_in_full(small_ledger, [month]),
        )
        assert_frame_equal(anew.proposals, matched.proposals, check_exact=True)
        assert_frame_equal(anew.runners_up, matched.runners_up, check_exact=True)
        assert anew.runners_up.height > 0


def test_what_is_kept_from_question_to_question_changes_nothing(
    early: Matcher, small_ledger: Ledger, last: str
) -> None:
    ids, known = booked_in(small_ledger, last), said_before(small_ledger, last)
    kept = Again(early, small_ledger)

    @settings(max_examples=6, deadline=None)
    @given(st.sets(st.sampled_from(ids), min_size=1, max_size=12), st.integers(0, len(known)), st.integers(0, 40))
    def check(asked: set[str], forgotten: int, decided: int) -> None:
        rest = pl.concat([known.slice(0, forgotten), known.slice(forgotten + 1), tags_of(small_ledger, ids[:decided])])
        fresh = Again(early, small_ledger).propose(sorted(asked), rest, rest)
        held = kept.propose(sorted(asked), rest, rest)
        assert set(held.proposals["transfer_id"]) == asked
        assert_frame_equal(held.proposals, fresh.proposals, check_exact=True)
        assert_frame_equal(held.runners_up, fresh.runners_up, check_exact=True)

    check()


def tags_of(ledger: Ledger, ids: list[str]) -> pl.DataFrame:
    return ledger.matches.filter(pl.col("transfer_id").is_in(ids))


def test_what_is_in_force_is_never_settled_twice(again: Again, small_ledger: Ledger, last: str) -> None:
    ids, known = booked_in(small_ledger, last), said_before(small_ledger, last)
    force = pl.concat([known, tags_of(small_ledger, ids[::2])]).select("transfer_id", "invoice_id", "amount")
    made = again.propose(ids[1::2], force, known).proposals
    settled = pl.concat([force, made.select(force.columns)]).drop_nulls("invoice_id")
    new = settled.join(made, on="invoice_id", how="semi").group_by("invoice_id").agg(pl.col("amount").sum())
    held = new.join(small_ledger.invoices, on="invoice_id")
    assert held.height == made["invoice_id"].n_unique() - made["invoice_id"].has_nulls()
    assert held.filter(pl.col("amount").abs() > pl.col("amount_right").abs()).is_empty()


def test_months_that_are_asked_together_know_of_each_other(again: Again, small_ledger: Ledger) -> None:
    months = small_ledger.months()[-2:]
    known = said_before(small_ledger, months[0])
    made = again.propose([one for month in months for one in booked_in(small_ledger, month)], known, known).proposals
    settled = made.drop_nulls("invoice_id").group_by("invoice_id").agg(pl.col("amount").sum())
    held = settled.join(small_ledger.invoices, on="invoice_id")
    assert held.filter(pl.col("amount").abs() > pl.col("amount_right").abs()).is_empty()
    assert set(made["transfer_id"]) == {one for month in months for one in booked_in(small_ledger, month)}


def paid_again(ledger: Ledger, month: str, proposals: pl.DataFrame) -> Iterator[tuple[str, dict[str, object]]]:
    """An earlier transfer of a payer, and what is proposed for a later one: a single invoice."""
    singles = proposals.filter((pl.len().over("transfer_id") == 1) & pl.col("invoice_id").is_not_null())
    mine = ledger.transfers.filter(month_of("booked_on") == month).sort("booked_on", "transfer_id")
    for _, of_payer in mine.group_by("counterparty_account", maintain_order=True):
        later = of_payer[1:].join(singles, on="transfer_id", maintain_order="left")
        if len(of_payer) > 1 and len(later):
            yield of_payer["transfer_id"][0], later.row(0, named=True)


def test_a_correction_changes_what_is_proposed_for_the_payer_next(
    again: Again, small_ledger: Ledger, last: str
) -> None:
    known = said_before(small_ledger, last).select("transfer_id", "invoice_id", "amount")
    proposals = again.propose(booked_in(small_ledger, last), known, known).proposals
    seen = 0
    for earlier, later in paid_again(small_ledger, last, proposals):
        whole = small_ledger.invoices.filter(invoice_id=later["invoice_id"])["amount"]
        decision = pl.DataFrame([(earlier, later["invoice_id"], whole[0])], schema=known.schema, orient="row")
        said = pl.concat([known, decision])
        now = again.propose([str(later["transfer_id"])], said, said).proposals
        assert later["invoice_id"] not in now["invoice_id"].to_list()
        withdrawn = again.propose([str(later["transfer_id"])], known, known).proposals
        assert withdrawn["invoice_id"].to_list() == [later["invoice_id"]]
        seen += 1
        if seen == 5:
            break
    assert seen == 5


def stranger(ledger: Ledger, month: str) -> tuple[Ledger, str]:
    """The ledger with two transfers in the `month` from an account that nobody knows, under a name that nobody has; and an
    invoice for each, of a counterparty whose other invoices are settled and to whose amounts there are no others like."""
    day = first_day(month)
    amounts = [7_777_13, 8_888_27]
    party = {"counterparty_id": "C-strange", "counterparty_name": "Zwyczajna Drukarnia", "currency": "PLN"}
    owed = [
        {
            **INVOICE,
            **party,
            "invoice_id": f"S{n}",
            "number": f"ZD/{n}/X",
            "amount": amount,
            "counterparty_account": None,
        }
        | {"issued_on": date(day.year, day.month, 1), "due_on": date(day.year, day.month, 9)}
        for n, amount in enumerate(amounts)
    ]
    paid = [
        {**TRANSFER, "transfer_id": f"U{n}", "amount": amount, "counterparty_name": "QWXYZ HOLDING"}
        | {"counterparty_account": "PL99000011112222333344445555", "title": "PRZELEW", "currency": "PLN"}
        | {"booked_on": date(day.year, day.month, 10 + n)}
        for n, amount in enumerate([1_11, amounts[1] // 3])
    ]

    def grown(frame: pl.DataFrame, rows: list[dict[str, object]]) -> pl.DataFrame:
        return pl.concat(
            [frame, pl.DataFrame([dict.fromkeys(frame.columns) | row for row in rows], schema=frame.schema)]
        )

    return replace(ledger, invoices=grown(ledger.invoices, owed), transfers=grown(ledger.transfers, paid)), "C-strange"


def test_an_account_that_a_person_has_tied_to_a_counterparty_finds_him(
    early: Matcher, small_ledger: Ledger, last: str
) -> None:
    ledger, party = stranger(small_ledger, last)
    again, known = Again(early, ledger), said_before(ledger, last).select("transfer_id", "invoice_id", "amount")
    ours = ledger.invoices.filter(counterparty_id=party)["invoice_id"]

    def considered(matched: Matched) -> set[str]:
        return {*matched.proposals["invoice_id"], *matched.runners_up["invoice_id"]} & set(ours)

    before = again.propose(["U1"], known, known)
    assert considered(before) == set()
    decision = pl.DataFrame([("U0", "S0", 1_11)], schema=known.schema, orient="row")
    taught = again.propose(["U1"], pl.concat([known, decision]), pl.concat([known, decision]))
    assert "S1" in considered(taught)
    # Balances alone do not tell who he is.
    assert considered(again.propose(["U1"], pl.concat([known, decision]), known)) == set()
    assert considered(again.propose(["U1"], pl.concat([known, decision]))) == set()
    # What is said of a transfer itself is no news to it.
    assert considered(again.propose(["U0", "U1"], pl.concat([known, decision]), pl.concat([known, decision]))) == set()


def test_an_invoice_of_later_days_is_not_proposed(again: Again, small_ledger: Ledger, last: str) -> None:
    known = said_before(small_ledger, last)
    made = again.propose(booked_in(small_ledger, last), known, known)
    both = pl.concat(
        [made.proposals.select("transfer_id", "invoice_id"), made.runners_up.select("transfer_id", "invoice_id")]
    )
    dated = both.join(small_ledger.transfers, on="transfer_id").join(small_ledger.invoices, on="invoice_id")
    assert dated.height > 100
    assert dated.filter(pl.col("issued_on") > pl.col("booked_on").dt.offset_by("7d")).is_empty()


def test_what_the_ledger_lacks_is_named(again: Again) -> None:
    with pytest.raises(LookupError, match="no transfer 'T-none'"):
        again.propose(["T-none"], NOTHING_SAID)


def test_nothing_is_asked_nothing_is_said(again: Again, small_ledger: Ledger, last: str) -> None:
    again.prepare(last, NOTHING_SAID)
    made = again.propose([], NOTHING_SAID)
    assert made.proposals.is_empty()
    assert made.runners_up.is_empty()
