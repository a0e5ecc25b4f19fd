"""A model folder becomes a bento: service, code, model and the description of its image, in one folder.

It needs no package index and no bento store: what is built lies where the caller wants it, and the same model packed by
the same code gives the same files.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import requires, version
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

import matching_platform
from matching_platform.delivery import probe
from matching_platform.delivery.probe import Probe

PACKAGE: Final = Path(matching_platform.__file__).parent
BENTO: Final = PACKAGE.parent / "bento"
# What the service imports; an import rule keeps it from needing more. And what a front needs, which a cluster runs from
# the same image.
ROOMS: Final = ("ledger", "matching", "predictions", "store")
FRONT: Final = ("__init__", "probe", "serving/__init__", "serving/front", "serving/figures")
# The wheels of torch that bring no GPU runtime lie only here.
CPU_WHEELS: Final = "https://download.pytorch.org/whl/cpu/torch/"
_VERSION: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


class PackingError(RuntimeError):
    """The bento could not be built; the message ends with what BentoML said."""


@dataclass(frozen=True)
class BentoArtefact:
    """A built bento: its folder, the SHA-256 over names and contents of its files, and its size in bytes."""

    path: Path
    digest: str
    size: int


def build_bento(model: Path, version: str, output: Path) -> BentoArtefact:
    """Packs the model in folder `model` as the bento `matching-platform:<version>` into the new folder `output`.

    The model must load and answer the probe's request, whose answer is packed with it. `version` is what the service
    will say it serves: lower-case letters, digits, '.', '_' and '-'. Raises FileExistsError where `output` exists,
    ValueError at any other version, ModelError where the model is not usable, PackingError where BentoML fails.
    `output` appears whole or not at all.
    """
    if not _VERSION.fullmatch(version):
        raise ValueError(f"'{version}' cannot name a bento; use lower-case letters, digits, '.', '_' and '-'")
    if output.exists():
        raise FileExistsError(f"{output} exists; a bento is never changed, so give a new folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    # BentoML refuses to build beneath a hidden folder, so it builds where temporary files lie.
    with (
        tempfile.TemporaryDirectory(prefix="bento-") as work,
        tempfile.TemporaryDirectory(prefix=".bento-", dir=output.parent) as beside,
    ):
        _stage(model, version, Path(work, "stage"))
        built = _build(Path(work, "stage"), version, Path(work, "home"))
        _forget_when(built / "bento.yaml")
        shutil.copytree(built, Path(beside, output.name)).rename(output)
    return BentoArtefact(output, *_measured(output))


def requirements() -> list[str]:
    """The lines of the image's requirements file: the project's own, for serving, at the versions installed here."""
    wanted = (Requirement(line) for line in requires("matching-platform") or [])
    names = sorted(r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": "serving"}))
    return [_pinned(name) for name in names]


def _pinned(name: str) -> str:
    public = version(name).partition("+")[0]
    return f"{name}=={public}+cpu" if name == "torch" else f"{name}=={public}"


def _stage(model: Path, version: str, stage: Path) -> None:
    """The build folder, which BentoML copies as it is."""
    stage.mkdir()
    for name in ("service.py", "bentofile.yaml", "Dockerfile.template"):
        shutil.copy(BENTO / name, stage)
    code = stage / PACKAGE.name
    code.mkdir()
    shutil.copy(PACKAGE / "__init__.py", code)
    for room in ROOMS:
        shutil.copytree(PACKAGE / room, code / room, ignore=shutil.ignore_patterns("__pycache__"))
    (code / "delivery" / "serving").mkdir(parents=True)
    for module in FRONT:
        shutil.copy(PACKAGE / "delivery" / f"{module}.py", code / "delivery" / f"{module}.py")
    # A store's manifest lies beside the files as a hidden one, and is not the model's.
    shutil.copytree(model, stage / "model", ignore=shutil.ignore_patterns(".*"))
    probe.write(Probe(version, probe.REQUEST, probe.answers(model)), stage / probe.FILE)
    (stage / "requirements.txt").write_text("\n".join([*requirements(), ""]), encoding="utf-8")


def _build(stage: Path, version: str, home: Path) -> Path:
    """The built bento's folder. A process of its own: BentoML keeps store, search path and service as global state."""
    command = [sys.executable, "-m", "bentoml", "build", str(stage), "--version", version]
    environment = {**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=stage)
    if result.returncode:
        raise PackingError(f"BentoML could not build {version}: {result.stderr.strip() or result.stdout.strip()}")
    return home / "bentos" / "matching-platform" / version


def _forget_when(description: Path) -> None:
    """Drops the moment of building, which would make two bentos of one model differ."""
    text = description.read_text(encoding="utf-8")
    text = re.sub(r"^creation_time: .*$", "creation_time: '2000-01-01T00:00:00.000000+00:00'", text, flags=re.MULTILINE)
    description.write_text(text, encoding="utf-8")


def _measured(folder: Path) -> tuple[str, int]:
    """Digest and size of all files beneath `folder`."""
    digest, size = hashlib.sha256(), 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(data)}\0".encode())
        digest.update(data)
        size += len(data)
    return digest.hexdigest(), size
