"""News of the event log: trainings, images, staging, failed checks and failed runs."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import dagster as dg

# What a retry is known by has no public name.
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, RETRY_NUMBER_TAG

from matching_platform.defs import heartbeat, news
from matching_platform.defs.common import browsed
from matching_platform.defs.local import BACKFILL
from matching_platform.defs.messages.runs import KINDS, Runs, evaluation, kind
from matching_platform.defs.news import Failure, Source
from matching_platform.learning import examination
from matching_platform.monitoring.notify import Message

AT_ONCE: Final = 500  # of a kind and a tick, at most
UNDERWAY_SECONDS: Final = 20  # after which a step is training: where there is nothing to train, it has ended
_RUNS: Final = 100  # in progress that are looked at

_ENDS: Final = {dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE}


@dataclass(frozen=True)
class Events:
    """The event log of an instance."""

    runs: Runs

    @property
    def instance(self) -> dg.DagsterInstance:
        return self.runs.instance

    def end(self) -> int:
        """The number of the last entry."""
        return self.instance.event_log_storage.get_maximum_record_id() or 0

    def between(self, after: int, upto: int) -> tuple[list[dg.EventLogEntry], int]:
        """The entries after one number, in order, and the number up to which that is all of them."""
        storage = self.instance.event_log_storage
        pages = [storage.get_logs_for_all_runs_by_log_id(after, one, AT_ONCE) for one in KINDS]
        end = min([upto, *(max(page) for page in pages if len(page) == AT_ONCE)])
        entries = {number: entry for page in pages for number, entry in page.items() if number <= end}
        return [entries[number] for number in sorted(entries)], max(end, after)

    def started(self) -> Iterator[Message]:
        """Trainings under way, each for as long as it is: it is told once."""
        for run in self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]), limit=_RUNS):
            steps = self.instance.all_logs(run.run_id, of_type={dg.DagsterEventType.STEP_START, *_ENDS})
            of_model = [entry for entry in steps if entry.step_key == "model"]
            begun = next((entry.timestamp for entry in of_model), time.time())
            ended = any(kind(entry) in _ENDS for entry in of_model)
            if not ended and time.time() - begun >= UNDERWAY_SECONDS:
                yield news.started(self.runs.source(run))

    def made(self, entries: Sequence[dg.EventLogEntry]) -> Iterator[Message | None]:
        """Models, images, and what staging took."""
        for entry in entries:
            made = entry.asset_materialization
            asset = made.asset_key.to_user_string() if made else ""
            if made is None or asset not in ("model", "image", "staging"):
                continue
            run = self.instance.get_run_by_id(entry.run_id)
            source = self.runs.source(run)
            if asset == "model":
                yield news.trained(made, source, retried=bool(run and RETRY_NUMBER_TAG in run.tags))
            elif asset == "image":
                yield news.built(made, source)
            else:
                yield news.accepted(made, self.runs.evaluations(entry.run_id, asset), source)

    def checked(self, entries: Sequence[dg.EventLogEntry]) -> Iterator[Message]:
        """Checks that failed, those of an asset and a run together, also where the run is green."""
        told = set()
        for entry in entries:
            check = evaluation(entry)
            # The heartbeat tells what it finds by itself.
            if check is None or check.passed or check.check_name == heartbeat.CHECK:
                continue
            asset, run = check.asset_key.to_user_string(), self.instance.get_run_by_id(entry.run_id)
            if run is None:
                yield news.checks_failed(asset, [check], Source(ui=self.runs.ui), event=f"{entry.timestamp:.6f}")
            elif (run.run_id, asset) not in told:
                told.add((run.run_id, asset))
                failed = [one for one in self.runs.evaluations(run.run_id, asset) if not one.passed]
                metadata, source = self.runs.told(run.run_id, asset), self.runs.source(run)
                if asset == "evaluation_report":
                    source = replace(source, report=report(str(metadata.get("path", "")), self.runs.ui))
                model, done = str(metadata.get("model", "")), str(metadata.get("then", ""))
                yield news.checks_failed(asset, failed or [check], source, model=model, done=done)

    def failures(self, entries: Sequence[dg.EventLogEntry], retrying: Sequence[str]) -> tuple[list[Message], list[str]]:
        """Runs that failed, those with one reason together, and the runs of which that is known only after a retry."""
        failed = [entry.run_id for entry in entries if kind(entry) is dg.DagsterEventType.RUN_FAILURE]
        found: list[tuple[Failure, Source]] = []
        waiting = []
        for run_id in dict.fromkeys([*retrying, *failed]):
            run = self.instance.get_run_by_id(run_id)
            if run is None or AUTO_RETRY_RUN_ID_TAG in run.tags:
                continue
            if run.is_complete_and_waiting_to_retry and not self.runs.is_over(run.tags.get(BACKFILL)):
                waiting.append(run_id)
            elif failure := self.runs.failure(run):
                found.append((failure, self.runs.source(run)))

        def reason(one: tuple[Failure, Source]) -> tuple[str, str, str]:
            return one[1].backfill, one[0].step, one[0].reason

        groups = (list(group) for _, group in groupby(sorted(found, key=reason), key=reason))
        return [news.failed(group[0][0], [source for _, source in group]) for group in groups], waiting


def report(folder: str, ui: str) -> str:
    """Where people can read the report of an evaluation in `folder`, a path or URL of the store."""
    if folder.startswith("gs://"):
        return browsed(f"{folder}/{examination.REPORT}")
    return f"{ui}/assets/evaluation_report" if ui else ""
