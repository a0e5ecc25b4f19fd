"""What is asked of the desk to be measured, at a small company."""

from pathlib import Path

import pytest

from benchmarks import desk
from matching_platform.review.decisions import Action
from matching_platform.review.records import Decisions

TIMES = 3


@pytest.fixture(scope="module")
def made(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> desk.Made:
    return desk.make(tmp_path_factory.mktemp("answers") / "desk", small_model, waiting=20, invoices=120)


def test_a_person_reviews_and_every_answer_is_timed(made: desk.Made) -> None:
    with desk.served(made) as person:
        desk.review(person, made.month, TIMES, thinks=0)
        decided = Decisions(made.platform.database).read()
    assert {what: len(taken) for what, taken in person.seconds.items()} == {
        "queue page": TIMES,
        "filtered queue": TIMES,
        "case": TIMES,
        "change, this payer's invoices": TIMES,
        "search of open invoices": TIMES,
        "booked page": TIMES,
        "case after a decision": TIMES,
        "accepting": TIMES,
    }
    assert all(seconds > 0 for taken in person.seconds.values() for seconds in taken)
    assert len({one.transfer_id for one in decided}) == TIMES
    assert {one.action for one in decided} <= {Action.ACCEPT, Action.NOTHING}
    shown = desk.table(person.seconds, "small")
    assert shown.row_count == len(person.seconds)
    assert [*shown.columns[-1].cells] == [str(TIMES)] * shown.row_count


def test_half_of_the_month_waits_and_half_is_booked(made: desk.Made) -> None:
    rows = made.platform.read("proposals", made.month)
    by_decision = dict(rows.unique("transfer_id")["decision"].value_counts().iter_rows())
    waiting = sum(count for decision, count in by_decision.items() if decision != "auto")
    assert waiting == pytest.approx(20, abs=2)
    assert by_decision["auto"] > 0
    assert made.platform.catalog.months("matches")[-1] < made.month
