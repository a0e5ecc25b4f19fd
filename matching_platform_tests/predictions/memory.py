"""What the log takes in memory, found in a process of its own."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from matching_platform.predictions import reading
from matching_platform.predictions.log import PredictionLog
from matching_platform.store.files import Files
from matching_platform_tests.predictions.made import NOON, PLAIN, served


def in_a_process(what: str, root: Path, *numbers: int) -> list[int]:
    """What one of the functions below finds."""
    command = [sys.executable, "-m", __name__, what, str(root), *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "POLARS_MAX_THREADS": "2"})
    assert done.returncode == 0, done.stderr
    found: list[int] = json.loads(done.stdout)
    return found


def full_queue(root: str, limit: int) -> list[int]:
    """Bytes by which a server grows that never writes; requests that wait, and that were dropped."""
    log, request = PredictionLog(Files(root), PLAIN, limit), pickle.dumps(served("one"))
    before = _most()
    while log.figures().dropped <= log.figures().backlog:
        # Its frames are its own, as those of each request are.
        log.take(pickle.loads(request))
    figures = log.figures()
    return [_most() - before, figures.backlog, figures.dropped]


def compaction(root: str, file: int) -> list[int]:
    """Bytes by which a process grows that makes files, of so many bytes each, of the parts of a day."""
    reading._FILE_BYTES = file
    before = _most()
    reading.compact(Files(root), f"{NOON:%Y-%m-%d}")
    return [_most() - before]


def _most() -> int:
    """The most that this process held so far, in bytes; `ru_maxrss` would begin with what its parent held."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024


if __name__ == "__main__":
    work: Final = {"full_queue": full_queue, "compaction": compaction}[sys.argv[1]]
    print(json.dumps(work(sys.argv[2], *map(int, sys.argv[3:]))))  # noqa: T201
