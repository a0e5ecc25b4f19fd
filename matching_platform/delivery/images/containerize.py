"""Images built on this machine: `bentoml containerize` with podman, without a network, pushed to a registry."""

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from filelock import FileLock

from matching_platform.delivery.images.distribution import Repository
from matching_platform.delivery.images.image import Built, Image, ImageError, tag_of
from matching_platform.delivery.packing import CPU_WHEELS

_ENGINE: Final = "podman"
# What the image runs: wheels are gathered for it, and not for who gathers them.
_PYTHON: Final = "3.11"
# Debian 12 has glibc 2.36, and takes wheels made for it or an older one.
_PLATFORMS: Final = (*(f"manylinux_2_{minor}_x86_64" for minor in range(36, 16, -1)), "manylinux2014_x86_64")
_SECONDS: Final = 3600.0
_TAIL_LINES: Final = 20


@dataclass(frozen=True)
class PodmanBuilder:
    """A Builder that uses podman. `base` is what images rest on, `wheels` a folder that keeps the packages between
    builds, and `limit` how many bytes an image may take on a node's disk, unpacked."""

    repository: Repository
    base: str
    wheels: Path
    limit: int

    def build(self, bento: Path, digest: str, model: str) -> Built:
        """See Builder. The image is the registry's where it has one of this bento and base already."""
        started = time.monotonic()
        if shutil.which(_ENGINE) is None:
            raise ImageError(
                f"there is no {_ENGINE} here; install it (Debian: apt-get install podman), or have images built elsewhere"
            )
        base = self._pinned_base()
        if image := self.repository.find(digest, base, model):
            materials = self.repository.materials(image)
            return Built(image, "", materials, time.monotonic() - started, reused=True)
        with tempfile.TemporaryDirectory(prefix="image-") as work:
            log = Path(work, "build.log")
            image, unpacked = self._built(bento, digest, model, base, Path(work), log)
            materials, told = self.repository.materials(image), log.read_text(errors="replace")
        return Built(image, told, materials, time.monotonic() - started, metadata={"unpacked_bytes": str(unpacked)})

    def _built(self, bento: Path, digest: str, model: str, base: str, work: Path, log: Path) -> tuple[Image, int]:
        now = datetime.now(UTC)
        tag = tag_of(model, now)
        name, digest_file = f"{self.repository.name}:{tag}", work / "digest"
        given = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "/wheels",
            "BASE": base,
            "BASE_DIGEST": base.partition("@")[2],
            "BENTO": digest,
            "CREATED": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "VERSION": tag,
        }
        wheels = self._gathered(bento / "env" / "python" / "requirements.txt", log)
        options = ["network=none", f"volume={wheels}:/wheels:ro", *(f"build-arg={k}={v}" for k, v in given.items())]
        _run(_containerize(bento, model, name, options, work), log, cwd=work, environment=_building(work))
        unpacked = int(_asked("image", "inspect", "--format", "{{.Size}}", name))
        if unpacked > self.limit:
            _asked("untag", name)
            raise ImageError(
                f"the image takes {_mib(unpacked)} unpacked, more than the limit of {_mib(self.limit)}; see what its "
                "packages or its model have grown by, or raise the limit. It was not pushed"
            )
        _run([_ENGINE, "push", "--digestfile", str(digest_file), *self._login(work), name], log)
        return self.repository.image(digest_file.read_text().strip(), tag), unpacked

    def _pinned_base(self) -> str:
        """The base as `name@digest`; one that is not on this machine is pulled."""
        if "@" in self.base:
            return self.base
        asked = ("image", "inspect", "--format", "{{.Digest}}", self.base)
        try:
            digest = _asked(*asked)
        except ImageError:
            _asked("pull", "--quiet", self.base)
            digest = _asked(*asked)
        name, _, tag = self.base.rpartition(":")
        return f"{self.base if not name or '/' in tag else name}@{digest}"

    def _gathered(self, requirements: Path, log: Path) -> Path:
        """The folder of all wheels that these requirements come to. It appears whole; a download cut off goes on."""
        content = requirements.read_bytes()
        name = hashlib.sha256(b"\0".join([content, _PYTHON.encode(), *map(str.encode, _PLATFORMS)])).hexdigest()[:16]
        self.wheels.mkdir(parents=True, exist_ok=True)
        folder, unfinished = self.wheels / name, self.wheels / f".{name}.unfinished"
        with FileLock(self.wheels / ".lock"):
            if not folder.is_dir():
                # PyTorch's page is asked for its own wheels alone, and not once for every package.
                elsewhere = [line for line in content.decode().splitlines() if "+" in line]
                download = [sys.executable, "-m", "pip", "download", "--dest", str(unfinished), *_wheels_only()]
                if elsewhere:
                    _run([*download, "--no-deps", "--find-links", CPU_WHEELS, *elsewhere], log)
                _run([*download, "--find-links", str(unfinished), "--requirement", str(requirements)], log)
                unfinished.rename(folder)
        return folder.resolve()

    def _login(self, work: Path) -> list[str]:
        """Options with which podman may push, as whom the registry's API is asked."""
        options = ["--tls-verify=false"] if self.repository.is_local else []
        if login := self.repository.credentials():
            auth = base64.b64encode(":".join(login).encode()).decode()
            file = work / "auth.json"
            file.write_text(json.dumps({"auths": {self.repository.host: {"auth": auth}}}))
            options += ["--authfile", str(file)]
        return options


def _containerize(bento: Path, model: str, name: str, options: Sequence[str], work: Path) -> list[str]:
    """BentoML's command; it wants the bento in a store."""
    store = work / "home" / "bentos" / "matching-platform"
    store.mkdir(parents=True)
    (store / model).symlink_to(bento.resolve(), target_is_directory=True)
    command = [sys.executable, "-m", "bentoml", "containerize", f"matching-platform:{model}", "--backend", _ENGINE]
    return [*command, "--image-tag", name, *(part for option in options for part in ("--opt", option))]


def _building(work: Path) -> dict[str, str]:
    # The OCI's own format knows no health check. BentoML reads its copy of the bento only beneath the current folder.
    own = {"BUILDAH_FORMAT": "docker", "BENTOML_HOME": str(work / "home"), "TMPDIR": str(work)}
    return {**own, "BENTOML_DO_NOT_TRACK": "true"}


def _wheels_only() -> Iterator[str]:
    yield from ("--only-binary", ":all:", "--python-version", _PYTHON)
    for platform in _PLATFORMS:
        yield from ("--platform", platform)


def _run(
    command: Sequence[str], log: Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> None:
    """Runs a command that writes to `log`; ends it and its children where we are ended. ImageError where it fails."""
    what = " ".join(command[:2] if command[0] == _ENGINE else command[2:4])
    with log.open("ab") as output:
        environment = {**os.environ, **(environment or {})}
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=cwd, env=environment, start_new_session=True
        )
        try:
            failed = process.wait(_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ImageError(f"{what} was not done after {_SECONDS / 60:.0f} minutes: {_tail(log)}") from error
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                process.wait()
    if failed:
        raise ImageError(f"{what} failed: {_tail(log)}")


def _asked(*arguments: str) -> str:
    """What podman answers; ImageError where it complains."""
    result = subprocess.run([_ENGINE, *arguments], capture_output=True, text=True)
    if result.returncode:
        raise ImageError(f"{_ENGINE} {arguments[0]} failed: {result.stderr.strip()}")
    return result.stdout.strip()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
