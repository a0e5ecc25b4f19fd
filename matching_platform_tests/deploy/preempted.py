"""A pipeline for test_preemption.py: an asset like `model`, whose work is five files and whose pod is taken away twice."""

import os
import time
from pathlib import Path

import dagster as dg

from matching_platform.defs import pods
from matching_platform.store import checkpoints
from matching_platform.store.files import Files

pods.WAIT_SECONDS = 0
checkpoints.SECONDS = 0.05
FOLDER = Path(os.environ.get("PREEMPTED_FOLDER", "."))


@dg.asset(
    op_tags=pods.op_tags("model"),
    pool=pods.GPU_POOL,
    retry_policy=dg.RetryPolicy(max_retries=pods.KILLED.max_retries, delay=0),
)
def model(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    machine = FOLDER / f"machine {os.getpid()}"  # Nothing of it is there for another pod.
    with pods.goes_on_elsewhere(), checkpoints.kept(Files(str(FOLDER / "store")), "work", machine):
        found = len(list(machine.glob("*")))
        for part in range(found, 5):
            machine.mkdir(exist_ok=True)
            (machine / str(part)).write_text("done")
            if part in (1, 3) and found < part:
                time.sleep(60)
    return dg.MaterializeResult(metadata={"found": found, "attempt": context.retry_number})


training = dg.define_asset_job("training", selection=[model], executor_def=pods.executor())
defs = dg.Definitions([model], jobs=[training])


def job() -> dg.JobDefinition:
    return defs.resolve_job_def("training")
