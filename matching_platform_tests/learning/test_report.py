"""The report: one file that says everything, and says so where something is missing."""

from dataclasses import replace
from datetime import date
from html.parser import HTMLParser

import polars as pl
import pytest

from matching_platform.learning.gate import Sides, Verdict
from matching_platform.learning.report import MISTAKES, ReportData, render, worst_mistakes
from matching_platform.learning.threshold_charts import POINTS
from matching_platform.learning.thresholds import judge
from matching_platform.learning.yardstick import Evaluation, evaluate
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import AUDIT, INVOICES, MATCHES, PROPOSALS, TRANSFERS

COUNT = 40
DAY = date(2024, 5, 2)

LEDGER = Ledger(
    pl.DataFrame(
        [
            (f"i{n}", f"FV/{n}", "sale", "C", "Łódź & <Co>", None, None, DAY, DAY, 123_456 + n, "PLN", None)
            for n in range(2 * COUNT)
        ],
        schema=INVOICES.schema,
        orient="row",
    ),
    pl.DataFrame(
        [(f"t{n}", DAY, 123_456 + n, "PLN", "in", "ŁÓDŹ", None, f"<b>FV {n}</b>") for n in range(COUNT)],
        schema=TRANSFERS.schema,
        orient="row",
    ),
    pl.DataFrame(schema=MATCHES.schema),
)
TRUTH = pl.DataFrame(
    [(f"t{n}", f"i{n}", 123_456 + n) if n else ("t0", None, None) for n in range(COUNT)],
    schema=AUDIT.schema,
    orient="row",
)


def proposals(right: int) -> pl.DataFrame:
    """The first `right` transfers get their own invoice, the others another one; confidence falls from 1."""
    rows = [
        (
            f"t{n}",
            f"i{n if n < right else n + COUNT}",
            123_456 + n,
            1 - n / 100,
            "auto" if n < 35 else "review",
            [f"e{n}"],
        )
        for n in range(COUNT)
    ]
    return pl.DataFrame(rows, schema=PROPOSALS, orient="row")


def judged(right: int) -> Evaluation:
    return evaluate(proposals(right), TRUTH, LEDGER.transfers, LEDGER.invoices)


BARE = ReportData("model-7", "2024-04", 0.995, Sides(judged(30), judged(10), None))
FULL = replace(
    BARE,
    test=Sides(judged(30), judged(10), judged(25), judged(20)),
    newest=Sides(judged(20), judged(10), judged(15), judged(12)),
    champion="model-6",
    verdicts=[Verdict("quality", True, "much better"), Verdict("speed", False, "3 a second")],
    sentences={"quality": "It must be better."},
    threshold=0.7,
    costs={"training_seconds": 51.4, "candidates_per_transfer": 17.26},
    walk=pl.DataFrame(
        [(f"2024-0{m}", side, 0.9, 0.8) for m in (1, 2, 3) for side in ("model", "trees", "rules")],
        schema=["month", "side", "exact_paying", "stp_995"],
        orient="row",
    ),
    mistakes=worst_mistakes(judged(30), proposals(30), TRUTH, LEDGER),
    past={
        "test": judge(proposals(30), TRUTH, LEDGER.transfers, LEDGER.invoices),
        "newest": judge(proposals(20), TRUTH, LEDGER.transfers, LEDGER.invoices),
    },
)


class Page(HTMLParser):
    """Every tag must be closed in order; keeps tags, attributes and text."""

    VOID = ("meta", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: dict[str, list[str | None]] = {}
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("data", [BARE, FULL], ids=["bare", "full"])
def test_the_file_needs_nothing_else(data: ReportData) -> None:
    html = render(data)
    page = Page(html)
    assert not {"script", "link", "img", "iframe"} & set(page.seen)
    assert not {"src", "href"} & set(page.attributes)
    assert "url(http" not in html
    assert len(html) < 5_000_000
    assert "nan" not in page.text.lower().split()


@pytest.mark.parametrize(
    "told",
    [
        "There is no champion yet",
        "No check was made",
        "Nobody has tagged transfers of the newest month",
        "No earlier month has been judged yet",
        "No wrong answer is at hand",
        "No proposals are at hand on which thresholds could be tried",
        "How long the model learned is not known",
    ],
)
def test_a_section_without_data_says_so(told: str) -> None:
    assert told in Page(render(BARE)).text
    assert told not in Page(render(FULL)).text


def test_decision_and_reasons_are_told() -> None:
    text = Page(render(FULL)).text
    assert "Held back speed did not hold" in " ".join(text.split())
    assert all(words in text for words in ("It must be better.", "much better", "Speed", "3 a second"))
    passed = replace(FULL, verdicts=FULL.verdicts[:1])
    assert "it may serve" in Page(render(passed)).text


def test_plots_are_drawn_for_each_side() -> None:
    page = Page(render(FULL))
    classes = [value for value in page.attributes["class"] if value]
    assert classes.count("line model") == 4
    assert classes.count("line champion") == 2
    assert classes.count("line trees") == 4
    assert classes.count("line rules") == 3
    assert "chosen threshold 0.7000" in page.text
    assert "promised 99.5 %" in page.text


def test_months_are_held_against_the_first_year() -> None:
    walk = pl.DataFrame(
        [("2023-06", "model", 0.95, 0.9), ("2024-05", "model", 0.97, 0.7), ("2024-06", "model", 0.1, 0.6)],
        schema=["month", "side", "exact_paying", "stp_995"],
        orient="row",
    )
    text = Page(render(replace(BARE, walk=walk))).text
    assert "2 points below the model's first year: 94.0 %" in text
    assert "2 points below the model's first year: 78.0 %" in text


def test_other_thresholds_are_tried() -> None:
    page = Page(render(FULL))
    classes = [value for value in page.attributes["class"] if value]
    # Precision, share and money, of both exams; the interval of the first, and what its confidence let be expected.
    assert [classes.count(f"line {side}") for side in ("test", "newest", "expected")] == [3, 3, 1]
    assert classes.count("band test") == 1
    assert classes.count("pointed") == 3 * (POINTS + 1), "the chosen threshold is one of them"
    text = " ".join(page.text.split())
    assert "From 0.7 on, 76.9 % of the paying transfers would have been booked, 93.5 % of the bookings right" in text
    assert "PLN 2,469 of 38,276 would have been booked wrongly" in text
    assert "You promise 99.5 %: no threshold holds it with 95 % certainty" in text
    assert "chosen 0.7" in text
    assert "PLN booked wrongly" in text
    assert "from 0.7 on test: 76.9 % booked, 93.5 % right (78.6–99.2), PLN 2,469 wrongly newest: 76.9 % booked" in text


def test_a_model_that_books_nothing_tells_where_its_promise_would_hold() -> None:
    text = " ".join(Page(render(replace(FULL, threshold=1.1))).text.split())
    assert "You promise 99.5 %" in text
    assert "From 1.1 on" not in text
    assert "chosen 1.1" not in text


def test_costs_are_told() -> None:
    text = Page(render(FULL)).text
    assert "The model learned in 51 s. 17.3 candidate invoices are compared for each transfer." in text


def test_what_others_wrote_is_escaped() -> None:
    html = render(FULL)
    assert "<b>FV" not in html
    assert "&lt;b&gt;FV 30&lt;/b&gt;" in html


def test_the_worst_mistakes_come_first() -> None:
    wrong = worst_mistakes(judged(10), proposals(10), TRUTH, LEDGER)
    assert wrong.height == MISTAKES
    assert wrong["transfer_id"].to_list() == ["t0", *(f"t{n}" for n in range(10, 10 + MISTAKES - 1))]
    first, second = wrong.head(2).to_dicts()
    assert first["true"] == []
    assert first["proposed"][0]["invoice"] == "FV/0"
    assert second["proposed"][0]["invoice"] == f"FV/{10 + COUNT}"
    assert second["true"] == [
        {"invoice": "FV/10", "counterparty": "Łódź & <Co>", "amount": 123_466, "whole": 123_466, "currency": "PLN"}
    ]
    assert second["evidence"] == ["e10"]
    assert "single" in second["kinds"]


def test_no_answer_is_a_mistake_without_evidence() -> None:
    none = proposals(30).filter(pl.col("transfer_id") != "t5")
    wrong = worst_mistakes(evaluate(none, TRUTH), none, TRUTH, LEDGER)
    missing = wrong.filter(transfer_id="t5").row(0, named=True)
    assert (missing["decision"], missing["evidence"], missing["proposed"]) == (None, [], [])
    assert "no answer" in Page(render(replace(BARE, mistakes=wrong))).text


def test_nothing_wrong_gives_no_mistakes() -> None:
    truth = TRUTH.filter(pl.col("transfer_id") != "t0")
    assert worst_mistakes(evaluate(proposals(COUNT), truth), proposals(COUNT), truth, LEDGER).is_empty()
