"""A real PostgreSQL for the desk's database, in a folder of its own, that ends with the tests."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import pytest
from sqlalchemy import create_engine, text

from matching_platform_tests.containers.engine import REQUIRED

PACKAGE: Final = "postgresql"
# It refuses to run as root; Debian's package brings this user.
USER: Final = "postgres"
_NUMBERS: Final = count(1)


def binaries() -> Path:
    """Where Debian keeps the newest server. Without one the test is skipped; where containers are required, it fails."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(
            f"no PostgreSQL; apt-get install -y --no-install-recommends {PACKAGE}"
        )
    return found[-1].parent


@contextmanager
def server() -> Iterator[str]:
    """A server that is reached by a socket in its folder, with no port to be taken by others; the folder."""
    tools, folder = binaries(), Path(mkdtemp(prefix="desk-"))
    other: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": []} if os.getuid() == 0 else {}
    if other:
        shutil.chown(folder, USER, USER)
    folder.chmod(0o755)
    data = folder / "data"

    def run(*command: str | Path) -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=folder, stdin=subprocess.DEVNULL, **other
        )
        log = folder / "log"
        assert done.returncode == 0, f"{command}: {done.stderr}{log.read_text() if log.exists() else ''}"

    # What a crash would cost is not asked here.
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
    try:
        run(tools / "initdb", "--auth=trust", "--username=desk", "--encoding=UTF8", "--no-locale", "--pgdata", data)
        run(tools / "pg_ctl", "start", "--wait", "--silent", "--pgdata", data, "--log", folder / "log", "-o", options)
        try:
            yield str(folder)
        finally:
            run(tools / "pg_ctl", "stop", "--mode=immediate", "--silent", "--pgdata", data)
    finally:
        shutil.rmtree(folder)


def new_database(folder: str) -> str:
    """The URL of an empty database of the server."""
    name = f"desk{next(_NUMBERS)}"
    engine = create_engine(url(folder, "postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return url(folder, name)


def url(folder: str, name: str) -> str:
    return f"postgresql+psycopg2://desk@/{name}?host={folder}"
