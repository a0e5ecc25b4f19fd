"""What must be true of everything that runs in the cluster, beyond what a schema says: one sentence, one check."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from matching_platform.predictions.log import CLOSE_SECONDS
from matching_platform_tests.deploy.manifests import Manifest, named

Check = Callable[[list[Manifest]], Iterator[str]]

# `traffic.timeout` of bento/service.py, and how long its log may take to close.
ANSWER_SECONDS: Final = 120 + CLOSE_SECONDS
_BY_DIGEST: Final = re.compile(r".+@sha256:[0-9a-f]{64}")
_MISSING: Final = object()
# What may be asked outside of the cluster, and by which port: names, on GKE with NodeLocal DNSCache and with Cloud DNS; the
# metadata server; and Google's APIs at private.googleapis.com.
_OUTSIDE: Final = {("169.254.20.10/32", 53), ("169.254.169.254/32", 53)}
_STORE: Final = {("169.254.169.254/32", 80), ("199.36.153.8/30", 443)}
# The pool of deploy/terraform/cluster.tf that only the service's pods may use.
NODES: Final = {"matching-platform/pool": "service"}


def at(manifest: Any, path: str) -> Any:
    """What is at `a.b.c`; _MISSING, which equals nothing and is false, where nothing is."""
    for name in path.split("."):
        manifest = manifest.get(name, _MISSING) if isinstance(manifest, Mapping) else _MISSING
    return manifest


def _of(kind: str, manifests: list[Manifest]) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def _pods(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Each Deployment, and its pods' spec."""
    for deployment in _of("Deployment", manifests):
        yield deployment, deployment["spec"]["template"]["spec"]


def _containers(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    for deployment, pod in _pods(manifests):
        for container in pod["containers"] + pod.get("initContainers", []):
            yield deployment, container


def _each(parts: Callable[[list[Manifest]], Iterator[tuple[Manifest, Manifest]]], path: str, value: Any) -> Check:
    def check(manifests: list[Manifest]) -> Iterator[str]:
        for deployment, part in parts(manifests):
            if at(part, path) != value:
                yield f"{named(deployment)}: {path} is not {value}"

    return check


def _there(parts: Callable[[list[Manifest]], Iterator[tuple[Manifest, Manifest]]], *paths: str) -> Check:
    def check(manifests: list[Manifest]) -> Iterator[str]:
        for deployment, part in parts(manifests):
            yield from (f"{named(deployment)}: {path} is missing" for path in paths if at(part, path) is _MISSING)

    return check


def _by_digest(manifests: list[Manifest]) -> Iterator[str]:
    for deployment, container in _containers(manifests):
        if not _BY_DIGEST.fullmatch(container["image"]):
            yield f"{named(deployment)}: {container['image']} may be another image tomorrow"


def _enough_grace(manifests: list[Manifest]) -> Iterator[str]:
    for deployment, pod in _pods(manifests):
        if pod.get("terminationGracePeriodSeconds", 30) < ANSWER_SECONDS + 5:
            yield f"{named(deployment)}: killed before a request of {ANSWER_SECONDS} s ends"


def _selects_itself(manifests: list[Manifest]) -> Iterator[str]:
    """Its own pods, and no other Deployment's."""
    for deployment in _of("Deployment", manifests):
        selector = deployment["spec"]["selector"]
        chosen = [named(other) for other in _of("Deployment", manifests) if _selects(selector, other)]
        if chosen != [named(deployment)]:
            yield f"{named(deployment)}: its selector finds pods of {chosen}"


def _service_leads(manifests: list[Manifest]) -> Iterator[str]:
    for service in _of("Service", manifests):
        chosen = [
            one for one in _of("Deployment", manifests) if _selects({"matchLabels": at(service, "spec.selector")}, one)
        ]
        if len(chosen) != 1:
            yield f"{named(service)}: it leads to {[named(one) for one in chosen]}"
        for port in service["spec"]["ports"]:
            if not any(port["targetPort"] in _ports(deployment) for deployment in chosen):
                yield f"{named(service)}: no container has the port {port['targetPort']}"


def _examined(manifests: list[Manifest]) -> bool:
    """Whether this is staging, where one process is examined."""
    labels = [one["metadata"].get("labels", {}) for one in _of("Namespace", manifests)]
    return any(one.get("matching-platform/environment") == "staging" for one in labels)


def _one_process(manifests: list[Manifest]) -> Iterator[str]:
    if not _examined(manifests):
        return
    for kind in ("HorizontalPodAutoscaler", "PodDisruptionBudget"):
        yield from (f"{named(one)}: there is one pod, to be examined" for one in _of(kind, manifests))
    for deployment in _of("Deployment", manifests):
        if at(deployment, "spec.replicas") != 1:
            yield f"{named(deployment)}: which of its pods is examined?"


def _budgeted(manifests: list[Manifest]) -> Iterator[str]:
    for deployment in () if _examined(manifests) else _of("Deployment", manifests):
        budgets = [
            one for one in _of("PodDisruptionBudget", manifests) if _selects(one["spec"]["selector"], deployment)
        ]
        if len(budgets) != 1:
            yield f"{named(deployment)}: {len(budgets)} disruption budgets apply, not one"
        for budget in budgets:
            may, least = at(budget, "spec.maxUnavailable"), _least(deployment, manifests)
            if not (isinstance(may, int) and 0 < may < least):
                yield f"{named(budget)}: of {least} pods, {may} may be evicted at once"


def _scaled(manifests: list[Manifest]) -> Iterator[str]:
    scalers = _of("HorizontalPodAutoscaler", manifests)
    if not scalers and not _examined(manifests):
        yield "nothing follows the load"
    for scaler in scalers:
        target, spec = at(scaler, "spec.scaleTargetRef.name"), scaler["spec"]
        found = [one for one in _of("Deployment", manifests) if one["metadata"]["name"] == target]
        if not found or "replicas" in found[0]["spec"]:
            yield f"{named(scaler)}: there is no Deployment {target} that leaves its number of pods to it"
        if not spec["minReplicas"] < spec["maxReplicas"]:
            yield f"{named(scaler)}: from {spec['minReplicas']} to {spec['maxReplicas']} is no range"


def _denied(manifests: list[Manifest]) -> Iterator[str]:
    everything = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if not any(policy["spec"] == everything for policy in _of("NetworkPolicy", manifests)):
        yield "no NetworkPolicy denies everything that is not named"


def _reached(manifests: list[Manifest]) -> Iterator[str]:
    for deployment in _of("Deployment", manifests):
        policies = [one for one in _of("NetworkPolicy", manifests) if one["spec"]["podSelector"]]
        rules = [at(one, "spec.ingress") for one in policies if _selects(one["spec"]["podSelector"], deployment)]
        if not any(
            isinstance(rule, list) and all(one.get("from") and one.get("ports") for one in rule) for rule in rules
        ):
            yield f"{named(deployment)}: no NetworkPolicy says who may reach it, and where"


def _kept_in(manifests: list[Manifest]) -> Iterator[str]:
    for policy in _of("NetworkPolicy", manifests):
        for rule in policy["spec"].get("egress", []):
            if not (rule.get("to") and rule.get("ports")):
                yield f"{named(policy)}: lets requests out to anywhere"
            for to in rule.get("to", []):
                address = at(to, "ipBlock.cidr")
                asked = {(address, one["port"]) for one in rule.get("ports", ())} if address is not _MISSING else set()
                if asked - _OUTSIDE - (set() if _examined(manifests) else _STORE):
                    yield f"{named(policy)}: lets requests out to {address}"


def _spread(manifests: list[Manifest]) -> Iterator[str]:
    for deployment, pod in _pods(manifests):
        spread = pod.get("topologySpreadConstraints", [])
        if not spread or not all(_selects(one["labelSelector"], deployment) for one in spread):
            yield f"{named(deployment)}: its pods may all be in one zone"


def _own_nodes(manifests: list[Manifest]) -> Iterator[str]:
    for deployment, pod in _pods(manifests):
        if pod.get("nodeSelector") != NODES:
            yield f"{named(deployment)}: it competes with trainings and the platform for nodes"
        tolerated = {one["key"]: one.get("value") for one in pod.get("tolerations", ())}
        if tolerated != NODES:
            yield f"{named(deployment)}: the nodes of its pool do not take it"


def _own_account(manifests: list[Manifest]) -> Iterator[str]:
    accounts = {
        one["metadata"]["name"]: one["metadata"].get("annotations", {}) for one in _of("ServiceAccount", manifests)
    }
    for deployment, pod in _pods(manifests):
        if "iam.gke.io/gcp-service-account" not in accounts.get(pod.get("serviceAccountName"), {}):
            yield f"{named(deployment)}: runs as the node does, or as nobody that is defined"


def _no_downtime(manifests: list[Manifest]) -> Iterator[str]:
    for deployment in _of("Deployment", manifests):
        if at(deployment, "spec.strategy.rollingUpdate.maxUnavailable") != 0:
            yield f"{named(deployment)}: pods go before their successors are ready"


def _one_namespace(manifests: list[Manifest]) -> Iterator[str]:
    names = {one["metadata"]["name"] for one in _of("Namespace", manifests)}
    for manifest in manifests:
        if manifest["kind"] != "Namespace" and {manifest["metadata"].get("namespace")} != names:
            yield f"{named(manifest)}: not in the namespace of this overlay"


def _restricted(manifests: list[Manifest]) -> Iterator[str]:
    for namespace in _of("Namespace", manifests):
        if namespace["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"{named(namespace)}: admits any pod"


def _narrow(manifests: list[Manifest]) -> Iterator[str]:
    for role in _of("Role", manifests) + _of("ClusterRole", manifests):
        for rule in role["rules"]:
            if "*" in (*rule["verbs"], *rule["resources"], *rule["apiGroups"]) or "secrets" in rule["resources"]:
                yield f"{named(role)}: {rule} is more than watching needs"


POLICIES: Final[Mapping[str, Check]] = {
    "runs as non-root": _each(_pods, "securityContext.runAsNonRoot", True),
    "has the runtime's seccomp profile": _each(_pods, "securityContext.seccompProfile.type", "RuntimeDefault"),
    "gets no token of the cluster": _each(_pods, "automountServiceAccountToken", False),
    "has a read-only root file system": _each(_containers, "securityContext.readOnlyRootFilesystem", True),
    "gains no privileges": _each(_containers, "securityContext.allowPrivilegeEscalation", False),
    "drops all capabilities": _each(_containers, "securityContext.capabilities.drop", ["ALL"]),
    "says what it needs": _there(_containers, "resources.requests.cpu", "resources.requests.memory"),
    "says what it may take": _there(_containers, "resources.limits.cpu", "resources.limits.memory"),
    "is probed": _there(_containers, "startupProbe", "readinessProbe", "livenessProbe"),
    "is named by digest": _by_digest,
    "has time to end what it was asked": _enough_grace,
    "replaces pods one for one": _no_downtime,
    "selects its own pods": _selects_itself,
    "is spread over zones": _spread,
    "runs on its own nodes": _own_nodes,
    "has an identity of its own": _own_account,
    "leads somewhere": _service_leads,
    "survives a drained node": _budgeted,
    "is scaled": _scaled,
    "is one process where it is examined": _one_process,
    "denies what is not named": _denied,
    "says who may reach it": _reached,
    "asks nobody outside": _kept_in,
    "stays in its namespace": _one_namespace,
    "is in a restricted namespace": _restricted,
    "grants no more than needed": _narrow,
}


def broken(manifests: list[Manifest]) -> dict[str, list[str]]:
    """The policies that do not hold, with what was found."""
    found = {name: list(check(manifests)) for name, check in POLICIES.items()}
    return {name: problems for name, problems in found.items() if problems}


def _selects(selector: Mapping[str, Any], deployment: Manifest) -> bool:
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    wanted = {name: [value] for name, value in selector.get("matchLabels", {}).items()}
    wanted |= {one["key"]: one["values"] for one in selector.get("matchExpressions", ())}
    return all(labels.get(name) in values for name, values in wanted.items())


def _ports(deployment: Manifest) -> set[str]:
    containers = deployment["spec"]["template"]["spec"]["containers"]
    return {port["name"] for container in containers for port in container.get("ports", ())}


def _least(deployment: Manifest, manifests: list[Manifest]) -> int:
    """How many pods it has at least."""
    name = deployment["metadata"]["name"]
    scalers = [one for one in _of("HorizontalPodAutoscaler", manifests) if at(one, "spec.scaleTargetRef.name") == name]
    return int(scalers[0]["spec"]["minReplicas"] if scalers else deployment["spec"].get("replicas", 1))
