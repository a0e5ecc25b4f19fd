"""A place on a Kubernetes cluster: a tag in the registry says what serves there, Flux applies it, and we watch.

The names are those of `deploy/kubernetes` and `deploy/flux`.
"""

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import urllib3
from kubernetes import client, config
from prometheus_client.parser import text_string_to_metric_families
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

from matching_platform.delivery.images.image import Image, ImageError, tag_of
from matching_platform.delivery.probe import Probe
from matching_platform.delivery.serving import checks
from matching_platform.delivery.serving.place import Accept, CandidateError, Deployment, Reading, Release, RolloutError

WORKLOAD: Final = "matching-service"
CONTAINER: Final = "service"
PORT: Final = "http"
FLUX: Final = "flux-system"
REQUESTED_AT: Final = "reconcile.fluxcd.io/requestedAt"

# Which tags an environment follows, as its ImagePolicy says; production follows promotions alone.
PREFIXES: Final[Mapping[str, str]] = {"staging": "", "production": "production-"}
TAG: Final = "^{prefix}(?P<time>[0-9]{{14}})-[a-z0-9][a-z0-9._-]*$"

# From the registry to the cluster, in the order in which Flux passes a new tag on.
_CHAIN: Final = (
    ("image.toolkit.fluxcd.io", "imagerepositories", "matching-service"),
    ("image.toolkit.fluxcd.io", "imagepolicies", "matching-{place}"),
    ("image.toolkit.fluxcd.io", "imageupdateautomations", "matching-{place}"),
    ("source.toolkit.fluxcd.io", "gitrepositories", "matching-platform"),
    ("kustomize.toolkit.fluxcd.io", "kustomizations", "matching-{place}"),
)
_POLICIES: Final = "imagepolicies"

_POLL_SECONDS: Final = 1.0
# How long an API server may be away; one that is upgraded comes back within a minute.
_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.5
_REQUEST_SECONDS: Final = (5.0, 30.0)
_FLUX_SECONDS: Final = 60.0
# A registry's short absence gets over; so long in one of these states, a pod does not.
_STUCK_SECONDS: Final = 30.0
_STUCK: Final = frozenset(
    (
        *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CrashLoopBackOff"),
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
    )
)
# Until every node sends requests to the new pods alone.
_SETTLE_SECONDS: Final = 20.0
_PASSING: Final = frozenset((408, 409, 410, 429, 500, 502, 503, 504))
_REQUESTS: Final = "bentoml_service_request_total"
_LOG_LINES: Final = 20
_EVENTS: Final = 5


class Registry(Protocol):
    """The service's repository in a registry."""

    def tags(self) -> Sequence[str]: ...

    def digest(self, tag: str) -> str: ...

    def tag(self, digest: str, tag: str) -> None:
        """Lets `tag` name the image; like the others, ImageError where the registry refuses."""
        ...


@dataclass(frozen=True)
class Cluster:
    """The service in one environment, `staging` or `production`, reached from here at `url`.

    `context` is one of the kubeconfig's; without it, we run in that cluster. A rollout may take `patience` seconds, a little
    more than the cluster itself gives it.
    """

    name: str
    url: str
    registry: Registry
    context: str | None = None
    patience: float = 720.0

    def deploy(self, release: Release, accept: Accept | None = None) -> Deployment:
        """Makes the image of `release` the environment's newest, and returns when its pods alone answer.

        The cluster gives a pod traffic when it is ready, so what the packed probe and `accept` find comes after that,
        and it is the caller's to deploy what served before: staging is there to find it.
        """
        image = release.image
        if image is None:
            raise RolloutError(f"a cluster runs images, and there is none of {release.model}: build it first")
        wanted = checks.packed(release)
        with _connected(self.context) as api:
            view = _View(api, f"matching-{self.name}")
            tag, changed = self._name(image)
            if changed or not _rolled_out(*view.look(), image.digest):
                changed = True
                _Flux(api, self.name).apply(tag)
                view.await_rollout(image.digest, self.patience)
        self._await_answers(wanted)
        if problems := accept(self.url) if accept else ():
            raise CandidateError(f"{self.name} serves {release.model}, which is not accepted: {'; '.join(problems)}")
        return Deployment(self.name, release.model, image.digest, self.url, changed)

    def serving(self) -> str | None:
        """The model that answers now; None where none does."""
        return checks.serving(self.url)

    def traffic(self) -> Reading:
        """What the ready pods have counted since they started; RolloutError where one does not tell.

        They are asked themselves, which works inside the cluster alone, from a namespace that may reach them.
        """
        with _connected(self.context) as api:
            deployment, pods = _View(api, f"matching-{self.name}").look()
        ready = [pod for pod in _staying(pods) if _is_ready(pod)]
        counted = [_counted(pod) for pod in ready]
        # Other pods, or one that was restarted, count from their start.
        who = sorted(f"{pod.metadata.name}/{pod.status.container_statuses[0].restart_count}" for pod in ready)
        server = deployment.spec.template.spec.containers[0].image
        return Reading(" ".join(who), server, sum(one for one, _ in counted), sum(failed for _, failed in counted))

    def terminate(self) -> None:
        """Deletes one pod, which ends what it was asked; returns when it is gone and replaced. Staging's role allows it."""
        with _connected(self.context) as api:
            _View(api, f"matching-{self.name}").replace_one(self.patience)

    def stop(self) -> bool:
        """Ends nothing: what runs on a cluster is not this machine's to end."""
        return False

    def _name(self, image: Image) -> tuple[str, bool]:
        """The environment's newest tag, which is this image's from now on, and whether it was not before."""
        prefix = PREFIXES[self.name]
        ours = re.compile(TAG.format(prefix=prefix))
        try:
            tags = [found for tag in self.registry.tags() if (found := ours.fullmatch(tag))]
            newest = max(tags, key=lambda found: found["time"], default=None)
            if newest and self.registry.digest(newest[0]) == image.digest:
                return newest[0], False
            # Whatever the clocks of those who tag say, the new tag is the newest.
            now = max(datetime.now(UTC), _time(newest) + timedelta(seconds=1)) if newest else datetime.now(UTC)
            tag = prefix + tag_of(image.model, now)
            self.registry.tag(image.digest, tag)
        except ImageError as error:
            raise RolloutError(f"{image.reference} was not named {self.name}'s newest image: {error}") from error
        return tag, True

    def _await_answers(self, wanted: Probe) -> None:
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            try:
                return checks.check(self.url, wanted)
            except RolloutError as error:
                if time.monotonic() > deadline:
                    raise CandidateError(str(error)) from error
            time.sleep(_POLL_SECONDS)


@dataclass(frozen=True)
class _Api:
    """The parts of the Kubernetes API that are asked; a server that is away for a while is waited for."""

    apps: client.AppsV1Api
    core: client.CoreV1Api
    objects: client.CustomObjectsApi

    def ask(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """What the server answers; RolloutError that says what to do where it refuses, ApiException of 404."""
        patiently = Retrying(
            retry=retry_if_exception(_passes),
            stop=stop_after_delay(_PATIENCE_SECONDS),
            wait=wait_exponential(multiplier=_PAUSE_SECONDS, max=5.0),
            reraise=True,
        )
        try:
            return patiently(call, *args, _request_timeout=_REQUEST_SECONDS, **options)
        except urllib3.exceptions.HTTPError as error:
            raise RolloutError(f"the cluster's API server cannot be reached: {error}") from error
        except client.ApiException as error:
            if error.status == 404:
                raise
            raise RolloutError(_refusal(error)) from error


@dataclass(frozen=True)
class _View:
    """What one namespace says about the service."""

    api: _Api
    namespace: str

    def look(self) -> tuple[client.V1Deployment, list[client.V1Pod]]:
        """The Deployment and its pods; RolloutError where there is none."""
        try:
            deployment = self.api.ask(self.api.apps.read_namespaced_deployment, WORKLOAD, self.namespace)
        except client.ApiException as error:
            told = f"there is no Deployment {WORKLOAD} in {self.namespace}; apply deploy/flux, and see `flux get all`"
            raise RolloutError(told) from error
        selector = ",".join(f"{name}={value}" for name, value in deployment.spec.selector.match_labels.items())
        pods = self.api.ask(self.api.core.list_namespaced_pod, self.namespace, label_selector=selector)
        return deployment, pods.items

    def await_rollout(self, digest: str, patience: float) -> None:
        """Returns when ready pods of `digest` are all that is left; RolloutError that says what the cluster says."""
        deadline = time.monotonic() + patience
        since: dict[str, float] = {}
        while True:
            deployment, pods = self.look()
            if _rolled_out(deployment, pods, digest):
                return
            new = [pod for pod in pods if pod.spec.containers[0].image.endswith(digest)]
            now = time.monotonic()
            since = {pod.metadata.uid: since.get(pod.metadata.uid, now) for pod in new if _trouble(pod)}
            stuck = any(now - first > _STUCK_SECONDS for first in since.values())
            if stuck or _gave_up(deployment, digest) or now > deadline:
                failed = CandidateError if _names(deployment, digest) else RolloutError
                raise failed(self._why(deployment, new, digest))
            time.sleep(_POLL_SECONDS)

    def replace_one(self, patience: float) -> None:
        _, pods = self.look()
        ready = [pod for pod in _staying(pods) if _is_ready(pod)]
        if not ready:
            raise RolloutError(f"no pod of {self.namespace} is ready, so none is ended")
        chosen, deadline = ready[0].metadata, time.monotonic() + patience
        with contextlib.suppress(client.ApiException):  # It is gone already.
            self.api.ask(self.api.core.delete_namespaced_pod, chosen.name, self.namespace)
        while True:
            deployment, pods = self.look()
            there = {pod.metadata.uid for pod in pods}
            replaced = len([pod for pod in _staying(pods) if _is_ready(pod)]) >= deployment.spec.replicas
            if chosen.uid not in there and replaced:
                return
            if time.monotonic() > deadline:
                raise RolloutError(f"pod {chosen.name} of {self.namespace} was not replaced in {patience:.0f} s")
            time.sleep(_POLL_SECONDS)

    def _why(self, deployment: client.V1Deployment, new: list[client.V1Pod], digest: str) -> str:
        if not _names(deployment, digest):
            image = deployment.spec.template.spec.containers[0].image
            return f"{self.namespace} still wants {image}; see `flux get kustomizations -n {FLUX}`"
        status = deployment.status
        told = [f"{status.available_replicas or 0} of {deployment.spec.replicas} pods of {digest} are available"]
        told += [f"{found.type}: {found.message}" for found in status.conditions or () if found.status == "False"]
        failed = [pod for pod in new if not _is_ready(pod)]
        told += [f"pod {pod.metadata.name}: {_trouble(pod) or _state(pod)}" for pod in failed]
        told += [line for pod in failed[:1] for line in self._details(pod)]
        return f"{self.namespace} did not roll out: " + "\n".join(told)

    def _details(self, pod: client.V1Pod) -> list[str]:
        """Its last events and the end of its log, or why they cannot be had: that must not hide what went wrong."""
        try:
            return [*self._events(pod), *self._log(pod)]
        except RolloutError as error:
            return [f"more is not to be had: {error}"]
        except client.ApiException:
            return ["it is gone meanwhile"]

    def _events(self, pod: client.V1Pod) -> list[str]:
        chosen = f"involvedObject.uid={pod.metadata.uid}"
        events = self.api.ask(self.api.core.list_namespaced_event, self.namespace, field_selector=chosen).items
        return [f"{event.reason}: {event.message}" for event in events[-_EVENTS:]]

    def _log(self, pod: client.V1Pod) -> list[str]:
        if not any(_has_begun(found) for found in pod.status.container_statuses or ()):
            return []
        read, name = self.api.core.read_namespaced_pod_log, pod.metadata.name
        log = self.api.ask(read, name, self.namespace, container=CONTAINER, tail_lines=_LOG_LINES)
        return [f"its log ends with\n{log}"]


@dataclass(frozen=True)
class _Flux:
    """Flux's objects of one environment."""

    api: _Api
    place: str

    def apply(self, tag: str) -> None:
        """Has Flux look at registry and repository now instead of at the next interval; returns when `tag` is applied."""
        for group, plural, name in _CHAIN:
            chosen = tag if plural == _POLICIES else None
            self._reconcile(group, plural, name.format(place=self.place), chosen)

    def _reconcile(self, group: str, plural: str, name: str, chosen: str | None) -> None:
        """As `flux reconcile` does; RolloutError with Flux's own words where it does not manage."""
        where = (group, "v1", FLUX, plural, name)
        asked = {"metadata": {"annotations": {REQUESTED_AT: datetime.now(UTC).isoformat()}}}
        deadline = time.monotonic() + _FLUX_SECONDS
        try:
            patch = self.api.objects.patch_namespaced_custom_object
            self.api.ask(patch, *where, asked, _content_type="application/merge-patch+json")
            while not _reconciled(found := self.api.ask(self.api.objects.get_namespaced_custom_object, *where), chosen):
                if found["spec"].get("suspend"):
                    raise RolloutError(f"Flux's {plural}/{name} is suspended; resume it with `flux resume`")
                if time.monotonic() > deadline or _condition(found, "Stalled").get("status") == "True":
                    raise RolloutError(f"Flux's {plural}/{name} is not ready: {_told(found, chosen)}")
                time.sleep(_POLL_SECONDS)
        except client.ApiException as error:
            raise RolloutError(f"Flux has no {plural}/{name} in {FLUX}; apply deploy/flux") from error


@contextlib.contextmanager
def _connected(context: str | None) -> Iterator[_Api]:
    settings = client.Configuration()
    settings.retries = False  # `ask` waits longer, and knows what is worth it.
    try:
        if context is None:
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(context=context, client_configuration=settings)
    except config.ConfigException as error:
        told = f"the kubeconfig has no usable context '{context}'" if context else "this runs in no cluster"
        raise RolloutError(f"{told}; name one of `kubectl config get-contexts` ({error})") from error
    with client.ApiClient(settings) as api:
        yield _Api(client.AppsV1Api(api), client.CoreV1Api(api), client.CustomObjectsApi(api))


def _passes(error: BaseException) -> bool:
    if isinstance(error, client.ApiException):
        return error.status in _PASSING
    return isinstance(error, urllib3.exceptions.HTTPError)


def _refusal(error: client.ApiException) -> str:
    if error.status == 401:
        return "the cluster does not know us: log in again, or run with the service account dagster/dagster"
    said = _message(error)
    if error.status == 403:
        return (
            f"the cluster forbids it ({said}); the roles are rollout-observer of deploy/kubernetes and"
            " matching-reconciler of deploy/flux, bound to the service account dagster/dagster"
        )
    return f"the cluster's API server answers {error.status}: {said}"


def _message(error: client.ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.body or error.reason)


def _time(tag: re.Match[str]) -> datetime:
    try:
        return datetime.strptime(tag["time"], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise ImageError(f"the newest tag, {tag[0]}, names no time; remove it from the registry") from error


def _rolled_out(deployment: client.V1Deployment, pods: list[client.V1Pod], digest: str) -> bool:
    status, wanted, staying = deployment.status, deployment.spec.replicas, _staying(pods)
    return (
        _names(deployment, digest)
        and wanted == status.replicas == status.updated_replicas == status.available_replicas == len(staying)
        and all(_is_ready(pod) and _runs(pod, digest) for pod in staying)
    )


def _names(deployment: client.V1Deployment, digest: str) -> bool:
    """Whether the Deployment wants `digest`, and its controller has seen that."""
    seen = (deployment.status.observed_generation or 0) >= deployment.metadata.generation
    return seen and deployment.spec.template.spec.containers[0].image.endswith(digest)


def _gave_up(deployment: client.V1Deployment, digest: str) -> bool:
    reasons = {condition.reason for condition in deployment.status.conditions or ()}
    return _names(deployment, digest) and "ProgressDeadlineExceeded" in reasons


def _counted(pod: client.V1Pod) -> tuple[int, int]:
    """Matchings that a pod was asked for, and how many of them it failed, by BentoML's own count."""
    port = next(port.container_port for port in pod.spec.containers[0].ports if port.name == PORT)
    url = f"http://{pod.status.pod_ip}:{port}/metrics"
    with checks.answering(url):
        families = text_string_to_metric_families(checks.get(url).raise_for_status().text)
        samples = [sample for family in families for sample in family.samples if sample.name == _REQUESTS]
    asked = [sample for sample in samples if sample.labels["endpoint"] == "/match"]
    failed = [sample for sample in asked if sample.labels["http_response_code"].startswith("5")]
    return int(sum(sample.value for sample in asked)), int(sum(sample.value for sample in failed))


def _staying(pods: list[client.V1Pod]) -> list[client.V1Pod]:
    """Without those that are going: they end what they were asked, and get no new requests."""
    return [pod for pod in pods if pod.metadata.deletion_timestamp is None]


def _is_ready(pod: client.V1Pod) -> bool:
    return any(found.type == "Ready" and found.status == "True" for found in pod.status.conditions or ())


def _runs(pod: client.V1Pod, digest: str) -> bool:
    return any(found.image_id.endswith(digest) for found in pod.status.container_statuses or ())


def _trouble(pod: client.V1Pod) -> str | None:
    """What keeps the pod from coming up, in the kubelet's words; None while it may still come up."""
    if _is_ready(pod):
        return None
    for found in pod.status.container_statuses or ():
        waiting = found.state.waiting if found.state else None
        if waiting and waiting.reason in _STUCK:
            return f"{waiting.reason}: {waiting.message}"
        if found.restart_count:
            return f"its container ended {found.restart_count} times"
    return None


def _has_begun(container: client.V1ContainerStatus) -> bool:
    """Whether it runs or ran, so that it has a log."""
    return bool(container.started or (container.last_state and container.last_state.terminated))


def _state(pod: client.V1Pod) -> str:
    missing = [found for found in pod.status.conditions or () if found.status == "False" and found.message]
    return "; ".join(f"{found.type}: {found.message}" for found in missing) or f"{pod.status.phase}, not ready"


def _reconciled(found: Mapping[str, Any], chosen: str | None) -> bool:
    """Whether what was asked for last, by us or by someone after us, is done, and the policy chose our tag."""
    status = found.get("status", {})
    handled = status.get("lastHandledReconcileAt") == found["metadata"]["annotations"].get(REQUESTED_AT)
    ready = _condition(found, "Ready").get("status") == "True"
    return handled and ready and chosen in (None, status.get("latestRef", {}).get("tag"))


def _condition(found: Mapping[str, Any], kind: str) -> Mapping[str, str]:
    conditions = found.get("status", {}).get("conditions", ())
    return next((condition for condition in conditions if condition["type"] == kind), {})


def _told(found: Mapping[str, Any], chosen: str | None) -> str:
    latest = found.get("status", {}).get("latestRef", {}).get("tag")
    if chosen not in (None, latest) and latest:
        return f"it chose the tag {latest}, not {chosen}"
    return _condition(found, "Ready").get("message") or "it has not answered; is its controller running?"
