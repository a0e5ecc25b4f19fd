"""The Cloud Build server answers the real client as the service does, and really builds."""

import io
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import requests
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud.devtools.cloudbuild_v1 import Build, CloudBuildClient

from matching_platform_tests.containers.engine import Engine
from matching_platform_tests.emulators import cloud_storage, stand_in_docker
from matching_platform_tests.emulators.cloud_build import Server, serve
from matching_platform_tests.emulators.cloud_build_work import DOCKER, Docker

pytestmark = pytest.mark.cloud

PARENT = "projects/acme/locations/europe-west1"
IMAGE = "registry.example/matching/service:1"
LIVE = (Build.Status.QUEUED, Build.Status.WORKING)


@pytest.fixture
def server(google: cloud_storage.Server, tmp_path: Path) -> Iterator[Server]:
    google.reset()
    docker = Docker((sys.executable, "-IS", stand_in_docker.__file__, str(tmp_path)))
    with serve(docker, google.endpoint) as server:
        yield server


@pytest.fixture
def client(server: Server) -> CloudBuildClient:
    return connected(server)


def connected(server: Server) -> CloudBuildClient:
    options = ClientOptions(api_endpoint=server.endpoint)
    return CloudBuildClient(transport="rest", client_options=options, credentials=AnonymousCredentials())


@pytest.fixture
def source(google: cloud_storage.Server, server: Server) -> Callable[..., dict[str, Any]]:
    """Puts a Dockerfile as an archive into the bucket, and says where it lies."""

    def put(dockerfile: str = "FROM base\nRUN echo hello\n") -> dict[str, Any]:
        google.bucket("sources")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            entry = tarfile.TarInfo("Dockerfile")
            entry.size = len(dockerfile)
            archive.addfile(entry, io.BytesIO(dockerfile.encode()))
        url = f"{google.endpoint}/upload/storage/v1/b/sources/o"
        query = {"uploadType": "media", "name": "source.tar.gz"}
        told = httpx.post(url, params=query, content=packed.getvalue(), trust_env=False).json()
        place = {"bucket": "sources", "object_": "source.tar.gz", "generation": int(told["generation"])}
        return {"storage_source": place}

    return put


def described(source: dict[str, Any], /, **others: Any) -> dict[str, Any]:
    steps = [{"name": DOCKER, "args": ["build", f"--tag={IMAGE}", "."]}]
    return {"source": source, "steps": steps, "images": [IMAGE], "logs_bucket": "gs://sources/logs"} | others


def ended(client: CloudBuildClient, build: Build) -> Build:
    until = time.monotonic() + 20
    while build.status in LIVE and time.monotonic() < until:
        time.sleep(0.01)
        build = client.get_build({"name": build.name})
    assert build.status not in LIVE
    return build


def submit(client: CloudBuildClient, build: dict[str, Any], parent: str = PARENT) -> Build:
    return client.create_build({"parent": parent, "build": build}).metadata.build


def test_a_build_goes_through_queue_and_work_to_success(
    client: CloudBuildClient, server: Server, source: Callable[..., Any], tmp_path: Path
) -> None:
    with server.busy():
        operation = client.create_build({"parent": PARENT, "build": described(source())})
        build = operation.metadata.build
        assert (build.status, build.project_id, build.timeout.total_seconds()) == (Build.Status.QUEUED, "acme", 3600)
        assert build.name == f"{PARENT}/builds/{build.id}"
        assert build.id in build.log_url
        assert not operation.done()
    done = operation.result(timeout=20)
    assert done == client.get_build({"name": build.name})
    assert (done.status, [step.status for step in done.steps]) == (Build.Status.SUCCESS, [Build.Status.SUCCESS])
    assert done.create_time <= done.start_time <= done.finish_time
    assert set(done.timing) == {"FETCHSOURCE", "BUILD", "PUSH"}
    (image,) = done.results.images
    assert image.name == IMAGE
    assert [path.name for path in (tmp_path / "pushed").iterdir()] == [image.digest]


def test_the_log_lies_in_the_bucket(
    client: CloudBuildClient, google: cloud_storage.Server, source: Callable[..., Any]
) -> None:
    build = ended(client, submit(client, described(source())))
    path = f"{google.endpoint}/download/storage/v1/b/sources/o/logs%2Flog-{build.id}.txt"
    lines = httpx.get(path, params={"alt": "media"}, trust_env=False).text.splitlines()
    assert "hello" in lines
    assert lines[-1] == "SUCCESS"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no steps": ({"steps": []}, "no build steps"),
    "no source": ({"source": {}}, "storageSource"),
    "no object": ({"source": {"storage_source": {"bucket": "sources"}}}, "storageSource"),
    "no time": ({"timeout": "0s"}, "build.timeout"),
    "too much time": ({"timeout": "86401s"}, "build.timeout"),
    "a step with more time": (
        {"steps": [{"name": DOCKER, "args": ["build", "."], "timeout": "20s"}], "timeout": "10s"},
        r"build.steps\[0\].timeout",
    ),
    "no time in the queue": ({"queue_ttl": "0s"}, "build.queue_ttl"),
    "a tag with a slash": ({"tags": ["a/b"]}, "invalid build tag"),
    "an account that is none": ({"service_account": "me"}, "invalid service account"),
    "an account without a log": (
        {"service_account": "projects/acme/serviceAccounts/b@acme", "logs_bucket": ""},
        "must either",
    ),
    "a substitution that is none": ({"substitutions": {"tag": "1"}}, 'key "tag" does not respect'),
    "a substitution that nothing uses": ({"substitutions": {"_X": "1"}}, "not matched in the template"),
    "a variable that nobody knows": ({"tags": ["a${_X}"]}, "not a valid built-in substitution"),
    "an image that is none": ({"images": ["Not an image"]}, "could not parse reference"),
}


@pytest.mark.parametrize(("others", "told"), REFUSED.values(), ids=REFUSED)
def test_what_the_api_refuses_is_refused(
    client: CloudBuildClient, server: Server, source: Callable[..., Any], others: dict[str, Any], told: str
) -> None:
    with pytest.raises(exceptions.BadRequest, match=told):
        submit(client, described(source(), **others))
    assert not server.builds


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"steps": [], "machine": "big"}, 'no field named "machine"'),
        ({"timeout": "10"}, "timeout"),
        ({"options": {"machineType": "HUGE"}}, "HUGE"),
        ({}, "has no build"),
    ],
)
def test_a_request_that_the_client_could_not_send_is_refused(server: Server, body: dict[str, Any], told: str) -> None:
    answer = httpx.post(f"{server.endpoint}/v1/{PARENT}/builds", json=body, trust_env=False)
    error = answer.json()["error"]
    assert (answer.status_code, error["status"]) == (400, "INVALID_ARGUMENT")
    assert told in error["message"]


def test_what_is_not_known_here_is_said_so(client: CloudBuildClient, source: Callable[..., Any]) -> None:
    with pytest.raises(exceptions.MethodNotImplemented, match="steps"):
        submit(client, described(source(), steps=[{"name": "gcr.io/cloud-builders/npm"}]))


def test_substitutions_are_put_in(client: CloudBuildClient, source: Callable[..., Any]) -> None:
    image = "registry.example/$_NAME:${_TAG}"
    build = described(
        source(),
        steps=[
            {"name": DOCKER, "args": ["build", f"--tag={image}", "--label=build=$BUILD_ID", "--label=cost=$$1", "."]}
        ],
        images=[image],
        substitutions={"_NAME": "service", "_TAG": "7"},
    )
    done = ended(client, submit(client, build))
    assert done.images == [done.results.images[0].name] == ["registry.example/service:7"]
    assert done.steps[0].args[2:4] == [f"--label=build={done.id}", "--label=cost=$1"]
    assert dict(done.substitutions) == {"_NAME": "service", "_TAG": "7"}


ENDS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "a step fails": ({}, "FROM base\nRUN exit 3", "FAILURE", "USER_BUILD_STEP"),
    "the source is gone": (
        {"source": {"storage_source": {"bucket": "sources", "object_": "source.tar.gz", "generation": 1}}},
        "",
        "FAILURE",
        "FETCH_SOURCE_FAILED",
    ),
    "an image was never made": (
        {"images": ["registry.example/matching/other:1"]},
        "FROM base",
        "FAILURE",
        "PUSH_IMAGE_NOT_FOUND",
    ),
}


@pytest.mark.parametrize(("others", "dockerfile", "status", "cause"), ENDS.values(), ids=ENDS)
def test_builds_end_as_what_they_do_ends(
    client: CloudBuildClient,
    source: Callable[..., Any],
    others: dict[str, Any],
    dockerfile: str,
    status: str,
    cause: str,
) -> None:
    build = described(source(dockerfile), **others)
    operation = client.create_build({"parent": PARENT, "build": build})
    done = ended(client, operation.metadata.build)
    assert (done.status.name, done.failure_info.type_.name) == (status, cause)
    assert not done.results.images
    with pytest.raises(exceptions.GoogleAPICallError):
        operation.result(timeout=5)


def test_the_time_that_a_build_may_take_is_kept(client: CloudBuildClient, source: Callable[..., Any]) -> None:
    done = ended(client, submit(client, described(source("RUN sleep 60"), timeout="1s")))
    assert 1 <= (done.finish_time - done.start_time).total_seconds() < 5
    assert done.status == done.steps[0].status == Build.Status.TIMEOUT


def test_a_build_is_cancelled_in_the_middle_and_in_the_queue(
    client: CloudBuildClient, server: Server, source: Callable[..., Any]
) -> None:
    build = submit(client, described(source("RUN sleep 60")))
    while not server.builds[0].steps[0].status:
        time.sleep(0.01)
    client.cancel_build({"name": build.name})
    assert ended(client, build).status == Build.Status.CANCELLED
    with server.busy():
        build = submit(client, described(source("RUN sleep 60")))
        client.cancel_build({"name": build.name})
        assert ended(client, build).status == Build.Status.CANCELLED
    with pytest.raises(exceptions.BadRequest, match="already finished"):
        client.cancel_build({"name": build.name})


def test_a_build_expires_in_the_queue(client: CloudBuildClient, server: Server, source: Callable[..., Any]) -> None:
    with server.busy():
        done = ended(client, submit(client, described(source(), queue_ttl="1s")))
    assert (done.status, bool(done.start_time)) == (Build.Status.EXPIRED, False)


def test_machines_break_down_when_told(client: CloudBuildClient, server: Server, source: Callable[..., Any]) -> None:
    server.break_down()
    statuses = [ended(client, submit(client, described(source()))).status.name for _ in range(2)]
    assert statuses == ["INTERNAL_ERROR", "SUCCESS"]


def test_builds_are_listed_newest_first_page_by_page(
    client: CloudBuildClient, server: Server, source: Callable[..., Any]
) -> None:
    place = source()
    with server.busy():
        ids = [submit(client, described(place, tags=["odd" if n % 2 else "even"])).id for n in range(5)]
        elsewhere = submit(client, described(place), "projects/acme/locations/global").id

        def listed(**request: Any) -> list[str]:
            return [build.id for build in client.list_builds({"parent": PARENT, **request})]

        assert listed(page_size=2) == ids[::-1]
        assert listed(filter='tags="odd"') == [ids[3], ids[1]]
        assert listed(filter='tags="even" AND status="QUEUED"') == [ids[4], ids[2], ids[0]]
        assert listed(filter='status="SUCCESS"') == []
        assert [build.id for build in client.list_builds({"project_id": "acme"})] == [elsewhere]
        with pytest.raises(exceptions.BadRequest):
            listed(filter="status<=2")
    with pytest.raises(exceptions.NotFound):
        client.get_build({"name": f"{PARENT}/builds/{elsewhere}"})


@pytest.mark.parametrize(
    ("permission", "told"),
    [
        ("cloudbuild.builds.create", "cloudbuild.builds.create"),
        ("iam.serviceAccounts.actAs", "act as service account"),
    ],
)
def test_who_may_not_build_is_told(
    client: CloudBuildClient, server: Server, source: Callable[..., Any], permission: str, told: str
) -> None:
    server.denied.add(permission)
    with pytest.raises(exceptions.Forbidden, match=told):
        submit(client, described(source(), service_account="projects/acme/serviceAccounts/builder@acme"))
    assert not server.builds


@pytest.mark.parametrize(
    ("how", "error", "made"),
    [
        (503, exceptions.ServiceUnavailable, 0),
        (429, exceptions.TooManyRequests, 0),
        ("drop", requests.exceptions.RequestException, 1),
    ],
)
def test_requests_fail_when_told(
    client: CloudBuildClient,
    server: Server,
    source: Callable[..., Any],
    how: int | str,
    error: type[Exception],
    made: int,
) -> None:
    server.fail("builds.create", how)
    with pytest.raises(error):
        submit(client, described(source()))
    assert len(server.builds) == made
    assert submit(client, described(source())).id


@pytest.mark.containers
def test_images_are_really_built_and_pushed(
    google: cloud_storage.Server, engine: Engine, registry: str, base_image: str, source: Callable[..., Any]
) -> None:
    image = f"{registry}/cloud-built:1"
    lines = ["ARG BASE", "FROM ${BASE}", "RUN echo made here > /made", "USER 1000", 'CMD ["cat", "/made"]']
    build = described(
        source("\n".join(lines)),
        steps=[{"name": DOCKER, "args": ["build", f"--tag={image}", "--build-arg=BASE=$_BASE", "--label=x=1", "."]}],
        substitutions={"_BASE": base_image},
        images=[image],
    )
    podman = Docker(("podman",), environment=engine.environment)
    with serve(podman, google.endpoint) as server:
        done = ended(connected(server), submit(connected(server), build))
    assert done.status == Build.Status.SUCCESS, done.failure_info
    (made,) = done.results.images
    accepted = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    told = httpx.head(f"http://{registry}/v2/cloud-built/manifests/1", headers=accepted, trust_env=False)
    assert made.digest == told.headers["Docker-Content-Digest"]
    engine.podman("rmi", "--force", image)
    assert engine.podman("run", "--rm", f"{registry}/cloud-built@{made.digest}") == "made here"


@pytest.mark.containers
def test_what_runs_in_a_container_ends_with_the_build(
    google: cloud_storage.Server, engine: Engine, base_image: str, source: Callable[..., Any]
) -> None:
    podman = Docker(("podman",), environment=engine.environment)
    build = described(source(f"FROM {base_image}\nRUN sleep 271828"), timeout="3s")
    with serve(podman, google.endpoint) as server:
        submitted = submit(connected(server), build)
        while not sleeping("271828") and server.builds[0].status in LIVE:
            time.sleep(0.05)
        assert ended(connected(server), submitted).status == Build.Status.TIMEOUT
    assert not sleeping("271828")


def sleeping(seconds: str) -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", seconds]]
