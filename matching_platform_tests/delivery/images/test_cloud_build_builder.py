"""Images come from Cloud Build once, whatever happens on the way, and what goes wrong is told with its reason."""

import logging
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.auth.exceptions import DefaultCredentialsError
from pydantic import ValidationError
from tenacity import wait_none

from matching_platform.delivery.images import cloud_build
from matching_platform.delivery.images.cloud_build import CloudBuilder, CloudBuildSettings, connect, write_archive
from matching_platform.delivery.images.distribution import Repository
from matching_platform.delivery.images.image import ImageError, model_of
from matching_platform_tests.containers.engine import Engine
from matching_platform_tests.delivery.images.shelf import Shelf
from matching_platform_tests.emulators import cloud_storage, stand_in_docker
from matching_platform_tests.emulators.cloud_build import Server, serve
from matching_platform_tests.emulators.cloud_build_work import Docker, Status

pytestmark = pytest.mark.cloud

DIGEST = "a" * 64
BASE, OTHER_BASE = (f"docker.io/library/python@sha256:{digit * 64}" for digit in "12")
REPOSITORY = "europe-docker.pkg.dev/acme/matching/service"


@pytest.fixture
def bucket(google: cloud_storage.Server) -> str:
    google.reset()
    return google.bucket("images") + "/cloud-build"


@pytest.fixture
def server(google: cloud_storage.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(cloud_build, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(cloud_build, "BACKOFF", wait_none())
    docker = Docker((sys.executable, "-IS", stand_in_docker.__file__, str(tmp_path)))
    with serve(docker, google.endpoint) as server:
        yield server


@pytest.fixture
def settings(bucket: str) -> CloudBuildSettings:
    return CloudBuildSettings(
        project="acme",
        region="europe-west1",
        bucket=bucket,
        base=BASE,
        machine="E2_STANDARD_2",
        timeout_minutes=0.5,
        service_account="builder@acme.iam.gserviceaccount.com",
        labels={"environment": "staging"},
    )


@pytest.fixture
def builder(settings: CloudBuildSettings, server: Server, tmp_path: Path) -> CloudBuilder:
    return CloudBuilder(settings, connect(server.endpoint), Shelf(REPOSITORY, tmp_path))


@pytest.fixture
def bento(tmp_path: Path) -> Path:
    return a_bento(tmp_path / "bento", "RUN echo hello")


def a_bento(folder: Path, *lines: str) -> Path:
    (folder / "env" / "docker").mkdir(parents=True)
    (folder / "env" / "docker" / "Dockerfile").write_text("\n".join(lines))
    (folder / "env" / "docker" / "entrypoint.sh").write_text("#!/bin/sh\n")
    (folder / "env" / "docker" / "entrypoint.sh").chmod(0o744)
    (folder / "bento.yaml").write_text("name: matching-platform\n")
    return folder


def test_the_image_is_what_the_registry_holds(
    builder: CloudBuilder, server: Server, bento: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "matching_platform"):
        built = builder.build(bento, DIGEST, "v7")
    image = built.image
    assert [path.name for path in (tmp_path / "pushed").iterdir()] == [image.digest]
    assert (image.repository, image.model, image.bento, image.base) == (REPOSITORY, "v7", DIGEST, BASE)
    assert model_of(image.tag) == "v7"
    assert "hello" in built.log
    assert built.materials == {"components": [DIGEST]}
    (build,) = server.builds
    assert built.metadata == {"build": build.id, "log_url": build.log_url, "machine": "E2_STANDARD_2"}
    assert any(build.log_url in line for line in caplog.messages)
    assert any("SUCCESS" in line for line in caplog.messages)


def test_what_is_set_arrives(builder: CloudBuilder, server: Server, bento: Path) -> None:
    builder.build(bento, DIGEST, "v7")
    (build,) = server.builds
    assert build.name.startswith("projects/acme/locations/europe-west1/builds/")
    assert build.options.machine_type == cloud_build.BuildOptions.MachineType.E2_STANDARD_2
    assert (build.timeout.seconds, build.queue_ttl.seconds) == (30, 3600)
    assert build.service_account == "projects/acme/serviceAccounts/builder@acme.iam.gserviceaccount.com"
    assert set(build.tags) == {f"bento-{DIGEST}", "model-v7", "environment-staging"}
    assert build.source.storage_source.object_ == f"cloud-build/bentos/{DIGEST}.tar.gz"
    assert build.source.storage_source.generation
    assert f"--build-arg=BASE={BASE}" in build.steps[0].args


def test_an_archive_holds_the_bento_and_is_always_the_same(bento: Path, tmp_path: Path) -> None:
    write_archive(bento, tmp_path / "one.tar.gz")
    (bento / "bento.yaml").touch()
    again = a_bento(tmp_path / "again", "RUN echo hello")
    write_archive(again, tmp_path / "two.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "one.tar.gz") as archive:
        entries = {entry.name: (oct(entry.mode), entry.uid, entry.uname) for entry in archive}
    assert entries == {
        "bento.yaml": ("0o644", 0, ""),
        "env": ("0o755", 0, ""),
        "env/docker": ("0o755", 0, ""),
        "env/docker/Dockerfile": ("0o644", 0, ""),
        "env/docker/entrypoint.sh": ("0o755", 0, ""),
    }


def uploads(google: cloud_storage.Server) -> list[str]:
    sent = [request for request in google.requests if request.call == "upload"]
    return [name for request in sent if (name := request.query.get("name", "")) and not name.endswith(".txt")]


def test_the_same_bento_is_built_once(builder: CloudBuilder, server: Server, bento: Path) -> None:
    first = builder.build(bento, DIGEST, "v7")
    second = builder.build(bento, DIGEST, "v7")
    assert (second.image, second.reused, first.reused) == (first.image, True, False)
    assert second.materials == first.materials
    assert len(server.builds) == 1
    other = builder.build(bento, "b" * 64, "v8")
    assert other.image.digest != first.image.digest


def test_a_big_bento_goes_up_in_pieces(
    builder: CloudBuilder, google: cloud_storage.Server, bento: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_build, "CHUNK", 2 * 2**20)
    (bento / "weights.bin").write_bytes(os.urandom(6 * 2**20))
    builder.build(bento, DIGEST, "v7")
    assert sum("content-range" in request.headers for request in google.requests) == 4
    write_archive(bento, bento.parent / "bento.tar.gz")
    path = f"{google.endpoint}/download/storage/v1/b/images/o/cloud-build%2Fbentos%2F{DIGEST}.tar.gz"
    sent = httpx.get(path, params={"alt": "media"}, trust_env=False).content
    assert sent == (bento.parent / "bento.tar.gz").read_bytes()


def test_an_upload_whose_answer_is_lost_is_our_own(
    builder: CloudBuilder, google: cloud_storage.Server, bento: Path
) -> None:
    fault = google.fail("upload", "lost answer")
    assert builder.build(bento, DIGEST, "v7").image.bento == DIGEST
    assert fault.happened == 1


def test_another_base_makes_another_image_of_the_same_archive(
    builder: CloudBuilder, server: Server, bento: Path, google: cloud_storage.Server
) -> None:
    builder.build(bento, DIGEST, "v7")
    google.heal()
    newer = builder.settings.model_copy(update={"base": OTHER_BASE})
    again = CloudBuilder(newer, builder.client, builder.repository).build(bento, DIGEST, "v7")
    assert (again.reused, again.image.base) == (False, OTHER_BASE)
    assert len(server.builds) == 2
    assert uploads(google) == []


ALONE = """
import sys
from pathlib import Path
from matching_platform.delivery.images.cloud_build import CloudBuilder, CloudBuildSettings, connect
from matching_platform_tests.containers.engine import Engine
from matching_platform_tests.delivery.images.shelf import Shelf

settings, endpoint, name, shelf, bento, digest = sys.argv[1:]
settings = CloudBuildSettings.model_validate_json(settings)
CloudBuilder(settings, connect(endpoint), Shelf(name, Path(shelf))).build(Path(bento), digest, "v7")
"""


def test_who_is_killed_while_waiting_finds_the_build_again(
    builder: CloudBuilder, server: Server, bento: Path, google: cloud_storage.Server, tmp_path: Path
) -> None:
    given = [builder.settings.model_dump_json(), server.endpoint, REPOSITORY, str(tmp_path), str(bento), DIGEST]
    with server.busy():
        waiting = subprocess.Popen([sys.executable, "-c", ALONE, *given])
        while not server.builds and waiting.poll() is None:
            time.sleep(0.01)
        waiting.kill()
        waiting.wait()
        assert [build.status for build in server.builds] == [Status.QUEUED]
    google.heal()
    built = builder.build(bento, DIGEST, "v7")
    assert len(server.builds) == 1
    assert built.image.tag == server.builds[0].substitutions["_TAG"]
    assert uploads(google) == []


FAILURES: dict[str, tuple[list[str], dict[str, Any], list[str]]] = {
    "a line of the Dockerfile fails": (
        ["RUN echo the reason; exit 3"],
        {},
        ["FAILURE", "docker build", "non-zero status: 3", "correct what the log", "the reason", "console.cloud.google"],
    ),
    "it takes too long": (
        ["RUN sleep 60"],
        {"timeout_minutes": 1 / 60},
        ["TIMEOUT", "give it more than 0.0166667 minutes, or a larger machine than E2_STANDARD_2"],
    ),
}


@pytest.mark.parametrize(("lines", "others", "told"), FAILURES.values(), ids=FAILURES)
def test_builds_that_fail_say_why(
    builder: CloudBuilder, tmp_path: Path, lines: list[str], others: dict[str, Any], told: list[str]
) -> None:
    builder = CloudBuilder(builder.settings.model_copy(update=others), builder.client, builder.repository)
    with pytest.raises(ImageError) as error:
        builder.build(a_bento(tmp_path / "broken", *lines), DIGEST, "v7")
    assert [text for text in told if text not in str(error.value)] == []


def test_a_build_that_failed_is_not_waited_for_again(builder: CloudBuilder, server: Server, bento: Path) -> None:
    server.break_down()
    with pytest.raises(ImageError, match=r"INTERNAL_ERROR.*\n.*run this again"):
        builder.build(bento, DIGEST, "v7")
    assert builder.build(bento, DIGEST, "v7").image.model == "v7"
    assert len(server.builds) == 2


def test_a_cancelled_build_is_an_error(builder: CloudBuilder, server: Server, tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(builder.build, a_bento(tmp_path / "slow", "RUN sleep 60"), DIGEST, "v7")
        while not server.builds:
            time.sleep(0.01)
        server.cancel()
        with pytest.raises(ImageError, match=r"CANCELLED.*\nsomebody cancelled it"):
            waiting.result()


def test_a_build_that_no_machine_takes_expires(builder: CloudBuilder, server: Server, bento: Path) -> None:
    short = builder.settings.model_copy(update={"queue_minutes": 1 / 60})
    with server.busy(), pytest.raises(ImageError, match=r"EXPIRED.*\nno machine was free.*quota of europe-west1"):
        CloudBuilder(short, builder.client, builder.repository).build(bento, DIGEST, "v7")


def test_patience_ends(builder: CloudBuilder, server: Server, bento: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_build, "GRACE_SECONDS", -60 * 60 * 24)
    with server.busy(), pytest.raises(ImageError, match=r"is QUEUED after .* run this again to wait"):
        builder.build(bento, DIGEST, "v7")


@pytest.mark.parametrize("call", ["builds.list", "builds.create", "builds.get"])
@pytest.mark.parametrize("how", [503, 429, "drop"])
def test_what_passes_is_waited_out(
    builder: CloudBuilder, server: Server, bento: Path, call: str, how: int | str
) -> None:
    server.fail(call, how, times=2)
    assert builder.build(bento, DIGEST, "v7").image.model == "v7"
    assert len(server.builds) == 1


def test_an_api_that_does_not_come_back_is_told(builder: CloudBuilder, server: Server, bento: Path) -> None:
    server.fail("builds.create", 503, times=20)
    with pytest.raises(ImageError, match=r"Cloud Build does not answer .* run this again"):
        builder.build(bento, DIGEST, "v7")


DENIED: dict[str, list[str]] = {
    "cloudbuild.builds.list": ["Cloud Build Editor (roles/cloudbuild.builds.editor) in the project acme"],
    "cloudbuild.builds.create": ["Cloud Build Editor (roles/cloudbuild.builds.editor) in the project acme"],
    "iam.serviceAccounts.actAs": ["roles/iam.serviceAccountUser", "on builder@acme.iam.gserviceaccount.com"],
    "storage.objects.get": ["builder@acme.iam.gserviceaccount.com", "roles/storage.objectViewer", "gs://images"],
    "storage.objects.create": ["builder@acme.iam.gserviceaccount.com", "roles/storage.objectUser", "gs://images"],
    "artifactregistry.repositories.uploadArtifacts": ["roles/artifactregistry.writer", REPOSITORY],
}


@pytest.mark.parametrize(("permission", "told"), DENIED.items(), ids=DENIED)
def test_the_missing_role_is_named(
    builder: CloudBuilder, server: Server, bento: Path, permission: str, told: list[str]
) -> None:
    server.denied.add(permission)
    with pytest.raises(ImageError) as error:
        builder.build(bento, DIGEST, "v7")
    assert [text for text in told if text not in str(error.value)] == []


def test_a_request_that_is_refused_says_so(builder: CloudBuilder, bento: Path) -> None:
    nowhere = replace(builder.repository, name="registry.example/No Repository")
    with pytest.raises(ImageError, match=r"refused the request .*could not parse reference.*; correct the settings"):
        CloudBuilder(builder.settings, builder.client, nowhere).build(bento, DIGEST, "v7")


@pytest.mark.parametrize(
    ("bucket_", "how", "told"),
    [("gs://nowhere/x", 0, "there is no bucket gs://nowhere"), ("gs://images/x", 403, "Storage Object User")],
)
def test_a_bucket_that_cannot_be_used_is_told(
    builder: CloudBuilder, google: cloud_storage.Server, bento: Path, bucket_: str, how: int, told: str
) -> None:
    if how:
        google.fail("any", how, times=20)
    settings = builder.settings.model_copy(update={"bucket": bucket_})
    with pytest.raises(ImageError, match=told):
        CloudBuilder(settings, builder.client, builder.repository).build(bento, DIGEST, "v7")


def test_a_log_that_cannot_be_read_hides_no_image(
    builder: CloudBuilder, google: cloud_storage.Server, bento: Path
) -> None:
    google.fail("download", 404, times=20, after=1)
    assert "could not be read" in builder.build(bento, DIGEST, "v7").log


def test_without_credentials_it_is_said_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise DefaultCredentialsError("no credentials were found")

    monkeypatch.setattr("google.auth.default", none)
    with pytest.raises(ImageError, match="gcloud auth application-default login"):
        connect()


@pytest.mark.parametrize(
    "wrong",
    [{"bucket": "images"}, {"machine": "HUGE"}, {"timeout_minutes": 0}, {"timeout_minutes": 2000}, {"color": 1}],
)
def test_settings_that_mean_nothing_are_refused(settings: CloudBuildSettings, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CloudBuildSettings(**{**settings.model_dump(), **wrong})


# As the service's own description: what it rests on and what it says of itself come from outside.
DESCRIPTION = """
ARG BASE
FROM ${BASE}
COPY bento.yaml /
RUN mkdir /usr/share/materials && cd /usr/share/materials && cp /var/lib/dpkg/status dpkg-status \
    && touch dpkg-licenses && echo '{"python": "3.11", "packages": []}' > python.json
ARG BASE
ARG BASE_DIGEST
ARG BENTO
LABEL org.opencontainers.image.base.name=${BASE} org.opencontainers.image.base.digest=${BASE_DIGEST} \
    matching-platform.bento=${BENTO}
USER 1034
CMD ["cat", "/bento.yaml"]
"""


@pytest.mark.containers
def test_the_image_is_really_built_pushed_and_read_back(
    settings: CloudBuildSettings,
    google: cloud_storage.Server,
    engine: Engine,
    registry: str,
    base_image: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cloud_build, "POLL_SECONDS", 0.05)
    base, repository = f"{registry}/bases/python:3.11", Repository(f"{registry}/cloud-build/service")
    engine.podman("push", base_image, base)
    bento = a_bento(tmp_path / "bento", *DESCRIPTION.splitlines())
    settings = settings.model_copy(update={"base": base})
    with serve(Docker(("podman",), environment=engine.environment), google.endpoint) as server:
        builder = CloudBuilder(settings, connect(server.endpoint), repository)
        built, again = (builder.build(bento, DIGEST, "v7") for _ in range(2))
        (build,) = server.builds
    image = built.image
    assert image.digest == repository.digest(image.tag) == build.results.images[0].digest
    assert (image.repository, image.model, image.bento) == (repository.name, "v7", DIGEST)
    assert image.base == f"{registry}/bases/python@{Repository(f'{registry}/bases/python').digest('3.11')}"
    assert image.size > 10 * 2**20
    assert "COPY bento.yaml" in built.log
    assert {"python", "bash"} <= {part["name"] for part in built.materials["components"]}
    assert (again.reused, again.image, again.materials) == (True, image, built.materials)
    engine.podman("rmi", "--all", "--force")
    assert engine.podman("run", "--rm", "--read-only", image.reference) == "name: matching-platform"
