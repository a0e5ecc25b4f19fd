"""Learning from a ledger up to a month, and the walk forward: retrain before each month, match it, go on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from matching_platform.learning.examples import label_month
from matching_platform.learning.training import TooLittleError, TrainingSettings, train
from matching_platform.ledger.months import month_of, next_month
from matching_platform.ledger.reading import Ledger
from matching_platform.matching.matcher import Matcher

Progress = Callable[[str, float], None]


def up_to(ledger: Ledger, month: str) -> Ledger:
    """The ledger as of the end of `month`: no later transfer or match, all invoices (matching looks at their dates)."""
    transfers = ledger.transfers.filter(month_of("booked_on") <= month)
    return Ledger(
        ledger.invoices, transfers, ledger.matches.join(transfers.select("transfer_id"), on="transfer_id", how="semi")
    )


@dataclass
class Learner:
    """Trains matchers on one ledger; a month's pairs are labelled once, however many trainings use them."""

    ledger: Ledger
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    _labelled: dict[str, pl.DataFrame] = field(default_factory=dict)

    def train(self, until: str, progress: Progress, checkpoint: Path | None = None) -> Matcher:
        """A matcher that learned from the transfers booked up to `until`. TooLittleError where these are too few."""
        examples = self.examples(until, progress)
        return train(examples, up_to(self.ledger, until), until, self.settings, checkpoint, progress)

    def examples(self, until: str, progress: Progress) -> list[pl.DataFrame]:
        """The labelled pairs of each month up to `until`. TooLittleError where there is none."""
        months = [month for month in self.ledger.months() if month <= until]
        if not months:
            raise TooLittleError(f"no transfer was booked up to {until}, so there is nothing to learn from")
        for done, month in enumerate(months):
            if month not in self._labelled:
                self._labelled[month] = label_month(self.ledger, month)
            progress("reading", (done + 1) / len(months))
        return [self._labelled[month] for month in months]


def backtest(ledger: Ledger, months: Iterable[str], progress: Progress) -> Iterable[tuple[str, Matcher, pl.DataFrame]]:
    """For each month: (month, the matcher trained on all before it, its proposals for the month)."""
    learner = Learner(ledger)
    for month in months:
        matcher = learner.train(next_month(month, -1), progress)
        yield month, matcher, matcher.match(ledger, [month])
