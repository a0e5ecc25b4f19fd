import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from matching_platform.delivery import probe
from matching_platform.delivery.images.containerize import PodmanBuilder
from matching_platform.delivery.images.distribution import Repository
from matching_platform.delivery.images.image import Image, ImageError, tag_of
from matching_platform.delivery.packing import CPU_WHEELS, BentoArtefact, build_bento
from matching_platform_tests.containers import engine as parts
from matching_platform_tests.containers.engine import Engine
from matching_platform_tests.delivery.images import oci
from matching_platform_tests.delivery.parts import free_port

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1200)]

# As a cluster runs it: two cores, no rights, and nothing to write on but /tmp.
RESTRICTED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--cpus=2", "--network=host")
READY_SECONDS = 10.0
# What an image may come to: in the registry, compressed, and of that what a new model adds.
COMPRESSED, ADDED = 640 * 2**20, 4 * 2**20


@dataclass(frozen=True)
class Server:
    engine: Engine
    name: str
    url: str
    ready_seconds: float

    def sh(self, script: str) -> str:
        return self.engine.podman("exec", self.name, "sh", "-c", script)


@pytest.fixture(scope="module")
def server(engine: Engine, service_image: Image) -> Iterator[Server]:
    """The image as it was pushed, pulled by its digest and started; the quickest of three starts on a busy machine."""
    engine.podman("pull", service_image.reference)
    for attempt in range(3):
        started = _start(engine, service_image, f"service-{attempt}")
        if started.ready_seconds < READY_SECONDS:
            break
    yield started
    engine.podman("rm", "--force", "--time=0", started.name)


def _start(engine: Engine, image: Image, name: str) -> Server:
    port = free_port()
    began = time.monotonic()
    engine.podman("run", "--detach", f"--name={name}", *RESTRICTED, f"--env=BENTOML_PORT={port}", image.reference)
    while not _is_ready(f"http://127.0.0.1:{port}"):
        assert time.monotonic() < began + 120, engine.podman("logs", name)
        time.sleep(0.05)
    return Server(engine, name, f"http://127.0.0.1:{port}", time.monotonic() - began)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture
def builder(registry: str, base_image: str) -> PodmanBuilder:
    return parts.builder(f"{registry}/matching-service", base_image)


@pytest.fixture(scope="module")
def next_bento(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> BentoArtefact:
    """Another model, as far as images know: it has another version."""
    return build_bento(small_model, "small-2", tmp_path_factory.mktemp("next") / "bento")


def test_the_image_answers_as_the_packed_model_did(server: Server, service_bento: BentoArtefact) -> None:
    packed = probe.read(service_bento.path)
    assert httpx.get(f"{server.url}/model", trust_env=False).json()["version"] == packed.version
    answer = httpx.post(f"{server.url}/match", json=packed.request, timeout=30, trust_env=False)
    assert probe.differences(packed.proposals, probe.given(answer.content)) == []


def test_it_serves_in_time_and_compiles_nothing(server: Server) -> None:
    assert server.ready_seconds < READY_SECONDS
    # Machine code that had to be made at the start would lie beside what the image brought.
    assert server.sh("diff -r /usr/share/numba /tmp/numba && find /tmp/numba -name '*.nbc' | wc -l") != "0"


def test_it_runs_as_nobody_in_particular_and_writes_nowhere(server: Server) -> None:
    assert server.sh("id -u; id -g") == "1034\n1034"
    assert server.sh("touch /app/x /home/bentoml/x /x 2>&1 || true").count("Read-only file system") == 3
    settings = json.loads(server.engine.podman("inspect", server.name))[0]
    # A number, so that Kubernetes can tell that it is not root.
    assert settings["Config"]["User"] == "1034:1034"


def test_it_says_whether_it_is_well(server: Server) -> None:
    told = json.loads(server.engine.podman("inspect", server.name))[0]["Config"]["Healthcheck"]["Test"]
    server.engine.podman("healthcheck", "run", server.name)
    assert "refused" in server.sh(f"BENTOML_PORT={free_port()}; {told[1]} 2>&1 && echo well || true")


def test_it_has_neither_compilers_nor_installers_nor_tests(server: Server) -> None:
    tools = "gcc cc c++ g++ clang make ld pip pip3 uv"
    assert server.sh(f"for tool in {tools}; do command -v $tool || true; done") == ""
    for python in ("python", "/usr/bin/python3"):
        assert "No module named pip" in server.sh(f"{python} -m pip 2>&1 || true")
    unwanted = "-name 'matching_platform_tests*' -o -path '*/pip/_internal' -o -name '*.whl' -o -name '*.a'"
    assert server.sh(f"find /app /home /usr /root /tmp {unwanted} 2>/dev/null || true") == ""


def test_the_image_says_what_it_is_and_keeps_its_size(
    service_image: Image, service_bento: BentoArtefact, registry: str, engine: Engine
) -> None:
    assert 0 < service_image.size < COMPRESSED
    assert (service_image.model, service_image.bento) == ("small-1", service_bento.digest)
    engine.podman("pull", service_image.reference)
    told = json.loads(engine.podman("image", "inspect", service_image.reference))[0]
    labels = told["Labels"]
    assert labels["org.opencontainers.image.version"] == service_image.tag
    created = datetime.fromisoformat(labels["org.opencontainers.image.created"])
    assert tag_of("small-1", created) == service_image.tag
    assert labels["org.opencontainers.image.base.name"] == service_image.base
    assert labels["org.opencontainers.image.base.digest"] == service_image.base.partition("@")[2]
    assert told["Healthcheck"]["Test"][0] == "CMD-SHELL"
    assert told["Size"] < parts.LIMIT


def test_the_bill_of_materials_names_what_is_in_it(service_image: Image) -> None:
    bill = Repository(service_image.repository).materials(service_image)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) is None
    parts_of_it = {part["name"]: part for part in bill["components"]}
    assert parts_of_it["torch"]["purl"].startswith("pkg:pypi/torch@")
    assert parts_of_it["libc6"]["purl"].startswith("pkg:deb/debian/libc6@2.36")
    assert not parts_of_it.keys() & {"pip", "dagster", "gcc"}
    known = [part for part in parts_of_it.values() if part.get("licenses")]
    assert len(known) > 0.8 * len(parts_of_it)


def test_the_same_bento_is_not_built_again(
    builder: PodmanBuilder, service_image: Image, service_bento: BentoArtefact
) -> None:
    again = builder.build(service_bento.path, service_bento.digest, service_image.model)
    assert again.reused
    assert again.image == service_image
    assert again.materials["metadata"]["component"]["version"] == service_image.tag


def test_a_new_model_adds_little_to_an_image_and_a_killed_build_leaves_nothing(
    builder: PodmanBuilder, service_image: Image, next_bento: BentoArtefact, registry: str
) -> None:
    before = builder.repository.tags()
    _killed(builder, next_bento)
    assert builder.repository.tags() == before
    built = builder.build(next_bento.path, next_bento.digest, "small-2")
    assert not built.reused
    assert (built.image.model, built.image.bento) == ("small-2", next_bento.digest)
    assert builder.repository.tags() == sorted([*before, built.image.tag])
    assert "COPY --chown=1034:1034 . /home/bentoml/bento" in built.log
    older, newer = _layers(service_image), _layers(built.image)
    assert sum(newer[digest] for digest in newer.keys() - older.keys()) < ADDED
    # The bento itself, and the empty layer of the labels.
    assert len(newer.keys() - older.keys()) <= 2


def test_an_image_that_is_too_big_is_not_pushed(
    builder: PodmanBuilder, service_image: Image, next_bento: BentoArtefact
) -> None:
    before = builder.repository.tags()
    small = replace(builder, limit=100 * 2**20)
    with pytest.raises(ImageError, match=r"takes 1,\d{3} MiB unpacked, more than the limit of 100 MiB"):
        small.build(next_bento.path, "f" * 64, "small-3")
    assert builder.repository.tags() == before


def test_a_build_that_fails_says_what_the_builder_said(
    builder: PodmanBuilder, service_image: Image, service_bento: BentoArtefact, tmp_path: Path
) -> None:
    nothing = tmp_path / "bento"
    (nothing / "env" / "python").mkdir(parents=True)
    source = service_bento.path / "env" / "python" / "requirements.txt"
    (nothing / "env" / "python" / "requirements.txt").write_bytes(source.read_bytes())
    with pytest.raises(ImageError, match=r"bentoml containerize failed: (.|\n)*bento\.yaml"):
        builder.build(nothing, "f" * 64, "small-3")


def test_packages_that_are_nowhere_are_told(builder: PodmanBuilder, tmp_path: Path) -> None:
    bento = tmp_path / "bento"
    (bento / "env" / "python").mkdir(parents=True)
    (bento / "env" / "python" / "requirements.txt").write_text("matching-platform-no-such-package==1\n")
    here = replace(builder, wheels=tmp_path / "wheels")
    with pytest.raises(ImageError, match=r"pip download failed: (.|\n)*matching-platform-no-such-package"):
        here.build(bento, "f" * 64, "small-3")
    assert not [path for path in here.wheels.iterdir() if not path.name.startswith(".")]


def test_a_missing_engine_or_registry_is_told(
    builder: PodmanBuilder, service_bento: BentoArtefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = replace(builder, repository=Repository(f"127.0.0.1:{free_port()}/service"))
    with pytest.raises(ImageError, match=r"does not answer .*see that it runs"):
        nowhere.build(service_bento.path, service_bento.digest, "small-1")
    with pytest.raises(ImageError, match="podman pull failed"):
        replace(builder, base=f"{builder.repository.host}/no/such:base").build(service_bento.path, "f" * 64, "small-1")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ImageError, match=r"no podman here; install it .*apt-get install podman"):
        builder.build(service_bento.path, service_bento.digest, "small-1")


def test_podman_pushes_as_whom_the_registry_knows(
    builder: PodmanBuilder, engine: Engine, base_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Repository, "credentials", lambda _: tuple(parts.LOGIN.split(":", 1)))
    with parts.registry(tmp_path, closed=True) as address:
        closed = replace(builder, repository=Repository(f"{address}/one"))
        made = oci.image({}, [oci.layer({"one": b"1"})])
        oci.push(address, "one", "first", made, auth=tuple(parts.LOGIN.split(":", 1)))
        options = closed._login(tmp_path)
        engine.podman("pull", *options, f"{address}/one:first")
        engine.podman("tag", f"{address}/one:first", f"{address}/one:second")
        engine.podman("push", *options, f"{address}/one:second")
        assert closed.repository.tags() == ["first", "second"]


@pytest.mark.parametrize("pulled", [False, True])
def test_the_base_is_known_by_its_digest(
    builder: PodmanBuilder, engine: Engine, registry: str, base_image: str, pulled: bool
) -> None:
    made = oci.image({}, [oci.layer({"one": b"1"})])
    oci.push(registry, "base", "1", made)
    name = f"{registry}/base"
    base = replace(builder, base=f"{name}:1" if pulled else f"{name}@{made.digest}")
    assert base._pinned_base() == f"{name}@{made.digest}"


def test_the_description_names_where_the_wheels_lie() -> None:
    description = (Path(__file__).parents[3] / "bento" / "Dockerfile.template").read_text()
    assert f"ARG PIP_FIND_LINKS={CPU_WHEELS}\n" in description


def _layers(image: Image) -> dict[str, int]:
    registry, _, name = image.repository.partition("/")
    url = f"http://{registry}/v2/{name}/manifests/{image.digest}"
    manifest = httpx.get(url, headers={"accept": oci.MANIFEST["docker"]}, trust_env=False).json()
    return {layer["digest"]: layer["size"] for layer in manifest["layers"]}


def _killed(builder: PodmanBuilder, bento: BentoArtefact) -> None:
    """A build in a process of its own, killed as soon as podman is at work."""
    code = (
        "import sys; from pathlib import Path; from matching_platform_tests.containers import engine as parts; "
        "parts.builder(*sys.argv[1:3]).build(Path(sys.argv[3]), sys.argv[4], 'small-2')"
    )
    arguments = (builder.repository.name, builder.base, str(bento.path), bento.digest)
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], start_new_session=True)
    time.sleep(6)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
