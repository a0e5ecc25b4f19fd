"""Processes that end while they are looked at."""

import os
import subprocess
import sys
import time

import psutil

from matching_platform.delivery.serving import processes


def test_a_child_that_has_ended_and_waits_for_its_parent_is_not_found() -> None:
    ended = subprocess.Popen([sys.executable, "-c", "pass", "the-mark"])
    lives = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "another-mark"])
    try:
        while psutil.Process(ended.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        here = psutil.Process(os.getpid())
        assert processes.child(here, "the-mark") is None
        found = processes.child(here, "another-mark")
        assert found is not None
        assert found.pid == lives.pid
    finally:
        lives.kill()
        lives.wait()
        ended.wait()
