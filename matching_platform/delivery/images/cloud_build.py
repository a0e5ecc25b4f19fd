"""Images built by Google Cloud Build: the bento as an archive in a bucket, one build of it, the image in a registry.

A build goes on whether or not anybody waits for it. Whoever asks for the same image again finds the build that runs, or
the image that it left, and waits or takes that.
"""

import gzip
import logging
import math
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Final, Literal, TypeVar

import requests.exceptions
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.api_core.retry import if_transient_error
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud.devtools.cloudbuild_v1 import Build, BuildOptions, BuildStep, CloudBuildClient, Source, StorageSource
from google.protobuf.duration_pb2 import Duration
from pydantic import BaseModel, Field
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from matching_platform.delivery.images.distribution import Repository
from matching_platform.delivery.images.image import Built, Image, ImageError, tag_of
from matching_platform.store.files import CHUNK, Files, StoreError

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

DOCKER: Final = "gcr.io/cloud-builders/docker"
# Where a bento keeps the description of its image.
DOCKERFILE: Final = "env/docker/Dockerfile"
POLL_SECONDS: Final = 5.0
# Within these seconds the API answers a request; what a build takes longer than it may is the API's own delay.
REQUEST_SECONDS: Final = 60.0
GRACE_SECONDS: Final = 300.0
ATTEMPTS: Final = 6
BACKOFF: Final = wait_random_exponential(multiplier=1, max=30)
TAIL_LINES: Final = 20
# Zip files, and so wheels, know no earlier year than 1980.
ARCHIVED: Final = datetime(2000, 1, 1, tzinfo=UTC)

Status = Build.Status
Cause = Build.FailureInfo.FailureType

LIVE: Final = frozenset({Status.STATUS_UNKNOWN, Status.PENDING, Status.QUEUED, Status.WORKING})
# What to do about a build that ended so; `{}` are the builder's settings.
ADVICE: Final = {
    Status.FAILURE: "correct what the log complains about, and run this again",
    Status.TIMEOUT: "give it more than {timeout_minutes:g} minutes, or a larger machine than {machine}",
    Status.INTERNAL_ERROR: "Cloud Build itself failed; run this again",
    Status.CANCELLED: "somebody cancelled it; run this again if the image is wanted",
    Status.EXPIRED: "no machine was free for {queue_minutes:g} minutes; see the build quota of {region}, or run this later",
}
ADVICE_ON: Final = {
    Cause.FETCH_SOURCE_FAILED: "give {account} the role Storage Object Viewer (roles/storage.objectViewer) on {bucket}",
    Cause.PUSH_NOT_AUTHORIZED: "give {account} the role Artifact Registry Writer (roles/artifactregistry.writer) on "
    "{repository}",
    Cause.LOGGING_FAILURE: "give {account} the role Storage Object User (roles/storage.objectUser) on {bucket}",
}


class CloudBuildSettings(BaseModel, frozen=True, extra="forbid"):
    """How Cloud Build makes images; archives and logs lie under `bucket`."""

    project: str = Field(description="The Google Cloud project whose builds these are")
    region: str = Field(default="global", description="Where builds run, for instance europe-west1")
    bucket: str = Field(pattern=r"^gs://[^/]+(/[^/]+)*$", description="Where archives and logs lie: gs://BUCKET/FOLDER")
    base: str = Field(description="The image that images rest on; a tag means what it names when a build is asked for")
    machine: Literal["E2_MEDIUM", "E2_STANDARD_2", "E2_HIGHCPU_8", "E2_HIGHCPU_32"] = "E2_HIGHCPU_8"
    timeout_minutes: float = Field(default=30.0, gt=0, le=24 * 60, description="What a build may take")
    queue_minutes: float = Field(default=60.0, gt=0, description="How long it may wait for a machine")
    service_account: str | None = Field(
        default=None, description="The e-mail address of the account that builds run as; without it, the project's own"
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="What builds are found by among others: name, value"
    )

    @property
    def parent(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def account(self) -> str:
        """Who builds run as, for people."""
        return self.service_account or f"Cloud Build's service account in the project {self.project}"

    @property
    def patience(self) -> float:
        """Seconds after which a build must have ended."""
        return 60 * (self.queue_minutes + self.timeout_minutes) + GRACE_SECONDS


def connect(endpoint: str | None = None) -> CloudBuildClient:
    """Cloud Build's client; with the credentials in force, or with none at an `endpoint` of one's own. ImageError."""
    try:
        if endpoint is None:
            return CloudBuildClient(transport="rest")
        options = ClientOptions(api_endpoint=endpoint)
        return CloudBuildClient(transport="rest", client_options=options, credentials=AnonymousCredentials())
    except GoogleAuthError as error:
        raise ImageError(_no_credentials(error)) from error


@dataclass(frozen=True)
class CloudBuilder:
    """Builds images on Google Cloud; a Builder."""

    settings: CloudBuildSettings
    client: CloudBuildClient
    repository: Repository

    def build(self, bento: Path, digest: str, model: str) -> Built:
        """See Builder. The image is the registry's where it has one of this bento and base already."""
        started = time.monotonic()
        base = _pinned(self.settings.base)
        wanted = {"_REPOSITORY": self.repository.name, "_BASE": base, "_BENTO": digest}
        # A build that no longer runs has left its image in the registry, so the registry is looked at after the builds.
        build = self._ask(lambda: self._begun(wanted))
        if build is None and (image := self.repository.find(digest, base, model)):
            return Built(image, "", self.repository.materials(image), time.monotonic() - started, reused=True)
        if build is None:
            build = self._submit(self._described(self._archive(bento, digest), wanted, model), wanted)
        build = self._wait(build)
        image = self._image(build)
        return Built(
            image,
            self._read_log(build),
            self.repository.materials(image),
            time.monotonic() - started,
            metadata={"build": build.id, "log_url": build.log_url, "machine": self.settings.machine},
        )

    @cached_property
    def _bucket(self) -> "_Bucket":
        try:
            return _Bucket(self.settings.bucket)
        except StoreError as error:
            raise ImageError(str(error)) from error

    def _archive(self, bento: Path, digest: str) -> StorageSource:
        """Where the bento lies as an archive, which is written only where there is none."""
        name = f"bentos/{digest}.tar.gz"
        try:
            generation = self._bucket.generation(name)
            if generation is None:
                with tempfile.TemporaryDirectory(prefix="bento-") as folder:
                    write_archive(bento, Path(folder, "bento.tar.gz"))
                    self._bucket.upload(Path(folder, "bento.tar.gz"), name)
                generation = self._bucket.generation(name)
        except StoreError as error:
            raise ImageError(f"the bento could not be sent to Cloud Build: {error}") from error
        bucket, _, place = self._bucket.path(name).removeprefix("gs://").partition("/")
        return StorageSource(bucket=bucket, object_=place, generation=generation)

    def _described(self, source: StorageSource, wanted: Mapping[str, str], model: str) -> Build:
        """The build of a bento; its substitutions say what it makes, to whoever looks for it."""
        given, now = self.settings, datetime.now(UTC)
        image = "${_REPOSITORY}:${_TAG}"
        values = {
            "BASE": "${_BASE}",
            "BASE_DIGEST": wanted["_BASE"].partition("@")[2],
            "BENTO": "${_BENTO}",
            "CREATED": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "VERSION": "${_TAG}",
        }
        arguments = [f"--build-arg={name}={value}" for name, value in values.items()]
        step = BuildStep(
            name=DOCKER,
            args=["build", f"--file={DOCKERFILE}", f"--tag={image}", *arguments, "."],
            env=["DOCKER_BUILDKIT=1"],
        )
        account = f"projects/{given.project}/serviceAccounts/{given.service_account}" if given.service_account else ""
        return Build(
            source=Source(storage_source=source),
            steps=[step],
            images=[image],
            substitutions={**wanted, "_TAG": tag_of(model, now)},
            tags=[_tag_of(wanted), f"model-{model}", *(f"{name}-{value}" for name, value in given.labels.items())],
            timeout=_duration(given.timeout_minutes),
            queue_ttl=_duration(given.queue_minutes),
            # The log lies beside the archive, where whoever waits for the build can read it.
            logs_bucket=f"{given.bucket}/logs",
            options=BuildOptions(machine_type=given.machine, logging=BuildOptions.LoggingMode.GCS_ONLY),
            service_account=account,
        )

    def _begun(self, wanted: Mapping[str, str], tag: str = "") -> Build | None:
        """The newest build with these substitutions that goes on, or has made the tag `tag`."""
        request = {"parent": self.settings.parent, "filter": f'tags="{_tag_of(wanted)}"'}
        found = [
            build
            for build in self.client.list_builds(request, retry=None, timeout=REQUEST_SECONDS)
            if dict(wanted).items() <= dict(build.substitutions).items()
            and (build.status in LIVE or (build.status == Status.SUCCESS and build.substitutions["_TAG"] == tag))
        ]
        return max(found, key=lambda build: build.create_time, default=None)

    def _submit(self, build: Build, wanted: Mapping[str, str]) -> Build:
        """Submits the build once, even where the answer is lost: before each attempt comes a look at what has begun."""

        def submit() -> Build:
            if begun := self._begun(wanted, build.substitutions["_TAG"]):
                return begun
            request = {"parent": self.settings.parent, "build": build}
            return self.client.create_build(request, retry=None, timeout=REQUEST_SECONDS).metadata.build

        submitted = self._ask(submit)
        _log.info("Cloud Build takes on %s; its log: %s", submitted.id, submitted.log_url)
        return submitted

    def _wait(self, build: Build) -> Build:
        """The build when it has ended well; ImageError where it ended otherwise, or not in time."""
        until, status = time.monotonic() + self.settings.patience, None
        while build.status in LIVE:
            if build.status != status:
                _log.info("build %s: %s", build.id, build.status.name)
                status = build.status
            if time.monotonic() > until:
                raise ImageError(
                    f"build {build.id} is {build.status.name} after {self.settings.patience / 60:.0f} minutes; see "
                    f"{build.log_url}, and run this again to wait for it once more, or cancel it"
                )
            time.sleep(POLL_SECONDS)
            build = self._ask(partial(self._current, build.name))
        _log.info("build %s: %s", build.id, build.status.name)
        if build.status != Status.SUCCESS:
            raise ImageError(self._failure(build))
        return build

    def _current(self, name: str) -> Build:
        return self.client.get_build({"name": name}, retry=None, timeout=REQUEST_SECONDS)

    def _image(self, build: Build) -> Image:
        """What a build has made, as the registry shows it."""
        name = f"{self.repository.name}:{build.substitutions['_TAG']}"
        digests = [image.digest for image in build.results.images if image.name == name]
        if not digests:
            raise ImageError(f"build {build.id} ended well and names no digest of {name}; see {build.log_url}")
        return self.repository.image(digests[0], build.substitutions["_TAG"])

    def _failure(self, build: Build) -> str:
        """Why a build has not ended well, what to do about it, and how its log ends."""
        advice = ADVICE_ON.get(build.failure_info.type_) or ADVICE[build.status]
        steps = (step for step in build.steps if step.status not in (*LIVE, Status.SUCCESS))
        step = next((f"at `docker {' '.join(step.args)}`" for step in steps), "")
        told = (build.status.name, step, build.failure_info.detail or build.status_detail)
        lines = [
            f"build {build.id} ended with {' '.join(filter(None, told))}",
            advice.format(account=self.settings.account, repository=self.repository.name, **self.settings.model_dump()),
            f"its log: {build.log_url}",
        ]
        tail = self._read_log(build).splitlines()[-TAIL_LINES:]
        return "\n".join([*lines, *tail])

    def _read_log(self, build: Build) -> str:
        """A build's log, or why it cannot be read."""
        try:
            return self._bucket.read(f"logs/log-{build.id}.txt").decode(errors="replace")
        except (StoreError, FileNotFoundError) as error:
            return f"the log could not be read: {error}"

    def _ask(self, work: Callable[[], _T]) -> _T:
        """What `work` gets from the API, asked again where that may help; any other error is an ImageError."""
        trying = Retrying(
            retry=retry_if_exception(_may_pass), stop=stop_after_attempt(ATTEMPTS), wait=BACKOFF, reraise=True
        )
        try:
            return trying(work)
        except (exceptions.GoogleAPICallError, GoogleAuthError, requests.exceptions.RequestException) as error:
            raise ImageError(self._refusal(error)) from error

    def _refusal(self, error: Exception) -> str:
        given = self.settings
        if isinstance(error, exceptions.Forbidden) and "act as service account" in str(error):
            role = f"Service Account User (roles/iam.serviceAccountUser) on {given.account}"
        else:
            role = f"Cloud Build Editor (roles/cloudbuild.builds.editor) in the project {given.project}"
        told = getattr(error, "message", "") or str(error) or type(error).__name__
        if isinstance(error, exceptions.Forbidden):
            return f"the account in use may not do this ({told}); give it the role {role}"
        if isinstance(error, GoogleAuthError | exceptions.Unauthorized):
            return _no_credentials(error)
        if _may_pass(error):
            return f"Cloud Build does not answer ({told}); see that it is well, and run this again"
        return f"Cloud Build refused the request ({told}); correct the settings of builds"


class _Bucket(Files):
    """The files of a bucket, written from and with what builds ask for."""

    def upload(self, source: Path, name: str) -> None:
        """Creates `name` from a local file, in pieces; where it exists, another was faster, with the same content."""
        path = self.path(name)
        try:
            self._ask(
                path, lambda: self.fs.put_file(str(source), path, chunksize=CHUNK, mode="create"), FileExistsError
            )
        except FileExistsError:
            _log.info("%s is there already", path)

    def generation(self, name: str) -> int | None:
        """Which of the contents that `name` has had is the current one; None where there is no such file."""
        path = self.path(name)
        try:
            return int(self._ask(path, lambda: self.fs.info(path), FileNotFoundError)["generation"])
        except FileNotFoundError:
            return None


def write_archive(folder: Path, target: Path) -> None:
    """Packs the files beneath `folder` as a .tar.gz, the same one for the same files wherever and whenever it is made."""
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for path in sorted(folder.rglob("*")):
            entry = archive.gettarinfo(path, path.relative_to(folder).as_posix())
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = int(ARCHIVED.timestamp())
            entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
            with path.open("rb") if entry.isfile() else nullcontext() as content:
                archive.addfile(entry, content)


def _pinned(base: str) -> str:
    """An image by what its tag names now, so that the build rests on that."""
    if "@" in base:
        return base
    name, _, tag = base.rpartition(":") if ":" in base.rpartition("/")[2] else (base, "", "latest")
    return f"{name}@{Repository(name).digest(tag)}"


def _tag_of(wanted: Mapping[str, str]) -> str:
    return f"bento-{wanted['_BENTO']}"


def _duration(minutes: float) -> Duration:
    return Duration(seconds=math.ceil(60 * minutes))


def _may_pass(error: BaseException) -> bool:
    again = (exceptions.BadGateway, exceptions.GatewayTimeout, requests.exceptions.Timeout)
    return isinstance(error, again) or (isinstance(error, Exception) and if_transient_error(error))


def _no_credentials(error: Exception) -> str:
    return f"no valid credentials ({error}); run `gcloud auth application-default login`, or give the pod an account"
