"""Detached processes that belong to a folder. The system's process table is asked, so no pid file can be stale."""

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import psutil

# The marks that a process and its children carry in their environment.
_FOLDER: Final = "MATCHING_SERVICE_FOLDER"
_ROLE: Final = "MATCHING_SERVICE_ROLE"
_KILL_SECONDS: Final = 10.0


def start(command: list[str], folder: Path, role: str, log: Path, environment: Mapping[str, str]) -> psutil.Process:
    """Starts `command` so that it outlives us, marked with `folder` and `role`; it writes to `log`."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    marked = {**environment, _FOLDER: str(folder.resolve()), _ROLE: role}
    return psutil.Process(os.posix_spawn(command[0], command, marked, file_actions=actions, setsid=True))


def find(folder: Path) -> list[tuple[str, psutil.Process]]:
    """Role and process of all that belong to `folder`, without their children."""
    found = {}
    for process in psutil.process_iter():
        # It may end meanwhile, or be another user's.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            environment = process.environ()
            if environment.get(_FOLDER) == str(folder.resolve()):
                found[process.pid] = (process.ppid(), environment.get(_ROLE, ""), process)
    return [(role, process) for parent, role, process in found.values() if parent not in found]


def stop(processes: Iterable[psutil.Process], grace: float) -> None:
    """Ends processes and their children: asks, waits up to `grace` seconds for what is under way, then kills."""
    asked = list(processes)
    tree = [process for root in asked for process in (root, *_children(root))]
    for process in asked:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(tree, timeout=grace)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=_KILL_SECONDS)


def alive(process: psutil.Process) -> bool:
    """Whether it still runs; one that ended and waits for its parent does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def child(process: psutil.Process, word: str) -> psutil.Process | None:
    """The first child whose command line holds `word`; one that is ending meanwhile has none."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in process.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if word in one.cmdline():
                    return one
    return None


def _children(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []
