"""Cloud Build for tests: its REST API on a loopback port for Google's real client, and builds that really happen.

It knows builds of archives in Cloud Storage whose steps are Docker's; what it does not know it refuses with 501, which no
client tries again. `cloud_build_work` carries the builds out.
"""

import base64
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, NoReturn
from uuid import uuid4

from google.cloud.devtools.cloudbuild_v1 import Build, BuildOperationMetadata, BuildOptions, ListBuildsResponse
from google.longrunning.operations_pb2 import Operation
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message
from google.rpc import code_pb2

from matching_platform_tests.emulators.bigquery_http import Answer, Faults, HttpServer, Request
from matching_platform_tests.emulators.cloud_build_work import DOCKER, Docker, Ended, Job, Machine, Status

PAGE_BUILDS: Final = 50
DAY_SECONDS: Final = 24 * 3600
HOUR_SECONDS: Final = 3600

_BUILDS: Final = r"/v1/(?P<parent>projects/(?P<project>[^/]+)(?:/locations/[^/]+)?)/builds"
_BUILD: Final = rf"{_BUILDS}/(?P<id>[^/:]+)"
_ROUTES: Final = [
    ("POST", _BUILDS, "builds.create"),
    ("GET", _BUILDS, "builds.list"),
    ("GET", _BUILD, "builds.get"),
    ("POST", rf"{_BUILD}:cancel", "builds.cancel"),
    ("GET", r"/v1/operations/build/(?P<project>[^/]+)/(?P<id>[^/]+)", "operations.get"),
]
# What a client may say of a build; the rest is the service's to say, and is ignored where a client says it.
_INPUTS: Final = "source steps timeout images queue_ttl logs_bucket options substitutions tags service_account".split()
_HTTP: Final = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 501: "UNIMPLEMENTED"}
_CODES: Final = {
    Status.FAILURE: code_pb2.UNKNOWN,
    Status.INTERNAL_ERROR: code_pb2.INTERNAL,
    Status.TIMEOUT: code_pb2.DEADLINE_EXCEEDED,
    Status.CANCELLED: code_pb2.CANCELLED,
    Status.EXPIRED: code_pb2.ABORTED,
}

_TAG: Final = r"[\w][\w.-]{0,127}"
_ACCOUNT: Final = r"projects/[^/]+/serviceAccounts/[^/]+"
_IMAGE: Final = r"[\w.-]+(:\d+)?(/[a-z0-9][a-z0-9._-]*)+(:[\w][\w.-]{0,127})?"
_KEY: Final = r"_[A-Z0-9_]+"
_TERM: Final = re.compile(r'\s*(?P<field>tags|status|build_id)\s*=\s*"(?P<value>[^"]*)"\s*')
_VARIABLE: Final = re.compile(r"\$(?:\$|\{(\w+)\}|(\w+))")

# Which modes need no bucket of the caller's, and so may go with an account of the caller's.
_NO_BUCKET: Final = {BuildOptions.LoggingMode.CLOUD_LOGGING_ONLY, BuildOptions.LoggingMode.NONE}


class Refused(Exception):
    """What the API answers instead of a result."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status = status


class Server:
    """Builds in memory, behind an endpoint of this machine.

    `storage` is the endpoint of the Cloud Storage server with the sources, and `denied` holds permissions that nobody has.
    """

    def __init__(self, docker: Docker, storage: str) -> None:
        self.denied: set[str] = set()
        self.calls: list[str] = []
        self._machine = Machine(docker, storage, self.denied)
        self._jobs: list[Job] = []
        self._threads: list[threading.Thread] = []
        self._broken = 0
        self._held = False
        self._changed = threading.Condition()
        self._faults = Faults()
        self._http = HttpServer(_ROUTES, self._answer, self._faults)
        self.endpoint = self._http.url

    @property
    def builds(self) -> list[Any]:
        """All builds so far, the first one first."""
        return [job.build for job in self._jobs]

    def fail(self, call: str, how: int | str, times: int = 1) -> None:
        """The next `times` of `call`, such as 'builds.get', fail: an HTTP status, which changes nothing, or 'drop'."""
        self._faults.add(call, how, times)

    def break_down(self, times: int = 1) -> None:
        """The machines of the next `times` builds break down."""
        self._broken += times

    @contextmanager
    def busy(self) -> Iterator[None]:
        """No machine is free meanwhile: builds stay in the queue, until they expire."""
        self._hold(True)
        try:
            yield
        finally:
            self._hold(False)

    def cancel(self, number: int = -1) -> None:
        """Somebody cancels a build."""
        with self._changed:
            self._jobs[number].cancelled.set()
            self._changed.notify_all()

    def close(self) -> None:
        """Cancels what runs, and ends."""
        for number in range(len(self._jobs)):
            self.cancel(number)
        for thread in self._threads:
            thread.join()
        self._faults.close()
        self._http.close()

    def _hold(self, held: bool) -> None:
        with self._changed:
            self._held = held
            self._changed.notify_all()

    def _answer(self, request: Request) -> Answer:
        self.calls.append(request.call)
        calls: dict[str, Callable[[Request], Message]] = {
            "builds.create": self._create,
            "builds.list": self._list,
            "builds.get": self._get,
            "builds.cancel": self._cancel,
            "operations.get": self._operation,
        }
        if request.call not in calls:
            return _error(404, f"{request.method} is not known here")
        try:
            with self._changed:
                if (permission := f"cloudbuild.{request.call}") in self.denied:
                    raise Refused(403, f"The caller does not have permission {permission}")
                told = calls[request.call](request)
                numbers = "enum-encoding=int" in request.query.get("$alt", "")
                return Answer(MessageToDict(told, use_integers_for_enums=numbers))
        except Refused as refusal:
            return _error(refusal.status, str(refusal))
        except NotImplementedError as error:
            return _error(501, str(error))

    def _create(self, request: Request) -> Message:
        build = _described(request)
        if build.service_account and "iam.serviceAccounts.actAs" in self.denied:
            raise Refused(403, f"caller does not have permission to act as service account {build.service_account}")
        build.id, build.project_id = str(uuid4()), request.path["project"]
        _check(build)
        parent = request.path["parent"]
        build.name = f"{parent if '/locations/' in parent else parent + '/locations/global'}/builds/{build.id}"
        region = build.name.split("/")[3]
        build.log_url = (
            f"https://console.cloud.google.com/cloud-build/builds;region={region}/{build.id}?project={build.project_id}"
        )
        build.status = Status.QUEUED
        build.create_time.FromDatetime(datetime.now(UTC))
        self._jobs.append(job := Job(build))
        self._threads.append(thread := threading.Thread(target=self._work, args=(job,)))
        thread.start()
        return _operation(build)

    def _get(self, request: Request) -> Message:
        return self._job(request).build

    def _cancel(self, request: Request) -> Message:
        job = self._job(request)
        if job.build.status not in (Status.QUEUED, Status.WORKING):
            raise Refused(400, "cannot cancel: build has already finished")
        job.cancelled.set()
        self._changed.notify_all()
        return job.build

    def _operation(self, request: Request) -> Message:
        wanted = base64.urlsafe_b64decode(request.path["id"]).decode()
        return _operation(next((build for build in self.builds if build.id == wanted), None) or _nothing())

    def _list(self, request: Request) -> Message:
        wanted = _filter(request.query.get("filter", ""))
        found = [job.build for job in reversed(self._jobs) if _is_at(job.build, request) and wanted(job.build)]
        first = int(request.query.get("pageToken") or 0)
        until = first + int(request.query.get("pageSize") or PAGE_BUILDS)
        token = str(until) if until < len(found) else ""
        return ListBuildsResponse.pb()(builds=found[first:until], next_page_token=token)

    def _job(self, request: Request) -> Job:
        for job in self._jobs:
            if job.build.id == request.path["id"] and _is_at(job.build, request):
                return job
        return _nothing()

    def _work(self, job: Job) -> None:
        ended = _outcome(lambda: self._wait_for_machine(job), lambda: self._machine.work(job))
        job.say(ended.status.name)
        unlogged = _outcome(lambda: self._machine.keep_log(job))
        ended = unlogged if unlogged.status != Status.SUCCESS else ended
        with self._changed:
            # The status last: whoever sees the end finds the log.
            job.build.finish_time.FromDatetime(datetime.now(UTC))
            job.build.status_detail = ended.detail
            if ended.kind:
                job.build.failure_info.type_, job.build.failure_info.detail = ended.kind, ended.detail
            job.build.status = ended.status

    def _wait_for_machine(self, job: Job) -> None:
        build = job.build
        with self._changed:
            free = self._changed.wait_for(lambda: job.cancelled.is_set() or not self._held, build.queue_ttl.seconds)
            if job.cancelled.is_set():
                raise Ended(Status.CANCELLED)
            if not free:
                raise Ended(Status.EXPIRED, "build expired in the queue")
            build.status = Status.WORKING
            build.start_time.FromDatetime(datetime.now(UTC))
            if self._broken:
                self._broken -= 1
                raise Ended(Status.INTERNAL_ERROR, "the machine broke down")


@contextmanager
def serve(docker: Docker, storage: str) -> Iterator[Server]:
    """A running server; its builds are cancelled and forgotten afterwards."""
    server = Server(docker, storage)
    try:
        yield server
    finally:
        server.close()


def _outcome(*works: Callable[[], None]) -> Ended:
    """How a build ends that does all of `works`, as far as it comes."""
    try:
        for work in works:
            work()
        return Ended(Status.SUCCESS)
    except Ended as ended:
        return ended
    except Exception as error:  # noqa: BLE001 - whatever else goes wrong is the service's own fault, as there
        return Ended(Status.INTERNAL_ERROR, repr(error))


def _error(status: int, told: str) -> Answer:
    return Answer({"error": {"code": status, "message": told, "status": _HTTP[status]}}, status)


def _nothing() -> NoReturn:
    raise Refused(404, "Requested entity was not found.")


def _described(request: Request) -> Any:
    """The build that a request's body describes, of which only the fields that a client decides count."""
    if not request.json:
        raise Refused(400, "invalid build: the request has no build")
    try:
        given = ParseDict(request.json, Build.pb()())
    except ParseError as error:
        raise Refused(400, f"Invalid JSON payload received. {error}") from error
    for name in (field.name for field, _ in given.ListFields() if field.name not in _INPUTS):
        given.ClearField(name)
    return given


def _check(build: Any) -> None:
    """Refuses what the API refuses, in its words where they are known, and sets what it sets."""
    build.timeout.seconds = build.timeout.seconds if build.HasField("timeout") else HOUR_SECONDS
    build.queue_ttl.seconds = build.queue_ttl.seconds if build.HasField("queue_ttl") else HOUR_SECONDS
    kind = build.source.WhichOneof("source")
    if kind not in (None, "storage_source") or build.options.pool.name:
        raise NotImplementedError(f"sources other than storageSource, and private pools, such as {kind}")
    if any(step.name != DOCKER or step.entrypoint or step.script or step.wait_for for step in build.steps):
        raise NotImplementedError(f"steps that are not simply {DOCKER}, one after another")
    _expand(build)
    for problem in _problems(build):
        raise Refused(400, f"invalid build: {problem}")


def _problems(build: Any) -> Iterator[str]:
    if not build.steps:
        yield "no build steps are given"
    if not build.source.storage_source.bucket or not build.source.storage_source.object_:
        yield "source.storageSource must name a bucket and an object"
    if not 0 < build.timeout.seconds <= DAY_SECONDS:
        yield f"invalid value for 'build.timeout': {build.timeout.seconds}s is not between 1s and 24h0m0s"
    if build.queue_ttl.seconds <= 0:
        yield "invalid value for 'build.queue_ttl': must be positive"
    for number, step in enumerate(build.steps):
        if step.timeout.seconds > build.timeout.seconds:
            yield f"invalid value for 'build.steps[{number}].timeout': value must be less than or equal to build timeout"
    for image in build.images:
        if not re.fullmatch(_IMAGE, image):
            yield f'invalid image name "{image}": could not parse reference'
    for tag in build.tags:
        if not re.fullmatch(_TAG, tag):
            yield f'invalid build tag "{tag}": must match format "^{_TAG}$"'
    if build.service_account and not re.fullmatch(_ACCOUNT, build.service_account):
        yield f"invalid service account {build.service_account}: must match {_ACCOUNT}"
    if build.service_account and not build.logs_bucket and build.options.logging not in _NO_BUCKET:
        yield (
            "if 'build.service_account' is specified, the build must either (a) specify 'build.logs_bucket', (b) use the "
            "REGIONAL_USER_OWNED_BUCKET build.options.default_logs_bucket_behavior option, or (c) use either "
            "CLOUD_LOGGING_ONLY / NONE logging options: invalid argument"
        )


def _expand(build: Any) -> None:
    """Puts substitutions and the build's own variables into steps, images and tags; a key that nothing names is refused."""
    for key in build.substitutions:
        if not re.fullmatch(_KEY, key):
            raise Refused(400, f'invalid build: substitution key "{key}" does not respect format "^{_KEY}$"')
    known = {"PROJECT_ID": build.project_id, "BUILD_ID": build.id, **build.substitutions}
    used: set[str] = set()

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name is None:
            return "$"
        if name not in known:
            raise Refused(400, f'invalid build: key in the template "{name}" is not a valid built-in substitution')
        used.add(name)
        return known[name]

    def expand(texts: Any) -> None:
        texts[:] = [_VARIABLE.sub(value, text) for text in texts]

    for texts in (
        build.images,
        build.tags,
        build.options.env,
        *(texts for step in build.steps for texts in (step.args, step.env)),
    ):
        expand(texts)
    loose = build.options.substitution_option == BuildOptions.SubstitutionOption.ALLOW_LOOSE
    for key in build.substitutions.keys() - used if not loose else ():
        raise Refused(400, f'invalid build: key "{key}" in the substitution data is not matched in the template')


def _filter(text: str) -> Callable[[Any], bool]:
    """What a list's filter wants: terms such as `tags="x"`, joined by AND; other filters are not known here."""
    terms = [_TERM.fullmatch(term) for term in text.split(" AND ")] if text else []

    def wanted(build: Any) -> bool:
        told = {"tags": build.tags, "status": [Status(build.status).name], "build_id": [build.id]}
        return all(term["value"] in told[term["field"]] for term in terms if term)

    if not all(terms):
        raise Refused(400, f"Request contains an invalid argument: the filter {text}")
    return wanted


def _is_at(build: Any, request: Request) -> bool:
    """Whether a build is where a request looks: a region of a project, or its global place."""
    parent = request.path["parent"]
    return build.name.startswith((f"{parent}/builds/", f"{parent}/locations/global/builds/"))


def _operation(build: Any) -> Message:
    """The operation of a build, done when that has ended."""
    metadata = BuildOperationMetadata.pb()(build=build)
    number = base64.urlsafe_b64encode(build.id.encode()).decode()
    operation = Operation(name=f"operations/build/{build.project_id}/{number}", done=build.HasField("finish_time"))
    operation.metadata.Pack(metadata)
    if operation.done and build.status == Status.SUCCESS:
        operation.response.Pack(build)
    elif operation.done:
        operation.error.code, operation.error.message = _CODES[build.status], build.status_detail
    return operation
