"""The desk as a process: in the foreground, or detached as the service on this machine is."""

import os
import sys
import time
from pathlib import Path
from typing import Final

import httpx
import psutil
import uvicorn

from matching_platform.delivery.serving import processes
from matching_platform.environment import Platform

START_SECONDS: Final = 120.0
_GRACE_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.1
_LOG_TAIL: Final = 2000  # characters
_ROLE: Final = "desk"


class DeskError(RuntimeError):
    """The desk does not come up, or does not answer; the message says what to do."""


def address(platform: Platform) -> str:
    """Where people reach the desk."""
    given = platform.settings.desk
    return given.url or f"http://{given.host}:{given.port}"


def run(platform: Platform) -> None:
    """Serves until it is asked to end; what is under way is answered first."""
    from matching_platform.access import Access
    from matching_platform.access.listening import may_listen
    from matching_platform.desk.app import create_app

    given = platform.settings.desk
    may_listen(Access(platform.database, given), given)
    if _answers(platform):
        raise DeskError(f"a desk answers at {_local(platform)} already; end it with `matching-platform stop`")
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
        raise DeskError(f"another program answers at {_local(platform)}; set MATCHING_PLATFORM_DESK__PORT")
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


def stop(platform: Platform) -> None:
    """Ends a desk that `start` started."""
    processes.stop(_running(_folder(platform)), _GRACE_SECONDS)


def _folder(platform: Platform) -> Path:
    return platform.home / "desk"


def _running(folder: Path) -> list[psutil.Process]:
    return [process for _, process in processes.find(folder)]


def _local(platform: Platform) -> str:
    given = platform.settings.desk
    return f"http://{'127.0.0.1' if given.host in ('0.0.0.0', '::') else given.host}:{given.port}"


def _answers(platform: Platform) -> bool:
    try:
        return httpx.get(f"{_local(platform)}/healthz", timeout=2.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-_LOG_TAIL:]


if __name__ == "__main__":
    from matching_platform.environment import load

    run(Platform(load()))
