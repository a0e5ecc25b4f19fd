"""The search for training settings: which of them, learned from all but the newest months, judge these months best.

Time goes forward: what is judged is later than all that a trial learned from, and neither a frozen test nor a month that
is judged afterwards may be among the examples, which is the caller's to see to. Optuna proposes (TPE), a training on the
latest few months says whether a trial is worth its whole training (median pruning), and a study on disk keeps what is done.
"""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
import polars as pl
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from matching_platform.learning.examples import credible_tags
from matching_platform.learning.training import Progress, TooLittleError, TrainingSettings, train
from matching_platform.learning.walk import up_to
from matching_platform.learning.yardstick import Evaluation, evaluate
from matching_platform.ledger.months import month_of
from matching_platform.ledger.reading import Ledger
from matching_platform.matching.arrays import Doubles, Ints


@dataclass(frozen=True)
class Span:
    """Where a setting is looked for, both ends included, and why there. All are ratios, and drawn by their logarithm."""

    low: float
    high: float
    because: str

    def draw(self, trial: optuna.Trial, name: str) -> float:
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=True)
        return trial.suggest_float(name, self.low, self.high, log=True)


# The precision is a promise, more folds only cost time, and a seed is luck: these are not searched.
SPACE: Final = {
    "hidden": Span(32, 128, "half to twice the default; wider ones learn tags by heart, and slow every matching down"),
    "pair_epochs": Span(6, 36, "half to three times the default, as a training's cost grows with it"),
    "set_epochs": Span(8, 48, "likewise"),
    "learning_rate": Span(1e-3, 1e-2, "a factor of three around the default; beyond it steps are lost or wild"),
    "weight_decay": Span(1e-3, 1e-1, "a factor of ten around the default"),
    "batch_transfers": Span(64, 512, "a quarter of the default, much noise but many steps, to twice of it"),
}

# Months judged: two level out what one of them has in particular, but a third of all is the most that may be spared.
_JUDGED: Final = 2
_JUDGED_SHARE: Final = 3
# Months of the first, cheap training; where this is more than half of all, there is only the whole one.
_FIRST_RUNG: Final = 3
# With Optuna's ten, half of a usual budget would be drawn at random.
_DRAWN_AT_RANDOM: Final = 5
_NEVER_PRUNED: Final = 3
_PRECISION: Final = 0.995
_DRAWS: Final = 200
_SHOWN: Final = ("stp_995", "exact_paying")


@dataclass(frozen=True)
class Budget:
    """How far a study goes, whichever ends first. What its earlier, interrupted searches finished counts.

    The first trial, the settings as given, is always finished; no other one goes on beyond the minutes.
    """

    trials: int
    minutes: float


@dataclass(frozen=True)
class Found:
    """The outcome of a study.

    `best` scored `score`, and the settings as given `given_score`; of equals the earlier one is best. `gain` is the 95 %
    interval of the difference by chance in the transfers judged; that the best of many was chosen comes on top of it.
    `trials` has a row per finished trial: trial (0: as given), state ('complete' or 'pruned'), score, stp_995 and
    exact_paying (null where pruned), seconds, and a column per field of SPACE.
    """

    best: TrainingSettings
    score: float
    given_score: float
    gain: tuple[float, float]
    trials: pl.DataFrame


class StudyError(ValueError):
    """A study on disk that cannot be used; the message names it."""


class _OutOfTimeError(Exception):
    """The minutes are over in the middle of a trial."""


@dataclass(frozen=True)
class _Course:
    """What every trial goes through: `rungs`, the months that it learns from, few first, and the months judged."""

    examples: Mapping[str, pl.DataFrame]
    ledger: Ledger
    rungs: list[list[str]]
    judged: list[str]
    truth: pl.DataFrame

    @classmethod
    def of(cls, examples: Mapping[str, pl.DataFrame], ledger: Ledger) -> "_Course":
        tagged = sorted(month for month, frame in examples.items() if frame.height)
        if len(tagged) < 2:
            raise TooLittleError(
                f"a search needs two months with tags, one to learn from and one to judge by; there are {len(tagged)}"
            )
        judged = min(_JUDGED, max(1, len(tagged) // _JUDGED_SHARE))
        learned, newest = tagged[:-judged], tagged[-judged:]
        rungs = [learned[-_FIRST_RUNG:], learned] if len(learned) >= 2 * _FIRST_RUNG else [learned]
        booked = ledger.transfers.filter(month_of("booked_on").is_in(newest))
        truth = credible_tags(ledger).join(booked.select("transfer_id"), on="transfer_id", how="semi")
        return cls(examples, ledger, rungs, newest, truth)

    def judge(self, months: list[str], settings: TrainingSettings, checkpoint: Path, progress: Progress) -> Evaluation:
        """How right a matcher is that learned from `months` and knows nothing later than the last of them."""
        until = months[-1]
        lessons = [self.examples[month] for month in months]
        matcher = train(lessons, up_to(self.ledger, until), until, settings, checkpoint, progress)
        return evaluate(matcher.match(self.ledger, self.judged), self.truth)

    def name(self, settings: TrainingSettings) -> str:
        """Other data, another space or other settings to start from never continue this study."""
        frames = [*(self.examples[month] for month in self.rungs[-1] + self.judged), *vars(self.ledger).values()]
        told = [
            [int(frame.hash_rows(seed=0).sum()) for frame in frames],
            [self.rungs, self.judged],
            {name: [span.low, span.high] for name, span in SPACE.items()},
            asdict(settings),
        ]
        return sha256(json.dumps(told).encode()).hexdigest()[:16]


def search(
    examples: Mapping[str, pl.DataFrame],
    ledger: Ledger,
    settings: TrainingSettings,
    budget: Budget,
    folder: Path,
    progress: Progress | None = None,
) -> Found:
    """Looks for better `settings` in SPACE; the other fields stay as they are.

    `examples` are labelled pairs by month and `ledger` what may be known, as for `train`; see `scores` for what is best.
    The study in `folder` survives a kill at any moment: a search with the same data goes on where it was, to the same
    trials that it would have come to. One search at a time works there; others wait. TooLittleError where there are less
    than two tagged months, or too few transfers in them; StudyError where what lies in `folder` is damaged.
    """
    tell: Progress = progress or (lambda _step, _share: None)
    course = _Course.of(examples, ledger)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"), _study(folder, course.name(settings)) as study:
        for killed in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(killed.number, state=TrialState.FAIL)
        spent = sum(_seconds(trial) for trial in _finished(study))
        ends = time.monotonic() + budget.minutes * 60 - spent

        def tell_in_time(step: str, share: float) -> None:
            if time.monotonic() > ends:
                raise _OutOfTimeError
            tell(step, share)

        while (done := len(_finished(study))) < budget.trials and (not done or time.monotonic() < ends):
            tell("search", done / budget.trials)
            with suppress(_OutOfTimeError):
                _try(study, course, settings, folder / "checkpoints", tell_in_time if done else tell)
        tell("search", 1.0)
        return _found(study, settings)


@contextmanager
def _study(folder: Path, name: str) -> Iterator[optuna.Study]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / "study.db"
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}")
    except SQLAlchemyError as error:
        raise StudyError(f"{path} is no study that can be read; remove it, or name another folder") from error
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_NEVER_PRUNED)
    try:
        yield optuna.create_study(
            study_name=name, storage=storage, pruner=pruner, direction="maximize", load_if_exists=True
        )
    finally:
        storage.engine.dispose()


def _try(study: optuna.Study, course: _Course, settings: TrainingSettings, checkpoint: Path, tell: Progress) -> None:
    """One trial. An interrupted one is drawn again, the same, and goes on from its checkpoint."""
    done = len(_finished(study))
    if not done and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial({name: getattr(settings, name) for name in SPACE})
    # Each trial has a sampler of its own, so that its draw rests on the finished trials alone, however they came about.
    study.sampler = optuna.samplers.TPESampler(seed=settings.seed + done, n_startup_trials=_DRAWN_AT_RANDOM)
    trial = study.ask()
    fields: dict[str, Any] = {name: span.draw(trial, name) for name, span in SPACE.items()}
    drawn = replace(settings, **fields)
    *cheap, whole = course.rungs
    for rung, months in enumerate(cheap):
        trial.report(float(scores(course.judge(months, drawn, checkpoint, tell).outcomes).mean()), rung)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            break
    else:
        judged = course.judge(whole, drawn, checkpoint, tell)
        for name in _SHOWN:
            trial.set_user_attr(name, judged.figures[name])
        drawn_scores = scores(judged.outcomes)
        trial.set_user_attr("scores", drawn_scores.tolist())
        study.tell(trial, float(drawn_scores.mean()))
    shutil.rmtree(checkpoint, ignore_errors=True)


def scores(outcomes: pl.DataFrame) -> Doubles:
    """float64[200]: how good the outcomes of an evaluation are, the mean of stp_995 and exact_paying, in draws of transfers.

    The score is the mean of these: a single mistake among the surest moves stp_995 itself by tens of points (bagging:
    Breiman, 1996). The draws are the same for the same transfers, so that two trials can be compared draw by draw.
    """
    rows = outcomes.sort("transfer_id")
    paying, exact, booked = (rows[name].to_numpy() for name in ("paying", "exact", "booked"))
    surest = np.argsort(-rows["confidence"].to_numpy(), kind="stable")
    surest = surest[booked[surest]]
    last = np.flatnonzero(np.diff(rows["confidence"].to_numpy()[surest], append=-1.0))  # equals are booked together

    def score(drawn: Ints) -> float:
        paid, right, all_booked = (np.cumsum((drawn * flags)[surest])[last] for flags in (paying, exact, booked))
        straight_through = paid[right >= _PRECISION * all_booked].max(initial=0)
        return float(straight_through + drawn[exact & paying].sum()) / 2 / max(1, drawn[paying].sum())

    random, even = np.random.default_rng(0), np.full(rows.height, 1 / rows.height)
    return np.array([score(random.multinomial(rows.height, even)) for _ in range(_DRAWS)])


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _seconds(trial: FrozenTrial) -> float:
    return trial.duration.total_seconds() if trial.duration else 0.0


def _found(study: optuna.Study, settings: TrainingSettings) -> Found:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    best = max(complete, key=lambda trial: trial.value or 0.0)
    rows = [
        {
            "trial": number,
            "state": trial.state.name.lower(),
            "score": trial.value if trial.state == TrialState.COMPLETE else None,
            **{name: trial.user_attrs.get(name) for name in _SHOWN},
            "seconds": _seconds(trial),
            **{name: trial.params[name] for name in SPACE},
        }
        for number, trial in enumerate(_finished(study))
    ]
    low, high = np.quantile(np.subtract(*(trial.user_attrs["scores"] for trial in (best, complete[0]))), [0.025, 0.975])
    return Found(
        best=replace(settings, **best.params),
        score=float(best.value or 0.0),
        given_score=float(complete[0].value or 0.0),
        gain=(float(low), float(high)),
        trials=pl.DataFrame(rows, infer_schema_length=None),
    )
