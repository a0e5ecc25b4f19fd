"""Files on a local disk or an object store, written so that whatever appears, appears whole.

A local disk can move: everything is written under a temporary name, synced, and then linked or renamed into place. An
object store cannot, but shows an object only when it is complete and creates one only where there is none
(`if-generation-match: 0` on Google Cloud): there, the file without which a folder does not count is written last.
"""

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Final
from uuid import uuid4

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

# A temporary folder to which nothing was added for so long has lost its writer.
ABANDONED_SECONDS: Final = 3600


class StoreError(Exception):
    """The store cannot do what was asked; the message says why and what to do next."""


class CorruptError(StoreError):
    """A stored file is not what was written. `.path` names it."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


class Files:
    """The files under `root`, any path or URL that fsspec knows. Names are relative to it and use '/'."""

    def __init__(self, root: str) -> None:
        # A cached listing could show yesterday's champion.
        self.fs, self.root = url_to_fs(root, use_listings_cache=False)
        self.local = isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        return self.fs.exists(self.path(name))

    def open(self, name: str) -> BufferedReader:
        return self.fs.open(self.path(name), "rb")

    def read(self, name: str) -> bytes:
        return self.fs.cat_file(self.path(name))

    def names(self, folder: str) -> list[str]:
        """What lies directly in `folder`, files and folders, in order; empty where there is no such folder."""
        return sorted(PurePosixPath(item["name"]).name for item in self._listing(folder))

    def walk(self, folder: str) -> Iterator[str]:
        """All files beneath `folder`, by their names relative to it."""
        for item in self._listing(folder):
            name = PurePosixPath(item["name"]).name
            if item["type"] == "directory":
                yield from (f"{name}/{below}" for below in self.walk(f"{folder}/{name}"))
            else:
                yield name

    # Not `fsspec.find`: it takes a listing that failed for an empty one, which could hide a champion.
    def _listing(self, folder: str) -> list[dict[str, str]]:
        try:
            return self.fs.ls(self.path(folder), detail=True)
        except FileNotFoundError:
            return []

    def create(self, name: str, data: bytes) -> None:
        """Writes a new file, whole or not at all; FileExistsError where there is one already.

        Of any number of processes that create the same name, exactly one succeeds.
        """
        path = self.path(name)
        if self.local:
            with self.temporary() as folder:
                (folder / "data").write_bytes(data)
                _sync(folder / "data")
                _make_folder(Path(path).parent)
                os.link(folder / "data", path)
                _sync(Path(path).parent)
            return
        try:
            self.fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            # A client that tries again after a lost answer meets its own file.
            if self.fs.cat_file(path) != data:
                raise

    def publish(self, folder: Path, name: str, last: str) -> None:
        """Makes the local `folder`, a temporary one, appear as `name`; it counts only with its file `last` in it.

        Where another process was faster its folder stays as it is.
        """
        paths = [path for path in folder.rglob("*") if path.is_file() and path != folder / last]
        if self.local:
            _move(folder, Path(self.path(name)))
            return
        for path in paths:
            self.fs.put_file(str(path), self.path(f"{name}/{path.relative_to(folder).as_posix()}"))
        with suppress(FileExistsError):
            self.create(f"{name}/{last}", (folder / last).read_bytes())

    def download(self, name: str, target: Path) -> None:
        """Copies one file to a local path."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self.fs.get_file(self.path(name), str(target))

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """A folder on a local root's disk that is gone afterwards; what killed writers left is removed first."""
        base = Path(self.root, ".tmp")
        _make_folder(base)
        _sweep(base)
        folder = base / uuid4().hex
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _move(folder: Path, target: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        _sync(path)
    _make_folder(target.parent)
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    _sync(target.parent)


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    """Brings a file's content, or a folder's names, onto the disk, so that they survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(base: Path) -> None:
    for folder in base.iterdir():
        with suppress(FileNotFoundError):  # Another writer may sweep at the same moment.
            if folder.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
