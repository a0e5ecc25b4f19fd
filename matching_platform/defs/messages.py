"""People are told what happens: Dagster's event log and the records are read, each event once, and put into words.

A tick tells what happened up to the tick before. So what writers were still about to commit is not overlooked, and a tick
that is killed finds the same events again, makes the same messages of them, and tells those that were not told. What no
channel takes waits in the cursor, behind newer messages, and is given up after a week.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final

import dagster as dg

# What a failed check, the end of a backfill and a retry are known by has no public name.
from dagster._core.errors import DagsterAssetCheckFailedError
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, RETRY_NUMBER_TAG
from pydantic import BaseModel

from matching_platform.defs import heartbeat, news
from matching_platform.defs.common import PlatformParam, browsed
from matching_platform.defs.local import BACKFILL, month_of_run
from matching_platform.defs.news import Failure, Source, Summary
from matching_platform.delivery.serving.releases import RECORD
from matching_platform.environment import PRODUCTION, Platform
from matching_platform.learning import examination
from matching_platform.learning.examination import Examined
from matching_platform.monitoring.notify import Message, Notifier
from matching_platform.store.files import StoreError
from matching_platform.store.record import Record
from matching_platform.store.registry import PROMOTIONS
from matching_platform.store.versions import Version

SERVED: Final = f"{RECORD}/{PRODUCTION}"

_EVENTS: Final = 500  # of a kind and a tick, at most
_RUNS: Final = 100  # in progress that are looked at
_MADE: Final = 50  # materializations among which that of a record's entry is looked for
_UNDERWAY_SECONDS: Final = 20  # after which a step is training: where there is nothing to train, it has ended
_TELLING_SECONDS: Final = 30  # of a tick, which has 60
_KEPT_SECONDS: Final = 7 * 24 * 3600
_KEPT: Final = 200

_KINDS: Final = (
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.RUN_FAILURE,
)
_ENDS: Final = {dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE}

Positions = Mapping[str, int]  # by log: the number of its last entry


class Pending(BaseModel):
    """A message that is to be told, since when (seconds since the epoch), and when it was tried last."""

    message: Message
    since: float
    tried: float = 0.0


class Cursor(BaseModel):
    """What is told already, what is to be told next, and what has not come to an end.

    `retrying` are failed runs that Dagster said it would retry; `backfills` say whether the tick before found them ended.
    """

    told: dict[str, int]
    seen: dict[str, int]
    retrying: list[str] = []
    backfills: dict[str, bool] = {}
    pending: list[Pending] = []


@dg.sensor(
    description="Something happened that people want to know: a training, the gate, an image, staging, a rollout or a "
    "rollback, a failed check or run. Each is told once.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
)
def happenings(context: dg.SensorEvaluationContext, platform: PlatformParam) -> dg.SkipReason:
    began, present = time.monotonic(), positions(context.instance, platform)
    if not context.cursor:
        context.update_cursor(Cursor(told=present, seen=present).model_dump_json())
        return dg.SkipReason("people are told what happens from now on")
    look = Look(context.instance, platform)
    found, cursor = look.after(Cursor.model_validate_json(context.cursor), present)
    left = tell(platform.notifier, cursor.pending, found, until=began + _TELLING_SECONDS)
    kept = [one for one in left if time.time() - one.since < _KEPT_SECONDS][-_KEPT:]
    for one in left:
        if one not in kept:
            context.log.error("'%s' could not be told, and is given up: %s", one.message.key, one.message.plain)
    context.update_cursor(cursor.model_copy(update={"pending": kept}).model_dump_json())
    return dg.SkipReason(f"{len(found)} events are news; {len(kept)} messages wait to be told")


def positions(instance: dg.DagsterInstance, platform: Platform) -> dict[str, int]:
    """Where the event log and the records end now."""
    records = {name: Record(platform.store, name).count() for name in (PROMOTIONS, SERVED)}
    return {"events": instance.event_log_storage.get_maximum_record_id() or 0, **records}


def tell(notifier: Notifier, pending: Sequence[Pending], found: Sequence[Message], *, until: float) -> list[Pending]:
    """Tells what is new, then what waited, that tried longest ago first; what is left afterwards, the oldest first."""
    waiting = {one.message.key: one for one in pending}
    fresh = {message.key: Pending(message=message, since=time.time()) for message in found}
    left = []
    for one in sorted((fresh | waiting).values(), key=lambda one: one.tried):
        if time.monotonic() > until:
            left.append(one)
        elif not notifier.notify(one.message):
            left.append(one.model_copy(update={"tried": time.time()}))
    return sorted(left, key=lambda one: one.since)


@dataclass(frozen=True)
class Look:
    """A look at what an instance and a platform have recorded."""

    instance: dg.DagsterInstance
    platform: Platform

    def after(self, before: Cursor, present: Positions) -> tuple[list[Message], Cursor]:
        """What is news since `before`, up to what was seen then, and the cursor that follows it."""
        # A log that is shorter than it was is another log, and begins anew.
        told = {name: min(before.told.get(name, end), end) for name, end in present.items()}
        upto = {name: min(before.seen.get(name, end), end) for name, end in present.items()}
        entries, upto["events"] = self._events(told["events"], upto["events"])
        failures, retrying = self._failures(entries, before.retrying)
        found = [
            *self._started(),
            *self._made(entries),
            *self._checked(entries),
            *failures,
            *self._promotions(told[PROMOTIONS], upto[PROMOTIONS]),
            *self._served(told[SERVED], upto[SERVED]),
        ]
        summaries, backfills = self._backfills(before.backfills, entries)
        cursor = Cursor(told=upto, seen=dict(present), retrying=retrying, backfills=backfills, pending=before.pending)
        return [message for message in (*found, *summaries) if message], cursor

    def _events(self, after: int, upto: int) -> tuple[list[dg.EventLogEntry], int]:
        """The entries after one number, in order, and the number up to which that is all of them."""
        storage = self.instance.event_log_storage
        pages = [storage.get_logs_for_all_runs_by_log_id(after, kind, _EVENTS) for kind in _KINDS]
        end = min([upto, *(max(page) for page in pages if len(page) == _EVENTS)])
        entries = {number: entry for page in pages for number, entry in page.items() if number <= end}
        return [entries[number] for number in sorted(entries)], max(end, after)

    def _started(self) -> Iterator[Message]:
        """Trainings under way, each for as long as it is: it is told once."""
        for run in self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]), limit=_RUNS):
            steps = self.instance.all_logs(run.run_id, of_type={dg.DagsterEventType.STEP_START, *_ENDS})
            of_model = [entry for entry in steps if entry.step_key == "model"]
            begun = next((entry.timestamp for entry in of_model), time.time())
            ended = any(entry.get_dagster_event().event_type in _ENDS for entry in of_model)
            if not ended and time.time() - begun >= _UNDERWAY_SECONDS:
                yield news.started(self._source(run))

    def _made(self, entries: Sequence[dg.EventLogEntry]) -> Iterator[Message | None]:
        """Models, images, and what staging took."""
        for entry in entries:
            made = entry.asset_materialization
            asset = made.asset_key.to_user_string() if made else ""
            if made is None or asset not in ("model", "image", "staging"):
                continue
            run = self.instance.get_run_by_id(entry.run_id)
            source = self._source(run)
            if asset == "model":
                yield news.trained(made, source, retried=bool(run and RETRY_NUMBER_TAG in run.tags))
            elif asset == "image":
                yield news.built(made, source)
            else:
                yield news.accepted(made, self._evaluations(entry.run_id, asset), source)

    def _checked(self, entries: Sequence[dg.EventLogEntry]) -> Iterator[Message]:
        """Checks that failed, those of an asset and a run together, also where the run is green."""
        told = set()
        for entry in entries:
            check = _evaluation(entry)
            # The heartbeat tells what it finds by itself.
            if check is None or check.passed or check.check_name == heartbeat.CHECK:
                continue
            asset, run = check.asset_key.to_user_string(), self.instance.get_run_by_id(entry.run_id)
            if run is None:
                yield news.checks_failed(asset, [check], Source(ui=self._ui), event=f"{entry.timestamp:.6f}")
            elif (run.run_id, asset) not in told:
                told.add((run.run_id, asset))
                failed = [one for one in self._evaluations(run.run_id, asset) if not one.passed]
                metadata, source = self._told(run.run_id, asset), self._source(run)
                if asset == "evaluation_report":
                    source = replace(source, report=self._report(str(metadata.get("path", ""))))
                model, done = str(metadata.get("model", "")), str(metadata.get("then", ""))
                yield news.checks_failed(asset, failed or [check], source, model=model, done=done)

    def _failures(
        self, entries: Sequence[dg.EventLogEntry], retrying: Sequence[str]
    ) -> tuple[list[Message], list[str]]:
        """Runs that failed, those with one reason together, and the runs of which that is known only after a retry."""
        failed = [entry.run_id for entry in entries if _kind(entry) is dg.DagsterEventType.RUN_FAILURE]
        found: list[tuple[Failure, Source]] = []
        waiting = []
        for run_id in dict.fromkeys([*retrying, *failed]):
            run = self.instance.get_run_by_id(run_id)
            if run is None or AUTO_RETRY_RUN_ID_TAG in run.tags:
                continue
            if run.is_complete_and_waiting_to_retry and not self._is_over(run.tags.get(BACKFILL)):
                waiting.append(run_id)
            elif failure := self._failure(run):
                found.append((failure, self._source(run)))

        def reason(one: tuple[Failure, Source]) -> tuple[str, str, str]:
            return one[1].backfill, one[0].step, one[0].reason

        groups = (list(group) for _, group in groupby(sorted(found, key=reason), key=reason))
        return [news.failed(group[0][0], [source for _, source in group]) for group in groups], waiting

    def _failure(self, run: dg.DagsterRun) -> Failure | None:
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

    def _promotions(self, after: int, upto: int) -> Iterator[Message | None]:
        """Changes of champion, by the gate or by hand."""
        if upto == after:
            return
        for one in self.platform.registry.history()[after:upto]:
            if one.action == "rollback":
                yield news.taken_back(one)
                continue
            folder = self.platform.store.files.path(one.evaluation.folder)
            source = replace(self._made_by("champion", one.model.name), report=self._report(folder))
            yield news.promoted(one, self._examined(one.evaluation), source)

    def _served(self, after: int, upto: int) -> Iterator[Message | None]:
        """What got the traffic of production."""
        if upto == after:
            return
        for release in self.platform.releases(PRODUCTION).history()[after:upto]:
            yield news.served(release, self._made_by("deployment", release.model))

    def _backfills(
        self, known: Mapping[str, bool], entries: Sequence[dg.EventLogEntry]
    ) -> tuple[list[Message], dict[str, bool]]:
        """Backfills that ended before the last tick, of which all is told but what they came to, and the others."""
        runs = {entry.run_id for entry in entries if _is_news(entry)}
        met = {
            source.backfill for source in map(self._source, map(self.instance.get_run_by_id, runs)) if source.backfill
        }
        ended = [backfill for backfill, over in known.items() if over]
        going = {backfill: self._is_over(backfill) for backfill in sorted(known.keys() - set(ended) | met - set(ended))}
        return [news.summed_up(self._summary(backfill)) for backfill in ended], going

    def _summary(self, backfill: str) -> Summary:
        months, trained, promoted, served = set[str](), list[str](), list[str](), list[str]()
        refused, failed, exact = dict[str, str](), dict[str, str](), dict[str, float]()
        for run in reversed(self.instance.get_runs(dg.RunsFilter(tags={BACKFILL: backfill}))):
            month = month_of_run(run)
            months.add(month)
            if run.status is dg.DagsterRunStatus.FAILURE and AUTO_RETRY_RUN_ID_TAG not in run.tags:
                failure = self._failure(run)
                failed |= (
                    {month or run.run_id: f"{failure.step}: {failure.reason}".removeprefix(": ")} if failure else {}
                )
            for entry in self.instance.all_logs(run.run_id, of_type=set(_KINDS)):
                check, made = _evaluation(entry), entry.asset_materialization
                if check and not check.passed:
                    refused[month] = f"{check.check_name}: {check.description or 'it gives no reason'}"
                if made is None:
                    continue
                asset, told = made.asset_key.to_user_string(), news.plain(made)
                trained += [month] if asset == "model" and told.get("trained") == "now" else []
                promoted += [month] if asset == "champion" and told.get("promoted") else []
                served += [str(told["model"])] if asset == "deployment" and told.get("changed") else []
                exact |= {month: told["test exact"]} if "test exact" in told else {}
        return Summary(backfill, sorted(months - {""}), trained, promoted, served, refused, failed, exact, self._ui)

    def _is_over(self, backfill: str | None) -> bool:
        """Whether a backfill has ended, or was forgotten; no backfill never ends."""
        found = self.instance.get_backfill(backfill) if backfill else None
        return bool(backfill) and (found is None or found.status in BULK_ACTION_TERMINAL_STATUSES)

    def _source(self, run: dg.DagsterRun | None) -> Source:
        if run is None:
            return Source(ui=self._ui)
        return Source(run.run_id, self._first(run), month_of_run(run), run.tags.get(BACKFILL, ""), self._ui)

    def _first(self, run: dg.DagsterRun) -> str:
        """The first attempt of a run that Dagster retries by itself; a person who tries again makes another event."""
        retried = run.parent_run_id and RETRY_NUMBER_TAG in run.tags
        before = self.instance.get_run_by_id(str(run.parent_run_id)) if retried else None
        return self._first(before) if before else run.run_id

    def _made_by(self, asset: str, model: str) -> Source:
        """The run that made a model champion, or rolled it out; none where a person did."""
        found = self.instance.fetch_materializations(dg.AssetKey(asset), limit=_MADE).records
        for record in found:
            made = record.asset_materialization
            told = news.plain(made) if made else {}
            if model in (told.get("version"), told.get("model")) and told.get("promoted", told.get("changed")):
                return self._source(self.instance.get_run_by_id(record.run_id))
        return Source(ui=self._ui)

    def _evaluations(self, run_id: str, asset: str) -> list[dg.AssetCheckEvaluation]:
        """The last result of each check that a run made of an asset."""
        entries = self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        found = [check for check in map(_evaluation, entries) if check and check.asset_key == dg.AssetKey(asset)]
        return list({check.check_name: check for check in found}.values())

    def _told(self, run_id: str, asset: str) -> dict[str, Any]:
        """The metadata with which a run made an asset; empty where it did not."""
        entries = self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION) if run_id else []
        made = [entry.asset_materialization for entry in entries]
        return next((news.plain(one) for one in made if one and one.asset_key == dg.AssetKey(asset)), {})

    def _examined(self, evaluation: Version) -> Examined | None:
        """An evaluation; None where it cannot be read: a message without figures is better than none."""
        try:
            return examination.read(self.platform.store, evaluation)
        except (StoreError, OSError):
            return None

    def _report(self, folder: str) -> str:
        """Where people can read the report of an evaluation in `folder`, a path or URL of the store."""
        if folder.startswith("gs://"):
            return browsed(f"{folder}/{examination.REPORT}")
        return f"{self._ui}/assets/evaluation_report" if self._ui else ""

    @property
    def _ui(self) -> str:
        return (self.platform.settings.ui or "").rstrip("/")


def _kind(entry: dg.EventLogEntry) -> dg.DagsterEventType:
    return entry.get_dagster_event().event_type


def _evaluation(entry: dg.EventLogEntry) -> dg.AssetCheckEvaluation | None:
    checked = _kind(entry) is dg.DagsterEventType.ASSET_CHECK_EVALUATION
    return entry.get_dagster_event().asset_check_evaluation_data if checked else None


def _is_news(entry: dg.EventLogEntry) -> bool:
    """Whether a backfill in which this happens is summed up: tables that arrive as they should are no news."""
    check, made = _evaluation(entry), entry.asset_materialization
    if check or made is None:
        return check is None or not check.passed
    return made.asset_key.to_user_string() in ("model", "evaluation_report", "champion", "deployment")


defs = dg.Definitions(sensors=[happenings])
