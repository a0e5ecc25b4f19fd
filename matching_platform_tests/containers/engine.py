"""A container engine and a registry that belong to the tests: settings, images and networks lie in folders of theirs.

What is dear to make, such as the base image, lies in a store that all test runs of a user share and none changes; what a
run makes lies in a folder that it removes.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import pytest
from filelock import FileLock

from matching_platform.delivery.images.containerize import PodmanBuilder
from matching_platform.delivery.images.distribution import Repository
from matching_platform.delivery.images.image import Image
from matching_platform.delivery.packing import BentoArtefact

# Set in CI: what is missing is a failure there, not a reason to skip.
REQUIRED: Final = "MATCHING_PLATFORM_REQUIRE_CONTAINERS"
TOOLS: Final = ("podman", "runc", "docker-registry", "mmdebstrap")
PACKAGES: Final = (
    "podman buildah runc skopeo docker-registry mmdebstrap netavark aardvark-dns iptables conmon uidmap catatonit "
    "debian-archive-keyring gpg"
)
SHARED: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "matching-platform-tests")
# User and password of a registry that is closed to others, and how it keeps them.
LOGIN: Final = "somebody:s3cret:with colon"
_LOGIN_HASHED: Final = "somebody:$2b$04$7pVQtZzr9wcYz49kEpQ4DewVMIZumTBwXJraVLN55W1Y2h3xIbuRG"
_CLOSED: Final = """
auth:
  htpasswd:
    realm: tests
    path: {logins}
"""
# How much the service's image may take, unpacked.
LIMIT: Final = 2 * 2**30
# Of how many bentos the images are kept for later runs.
_KEPT: Final = 3
_REGISTRY_ROOT: Final = "docker/registry/v2"
_RUNS: Final = Path(tempfile.gettempdir(), f"matching-platform-engines-{os.getuid()}")

_CONTAINERS_CONF: Final = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=8192:8192"]
[engine]
runtime = "runc"
tmp_dir = "{folder}/state"
lock_type = "file"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
default_network = "matching"
"""
_STORAGE_CONF: Final = """
[storage]
driver = "overlay"
graphroot = "{folder}/images"
runroot = "{folder}/run"
[storage.options]
additionalimagestores = {shared}
"""
_REGISTRIES_CONF: Final = """
[[registry]]
location = "{address}"
insecure = true
"""
_REGISTRY: Final = """
version: 0.1
storage:
  filesystem:
    rootdirectory: {folder}
  delete:
    enabled: true
http:
  addr: {address}
log:
  level: warn
  accesslog:
    disabled: true
"""


@dataclass(frozen=True)
class Engine:
    """podman with the settings in `folder`; `environment` is what a process needs that is to use the same one."""

    folder: Path

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.folder / "registries.conf"),
        }

    def podman(self, *arguments: str, seconds: float = 120) -> str:
        """What `podman` writes; the test fails with what it complains about."""
        environment = {**os.environ, **self.environment}
        result = subprocess.run(
            ["podman", *arguments], env=environment, capture_output=True, text=True, timeout=seconds
        )
        assert result.returncode == 0, f"podman {' '.join(arguments)}: {result.stderr or result.stdout}"
        return result.stdout.strip()

    def trust(self, address: str) -> None:
        """Lets the registry at `address` answer over HTTP."""
        with Path(self.environment["CONTAINERS_REGISTRIES_CONF"]).open("a") as settings:
            settings.write(_REGISTRIES_CONF.format(address=address))


def required() -> None:
    """Skips what needs an engine where there is none, and fails where there has to be one."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        told = f"no {', '.join(missing)}; apt-get install -y --no-install-recommends {PACKAGES}"
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(told)


@contextmanager
def engine() -> Iterator[Engine]:
    """An engine of this process alone; its containers and images go with it."""
    _RUNS.mkdir(exist_ok=True)
    for other in _RUNS.iterdir():
        if not psutil.pid_exists(int(other.name)):
            _remove(Engine(other))
    own = _set_up(_RUNS / str(os.getpid()), [str(shared().folder / "images")])
    try:
        yield own
    finally:
        _remove(own)


def shared() -> Engine:
    """The engine whose images all runs see; change it under `lock` only."""
    with lock():
        return _set_up(SHARED / "engine", [])


def lock() -> FileLock:
    SHARED.mkdir(parents=True, exist_ok=True)
    # The same process may hold it twice, so it is one object.
    return FileLock(SHARED / "lock", is_singleton=True)


@contextmanager
def registry(folder: Path, closed: bool = False) -> Iterator[str]:
    """A registry that keeps its images in `folder / "images"`, `closed` to all but LOGIN; host and port."""
    address = f"127.0.0.1:{_free_port()}"
    settings = folder / "registry.yml"
    settings.write_text(_REGISTRY.format(folder=folder / "images", address=address))
    if closed:
        (folder / "logins").write_text(_LOGIN_HASHED)
        with settings.open("a") as file:
            file.write(_CLOSED.format(logins=folder / "logins"))
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", settings], stdout=log, stderr=log)
    try:
        _await(address, process, folder / "registry.log")
        yield address
    finally:
        process.terminate()
        process.wait()


def base() -> str:
    """The name of a small Debian with Python, made once per user and machine."""
    recipe = ("--variant=minbase", "--include=python3,python3-venv,ca-certificates,passwd,bash", "bookworm")
    name = f"localhost/matching-base:{hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]}"
    with lock(), tempfile.TemporaryDirectory() as work:
        if name not in shared().podman("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines():
            made = subprocess.run(["mmdebstrap", *recipe, f"{work}/base.tar"], capture_output=True, text=True)
            assert made.returncode == 0, made.stderr
            shared().podman("import", "--quiet", f"{work}/base.tar", name)
    return name


def builder(repository: str, base: str) -> PodmanBuilder:
    """What builds the service's image; the packages that it needs are gathered once per user and machine."""
    return PodmanBuilder(Repository(repository), base, SHARED / "wheels", LIMIT)


def service(bento: BentoArtefact, model: str, repository: str, base: str, images: Path) -> Image:
    """The image of a bento in `repository`, whose registry keeps its images in the folder `images`.

    What one test run has built, the others find: layers in the store that all see, the image itself beside it.
    """
    host, _, name = repository.partition("/")
    shelf = SHARED / "registries"
    kept = shelf / hashlib.sha256(f"{bento.digest} {base}".encode()).hexdigest()[:16]
    with lock(), pytest.MonkeyPatch.context() as patch:
        _lay(kept, images)
        common = shared()
        common.trust(host)
        for setting, value in common.environment.items():
            patch.setenv(setting, value)
        built = builder(repository, base).build(bento.path, bento.digest, model)
        if not built.reused:
            for other in sorted(shelf.glob("*"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
                shutil.rmtree(other)
            for part in ("blobs", f"repositories/{name}"):
                _lay(images / _REGISTRY_ROOT / part, kept / _REGISTRY_ROOT / part)
    return built.image


def _lay(source: Path, target: Path) -> None:
    """Lays the files of a registry into another's folder, if there are any."""
    if source.exists():
        shutil.copytree(source, target, copy_function=_same, dirs_exist_ok=True)


def _same(source: str, target: str) -> None:
    """A layer is not copied but linked: it is named after its content, so nobody changes it."""
    if Path(source).name == "data" and not Path(target).exists():
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


def _set_up(folder: Path, stores: list[str]) -> Engine:
    """Settings of an engine that shares nothing with others but what it reads in `stores`: neither state nor locks."""
    (folder / "networks").mkdir(parents=True, exist_ok=True)
    (folder / "containers.conf").write_text(_CONTAINERS_CONF.format(folder=folder))
    (folder / "storage.conf").write_text(_STORAGE_CONF.format(folder=folder, shared=json.dumps(stores)))
    (folder / "registries.conf").write_text("")
    # A bridge and addresses of its own: podman's default ones may be another engine's.
    pid = os.getpid()
    network = f"10.{200 + pid // 256 % 50}.{pid % 256}"
    description = {
        "name": "matching",
        "id": hashlib.sha256(network.encode()).hexdigest(),
        "driver": "bridge",
        "network_interface": f"match{pid}"[:15],
        "created": "2024-01-01T00:00:00Z",
        "subnets": [{"subnet": f"{network}.0/24", "gateway": f"{network}.1"}],
        "ipam_options": {"driver": "host-local"},
    }
    (folder / "networks" / "matching.json").write_text(json.dumps(description))
    return Engine(folder)


def _remove(gone: Engine) -> None:
    gone.podman("pod", "rm", "--all", "--force", "--time", "0")
    gone.podman("rm", "--all", "--force", "--time", "0")
    gone.podman("system", "reset", "--force")
    shutil.rmtree(gone.folder)


def _await(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    host, port = address.split(":")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with socket.socket() as client:
            if client.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"the registry does not listen on {address}: {log.read_text()}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
