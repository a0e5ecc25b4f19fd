"""A real Dagster instance in a folder, and real partition backfills run to their end in this process.

A daemon, a code server and a process for each run would cost more than the runs themselves on a small machine, and
would outlive a killed parent. What is recorded is the same: the UI over the folder shows backfills, runs and assets.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dagster as dg

# Dagster has no public way to run a backfill to its end; `dg dev` uses the same parts in three processes.
from dagster._core.definitions.selector import PartitionRangeSelector, PartitionsByAssetSelector, PartitionsSelector
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, BulkActionStatus, PartitionBackfill
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import LaunchRunContext
from dagster._core.launcher.sync_in_memory_run_launcher import SyncInMemoryRunLauncher
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.utils import make_new_backfill_id
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration

CONFIGURATION: Final = Path(__file__).parents[2] / "deploy" / "dagster" / "dagster.yaml"
BACKFILL: Final = "dagster/backfill"
# What this process started: it carries the tag, and no daemon over the same folder has runs with it.
OURS: Final = {"matching_platform/launched": "here"}

_HERE: Final = {
    "run_launcher": {"module": "matching_platform.defs.local", "class": "ThreadRunLauncher"},
    "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
    # Capturing the output of a step would swallow what this process shows meanwhile.
    "compute_logs": {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"},
}
_QUIET: Final = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_UNFINISHED: Final = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


class ThreadRunLauncher(SyncInMemoryRunLauncher):
    """Runs in a thread of this process and waits for it: a run wants an event loop of its own."""

    def launch_run(self, context: LaunchRunContext) -> None:
        with ThreadPoolExecutor(max_workers=1) as pool:
            pool.submit(super().launch_run, context).result()


@dataclass(frozen=True)
class Finished:
    """How a backfill ended: its id, and by asset and month (or '') why a step failed."""

    backfill: str
    failures: dict[tuple[str, str], str]


def home() -> Path:
    """The folder of the instance: DAGSTER_HOME, or `.dagster` where it is not set."""
    return Path(os.environ.get("DAGSTER_HOME") or ".dagster")


@contextmanager
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """The instance in `home`, made where there is none, with runs in this process."""
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        shutil.copy(CONFIGURATION, home / "dagster.yaml")
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home.resolve()), overrides=_HERE)) as opened:
        yield opened


def clear(instance: dg.DagsterInstance) -> int:
    """Ends what an earlier `backfill` left unfinished when it was killed, and says how many runs that were.

    Runs of a daemon over the same folder go on. The caller sees to it that no other process is in `backfill`.
    """
    for backfill in instance.get_backfills():
        if OURS.items() <= backfill.tags.items() and backfill.status not in BULK_ACTION_TERMINAL_STATUSES:
            instance.update_backfill(backfill.with_status(BulkActionStatus.CANCELED))
    runs = instance.get_runs(dg.RunsFilter(tags=OURS, statuses=_UNFINISHED))
    for run in runs:
        instance.report_run_failed(run, "The process of this run was killed.")
        # Its place in a pool, which no other step would ever get.
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return len(runs)


def backfill(instance: dg.DagsterInstance, months: Mapping[str, Sequence[str]], title: str) -> Finished:
    """Materializes assets for months, by asset; an asset without months takes none. Returns when all runs ended."""
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(python_file=None, module_name="matching_platform.definitions"), location_name="platform"
    )
    with WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as workspace:
        request = PartitionBackfill.from_partitions_by_assets(
            backfill_id=make_new_backfill_id(),
            asset_graph=workspace.create_request_context().asset_graph,
            backfill_timestamp=time.time(),
            tags=OURS,
            dynamic_partitions_store=instance,
            partitions_by_assets=[_target(asset, chosen) for asset, chosen in months.items()],
            title=title,
            description=None,
            run_config=_QUIET,
        )
        instance.add_backfill(request)
        while (current := instance.get_backfill(request.backfill_id)) and current.status == BulkActionStatus.REQUESTED:
            for error in execute_backfill_iteration(workspace, logging.getLogger("dagster.backfill")):
                if error:
                    raise RuntimeError(f"the backfill '{title}' failed: {error.to_string()}")
    return Finished(request.backfill_id, dict(_failures(instance, request.backfill_id)))


def month_of_run(run: dg.DagsterRun) -> str:
    """The month of a run, the first where it has many, '' where it has none."""
    return run.tags.get("dagster/partition") or run.tags.get("dagster/asset_partition_range_start", "")


def _target(asset: str, months: Sequence[str]) -> PartitionsByAssetSelector:
    ranges = [PartitionRangeSelector(start=month, end=month) for month in months]
    return PartitionsByAssetSelector(
        asset_key=dg.AssetKey(asset), partitions=PartitionsSelector(ranges=ranges) if ranges else None
    )


def _failures(instance: dg.DagsterInstance, backfill_id: str) -> Iterator[tuple[tuple[str, str], str]]:
    for run in instance.get_runs(dg.RunsFilter(tags={BACKFILL: backfill_id}, statuses=[dg.DagsterRunStatus.FAILURE])):
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
            event = entry.get_dagster_event()
            error = event.step_failure_data.error
            failure = event.step_failure_data.user_failure_data
            while error and error.cause:
                error = error.cause
            reason = (failure and failure.description) or (error and error.message) or "failed"
            yield (event.step_key or "", month_of_run(run)), str(reason).strip()
