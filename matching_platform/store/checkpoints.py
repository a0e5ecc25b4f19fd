"""What an unfinished work has so far, kept in the store: where its machine is taken away, another one goes on.

A file of it never changes once it is there under its name, and the same work makes the same file; so each travels once,
and it does not matter who was first.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Final

from matching_platform.store.files import Files, StoreError

FOLDER: Final = "checkpoints"
# A file with this ending is being written; it gets its name when it is whole.
UNFINISHED: Final = ".unfinished"
# What was finished for so long is safe; a machine that is taken away costs this and what it had begun.
SECONDS: Final = 15.0

_log: Final = logging.getLogger(__name__)


@contextmanager
def kept(files: Files, name: str, folder: Path) -> Iterator[None]:
    """Brings into the local `folder` what the work `name` had finished anywhere, and keeps what it finishes from now on.

    StoreError where that cannot be brought. A store that fails later costs the work nothing but its checkpoints.
    """
    sent = _bring(files, f"{FOLDER}/{name}", folder)
    left = Event()

    def watch() -> None:
        while not left.wait(SECONDS):
            _send(files, f"{FOLDER}/{name}", folder, sent)

    watching = Thread(target=watch, name=f"checkpoints of {name}", daemon=True)
    watching.start()
    try:
        yield
    finally:
        left.set()
        watching.join()
        _send(files, f"{FOLDER}/{name}", folder, sent)


def forget(files: Files, name: str, folder: Path) -> None:
    """Removes the checkpoints of a finished work, here and in the store; what cannot be removed is no harm."""
    shutil.rmtree(folder, ignore_errors=True)
    path = files.path(f"{FOLDER}/{name}")
    try:
        files.fs.rm(path, recursive=True)
    except FileNotFoundError:
        return
    except Exception as error:
        if files.local:
            raise
        # The bucket deletes them by their age.
        _log.warning("checkpoints of a finished work stay at %s: %s", path, error)


def _bring(files: Files, source: str, folder: Path) -> set[str]:
    """The names that the store has, all of them in `folder` now."""
    names = set(files.walk(source))
    for name in names:
        target = folder / name
        if not target.exists():
            part = target.with_name(target.name + UNFINISHED)
            files.download(f"{source}/{name}", part)
            part.replace(target)
    return names


def _send(files: Files, target: str, folder: Path, sent: set[str]) -> None:
    """Brings finished files of `folder` that are not among `sent` into the store."""
    finished = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != UNFINISHED
    }
    for name in sorted(finished.keys() - sent):
        try:
            files.create(f"{target}/{name}", finished[name].read_bytes())
        except FileExistsError:
            pass  # Another attempt at the same work was faster, with the same.
        except (OSError, StoreError) as error:
            _log.warning("the checkpoint %s is not kept yet: %s", name, error)
            return
        sent.add(name)
