"""Steps as pods of a cluster: what each asset asks for there, and what becomes of a training whose pod is taken away."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

# Dagster has no public name for what a step raises when its process is told to end.
from dagster._core.errors import DagsterExecutionInterruptedError

# One training at a time for each GPU that there is; the instance says how many.
GPU_POOL: Final = "gpu"
# The label and the taint of our node pools. Terraform sets them, run pods and these steps name them.
NODES: Final = "matching-platform/pool"
GPU: Final = "nvidia.com/gpu"

# A spot node may be taken back several times a day, and every attempt goes on from the checkpoint of the last one.
ATTEMPTS: Final = 8
WAIT_SECONDS: Final = 30
KILLED: Final = dg.RetryPolicy(max_retries=ATTEMPTS, delay=WAIT_SECONDS)


@dataclass(frozen=True)
class Pod:
    """What a step's pod asks for, in Kubernetes's units: `scratch` is what it writes to its own disk."""

    cpu: str
    memory: str
    scratch: str
    gpus: int = 0

    @property
    def nodes(self) -> str:
        """The node pool it runs on."""
        return "gpu" if self.gpus else "batch"


SMALL: Final = Pod(cpu="1", memory="4Gi", scratch="4Gi")
# Those that hold all candidates of a month, what was served in one, or all months, in memory at once; docs/scale.md has
# the figures.
PODS: Final[Mapping[str, Pod]] = {
    "invoices": SMALL,
    "transfers": SMALL,
    "matches": SMALL,
    "labelled_pairs": Pod(cpu="4", memory="24Gi", scratch="32Gi"),
    "test_split": Pod(cpu="2", memory="16Gi", scratch="16Gi"),
    "train_set": Pod(cpu="2", memory="16Gi", scratch="32Gi"),
    "model": Pod(cpu="6", memory="40Gi", scratch="64Gi", gpus=1),
    "evaluation_report": Pod(cpu="4", memory="24Gi", scratch="32Gi"),
    "proposals": Pod(cpu="4", memory="24Gi", scratch="32Gi"),
    "prediction_log": Pod(cpu="2", memory="16Gi", scratch="16Gi"),
}


def op_tags(asset: str) -> dict[str, Any]:
    """What makes Dagster ask the cluster for the pod of an asset; an asset without a row in PODS takes a small one."""
    pod = PODS.get(asset, SMALL)
    held = {"memory": pod.memory, "ephemeral-storage": pod.scratch, **({GPU: str(pod.gpus)} if pod.gpus else {})}
    resources = {"requests": {"cpu": pod.cpu, **held}, "limits": held}
    tainted = [{"key": NODES, "operator": "Equal", "value": pod.nodes, "effect": "NoSchedule"}]
    if pod.gpus:
        tainted.append({"key": GPU, "operator": "Exists", "effect": "NoSchedule"})
    return {
        "dagster-k8s/config": {
            "container_config": {"resources": resources},
            "pod_spec_config": {"node_selector": {NODES: pod.nodes}, "tolerations": tainted},
        }
    }


def executor() -> dg.ExecutorDefinition:
    """A pod for each step in a cluster; elsewhere all steps in the process of their run, which costs them no seconds."""
    if not _in_a_cluster():
        return dg.in_process_executor
    # Imported here: only a cluster needs its client.
    from dagster_k8s import k8s_job_executor

    return k8s_job_executor


def preempted() -> dg.RetryPolicy | None:
    """What becomes of a step with checkpoints whose pod is killed; outside a cluster a failure is a failure."""
    return KILLED if _in_a_cluster() else None


@contextmanager
def goes_on_elsewhere() -> Iterator[None]:
    """Around a step with checkpoints and the policy KILLED: in a cluster, only a step whose pod was taken away is tried
    again.

    Kubernetes tells a pod to end before it takes the node, which Dagster would book as a failure of the step, for good.
    What the step's own code raises is a failure for good.
    """
    if not _in_a_cluster():
        yield
        return
    try:
        yield
    except DagsterExecutionInterruptedError as error:
        raise dg.RetryRequested(max_retries=ATTEMPTS, seconds_to_wait=WAIT_SECONDS) from error
    except dg.Failure as error:
        raise dg.Failure(error.description, error.metadata, allow_retries=False) from error
    except Exception as error:
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=False) from error


def _in_a_cluster() -> bool:
    # Kubernetes sets it in every container.
    return "KUBERNETES_SERVICE_HOST" in os.environ
