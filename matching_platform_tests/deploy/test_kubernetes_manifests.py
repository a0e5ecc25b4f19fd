"""What is applied to a cluster is valid, keeps our policies, and a policy complains about what it is there for."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from matching_platform_tests.deploy.manifests import (
    DEPLOY,
    FLUX,
    KUBERNETES,
    InvalidManifestError,
    Manifest,
    build,
    named,
    one,
    validate,
    with_challenger,
)
from matching_platform_tests.deploy.policies import POLICIES, broken

OVERLAYS: Final = ("staging", "production", "production with a challenger")
SERVICE: Final = "Deployment/matching-service"
POD: Final = "spec.template.spec"
CONTAINER: Final = f"{POD}.containers.0"
# What tells of others' failures, and policies, to which an image that nobody pushed yet is a failure.
SILENT: Final = {"Alert", "Provider", "ImagePolicy"}
STAGING: Final = {"matching-platform/environment": "staging", "pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Manifest]]:
    """What each overlay makes, `flux`, and `dagster`, which Flux applies as well."""
    folders = {name: DEPLOY / "kubernetes" / "overlays" / name for name in ("staging", "production")}
    folders["production with a challenger"] = with_challenger(tmp_path_factory.mktemp("deploy"))
    folders |= {"flux": DEPLOY / "flux", "dagster": DEPLOY / "dagster" / "release"}
    return {name: build(folder) for name, folder in folders.items()}


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", [*OVERLAYS, "flux", "dagster"])
def test_a_cluster_takes_it(built: dict[str, list[Manifest]], name: str, version: str) -> None:
    for manifest in built[name]:
        validate(manifest, version)


@pytest.mark.parametrize("name", OVERLAYS)
def test_it_keeps_the_policies(built: dict[str, list[Manifest]], name: str) -> None:
    assert broken(built[name]) == {}


def test_flux_grants_no_more_than_needed(built: dict[str, list[Manifest]]) -> None:
    assert "grants no more than needed" not in broken(built["flux"])


# What is put at a path of the manifest, and what validation says of it; a kind for which there is no schema is an error.
INVALID: Final = [
    ("staging", SERVICE, "kind", "Deploymint", "Couldn't find schema for kind Deploymint"),
    ("staging", SERVICE, "apiVersion", "apps/v1beta7", "Couldn't find schema"),
    ("staging", SERVICE, "spec.replica", 2, "'replica' was unexpected"),
    ("staging", SERVICE, f"{CONTAINER}.resources.limit", {}, "'limit' was unexpected"),
    ("staging", SERVICE, f"{POD}.terminationGracePeriodSeconds", "130s", "'130s' is not of type"),
    ("production", "HorizontalPodAutoscaler/matching-service", "spec.maxReplica", 4, "'maxReplica' was unexpected"),
    ("staging", "NetworkPolicy/nothing-else", "spec.podSelectors", {}, "'podSelectors' was unexpected"),
    ("flux", "ImagePolicy/matching-staging", "apiVersion", "image.toolkit.fluxcd.io/v1alpha9", "Couldn't find schema"),
    ("flux", "ImagePolicy/matching-staging", "spec.digestReflectionPolicy", "Sometimes", "is not one of"),
    ("flux", "ImagePolicy/matching-staging", "spec.policies", {}, "'policies' was unexpected"),
    ("flux", "ImageRepository/matching-service", "spec.interval", "often", "does not match"),
    ("flux", "ImageUpdateAutomation/matching-staging", "spec.git.push.branches", "main", "'branches' was unexpected"),
    ("flux", "Kustomization/matching-staging", "spec.prune", "yes", "is not of type"),
    ("flux", "GitRepository/matching-platform", "spec.url", None, "'url' is a required property"),
    ("flux", "Alert/matching-platform", "spec.eventSeverity", "catastrophe", "is not one of"),
]


@pytest.mark.parametrize(("name", "which", "path", "value", "told"), INVALID)
def test_validation_refuses(
    built: dict[str, list[Manifest]], name: str, which: str, path: str, value: Any, told: str
) -> None:
    changed = copy.deepcopy(one(built[name], which))
    put(path, value)(changed)
    with pytest.raises(InvalidManifestError, match=r".*" + told):
        validate(changed)


def put(path: str, value: Any) -> Callable[[Any], None]:
    """Puts `value` at `a.0.b`, or takes away what is there where it is None."""

    def change(manifest: Any) -> None:
        *way, last = path.split(".")
        for step in way:
            manifest = manifest[int(step) if isinstance(manifest, list) else step]
        if isinstance(manifest, list):
            manifest[int(last)] = value
        elif value is None:
            del manifest[last]
        else:
            manifest[last] = value

    return change


# What is put where, and the policy that must complain.
BROKEN: Final = [
    ("runs as non-root", SERVICE, f"{POD}.securityContext.runAsNonRoot", False),
    ("runs as non-root", SERVICE, f"{POD}.securityContext", None),
    ("has the runtime's seccomp profile", SERVICE, f"{POD}.securityContext.seccompProfile.type", "Unconfined"),
    ("gets no token of the cluster", SERVICE, f"{POD}.automountServiceAccountToken", None),
    ("has a read-only root file system", SERVICE, f"{CONTAINER}.securityContext.readOnlyRootFilesystem", False),
    ("gains no privileges", SERVICE, f"{CONTAINER}.securityContext.allowPrivilegeEscalation", None),
    ("drops all capabilities", SERVICE, f"{CONTAINER}.securityContext.capabilities.drop", ["NET_RAW"]),
    ("says what it needs", SERVICE, f"{CONTAINER}.resources.requests.memory", None),
    ("says what it may take", SERVICE, f"{CONTAINER}.resources.limits.memory", None),
    ("says what it may take", SERVICE, f"{CONTAINER}.resources.limits", None),
    ("is probed", SERVICE, f"{CONTAINER}.startupProbe", None),
    ("is probed", SERVICE, f"{CONTAINER}.readinessProbe", None),
    ("is probed", SERVICE, f"{CONTAINER}.livenessProbe", None),
    ("is named by digest", SERVICE, f"{CONTAINER}.image", "registry.example/matching-service:latest"),
    ("is named by digest", SERVICE, f"{CONTAINER}.image", "registry.example/matching-service:20240131235959-m"),
    ("is named by digest", SERVICE, f"{CONTAINER}.image", "matching-service"),
    ("has time to end what it was asked", SERVICE, f"{POD}.terminationGracePeriodSeconds", 60),
    ("has time to end what it was asked", SERVICE, f"{POD}.terminationGracePeriodSeconds", None),
    ("replaces pods one for one", SERVICE, "spec.strategy.rollingUpdate.maxUnavailable", 1),
    ("selects its own pods", SERVICE, "spec.selector.matchLabels", {"app.kubernetes.io/name": "matching-service"}),
    ("selects its own pods", SERVICE, "spec.template.metadata.labels", {"app.kubernetes.io/name": "other"}),
    ("is spread over zones", SERVICE, f"{POD}.topologySpreadConstraints", None),
    ("is spread over zones", SERVICE, f"{POD}.topologySpreadConstraints.0.labelSelector.matchLabels", {"a": "b"}),
    ("has an identity of its own", SERVICE, f"{POD}.serviceAccountName", None),
    ("has an identity of its own", "ServiceAccount/matching-service", "metadata.annotations", None),
    ("leads somewhere", "Service/matching-service", "spec.selector", {"app.kubernetes.io/name": "matching-service"}),
    ("leads somewhere", "Service/matching-service", "spec.selector", {"app.kubernetes.io/name": "other"}),
    ("leads somewhere", "Service/matching-service", "spec.ports.0.targetPort", "metrics"),
    ("survives a drained node", "PodDisruptionBudget/matching-service", "spec.maxUnavailable", 0),
    ("survives a drained node", "PodDisruptionBudget/matching-service", "spec.maxUnavailable", 3),
    ("survives a drained node", "PodDisruptionBudget/matching-service", "spec.selector.matchLabels", {"a": "b"}),
    ("survives a drained node", "HorizontalPodAutoscaler/matching-service", "spec.minReplicas", 1),
    ("is scaled", "HorizontalPodAutoscaler/matching-service", "spec.maxReplicas", 3),
    ("is scaled", "HorizontalPodAutoscaler/matching-service", "spec.scaleTargetRef.name", "other"),
    ("is scaled", SERVICE, "spec.replicas", 3),
    ("is scaled", "HorizontalPodAutoscaler/matching-service", "kind", "ConfigMap"),
    ("is one process where it is examined", "Namespace/matching-production", "metadata.labels", STAGING),
    ("runs on its own nodes", SERVICE, f"{POD}.nodeSelector", None),
    ("runs on its own nodes", SERVICE, f"{POD}.tolerations", None),
    ("runs on its own nodes", "Deployment/matching-front", f"{POD}.nodeSelector", {"matching-platform/pool": "gpu"}),
    ("denies what is not named", "NetworkPolicy/nothing-else", "spec.policyTypes", ["Ingress"]),
    ("says who may reach it", "NetworkPolicy/matching-service", "spec.podSelector.matchLabels", {"a": "b"}),
    ("says who may reach it", "NetworkPolicy/matching-service", "spec.ingress", [{}]),
    ("asks nobody outside", "NetworkPolicy/matching-service", "spec.egress", [{}]),
    ("asks nobody outside", "NetworkPolicy/matching-service", "spec.egress.0.to.2.ipBlock.cidr", "0.0.0.0/0"),
    ("asks nobody outside", "NetworkPolicy/matching-service", "spec.egress.0.ports.1.port", 80),
    ("asks nobody outside", "NetworkPolicy/store", "spec.egress.0.to.0.ipBlock.cidr", "199.36.152.0/21"),
    ("asks nobody outside", "NetworkPolicy/store", "spec.egress.1.ports.0.port", 443),
    ("asks nobody outside", "Namespace/matching-production", "metadata.labels", STAGING),
    ("stays in its namespace", SERVICE, "metadata.namespace", "default"),
    ("is in a restricted namespace", "Namespace/matching-production", "metadata.labels", {}),
    ("grants no more than needed", "Role/rollout-observer", "rules.0.verbs", ["*"]),
    ("grants no more than needed", "Role/rollout-observer", "rules.0.resources", ["deployments", "secrets"]),
]


@pytest.mark.parametrize(("policy", "which", "path", "value"), BROKEN)
def test_a_policy_complains(built: dict[str, list[Manifest]], policy: str, which: str, path: str, value: Any) -> None:
    manifests = copy.deepcopy(built["production with a challenger"])
    put(path, value)(one(manifests, which))
    assert policy in broken(manifests)


def test_staging_is_one_pod(built: dict[str, list[Manifest]]) -> None:
    """The acceptance reads the gauges of one process; a second pod would answer for the one that it ends."""
    (deployment,) = (one for one in built["staging"] if one["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert not {one["kind"] for one in built["staging"]} & {"HorizontalPodAutoscaler", "PodDisruptionBudget"}


@pytest.mark.parametrize(("path", "value"), [("spec.replicas", 2), ("spec.replicas", None)])
def test_two_pods_in_staging_are_seen(built: dict[str, list[Manifest]], path: str, value: Any) -> None:
    manifests = copy.deepcopy(built["staging"])
    put(path, value)(one(manifests, SERVICE))
    assert "is one process where it is examined" in broken(manifests)


def test_every_policy_was_seen_to_complain() -> None:
    assert {policy for policy, *_ in BROKEN} == set(POLICIES)


def test_what_flux_watches_is_there(built: dict[str, list[Manifest]]) -> None:
    """Names in one object lead to another; a typing error would leave Flux waiting for ever."""
    flux = {named(manifest) for manifest in built["flux"] + built["dagster"]}
    for manifest in built["flux"] + built["dagster"]:
        spec = manifest.get("spec", {})
        for reference in (spec.get("sourceRef"), *spec.get("eventSources", ())):
            if reference:
                assert f"{reference['kind']}/{reference['name']}" in flux, named(manifest)
        for path in (spec.get("path"), spec.get("update", {}).get("path")):
            assert path is None or (DEPLOY.parent / path).is_dir(), named(manifest)


def test_nothing_of_flux_fails_unheard(built: dict[str, list[Manifest]]) -> None:
    """Everything that reports events is in the alert, and in its namespace, where sources without one are looked for."""
    alert = one(built["flux"], "Alert/matching-platform")
    working = [
        manifest
        for manifest in built["flux"] + built["dagster"]
        if (manifest["apiVersion"], manifest["kind"]) in FLUX and manifest["kind"] not in SILENT
    ]
    assert {named(manifest) for manifest in working} == {
        f"{source['kind']}/{source['name']}" for source in alert["spec"]["eventSources"]
    }
    assert {manifest["metadata"]["namespace"] for manifest in working} == {alert["metadata"]["namespace"]}


@pytest.mark.parametrize("place", ["staging", "production"])
def test_markers_name_the_policy_of_their_environment(built: dict[str, list[Manifest]], place: str) -> None:
    text = (DEPLOY / "kubernetes" / "overlays" / place / "kustomization.yaml").read_text()
    marks = [line.split("# ")[1] for line in text.splitlines() if "$imagepolicy" in line]
    policy = one(built["flux"], f"ImagePolicy/matching-{place}")["metadata"]
    wanted = [f"{policy['namespace']}:{policy['name']}:{field}" for field in ("name", "tag", "digest")]
    assert [yaml.safe_load(mark)["$imagepolicy"] for mark in marks] == wanted
    # Each automation rewrites its own environment alone.
    automation = one(built["flux"], f"ImageUpdateAutomation/matching-{place}")["spec"]
    assert automation["policySelector"]["matchLabels"].items() <= policy["labels"].items()
    assert Path(automation["update"]["path"]).name == place


def test_a_missing_kubectl_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(pytest.fail.Exception, match="no kubectl; install it"):
        build(DEPLOY / "flux")
