"""A Kubernetes API server for tests, with what stands behind it: the controllers of Deployments, Flux, and the pods.

It holds what kustomize makes of our own manifests, answers for the objects that we read, patch and delete, and lets a
caller do what our own roles allow. Its time is the looks at a Deployment: with each, every pod goes one step further.
"""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

import yaml

from matching_platform_tests.deploy.manifests import Manifest, one
from matching_platform_tests.emulators.flux import Flux

# How pods of an image fare: their containers come up, at once or late, or they do not.
Fate = Literal["comes up", "slow", "ImagePullBackOff", "CrashLoopBackOff", "never ready", "Unschedulable"]
How = int | Literal["drop"]

DAGSTER: Final = "dagster:dagster"
STRANGER: Final = "default:default"
REQUESTED_AT: Final = "reconcile.fluxcd.io/requestedAt"
_STEPS: Final[Mapping[Fate, int]] = {"comes up": 2, "slow": 15}
# As many steps as the Deployment's progressDeadlineSeconds have seconds, in the tests' short time.
_DEADLINE: Final = 25
_GOING: Final = 2
_PLURALS: Final = {
    "imagerepositories": "ImageRepository",
    "imagepolicies": "ImagePolicy",
    "imageupdateautomations": "ImageUpdateAutomation",
    "gitrepositories": "GitRepository",
    "kustomizations": "Kustomization",
}
_CORE: Final = r"/api/v1/namespaces/(?P<namespace>[^/]+)/(?P<resource>pods|events)"
_PATHS: Final = (
    re.compile(rf"{_CORE}(?:/(?P<name>[^/]+)(?P<part>/log)?)?"),
    re.compile(
        r"/apis/(?P<group>[^/]+)/v1/namespaces/(?P<namespace>[^/]+)/(?P<resource>[^/]+)/(?P<name>[^/]+)(?P<part>)"
    ),
)
_SERVICE: Final = re.compile(r"/service/(?P<namespace>[^/]+)/(?P<path>readyz|model|match)")
_ACCOUNT: Final = "system:serviceaccount:"


class Refusal(Exception):
    """What the server answers instead of what was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Model:
    """What the server in an image says: its version, and its proposals whatever it is asked."""

    version: str
    proposals: list[dict[str, Any]]


@dataclass
class Pod:
    """One pod; `age` and `going` are counted in steps, `going` once it was told to end."""

    name: str
    image: str
    fate: Fate
    age: int = 0
    going: int | None = None

    @property
    def digest(self) -> str:
        return self.image.rpartition("@")[2]

    @property
    def ready(self) -> bool:
        return self.going is None and self.age >= _STEPS.get(self.fate, 10**9)

    def json(self, labels: Mapping[str, str], port: int) -> dict[str, Any]:
        started = self.fate in ("comes up", "slow", "never ready") and self.age > 0
        crashed = self.fate == "CrashLoopBackOff" and self.age > 0
        metadata = {"name": self.name, "uid": f"uid-{self.name}", "labels": dict(labels)}
        if self.going is not None:
            metadata["deletionTimestamp"] = "2024-01-31T23:59:59Z"
        waiting = {
            "reason": self.fate if self.fate.endswith("BackOff") else "ContainerCreating",
            "message": "it is told",
        }
        container = {
            "name": "service",
            "image": self.image,
            "imageID": self.image.split(":")[0] + f"@{self.digest}" if started or crashed else "",
            "ready": self.ready,
            "started": started,
            "restartCount": self.age // 2 if crashed else 0,
            "state": {"running": {}} if started else {"waiting": waiting},
            "lastState": {"terminated": {"exitCode": 1}} if crashed else {},
        }
        scheduled = self.fate != "Unschedulable"
        conditions = [
            {
                "type": "PodScheduled",
                "status": str(scheduled),
                "message": "" if scheduled else "0/3 nodes: too little cpu",
            },
            {"type": "Ready", "status": str(self.ready)},
        ]
        status = {"phase": "Running" if started else "Pending", "conditions": conditions, "podIP": "127.0.0.1"}
        if scheduled:
            status["containerStatuses"] = [container]
        containers = [{"name": "service", "image": self.image, "ports": [{"name": "http", "containerPort": port}]}]
        return {"metadata": metadata, "spec": {"containers": containers}, "status": status}


@dataclass
class Workload:
    """A Deployment, its pods, and the controllers that keep them as it says."""

    deployment: Manifest
    replicas: int
    generation: int = 1
    observed: int = 0
    waited: int = 0
    pods: list[Pod] = field(default_factory=list)

    @property
    def image(self) -> str:
        return str(self.deployment["spec"]["template"]["spec"]["containers"][0]["image"])

    @property
    def new(self) -> list[Pod]:
        return [pod for pod in self.pods if pod.image == self.image and pod.going is None]

    def apply(self, deployment: Manifest) -> None:
        if deployment != self.deployment:
            self.deployment, self.generation, self.waited = deployment, self.generation + 1, 0

    def step(self, names: Iterator[int], fates: Mapping[str, Fate]) -> None:
        for pod in self.pods:
            pod.age += 1
            pod.going = None if pod.going is None else pod.going + 1
        self.pods = [pod for pod in self.pods if (pod.going or 0) <= _GOING]
        self.observed, self.waited = self.generation, self.waited + 1
        fate = fates.get(self.image.rpartition("@")[2], "ImagePullBackOff")
        while len(self.new) < self.replicas:
            self.pods.append(Pod(f"matching-service-{next(names)}", self.image, fate))
        if all(pod.ready for pod in self.new):
            for pod in self.pods:
                pod.going = 0 if pod.image != self.image and pod.going is None else pod.going

    def json(self) -> dict[str, Any]:
        staying = [pod for pod in self.pods if pod.going is None]
        up = all(pod.ready for pod in self.new)
        late = not up and self.waited > _DEADLINE
        progressing = {
            "type": "Progressing",
            "status": str(not late),
            "reason": "ProgressDeadlineExceeded" if late else "ReplicaSetUpdated",
            "message": "the ReplicaSet has timed out progressing" if late else "",
        }
        status = {
            "observedGeneration": self.observed,
            "replicas": len(staying),
            "updatedReplicas": len(self.new),
            "availableReplicas": len([pod for pod in staying if pod.ready]),
            "conditions": [progressing],
        }
        metadata = {**self.deployment["metadata"], "generation": self.generation}
        spec = {**self.deployment["spec"], "replicas": self.replicas}
        return {**self.deployment, "metadata": metadata, "spec": spec, "status": status}


class Server:
    """The running server; `used` is who did what: account, namespace, verb, API group and resource.

    `fates` and `models` are by digest, `troubles` are conditions of Flux's objects, by plural, that hold until removed;
    "silent" is a controller that does not run. `counts` is how often each pod answered a matching, by status.
    `forbidden` are resources that no role grants any more.
    """

    def __init__(self, flux: Flux, overlays: Mapping[str, list[Manifest]]) -> None:
        self.flux, self.fates, self.models = flux, dict[str, Fate](), dict[str, Model]()
        self.troubles: dict[str, dict[str, str] | Literal["silent"]] = {}
        self.used: set[tuple[str, str, str, str, str]] = set()
        self.forbidden: set[str] = set()
        self.counts: dict[int, int] = {}
        self.workloads = {
            f"matching-{place}": Workload(
                one(built, "Deployment/matching-service"),
                _replicas(built),
            )
            for place, built in overlays.items()
        }
        self._objects = {(one["kind"], one["metadata"]["name"]): {**one, "status": {}} for one in flux.objects}
        manifests = [*flux.objects, *(manifest for built in overlays.values() for manifest in built)]
        self._roles = {_where(role): role["rules"] for role in manifests if role["kind"] == "Role"}
        self._bindings = [binding for binding in manifests if binding["kind"] == "RoleBinding"]
        self._names, self._turns, self._lock = count(), count(), threading.RLock()
        self._failures: list[How] = []
        self._revision = flux.revision()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cluster": self}))
        self._http.daemon_threads = True
        self.port = self._http.server_port
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def url(self, place: str) -> str:
        """Where the environment's service answers."""
        return f"{self.endpoint}/service/matching-{place}"

    def kubeconfig(self, account: str = DAGSTER) -> str:
        """The text of one whose context `test` is this server, with an account's token."""
        settings = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.endpoint}}],
            "users": [{"name": "test", "user": {"token": account}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        return yaml.safe_dump(settings)

    def fail(self, *how: How) -> None:
        """The next requests to the API: an HTTP status, or "drop" for a connection that ends without an answer."""
        self._failures += how

    def serve(self, place: str, digest: str) -> None:
        """The pods of `digest` run and are ready, as if they had been there for long."""
        workload = self.workloads[f"matching-{place}"]
        changed = json.loads(json.dumps(workload.deployment))
        changed["spec"]["template"]["spec"]["containers"][0]["image"] = f"registry/matching-service:any@{digest}"
        workload.apply(changed)
        for _ in range(10):
            workload.step(self._names, self.fates)

    def answer(self, method: str, path: str, query: Mapping[str, str], token: str, body: Any) -> Any:
        """What the API answers; Refusal where it does not."""
        with self._lock:
            found = next((match for pattern in _PATHS if (match := pattern.fullmatch(path))), None)
            if found is None:
                raise Refusal(404, f"the server could not find the requested resource {path}")
            asked = found.groupdict()
            verb = _verb(method, asked["name"])
            resource = "pods/log" if asked["part"] else asked["resource"]
            self._allow(token, asked["namespace"], verb, asked.get("group", ""), resource)
            return getattr(self, f"_{verb}_{asked['resource'] if 'group' not in asked else _kind(asked)}")(
                asked, query, body
            )

    def asked(self, namespace: str, path: str) -> Any:
        """What the service answers, by one of its pods in turn."""
        with self._lock:
            ready = [pod for pod in self.workloads[namespace].pods if pod.ready]
            if not ready:
                raise Refusal(503, "no pod is ready")
            model = self.models[ready[next(self._turns) % len(ready)].digest]
        return {"readyz": {}, "model": {"version": model.version}, "match": {"proposals": model.proposals}}[path]

    def metrics(self) -> str:
        """What each pod tells at /metrics, as BentoML has it."""
        labels = 'endpoint="{}",http_response_code="{}",service_name="s",service_version="v"'
        counts = [("/match", status, times) for status, times in self.counts.items()] + [("/readyz", 503, 1000)]
        lines = [f"bentoml_service_request_total{{{labels.format(*who)}}} {times}.0" for *who, times in counts]
        return "\n".join(["# TYPE bentoml_service_request_total counter", *lines, ""])

    def start(self) -> None:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def failure(self) -> How | None:
        with self._lock:
            return self._failures.pop(0) if self._failures else None

    def _allow(self, token: str, namespace: str, verb: str, group: str, resource: str) -> None:
        if token not in (DAGSTER, STRANGER):
            raise Refusal(401, "Unauthorized")
        for rule in self._rules(token, namespace):
            if resource in self.forbidden:
                continue
            if verb in rule["verbs"] and group in rule["apiGroups"] and resource in rule["resources"]:
                self.used.add((token, namespace, verb, group, resource))
                return
        user = f"{_ACCOUNT}{token}"
        raise Refusal(403, f'{resource} is forbidden: User "{user}" cannot {verb} resource "{resource}" in {namespace}')

    def _rules(self, account: str, namespace: str) -> Iterator[Mapping[str, Any]]:
        for binding in self._bindings:
            accounts = [f"{subject['namespace']}:{subject['name']}" for subject in binding["subjects"]]
            if binding["metadata"]["namespace"] == namespace and account in accounts:
                yield from self._roles[namespace, binding["roleRef"]["name"]]

    def _workload(self, asked: Mapping[str, str]) -> Workload:
        found = self.workloads.get(asked["namespace"])
        if found is None or (asked["resource"] == "deployments" and asked["name"] != "matching-service"):
            raise Refusal(404, f"{asked['resource']} not found")
        return found

    def _pod(self, asked: Mapping[str, str]) -> Pod:
        for pod in self._workload(asked).pods:
            if pod.name == asked["name"]:
                return pod
        raise Refusal(404, f'pods "{asked["name"]}" not found')

    def _get_deployments(self, asked: Mapping[str, str], *_: Any) -> Any:
        workload = self._workload(asked)
        workload.step(self._names, self.fates)
        return workload.json()

    def _list_pods(self, asked: Mapping[str, str], query: Mapping[str, str], _: Any) -> Any:
        labels = self._workload(asked).deployment["spec"]["template"]["metadata"]["labels"]
        selector = dict(label.split("=") for label in query["labelSelector"].split(","))
        suits = selector.items() <= labels.items()
        return {"items": [pod.json(labels, self.port) for pod in self._workload(asked).pods if suits]}

    def _delete_pods(self, asked: Mapping[str, str], *_: Any) -> Any:
        pod = self._pod(asked)
        pod.going = pod.going or 0
        return pod.json({}, self.port)

    def _get_pods(self, asked: Mapping[str, str], *_: Any) -> Any:
        assert asked["part"], "a single pod is read for its log alone"
        pod = self._pod(asked)
        return f"ModelError: the model of {pod.image} is cut short\n"

    def _list_events(self, asked: Mapping[str, str], query: Mapping[str, str], _: Any) -> Any:
        uid = query["fieldSelector"].removeprefix("involvedObject.uid=")
        event = {"metadata": {}, "involvedObject": {}, "reason": "Failed", "message": f"what happened to {uid}"}
        return {"items": [event]}

    def _get_flux(self, asked: Mapping[str, str], *_: Any) -> Any:
        found = self._flux(asked)
        if self.troubles.get(asked["resource"]) != "silent" and "pending" in found:
            self._reconcile(asked["resource"], asked["name"], found.pop("pending"))
        return found

    def _patch_flux(self, asked: Mapping[str, str], _: Mapping[str, str], body: Any) -> Any:
        assert body.keys() == {"metadata"} and body["metadata"].keys() == {"annotations"}, "the admission policy"
        found = self._flux(asked)
        found["metadata"] = {**found["metadata"], **body["metadata"]}
        found["pending"] = body["metadata"]["annotations"][REQUESTED_AT]
        return found

    def _flux(self, asked: Mapping[str, str]) -> dict[str, Any]:
        found = self._objects.get((_PLURALS[asked["resource"]], asked["name"]))
        if found is None:
            raise Refusal(404, f"{asked['resource']} {asked['name']} not found")
        return found

    def _reconcile(self, plural: str, name: str, token: str) -> None:
        """What the controller of such an object does when it is asked."""
        trouble = self.troubles.get(plural)
        ready = trouble if isinstance(trouble, dict) else {"type": "Ready", "status": "True", "message": "done"}
        status = self._objects[_PLURALS[plural], name]["status"]
        status |= {"lastHandledReconcileAt": token, "conditions": [ready]}
        if ready["status"] != "True" or ready["type"] != "Ready":
            return
        if plural == "imagepolicies":
            chosen = self.flux.choose(name)
            status["latestRef"] = chosen and {"name": chosen.name, "tag": chosen.tag, "digest": chosen.digest}
        elif plural == "imageupdateautomations":
            self.flux.update(name)
        elif plural == "gitrepositories":
            self._revision = self.flux.revision()
        elif plural == "kustomizations":
            deployment = one(self.flux.build(name, self._revision), "Deployment/matching-service")
            self.workloads[name].apply(deployment)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # Head and body in one packet; two of them wait for each other.
    cluster: Server

    def _handle(self) -> None:
        split = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            if split.path == "/metrics":
                return self._send(200, self.cluster.metrics())
            if service := _SERVICE.fullmatch(split.path):
                return self._send(200, self.cluster.asked(service["namespace"], service["path"]))
            failure = self.cluster.failure()
            if failure == "drop":
                self.close_connection = True
                return None
            if isinstance(failure, int):
                raise Refusal(failure, HTTPStatus(failure).phrase)
            token = self.headers.get("authorization", "").removeprefix("Bearer ")
            query = dict(parse_qsl(split.query))
            self._send(200, self.cluster.answer(self.command, split.path, query, token, json.loads(body or b"{}")))
        except Refusal as error:
            self._send(
                error.status, {"kind": "Status", "status": "Failure", "code": error.status, "message": str(error)}
            )
        return None

    do_GET = do_POST = do_PATCH = do_DELETE = _handle

    def _send(self, status: int, answer: Any) -> None:
        content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain" if isinstance(answer, str) else "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing: the test's output is for the test."""


def _replicas(built: list[Manifest]) -> int:
    """As many as the autoscaler starts with, or as the Deployment says where nothing scales it."""
    scaled = [found for found in built if found["kind"] == "HorizontalPodAutoscaler"]
    return int(
        scaled[0]["spec"]["minReplicas"] if scaled else one(built, "Deployment/matching-service")["spec"]["replicas"]
    )


@contextmanager
def serve(flux: Flux, overlays: Mapping[str, list[Manifest]]) -> Iterator[Server]:
    """A cluster to which `overlays`, by environment, and what Flux needs were applied."""
    server = Server(flux, overlays)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _where(role: Manifest) -> tuple[str, str]:
    return role["metadata"]["namespace"], role["metadata"]["name"]


def _verb(method: str, name: str | None) -> str:
    return {"PATCH": "patch", "DELETE": "delete"}.get(method, "get" if name else "list")


def _kind(asked: Mapping[str, str]) -> str:
    return "deployments" if asked["group"] == "apps" else "flux"
