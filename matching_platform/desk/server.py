"""The desk as a process: in the foreground, or detached as the service on this machine is."""

import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx
import psutil
import uvicorn

from matching_platform.access import Access
from matching_platform.access.listening import base_url, local_url, may_listen
from matching_platform.delivery.serving import processes
from matching_platform.environment import Platform

START_SECONDS: Final = 120.0
_GRACE_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.1
_LOG_TAIL: Final = 2000  # characters
_ROLE: Final = "desk"
_SETTING: Final = "MATCHING_PLATFORM_DESK__"


class DeskError(RuntimeError):
    """The desk does not come up, or does not answer; the message says what to do."""


def run(platform: Platform, tell: Callable[[str], None] = print) -> None:
    """Serves until it is asked to end, and tells where; what is under way is answered first.

    AccessError where it may not listen there yet, DeskError where it cannot.
    """
    from matching_platform.desk.app import create_app

    given = platform.settings.desk
    may_listen(Access(platform.database, given), given)
    _check_free(platform)
    tell(f"The review desk is at {base_url(given)}; Ctrl-C ends it.")
    # Who asks is told by the connection itself: headers of a proxy are read where they may be trusted.
    uvicorn.run(
        create_app(platform),
        host=given.host,
        port=given.port,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=int(_GRACE_SECONDS),
        log_level="warning",
    )


def start(platform: Platform) -> None:
    """Starts the desk so that it outlives us, where it does not run yet; DeskError where it does not come up."""
    folder = _folder(platform)
    if _running(folder):
        return
    if _answers(platform):
        raise DeskError(f"another program answers at {local_url(platform.settings.desk)}; set {_SETTING}PORT")
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "desk.log"
    command = [sys.executable, "-m", "matching_platform.desk.server"]
    process = processes.start(command, folder, _ROLE, log, os.environ)
    deadline = time.monotonic() + START_SECONDS
    while not _answers(platform):
        if not processes.alive(process):
            raise DeskError(f"the desk does not come up: {log} ends with\n{_tail(log)}")
        if time.monotonic() > deadline:
            processes.stop([process], 0)
            raise DeskError(f"the desk was not ready after {START_SECONDS:.0f} s; see {log}")
        time.sleep(_POLL_SECONDS)


def stop(platform: Platform) -> bool:
    """Ends a desk that `start` started; whether there was one."""
    found = _running(_folder(platform))
    processes.stop(found, _GRACE_SECONDS)
    return bool(found)


def _folder(platform: Platform) -> Path:
    return platform.home / "desk"


def _running(folder: Path) -> list[psutil.Process]:
    return [process for _, process in processes.find(folder)]


def _check_free(platform: Platform) -> None:
    """DeskError where something listens where the desk would, or nothing can."""
    given = platform.settings.desk
    if _answers(platform):
        # Who was started in the background is among those that run itself.
        others = [one for one in _running(_folder(platform)) if one.pid != os.getpid()]
        advice = "end it with `matching-platform stop`" if others else f"end it where it runs, or set {_SETTING}PORT"
        raise DeskError(f"a desk answers at {local_url(given)} already; {advice}")
    try:
        with socket.socket(socket.AF_INET6 if ":" in given.host else socket.AF_INET) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((given.host, given.port))
    except OSError as error:
        told = f"the desk cannot listen at {given.host}, port {given.port}: {error.strerror}"
        raise DeskError(f"{told}; set {_SETTING}PORT or {_SETTING}HOST") from error


def _answers(platform: Platform) -> bool:
    try:
        return httpx.get(f"{local_url(platform.settings.desk)}/healthz", timeout=2.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-_LOG_TAIL:]


if __name__ == "__main__":
    from matching_platform.environment import load

    run(Platform(load()))
