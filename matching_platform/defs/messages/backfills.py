"""News of backfills: one message sums up what each came to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

# What a retry is known by has no public name.
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG

from matching_platform.defs import news
from matching_platform.defs.local import BACKFILL, month_of_run
from matching_platform.defs.messages.runs import KINDS, Runs, evaluation
from matching_platform.defs.news import Summary
from matching_platform.monitoring.notify import Message


@dataclass(frozen=True)
class Backfills:
    """The backfills of an instance."""

    runs: Runs

    def ended(
        self, known: Mapping[str, bool], entries: Sequence[dg.EventLogEntry]
    ) -> tuple[list[Message], dict[str, bool]]:
        """Backfills that ended before the last tick, of which all is told but what they came to, and the others."""
        instance = self.runs.instance
        sources = (
            self.runs.source(instance.get_run_by_id(run)) for run in {one.run_id for one in entries if _is_news(one)}
        )
        met = {source.backfill for source in sources if source.backfill}
        ended = [backfill for backfill, over in known.items() if over]
        going = {
            backfill: self.runs.is_over(backfill) for backfill in sorted(known.keys() - set(ended) | met - set(ended))
        }
        return [news.summed_up(self._summary(backfill)) for backfill in ended], going

    def _summary(self, backfill: str) -> Summary:
        months, trained, promoted, served = set[str](), list[str](), list[str](), list[str]()
        refused, failed, exact = dict[str, str](), dict[str, str](), dict[str, float]()
        instance = self.runs.instance
        for run in reversed(instance.get_runs(dg.RunsFilter(tags={BACKFILL: backfill}))):
            month = month_of_run(run)
            months.add(month)
            if run.status is dg.DagsterRunStatus.FAILURE and AUTO_RETRY_RUN_ID_TAG not in run.tags:
                failure = self.runs.failure(run)
                failed |= (
                    {month or run.run_id: f"{failure.step}: {failure.reason}".removeprefix(": ")} if failure else {}
                )
            for entry in instance.all_logs(run.run_id, of_type=set(KINDS)):
                check, made = evaluation(entry), entry.asset_materialization
                if check and not check.passed:
                    refused[month] = f"{check.check_name}: {check.description or 'it gives no reason'}"
                if made is None:
                    continue
                asset, told = made.asset_key.to_user_string(), news.plain(made)
                trained += [month] if asset == "model" and told.get("trained") == "now" else []
                promoted += [month] if asset == "champion" and told.get("promoted") else []
                served += [str(told["model"])] if asset == "deployment" and told.get("changed") else []
                exact |= {month: told["test exact"]} if "test exact" in told else {}
        return Summary(backfill, sorted(months - {""}), trained, promoted, served, refused, failed, exact, self.runs.ui)


def _is_news(entry: dg.EventLogEntry) -> bool:
    """Whether a backfill in which this happens is summed up: tables that arrive as they should are no news."""
    check, made = evaluation(entry), entry.asset_materialization
    if check or made is None:
        return check is None or not check.passed
    return made.asset_key.to_user_string() in ("model", "evaluation_report", "champion", "deployment")
