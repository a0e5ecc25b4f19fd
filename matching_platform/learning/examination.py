"""An examination: transfers whose truth is known and that no model in it has learned from."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import polars as pl

from matching_platform.learning.examples import credible_tags
from matching_platform.learning.gate import Candidate, Verdict
from matching_platform.learning.split import FrozenTest
from matching_platform.learning.thresholds import Past, judge
from matching_platform.learning.train_set import newest_transfers
from matching_platform.learning.yardstick import Evaluation, evaluate
from matching_platform.ledger.reading import Ledger
from matching_platform.store.versions import Store, Version

KIND: Final = "evaluations"
REPORT: Final = "report.html"

_FILE: Final = "evaluation.json"

Match = Callable[[Ledger, list[str]], pl.DataFrame]


@dataclass(frozen=True)
class Exam:
    """The months to match in `ledger`, and the truth, columns of `matches`, about the transfers that count."""

    ledger: Ledger
    months: list[str]
    truth: pl.DataFrame


@dataclass(frozen=True)
class Sitting:
    """What one side proposed and how right it was."""

    proposals: pl.DataFrame
    evaluation: Evaluation


def frozen_exam(test: FrozenTest) -> Exam:
    """The frozen test, in the ledger it was frozen with."""
    return Exam(test.ledger, test.ledger.months(), test.truth)


def newest_exam(ledger: Ledger, withheld: pl.DataFrame, until: str) -> Exam | None:
    """The withheld transfers of the month `until`; None where there are none."""
    transfers = newest_transfers(withheld, ledger, until)
    truth = credible_tags(ledger).join(transfers, on="transfer_id", how="semi", maintain_order="left")
    return Exam(ledger, [until], truth) if truth.height else None


def sit(exam: Exam, match: Match) -> Sitting:
    """Matches the months of `exam`, all their transfers, and judges those that count. Timed, for the speed check."""
    started = time.perf_counter()
    proposals = match(exam.ledger, exam.months)
    seconds = time.perf_counter() - started
    judged = evaluate(proposals, exam.truth, exam.ledger.transfers, exam.ledger.invoices, seconds)
    return Sitting(proposals, judged)


def tried(exam: Exam, sitting: Sitting) -> Past:
    """The proposals of a sitting, so that other thresholds can be tried on them."""
    return judge(sitting.proposals, exam.truth, exam.ledger.transfers, exam.ledger.invoices)


@dataclass(frozen=True)
class Examined:
    """An evaluation as it is stored: of what, against what, with which figures and verdicts.

    `figures` by exam ('test', 'newest') and side ('model', 'rules', 'trees', 'champion').
    """

    month: str
    model: Version
    train_set: Version
    test_split: Version
    champion: Version | None
    promotion: int
    figures: dict[str, dict[str, dict[str, float]]]
    verdicts: list[Verdict]

    def candidate(self, version: Version) -> Candidate:
        """What the gate asks about this evaluation, stored as `version`."""
        return Candidate(
            version.digest, self.model.digest, self.train_set.digest, self.test_split.digest, self.promotion
        )


def write(store: Store, examined: Examined, report: str) -> Version:
    """Stores the evaluation with its report."""
    with TemporaryDirectory() as folder:
        Path(folder, _FILE).write_text(json.dumps(asdict(examined), indent=2, sort_keys=True), encoding="utf-8")
        Path(folder, REPORT).write_text(report, encoding="utf-8")
        return store.put(KIND, Path(folder))


def read(store: Store, version: Version) -> Examined:
    raw: dict[str, Any] = json.loads((store.fetch(version) / _FILE).read_text(encoding="utf-8"))
    versions = {name: Version(**raw[name]) for name in ("model", "train_set", "test_split")}
    champion = Version(**raw["champion"]) if raw["champion"] else None
    verdicts = [Verdict(**verdict) for verdict in raw["verdicts"]]
    return Examined(**{**raw, **versions, "champion": champion, "verdicts": verdicts})
