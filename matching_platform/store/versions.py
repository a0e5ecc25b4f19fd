"""Immutable versions of folders, addressed by what they hold.

A version lies at `<root>/<kind>/<first 16 digits of its digest>/` with `.version.json` beside its files, which lists
their sizes and hashes. The digest covers names, sizes and contents, nothing else: the same content is the same version,
whoever stores it and whenever. A version appears whole or not at all, and nothing here changes one.
"""

import base64
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import polars as pl
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from matching_platform.store.files import CorruptError, Files, StoreError, side_by_side

MANIFEST: Final = ".version.json"
FRAME: Final = "frame.parquet"
# A version in the cache that nobody has fetched for so long makes way.
FORGOTTEN_SECONDS: Final = 7 * 24 * 3600

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class UnknownVersionError(StoreError):
    """There is no such version."""


@dataclass(frozen=True, order=True)
class Version:
    """A version's kind ("models", "transfers") and the SHA-256 of its content in 64 hexadecimal digits.

    To JSON by `dataclasses.asdict(version)`, and back by `Version(**data)`.
    """

    kind: Name
    digest: Digest

    @property
    def name(self) -> str:
        """The 16 digits that people type and folders carry."""
        return self.digest[:16]

    @property
    def folder(self) -> str:
        """Where it lies, relative to the store's root."""
        return f"{self.kind}/{self.name}"

    def __str__(self) -> str:
        return self.folder


@dataclass(frozen=True)
class File:
    """A file of a version; `size` in bytes."""

    size: int
    sha256: Digest


@dataclass(frozen=True)
class Manifest:
    """What `.version.json` says; `files` by their names within the version."""

    version: Version
    created: datetime
    files: dict[str, File]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files.values())


_MANIFEST: Final = TypeAdapter(Manifest)


class Store:
    """Versions under `root`, any path or URL that fsspec knows. Threads and processes may share it.

    `cache` is a local folder for the versions of a store elsewhere: they are brought there once, or were stored from
    there. It may be lost or shared; what nobody has fetched from it for a week makes way.
    """

    def __init__(self, root: str | Path, cache: Path | None = None) -> None:
        self.files = Files(str(root))
        folder = cache or Path(tempfile.gettempdir(), "matching-platform-versions")
        self._cache = None if self.files.local else Store(folder)

    def put(self, kind: str, folder: Path) -> Version:
        """Stores a copy of a local folder; where the same content is there already, that version.

        Raises StoreError where the folder holds no file, CorruptError where the version that is there is damaged.
        """
        with self._stage() as stage:
            shutil.copytree(folder, stage, copy_function=shutil.copyfile, dirs_exist_ok=True)
            (stage / MANIFEST).unlink(missing_ok=True)  # Of a version stored again.
            return self._publish(kind, stage)

    def put_bytes(self, kind: str, name: str, data: bytes) -> Version:
        """Stores one file, called `name`."""
        with self._stage() as stage:
            (stage / name).write_bytes(data)
            return self._publish(kind, stage)

    def put_frame(self, kind: str, frame: pl.DataFrame) -> Version:
        """Stores a frame as one Parquet file; `read_frame` is the way back. Equal frames are the same version."""
        with self._stage() as stage:
            # Chunks are an accident of how a frame came about, and would show in the file.
            # The level is the fastest, and makes files no larger than the usual one.
            frame.rechunk().write_parquet(stage / FRAME, compression_level=1)
            return self._publish(kind, stage)

    def fetch(self, version: Version) -> Path:
        """A local folder with the version's files, verified; only to be read. In a local store, the version itself.

        A store elsewhere is not asked for what the cache holds. Raises UnknownVersionError where the version is not
        there, CorruptError where a file is not what was written.
        """
        if self._cache is None:
            self.verify(version)
            return Path(self.files.path(version.folder))
        folder = Path(self._cache.files.path(version.folder))
        with suppress(FileNotFoundError):
            os.utime(folder / MANIFEST)
        try:
            self._cache.verify(version)
        except (UnknownVersionError, CorruptError):
            self._cache._remove(folder)
            self._bring(version, self._cache)
        return folder

    def read_frame(self, version: Version) -> pl.DataFrame:
        """The frame that `put_frame` stored, verified."""
        return self.open_frame(version).collect()

    def open_frame(self, version: Version) -> pl.LazyFrame:
        """The same, of which only the columns and rows that are asked for are read into memory."""
        return pl.scan_parquet(self.fetch(version) / FRAME)

    def holds(self, version: Version) -> bool:
        """Whether the version is there; its files are not looked at."""
        return self.files.exists(f"{version.folder}/{MANIFEST}")

    def versions(self, kind: str) -> list[Version]:
        """All versions of a kind, oldest first."""
        manifests = side_by_side(self._manifest, [f"{kind}/{name}" for name in self.files.names(kind)])
        found = [manifest for manifest in manifests if manifest is not None]
        return [manifest.version for manifest in sorted(found, key=lambda found: found.created)]

    def find(self, kind: str, name: str) -> Version:
        """The one version of `kind` whose name begins with `name`; UnknownVersionError unless there is exactly one."""
        return only(name, self.versions(kind), f"version in {self.files.path(kind)}")

    def manifest(self, version: Version) -> Manifest:
        """What the version consists of; UnknownVersionError where it is not there."""
        manifest = self._manifest(version.folder)
        if manifest is None and self.files.names(version.folder):
            raise self._corrupt(f"{version.folder}/{MANIFEST}", "is missing")
        if manifest is None:
            raise UnknownVersionError(f"there is no version {version} in {self.files.root}")
        if manifest.version != version:
            raise self._corrupt(f"{version.folder}/{MANIFEST}", f"describes another version than {version.digest}")
        return manifest

    def verify(self, version: Version) -> Manifest:
        """Compares every file with what was written; CorruptError names the first that is changed, missing or too many.

        Where an object store tells MD5 sums and the cache holds the version, no file is read from afar.
        """
        manifest = self.manifest(version)
        sums = self.files.walk(version.folder)
        for name in sorted((sums.keys() ^ manifest.files.keys()) - {MANIFEST}):
            problem = "is missing" if name in manifest.files else "does not belong to the version"
            raise self._corrupt(f"{version.folder}/{name}", problem)
        for name in self._changed(manifest, sums):
            raise self._corrupt(f"{version.folder}/{name}", "is not what was written")
        return manifest

    def _changed(self, manifest: Manifest, sums: Mapping[str, str | None]) -> Iterator[str]:
        version = manifest.version
        if self._cache is None:
            folder = Path(self.files.path(version.folder))
            yield from (name for name, file in manifest.files.items() if _describe(folder / name) != file)
            return
        copy = self.fetch(version)
        with self._stage() as stage:
            for name, file in manifest.files.items():
                if sums[name] is None:
                    self.files.download(f"{version.folder}/{name}", stage / name)
                    same = _describe(stage / name) == file
                else:
                    same = sums[name] == _md5(copy / name)
                if not same:
                    yield name

    def _publish(self, kind: str, stage: Path) -> Version:
        version = _seal(kind, stage)
        if not self.holds(version):
            self.files.publish(stage, version.folder, last=MANIFEST)
        if self._cache is not None:
            self._cache._admit(version, stage)
        self.verify(version)
        return version

    def _bring(self, version: Version, cache: "Store") -> None:
        """Copies a version into the cache, each file compared with what was written."""
        manifest = self.manifest(version)
        with self._stage() as stage:

            def copy(name: str) -> None:
                path = f"{version.folder}/{name}"
                try:
                    for _ in range(2):  # Damage on the way is not damage in the store.
                        self.files.download(path, stage / name)
                        if _describe(stage / name) == manifest.files[name]:
                            return
                except FileNotFoundError as error:
                    raise self._corrupt(path, "is missing") from error
                raise self._corrupt(path, "is not what was written")

            side_by_side(copy, manifest.files)
            (stage / MANIFEST).write_bytes(_MANIFEST.dump_json(manifest, indent=2))
            cache._admit(version, stage)

    def _admit(self, version: Version, stage: Path) -> None:
        """Moves a whole version into a cache, and out of it what nobody has fetched for long."""
        self.files.publish(stage, version.folder, last=MANIFEST)
        for path in Path(self.files.root).glob(f"*/*/{MANIFEST}"):
            with suppress(FileNotFoundError):  # Another process may tidy up at the same moment.
                if path.stat().st_mtime < time.time() - FORGOTTEN_SECONDS:
                    self._remove(path.parent)

    def _remove(self, folder: Path) -> None:
        with self._stage() as stage, suppress(FileNotFoundError):
            folder.rename(stage / "removed")

    def _stage(self) -> AbstractContextManager[Path]:
        """A folder on the disk of the store, or of its cache, where a version takes shape."""
        return (self._cache or self).files.temporary()

    def _manifest(self, folder: str) -> Manifest | None:
        path = f"{folder}/{MANIFEST}"
        try:
            manifest = _MANIFEST.validate_json(self.files.read(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValidationError as error:
            raise self._corrupt(path, "cannot be read") from error
        if manifest.version.folder != folder or manifest.version.digest != _digest(manifest.files):
            raise self._corrupt(path, "is not what was written")
        return manifest

    def _corrupt(self, path: str, problem: str) -> CorruptError:
        folder = self.files.path("/".join(path.split("/")[:2]))
        return CorruptError(self.files.path(path), f"{problem}; remove {folder} and make the version again")


def only(name: str, versions: Iterable[Version], among: str) -> Version:
    """The one version whose name begins with `name`, with its kind or without; UnknownVersionError otherwise."""
    found = {version for version in versions if version.digest.startswith(name.removeprefix(f"{version.kind}/"))}
    if not name or len(found) != 1:
        which = f"is the beginning of {len(found)} names" if found else "is no name"
        raise UnknownVersionError(f"'{name}' {which} of a {among}")
    return found.pop()


def _seal(kind: str, stage: Path) -> Version:
    """Writes the manifest of what lies in `stage`."""
    files = {path.relative_to(stage).as_posix(): _describe(path) for path in stage.rglob("*") if path.is_file()}
    if not files:
        raise StoreError(f"there is no file to store as a version of {kind}; give a folder that holds some")
    version = Version(kind, _digest(files))
    manifest = Manifest(version, datetime.now(UTC), dict(sorted(files.items())))
    (stage / MANIFEST).write_bytes(_MANIFEST.dump_json(manifest, indent=2))
    return version


def _describe(path: Path) -> File:
    with path.open("rb") as file:
        return File(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _md5(path: Path) -> str:
    """In base64, as Cloud Storage tells it."""
    with path.open("rb") as file:
        return base64.b64encode(
            hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).digest()
        ).decode()


def _digest(files: dict[str, File]) -> str:
    content = json.dumps({name: asdict(file) for name, file in files.items()}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
