"""A training's pod is taken away, with a warning and without: its step goes on in another pod, in the same run."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import dagster as dg
import dagster_k8s.executor
import pytest
import yaml
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.executor.step_delegating import StepDelegatingExecutor

from matching_platform.defs import pods
from matching_platform_tests.emulators import kubernetes_jobs


def instance_in(folder: Path, kubeconfig: Path) -> dg.DagsterInstance:
    launcher = {
        "service_account_name": "dagster",
        "instance_config_map": "dagster-instance",
        "dagster_home": str(folder),
        "job_image": "user-code",
        "job_namespace": "dagster",
        "load_incluster_config": False,
        "kubeconfig_file": str(kubeconfig),
    }
    told = {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": launcher}
    concurrency = {"pools": {"granularity": "op", "default_limit": 1}}
    (folder / "dagster.yaml").write_text(yaml.safe_dump({"run_launcher": told, "concurrency": concurrency}))
    return dg.DagsterInstance.from_config(str(folder))


def wait_for(path: Path, run: "Future[dg.ExecuteJobResult]") -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert not run.done(), run.result()
        assert time.monotonic() < until, f"{path} does not come"
        time.sleep(0.05)


def test_a_preempted_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first pod is told to end, its second one just gone; the third finds what they finished."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("PREEMPTED_FOLDER", str(tmp_path))
    impatient = partial(StepDelegatingExecutor, check_step_health_interval_seconds=1, sleep_seconds=0.1)
    monkeypatch.setattr(dagster_k8s.executor, "StepDelegatingExecutor", impatient)
    environment = {"DAGSTER_HOME": str(home), "PREEMPTED_FOLDER": str(tmp_path)}
    with kubernetes_jobs.serve(environment) as cluster, instance_in(home, cluster.config(tmp_path / "config")) as it:
        from matching_platform_tests.deploy import preempted

        with ThreadPoolExecutor(1) as aside:
            run = aside.submit(dg.execute_job, dg.reconstructable(preempted.job), it)
            for part, warned in ((1, True), (3, False)):
                wait_for(tmp_path / "store" / "checkpoints" / "work" / str(part), run)
                cluster.preempt(list(cluster.jobs)[-1], warned=warned)
            result = run.result(timeout=120)
        assert result.success
        (made,) = it.fetch_materializations(dg.AssetKey("model"), limit=10).records
        told = {name: value.value for name, value in made.asset_materialization.metadata.items()}
        assert told == {"found": 4, "attempt": 2}
        assert len(cluster.jobs) == 3
        manifest, _ = next(iter(cluster.jobs.values()))
        pod = manifest["spec"]["template"]["spec"]
        assert pod["nodeSelector"] == {pods.NODES: "gpu"}
        assert pod["containers"][0]["resources"]["limits"][pods.GPU] == "1"


CASES = [
    (DagsterExecutionInterruptedError(), dg.RetryRequested, None),
    (ValueError("too few rows"), dg.Failure, "ValueError: too few rows"),
    (dg.Failure("too few rows"), dg.Failure, "too few rows"),
]


@pytest.mark.parametrize(("raised", "becomes", "told"), CASES)
def test_only_a_pod_that_is_taken_away_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, becomes: type[Exception], told: str | None
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    with pytest.raises(becomes) as caught, pods.goes_on_elsewhere():
        raise raised
    if isinstance(caught.value, dg.Failure):
        assert (caught.value.description, caught.value.allow_retries) == (told, False)


@pytest.mark.parametrize(("raised", "_becomes", "_told"), CASES)
def test_elsewhere_nothing_changes(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, _becomes: object, _told: object
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(type(raised)) as caught, pods.goes_on_elsewhere():
        raise raised
    assert caught.value is raised
