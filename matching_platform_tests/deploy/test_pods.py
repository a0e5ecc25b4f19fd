"""What a step's pod is in the cluster: what Dagster makes of the launcher's settings and of an asset's tags."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import dagster as dg
import kubernetes.client
import kubernetes_validate
import pytest
import yaml
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job, get_user_defined_k8s_config

from matching_platform.defs import pods
from matching_platform_tests.deploy.manifests import build, one, with_challenger
from matching_platform_tests.deploy.policies import NODES
from matching_platform_tests.deploy.terraform import read_module

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
KUBERNETES: Final = "1.33"
MINE: Final = {"model": "gpu", "labelled_pairs": "batch", "proposals": "batch", "drift_report": "batch"}


def launched(tags: dict[str, Any]) -> dict[str, Any]:
    """The pod of the Job that Dagster would create for a step with these tags."""
    given = yaml.safe_load((DEPLOY / "dagster" / "production" / "dagster.yaml").read_text())["run_launcher"]["config"]
    base = K8sContainerContext(
        **{
            name: given[name] for name in ("env_config_maps", "env_secrets", "security_context", "resources", "volumes")
        },
        volume_mounts=given["volume_mounts"],
        service_account_name=given["service_account_name"],
        run_k8s_config=get_user_defined_k8s_config({"dagster-k8s/config": json.dumps(given["run_k8s_config"])}),
    )
    asked = get_user_defined_k8s_config({name: json.dumps(value) for name, value in tags.items()})
    context = base.merge(K8sContainerContext(run_k8s_config=asked))
    job = construct_dagster_k8s_job(
        job_config=DagsterK8sJobConfig(job_image="it", dagster_home="/opt", instance_config_map="dagster-instance"),
        args=["dagster", "api", "execute_step"],
        job_name="it",
        user_defined_k8s_config=context.run_k8s_config,
    )
    manifest = kubernetes.client.ApiClient().sanitize_for_serialization(job)
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    return manifest["spec"]["template"]["spec"]


@pytest.mark.parametrize(("asset", "nodes"), MINE.items())
def test_kubernetes_accepts_the_pod(asset: str, nodes: str) -> None:
    pod = launched(pods.op_tags(asset))
    assert pod["nodeSelector"] == {pods.NODES: nodes}
    (container,) = pod["containers"]
    resources = container["resources"]
    assert resources["limits"].keys() >= {"memory", "ephemeral-storage"}
    assert all(resources["requests"][name] == amount for name, amount in resources["limits"].items())
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert pod["securityContext"]["runAsNonRoot"]


def test_only_the_training_asks_for_a_gpu() -> None:
    asking = [asset for asset in pods.PODS if pods.GPU in json.dumps(launched(pods.op_tags(asset)))]
    assert asking == ["model"]
    (container,) = launched(pods.op_tags("model"))["containers"]
    assert container["resources"]["limits"][pods.GPU] == "1"


def test_the_table_speaks_of_assets_that_exist() -> None:
    from matching_platform.definitions import defs

    assets = {key.to_user_string() for key in defs.get_repository_def().asset_graph.get_all_asset_keys()}
    assert set(pods.PODS) <= assets


def test_tolerations_are_those_of_the_nodes() -> None:
    """A pod tolerates every taint of the nodes that it selects, so that it finds a place."""
    pools = read_module(DEPLOY / "terraform").locals["pools"]
    assert set(pools) == {"system", "service", "batch", "gpu"}
    for asset in [*pods.PODS, "drift_report"]:
        pod = launched(pods.op_tags(asset))
        nodes = pools[pod["nodeSelector"][pods.NODES]]
        for taint in nodes["taints"]:
            assert any(_tolerates(toleration, taint) for toleration in pod["tolerations"]), (asset, taint)
    assert pools["system"]["taints"] == []  # run pods, daemon and web server tolerate nothing
    assert pools["gpu"]["accelerator"]


def test_the_nodes_hold_the_service_twice() -> None:
    """A rollout and a rollback start all new pods beside the old ones: in production without waiting for a node."""
    pool = read_module(DEPLOY / "terraform").locals["pools"]["service"]
    assert pool["taints"] == [{"key": key, "value": value, "effect": "NO_SCHEDULE"} for key, value in NODES.items()]
    assert pool["machine"] == "n2-standard-8"
    built = build(DEPLOY / "kubernetes" / "overlays" / "production")
    scaler = one(built, "HorizontalPodAutoscaler/matching-service")["spec"]
    pod = one(built, "Deployment/matching-service")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    # Of 8 cores, GKE and its agents leave 7 at least.
    a_node_takes = 7 // int(container["resources"]["requests"]["cpu"])
    staging_too = 1
    assert 2 * scaler["minReplicas"] + 2 * staging_too <= a_node_takes * pool["minimum"]
    assert 2 * scaler["maxReplicas"] + 2 * staging_too <= a_node_takes * pool["maximum"]


@pytest.mark.parametrize("place", ["staging", "production", "production with a challenger"])
def test_the_service_goes_to_nodes_that_are_made(place: str, tmp_path: Path) -> None:
    pools = read_module(DEPLOY / "terraform").locals["pools"]
    overlays = DEPLOY / "kubernetes" / "overlays"
    for manifest in build(with_challenger(tmp_path) if "challenger" in place else overlays / place):
        if manifest["kind"] == "Deployment":
            pod = manifest["spec"]["template"]["spec"]
            nodes = pools[pod["nodeSelector"][pods.NODES]]
            assert all(any(_tolerates(each, taint) for each in pod["tolerations"]) for taint in nodes["taints"])


def test_the_platform_goes_to_nodes_that_take_it() -> None:
    """What the chart's values and the instance select; neither tolerates a taint."""
    pools = read_module(DEPLOY / "terraform").locals["pools"]
    for path in ("dagster/release/values.yaml", "dagster/production/dagster.yaml"):
        chosen = list(_selected(yaml.safe_load((DEPLOY / path).read_text())))
        assert chosen
        assert all(pools[selector[pods.NODES]]["taints"] == [] for selector in chosen)


def _selected(value: Any) -> Iterator[dict[str, str]]:
    for name, each in value.items() if isinstance(value, dict) else enumerate(value):
        if name == "nodeSelector":
            yield each
        elif isinstance(each, dict | list):
            yield from _selected(each)


def _tolerates(toleration: dict[str, str], taint: dict[str, str]) -> bool:
    effects = {"NO_SCHEDULE": "NoSchedule"}
    same = toleration["key"] == taint["key"] and toleration["effect"] == effects[taint["effect"]]
    return same and (toleration["operator"] == "Exists" or toleration["value"] == taint["value"])


def test_steps_are_pods_only_in_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert pods.executor() is dg.in_process_executor
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert pods.executor().name == "k8s"
