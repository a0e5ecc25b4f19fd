"""What a machine of the Cloud Build test server does with a build: source, steps, images, and an end in good time."""

import io
import os
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import psutil
from google.cloud.devtools.cloudbuild_v1 import Build

DOCKER: Final = "gcr.io/cloud-builders/docker"
POLL_SECONDS: Final = 0.02

Status = Build.Status
Failure = Build.FailureInfo.FailureType


class Ended(Exception):
    """The build is over, and not as it was meant to be."""

    def __init__(self, status: Status, detail: str = "", kind: Failure = Failure.FAILURE_TYPE_UNSPECIFIED) -> None:
        super().__init__(detail)
        self.status, self.detail, self.kind = status, detail, kind


@dataclass(frozen=True)
class Docker:
    """What a build's machine has in the place of Docker: a command that takes `build` as Docker does.

    It must also know `push --digestfile` and `inspect --type=image`, as Podman and Buildah do.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Job:
    """A build, and all that its machine needs; `build` is Google's own message."""

    build: Any
    log: bytearray = field(default_factory=bytearray)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def say(self, line: str) -> None:
        self.log.extend(f"{line}\n".encode())


@dataclass(frozen=True)
class Machine:
    """Carries builds out: `storage` is where Cloud Storage answers, `denied` holds the permissions that nobody has."""

    docker: Docker
    storage: str
    denied: set[str]

    def work(self, job: Job) -> None:
        """Fetches, runs and pushes, as `job.build` says, and fills in what came of it; Ended where it did not go well."""
        with tempfile.TemporaryDirectory(prefix="cloud-build-") as folder, Shell(job, self.docker) as shell:
            workspace = Path(folder, "workspace")
            workspace.mkdir()
            with _timed(job.build.timing["FETCHSOURCE"]):
                self._fetch(job, workspace)
            with _timed(job.build.timing["BUILD"]):
                for number in range(len(job.build.steps)):
                    self._step(job, number, workspace, shell)
            with _timed(job.build.timing["PUSH"]):
                for name in job.build.images:
                    self._push(job, name, Path(folder, "digest"), shell)

    def keep_log(self, job: Job) -> None:
        """Writes the log where the build wants it; Ended where that cannot be."""
        bucket, _, folder = job.build.logs_bucket.removeprefix("gs://").partition("/")
        if not bucket:
            return
        if "storage.objects.create" in self.denied:
            told = f"the build's service account does not have storage.objects.create access to {bucket}"
            raise Ended(Status.FAILURE, told, Failure.LOGGING_FAILURE)
        query = {"uploadType": "media", "name": f"{folder.rstrip('/')}/log-{job.build.id}.txt".lstrip("/")}
        target = f"{self.storage}/upload/storage/v1/b/{bucket}/o"
        try:
            with httpx.Client(trust_env=False) as client:
                client.post(target, params=query, content=bytes(job.log)).raise_for_status()
        except httpx.HTTPError as error:
            raise Ended(Status.FAILURE, f"the log could not be written: {error}", Failure.LOGGING_FAILURE) from error

    def _fetch(self, job: Job, workspace: Path) -> None:
        source = job.build.source.storage_source
        where = f"gs://{source.bucket}/{source.object_}#{source.generation}"
        job.say(f"FETCHSOURCE\nFetching storage object: {where}")
        if "storage.objects.get" in self.denied:
            told = f"the build's service account does not have storage.objects.get access to {where}"
            raise Ended(Status.FAILURE, f"failed to fetch source: {told}", Failure.FETCH_SOURCE_FAILED)
        query = {"alt": "media", **({"generation": str(source.generation)} if source.generation else {})}
        address = f"{self.storage}/download/storage/v1/b/{source.bucket}/o/{quote(source.object_, safe='')}"
        with httpx.Client(trust_env=False) as client:
            answer = client.get(address, params=query)
        try:
            answer.raise_for_status()
            with tarfile.open(fileobj=io.BytesIO(answer.content), mode="r:gz") as archive:
                archive.extractall(workspace, filter="data")
        except (httpx.HTTPStatusError, tarfile.TarError) as error:
            detail = f"failed to fetch source: could not unpack {where}: {error}"
            raise Ended(Status.FAILURE, detail, Failure.FETCH_SOURCE_FAILED) from error

    def _step(self, job: Job, number: int, workspace: Path, shell: "Shell") -> None:
        """Runs a step; it and the build then say how it ended."""
        step = job.build.steps[number]
        job.say(f'BUILD\nStarting Step #{number}\nStep #{number}: "{step.name}" {" ".join(step.args)}')
        environment = dict(one.split("=", 1) for one in (*job.build.options.env, *step.env))
        step.status = Status.WORKING
        with _timed(step.timing):
            try:
                step.exit_code = shell.run(
                    workspace / step.dir_, *step.args, environment=environment, seconds=step.timeout.seconds
                )
            except Ended as ended:
                step.status = ended.status
                raise
        step.status = Status.FAILURE if step.exit_code else Status.SUCCESS
        if step.exit_code:
            told = f'build step {number} "{step.name}" failed: step exited with non-zero status: {step.exit_code}'
            job.say(f"ERROR\nERROR: {told}")
            raise Ended(Status.FAILURE, told, Failure.USER_BUILD_STEP)
        job.say(f"Finished Step #{number}")

    def _push(self, job: Job, name: str, file: Path, shell: "Shell") -> None:
        job.say(f"PUSH\nPushing {name}")
        if "artifactregistry.repositories.uploadArtifacts" in self.denied:
            detail = (
                f'failed to push "{name}" after 10 attempts: denied: '
                'Permission "artifactregistry.repositories.uploadArtifacts" denied'
            )
            raise Ended(Status.FAILURE, detail, Failure.PUSH_NOT_AUTHORIZED)
        started = datetime.now(UTC)
        if shell.run(file.parent, "inspect", "--type=image", "--format=found", name):
            detail = f"An image does not exist locally with the tag: {name}"
            raise Ended(Status.FAILURE, detail, Failure.PUSH_IMAGE_NOT_FOUND)
        if shell.run(file.parent, "push", "--digestfile", str(file), name):
            raise Ended(Status.FAILURE, f'failed to push "{name}"', Failure.PUSH_FAILED)
        image = job.build.results.images.add(name=name, digest=file.read_text().strip())
        image.push_timing.start_time.FromDatetime(started)
        image.push_timing.end_time.FromDatetime(datetime.now(UTC))
        job.say(f"{name}: digest: {image.digest}\nDONE")


class Shell:
    """Runs one command after another until the build's time is up or somebody cancels it; nothing outlives it."""

    def __init__(self, job: Job, docker: Docker) -> None:
        self._job, self._docker = job, docker
        self._until = time.monotonic() + job.build.timeout.seconds
        self._running: subprocess.Popen[bytes] | None = None

    def run(self, folder: Path, *command: str, environment: Mapping[str, str] | None = None, seconds: int = 0) -> int:
        """The exit status of what Docker is told, which writes into the log; Ended where it had to be killed."""
        until = min(self._until, time.monotonic() + seconds) if seconds else self._until
        with tempfile.TemporaryFile() as output:
            self._running = subprocess.Popen(
                [*self._docker.command, *command],
                cwd=folder,
                env={**os.environ, **self._docker.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                while self._running.poll() is None:
                    self._check(until)
                    time.sleep(POLL_SECONDS)
                self._check(None)
                return self._running.returncode
            finally:
                self._kill()
                output.seek(0)
                self._job.log.extend(output.read())

    def _check(self, until: float | None) -> None:
        if self._job.cancelled.is_set():
            raise Ended(Status.CANCELLED)
        if until is not None and time.monotonic() > until:
            raise Ended(Status.TIMEOUT, "build timed out")

    def _kill(self) -> None:
        if self._running and self._running.poll() is None:
            # What runs in a container is in no group of ours, and outlives the engine's process.
            parent = psutil.Process(self._running.pid)
            for process in (*parent.children(recursive=True), parent):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._running.wait()

    def __enter__(self) -> "Shell":
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()


@contextmanager
def _timed(span: Any) -> Iterator[None]:
    """Notes when something began and ended in Google's TimeSpan."""
    span.start_time.FromDatetime(datetime.now(UTC))
    try:
        yield
    finally:
        span.end_time.FromDatetime(datetime.now(UTC))
