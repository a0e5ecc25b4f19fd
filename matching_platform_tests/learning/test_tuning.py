"""A search never judges by what it learned from, keeps to its budget, and goes on after a kill as if there were none."""

import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import polars as pl
import pytest

from matching_platform.learning import tuning
from matching_platform.learning.training import TooLittleError, TrainingSettings
from matching_platform.learning.tuning import SPACE, Budget, Found, Span, StudyError, scores, search
from matching_platform.learning.walk import Learner
from matching_platform.learning.yardstick import Evaluation
from matching_platform.ledger.months import month_of
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.validation import validate
from matching_platform.sample.company import Settings, generate

QUICK = TrainingSettings(folds=2, hidden=8, pair_epochs=1, set_epochs=1)
TINY = {"hidden": Span(8, 12, ""), "pair_epochs": Span(1, 3, ""), "learning_rate": Span(1e-3, 1e-2, "")}
ENOUGH, TWICE = Budget(trials=3, minutes=10), Budget(trials=2, minutes=10)


def company() -> Ledger:
    tables = generate(Settings(seed=5, months=6, transfers_per_month=40))
    return Ledger(*(validate(name, tables[name]) for name in ("invoices", "transfers", "matches")))


def labelled(ledger: Ledger) -> dict[str, pl.DataFrame]:
    return dict(zip(ledger.months(), Learner(ledger).examples(ledger.months()[-1], lambda *_: None), strict=True))


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return company()


@pytest.fixture(scope="module")
def examples(ledger: Ledger) -> dict[str, pl.DataFrame]:
    return labelled(ledger)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "SPACE", TINY)
    monkeypatch.setattr(tuning, "_FIRST_RUNG", 2)


def told(found: Found) -> list[dict[str, object]]:
    """All that a search came to, but for the time it took."""
    return [*found.trials.drop("seconds").to_dicts(), asdict(found.best)]


@pytest.mark.parametrize("name", SPACE)
def test_the_defaults_lie_within_the_space(name: str) -> None:
    default, span = getattr(TrainingSettings(), name), SPACE[name]
    assert span.low < default < span.high
    assert {type(span.low), type(span.high)} == {type(default)}
    assert span.because


def test_what_is_judged_is_later_than_what_was_learned(
    tiny: None, examples: dict[str, pl.DataFrame], ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[tuple[list[str], str]] = []
    real, months = tuning.train, ledger.months()

    def spy(frames: list[pl.DataFrame], known: Ledger, until: str, *rest: object) -> object:
        booked = known.transfers.join(known.matches, on="transfer_id", how="semi")
        last = booked.select(month_of("booked_on")).to_series().max()
        learned.append(([m for m in months if any(examples[m] is frame for frame in frames)], last))
        return real(frames, known, until, *rest)

    monkeypatch.setattr(tuning, "train", spy)
    found = search(examples, ledger, QUICK, Budget(1, 10), tmp_path)
    assert learned == [(months[2:4], months[3]), (months[:4], months[3])]
    (row,) = found.trials.to_dicts()
    assert row["state"] == "complete"
    assert 0 < row["exact_paying"] / 2 <= row["score"] <= 1
    assert (found.best, found.score) == (QUICK, found.given_score)
    assert not (tmp_path / "checkpoints").exists()


def test_the_same_search_again_trains_nothing_and_other_data_or_settings_start_anew(
    tiny: None, examples: dict[str, pl.DataFrame], ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    real = tuning.train
    monkeypatch.setattr(tuning, "train", lambda *given: trained.append(given[2]) or real(*given))
    fewer = {month: frame for month, frame in examples.items() if month != ledger.months()[0]}
    once = Budget(1, 10)

    def trainings(*given: object) -> int:
        trained.clear()
        search(*given, once, tmp_path)
        return len(trained)

    assert trainings(examples, ledger, QUICK) == 2
    assert trainings(examples, ledger, QUICK) == 0
    assert trainings(examples, ledger, replace(QUICK, seed=8)) == 2
    assert trainings(fewer, ledger, QUICK) == 2
    monkeypatch.setattr(tuning, "SPACE", {"hidden": Span(8, 16, "")})
    assert trainings(examples, ledger, QUICK) == 2


@pytest.mark.parametrize("killed_after", [1, 6])
def test_an_interrupted_search_comes_to_the_same(
    tiny: None, examples: dict[str, pl.DataFrame], ledger: Ledger, tmp_path: Path, killed_after: int
) -> None:
    reports: list[str] = []

    def killed(step: str, share: float) -> None:
        reports.append(step)
        if len(reports) > killed_after:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        search(examples, ledger, QUICK, ENOUGH, tmp_path / "one", killed)
    on = search(examples, ledger, QUICK, ENOUGH, tmp_path / "one")
    assert told(on) == told(search(examples, ledger, QUICK, ENOUGH, tmp_path / "other"))
    assert on.trials["trial"].to_list() == [0, 1, 2]
    assert on.trials.select("hidden", "pair_epochs", "learning_rate").n_unique() == 3


SCRIPT = """
import sys
from pathlib import Path
from matching_platform_tests.learning import test_tuning as t
ledger = t.company()
t.tuning.SPACE, t.tuning._FIRST_RUNG = t.TINY, 2
found = t.search(t.labelled(ledger), ledger, t.QUICK, t.TWICE, Path(sys.argv[1]), lambda *told: print(*told, flush=True))
print(t.told(found))
"""


def test_a_killed_process_is_survived(
    tiny: None, examples: dict[str, pl.DataFrame], ledger: Ledger, tmp_path: Path
) -> None:
    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path / "killed")]
        return subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)

    with start() as process:
        assert process.stdout is not None
        assert any(line == "search 0.5\n" for line in process.stdout), "the first trial is done"
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    with start() as again:
        lines = again.communicate(timeout=120)[0].splitlines()
    assert lines[0] == "search 0.5"
    assert lines[-1] == str(told(search(examples, ledger, QUICK, TWICE, tmp_path / "whole")))


# With figures that follow from the settings alone, a trial takes no time.


def judgement(surest_first: list[str]) -> Evaluation:
    """An evaluation of transfers by falling confidence: 'exact', 'wrong', or 'nothing' where no invoice is involved."""
    count = len(surest_first)
    outcomes = pl.DataFrame({"transfer_id": [f"t{n:05d}" for n in range(count)], "what": surest_first}).with_columns(
        confidence=1 - pl.int_range(pl.len()) / count,
        exact=pl.col("what") != "wrong",
        paying=pl.col("what") != "nothing",
        booked=pl.col("what") != "nothing",
    )
    return Evaluation({"stp_995": 0.5, "exact_paying": 0.5}, pl.DataFrame(), outcomes)


@pytest.mark.parametrize(
    ("surest_first", "low", "high"),
    [
        (["exact"] * 9, 1.0, 1.0),
        (["wrong"] * 9, 0.0, 0.0),
        (["nothing"] * 9, 0.0, 0.0),
        (["exact"] * 10 + ["nothing"] * 30, 1.0, 1.0),
        # Half right, the surer half: whatever is drawn, about half can be booked.
        (["exact"] * 500 + ["wrong"] * 500, 0.49, 0.51),
        # The surest of all is wrong: among these few nothing can be booked, in the third of the draws without it all.
        (["wrong"] + ["exact"] * 99, 0.62, 0.72),
        (["exact"] * 99 + ["wrong"], 0.985, 0.995),
    ],
)
def test_a_score_is_half_straight_through_and_half_exactness(surest_first: list[str], low: float, high: float) -> None:
    outcomes = judgement(surest_first).outcomes
    assert low - 1e-9 <= scores(outcomes).mean() <= high + 1e-9
    assert (scores(outcomes.reverse()) == scores(outcomes)).all()


def test_equal_confidences_are_booked_together() -> None:
    outcomes = judgement(["exact"] * 50 + ["wrong"] * 50).outcomes
    assert scores(outcomes.with_columns(confidence=pl.lit(0.9))).mean() == pytest.approx(0.25, abs=0.01)


@pytest.fixture
def judged(tiny: None, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(months learned from, width) of each training, of which the wider ones are the better."""
    calls: list[tuple[int, int]] = []

    def judge(_course: object, months: list[str], settings: TrainingSettings, *_: object) -> Evaluation:
        calls.append((len(months), settings.hidden))
        return judgement(["exact"] * settings.hidden + ["wrong"] * (100 - settings.hidden))

    monkeypatch.setattr(tuning._Course, "judge", judge)
    monkeypatch.setattr(tuning, "SPACE", {**TINY, "hidden": Span(8, 64, "")})
    return calls


def test_what_falls_behind_is_pruned_and_the_best_is_found(
    judged: list[tuple[int, int]], examples: dict[str, pl.DataFrame], ledger: Ledger, tmp_path: Path
) -> None:
    given = replace(QUICK, hidden=30)
    found = search(examples, ledger, given, Budget(30, 10), tmp_path)
    complete, pruned = (found.trials.filter(state=state) for state in ("complete", "pruned"))
    assert (complete.height + pruned.height, found.trials["hidden"][0]) == (30, 30)
    assert min(complete.height, pruned.height) > 5
    assert pruned["score"].null_count() == pruned.height
    assert [months for months, _ in judged].count(4) == complete.height
    assert found.best.hidden == complete["hidden"].max() > 50
    assert found.score == complete["score"].max() > found.given_score
    assert 0 < found.gain[0] < found.score - found.given_score < found.gain[1]
    assert asdict(found.best).keys() == asdict(given).keys()


def test_of_equals_the_settings_as_given_are_best(
    judged: list[tuple[int, int]],
    examples: dict[str, pl.DataFrame],
    ledger: Ledger,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tuning._Course, "judge", lambda *_: judgement(["exact", "wrong"]))
    found = search(examples, ledger, QUICK, Budget(4, 10), tmp_path)
    assert (found.best, found.score, found.gain) == (QUICK, found.given_score, (0.0, 0.0))


def test_a_search_keeps_to_its_minutes(
    tiny: None, examples: dict[str, pl.DataFrame], ledger: Ledger, tmp_path: Path
) -> None:
    first = search(examples, ledger, QUICK, Budget(3, 0), tmp_path)
    assert first.trials.height == 1, "the settings as given are always tried"
    spent = first.trials["seconds"].sum() / 60
    cut = search(examples, ledger, QUICK, Budget(3, spent + 0.1 / 60), tmp_path)
    assert cut.trials.height == 1, "a trial that the minutes do not suffice for is left"
    assert search(examples, ledger, QUICK, Budget(2, 10), tmp_path).trials.height == 2


def test_a_damaged_study_is_named(examples: dict[str, pl.DataFrame], ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(b"no database" * 100)
    with pytest.raises(StudyError, match=r"study\.db is no study that can be read"):
        search(examples, ledger, QUICK, ENOUGH, tmp_path)


def test_one_month_is_too_little(examples: dict[str, pl.DataFrame], ledger: Ledger, tmp_path: Path) -> None:
    first, second, *_ = examples
    given = {first: examples[first], second: examples[second].clear()}
    with pytest.raises(TooLittleError, match=r"two months with tags, .*; there are 1"):
        search(given, ledger, QUICK, ENOUGH, tmp_path / "study")
    assert not (tmp_path / "study").exists()
