"""What a Dagster instance knows of its runs, for whoever makes a message of them."""

from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

# What a failed check, the end of a backfill and a retry are known by has no public name.
from dagster._core.errors import DagsterAssetCheckFailedError
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES
from dagster._core.storage.tags import RETRY_NUMBER_TAG

from matching_platform.defs import news
from matching_platform.defs.local import BACKFILL, month_of_run
from matching_platform.defs.news import Failure, Source

_MADE: Final = 50  # materializations among which that of a record's entry is looked for

# Of the event log: what news are made of.
KINDS: Final = (
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.RUN_FAILURE,
)


@dataclass(frozen=True)
class Runs:
    """The runs of an instance; `ui` is the address of Dagster's pages."""

    instance: dg.DagsterInstance
    ui: str

    def source(self, run: dg.DagsterRun | None) -> Source:
        if run is None:
            return Source(ui=self.ui)
        return Source(run.run_id, self._first(run), month_of_run(run), run.tags.get(BACKFILL, ""), self.ui)

    def made_by(self, asset: str, model: str) -> Source:
        """The run that made a model champion, or rolled it out; none where a person did."""
        found = self.instance.fetch_materializations(dg.AssetKey(asset), limit=_MADE).records
        for record in found:
            made = record.asset_materialization
            told = news.plain(made) if made else {}
            if model in (told.get("version"), told.get("model")) and told.get("promoted", told.get("changed")):
                return self.source(self.instance.get_run_by_id(record.run_id))
        return Source(ui=self.ui)

    def evaluations(self, run_id: str, asset: str) -> list[dg.AssetCheckEvaluation]:
        """The last result of each check that a run made of an asset."""
        entries = self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        found = [check for check in map(evaluation, entries) if check and check.asset_key == dg.AssetKey(asset)]
        return list({check.check_name: check for check in found}.values())

    def told(self, run_id: str, asset: str) -> dict[str, Any]:
        """The metadata with which a run made an asset; empty where it did not."""
        entries = self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION) if run_id else []
        made = [entry.asset_materialization for entry in entries]
        return next((news.plain(one) for one in made if one and one.asset_key == dg.AssetKey(asset)), {})

    def failure(self, run: dg.DagsterRun) -> Failure | None:
        """Why a run failed; None where its checks did, which is told as such."""
        steps = self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        data = {entry.step_key or "": entry.get_dagster_event().step_failure_data for entry in steps}
        for step, told in data.items():
            if told.error and told.error.cls_name == DagsterAssetCheckFailedError.__name__:
                continue
            error = told.error
            while error and error.cause:
                error = error.cause
            reason = told.user_failure_data and told.user_failure_data.description
            return Failure(step, str(reason or (error and error.message) or "it does not say why"))
        if data:
            return None
        ends = self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
        return Failure("", next((entry.get_dagster_event().message for entry in ends), None) or "its process died")

    def is_over(self, backfill: str | None) -> bool:
        """Whether a backfill has ended, or was forgotten; no backfill never ends."""
        found = self.instance.get_backfill(backfill) if backfill else None
        return bool(backfill) and (found is None or found.status in BULK_ACTION_TERMINAL_STATUSES)

    def _first(self, run: dg.DagsterRun) -> str:
        """The first attempt of a run that Dagster retries by itself; a person who tries again makes another event."""
        retried = run.parent_run_id and RETRY_NUMBER_TAG in run.tags
        before = self.instance.get_run_by_id(str(run.parent_run_id)) if retried else None
        return self._first(before) if before else run.run_id


def kind(entry: dg.EventLogEntry) -> dg.DagsterEventType:
    return entry.get_dagster_event().event_type


def evaluation(entry: dg.EventLogEntry) -> dg.AssetCheckEvaluation | None:
    checked = kind(entry) is dg.DagsterEventType.ASSET_CHECK_EVALUATION
    return entry.get_dagster_event().asset_check_evaluation_data if checked else None
