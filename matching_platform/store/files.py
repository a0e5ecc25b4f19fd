"""Files on a local disk or an object store, written so that whatever appears, appears whole.

A local disk can move: everything is written under a temporary name, synced, and then linked or renamed into place. An
object store cannot, but shows an object only when it is complete and creates one only where there is none
(`if-generation-match: 0` on Google Cloud): there, the file without which a folder does not count is written last.

Whatever is asked of an object store is asked again where that may help: gcsfs makes six attempts in half a minute, with
jitter, at what ends in 408, 429, 5xx or a broken connection, and `_persist` goes on where gcsfs gives up too soon.
"""

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar
from uuid import uuid4

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from google.auth.exceptions import GoogleAuthError, TransportError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

_T = TypeVar("_T")
_U = TypeVar("_U")

# A temporary folder to which nothing was added for so long has lost its writer.
ABANDONED_SECONDS: Final = 3600

# How many files travel at once, and in which pieces big ones are sent: together, what an upload holds in memory.
PARALLEL: Final = 16
CHUNK: Final = 8 * 2**20
# Within these seconds Google Cloud accepts a connection, and something arrives on it.
CONNECT_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 60.0
ATTEMPTS: Final = 4
BACKOFF: Final = wait_random_exponential(multiplier=1, max=10)


class StoreError(Exception):
    """The store cannot do what was asked; the message says why and what to do next."""


class CorruptError(StoreError):
    """A stored file is not what was written. `.path` names it."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


def side_by_side(work: Callable[[_T], _U], items: Iterable[_T]) -> list[_U]:
    """What `work` makes of each item, in their order; with an object store, most of the time goes by waiting."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(work, items))


class Files:
    """The files under `root`, any path or URL that fsspec knows. Names are relative to it and use '/'.

    Where an object store fails, or lets nobody in, the error is a StoreError.
    """

    def __init__(self, root: str) -> None:
        self._google = root.startswith(("gs://", "gcs://"))
        self.root, self.local = root.rstrip("/"), False
        if not self._google:
            # A cached listing could show yesterday's champion.
            self.fs, self.root = url_to_fs(root, use_listings_cache=False)
            self.local = isinstance(self.fs, LocalFileSystem)
        self._bucket_seen = not self._google

    @cached_property
    def fs(self) -> AbstractFileSystem:
        """What reaches the files; Google Cloud when it is first used, since credentials that fail now may be had later."""
        return _google_cloud()

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        """Whether there is this file, a small one: the cheapest request for it is to read it."""
        try:
            self.read(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def read(self, name: str) -> bytes:
        path = self.path(name)
        return self._ask(path, lambda: self.fs.cat_file(path), FileNotFoundError)

    def names(self, folder: str) -> list[str]:
        """What lies directly in `folder`, files and folders, in order; empty where there is no such folder."""
        path = self.path(folder)
        try:
            found = self._ask(path, lambda: self.fs.ls(path, detail=False), FileNotFoundError)
        except FileNotFoundError:
            return []
        return sorted(PurePosixPath(name).name for name in found)

    def walk(self, folder: str) -> dict[str, str | None]:
        """All files beneath `folder` by their names relative to it, with the MD5 (base64) that the store reports."""
        path = self.path(folder)
        try:
            # Without `on_error` a listing that failed would pass for an empty one, which could hide a champion.
            found = self._ask(path, lambda: self.fs.find(path, detail=True, on_error="raise"), FileNotFoundError)
        except FileNotFoundError:
            return {}
        base = self.fs._strip_protocol(path)
        return {PurePosixPath(name).relative_to(base).as_posix(): item.get("md5Hash") for name, item in found.items()}

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
            self._ask(path, lambda: self.fs.pipe_file(path, data, mode="create"), FileExistsError)
        except FileExistsError:
            with suppress(FileNotFoundError):
                if self.read(name) == data:
                    return  # A client that tries again after a lost answer meets its own file.
            raise

    def overwrite(self, name: str, data: bytes) -> None:
        """Writes a file, whole or not at all, in place of one that is there: for what is no version and no record."""
        path = self.path(name)
        if not self.local:
            self._ask(path, lambda: self.fs.pipe_file(path, data))
            return
        with self.temporary() as folder:
            (folder / "data").write_bytes(data)
            _sync(folder / "data")
            _make_folder(Path(path).parent)
            (folder / "data").replace(path)
            _sync(Path(path).parent)

    def remove(self, name: str) -> None:
        """Removes a file of what is no version and no record, where it is there."""
        path = self.path(name)
        with suppress(FileNotFoundError):
            self._ask(path, lambda: self.fs.rm_file(path), FileNotFoundError)

    def publish(self, folder: Path, name: str, last: str) -> None:
        """Makes the local `folder` appear as `name`; it counts only with its file `last` in it.

        On a local root it must be a temporary one, which is moved. Where another process was faster, what that made
        stays as it is.
        """
        if self.local:
            _move(folder, Path(self.path(name)))
            return

        def upload(path: Path) -> None:
            target = self.path(f"{name}/{path.relative_to(folder).as_posix()}")
            self._ask(target, lambda: self.fs.put_file(str(path), target, chunksize=CHUNK))

        side_by_side(upload, [path for path in folder.rglob("*") if path.is_file() and path != folder / last])
        with suppress(FileExistsError):
            self.create(f"{name}/{last}", (folder / last).read_bytes())

    def download(self, name: str, target: Path) -> None:
        """Copies one file to a local path, never holding more than a piece of it."""
        path = self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        # gcsfs fetches many pieces of a big file side by side, holds them in memory, and tries again while trying again.
        options = {"concurrency": 1} if self._google else {}
        self._ask(path, lambda: self.fs.get_file(path, str(target), **options), FileNotFoundError)

    def _ask(self, path: str, work: Callable[[], _T], *answers: type[OSError]) -> _T:
        """What `work` returns. Errors among `answers` go to the caller; all others of an object store are StoreErrors."""
        if self.local:
            return work()
        try:
            return _persist(path, work, answers)
        except FileNotFoundError:
            self._check_bucket()
            raise

    def _check_bucket(self) -> None:
        """Keeps a missing bucket from passing for an empty one."""
        if self._bucket_seen:
            return
        bucket = "/".join(self.root.split("/")[:3])
        try:
            _persist(bucket, lambda: self.fs.ls(bucket, max_results=1), (FileNotFoundError,))
        except FileNotFoundError as error:
            raise StoreError(f"there is no bucket {bucket}; create it, or correct the store's URL") from error
        self._bucket_seen = True

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


def _google_cloud() -> AbstractFileSystem:
    # Slow to import, and only needed here.
    from aiohttp import ClientTimeout
    from gcsfs.core import GCSFileSystem

    # Where gcsfs gives up it logs a traceback; here, the StoreError says it all.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    # Not the class that fsspec finds: that one asks over gRPC, before anything else, what kind of bucket it is.
    # Without a token it would go on as nobody where there are no credentials.
    return GCSFileSystem(
        token="anon" if os.environ.get("STORAGE_EMULATOR_HOST") else "google_default",
        requests_timeout=ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS),
        use_listings_cache=False,
    )


def _persist(path: str, work: Callable[[], _T], answers: tuple[type[OSError], ...]) -> _T:
    trying = Retrying(
        retry=retry_if_exception(_may_pass), stop=stop_after_attempt(ATTEMPTS), wait=BACKOFF, reraise=True
    )
    try:
        return trying(work)
    except answers:
        raise
    except Exception as error:
        raise StoreError(f"{path}: {_problem(error)}") from error


def _may_pass(error: BaseException) -> bool:
    """What gcsfs does not try again: an upload that Google lost (410), and a credentials server that did not answer."""
    return isinstance(error, TransportError) or getattr(error, "code", None) == 410


def _problem(error: Exception) -> str:
    told = str(error).split("\n")[0] or type(error).__name__
    if told.startswith("Forbidden"):
        return "the account in use may not do this; give it the role Storage Object User on the bucket"
    if isinstance(error, GoogleAuthError) or getattr(error, "code", None) == 401:
        return f"no valid credentials ({told}); run `gcloud auth application-default login`, or give the pod an account"
    return f"the object store could not be used ({told}); see that it is well, and run this again"


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
