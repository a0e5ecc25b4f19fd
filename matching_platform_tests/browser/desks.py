"""A desk as people have it: a process of its own at a port that is free, and what it wrote."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import polars as pl
import pytest

from matching_platform.access import Access, Role, passwords
from matching_platform.desk.review import Review
from matching_platform.environment import Platform
from matching_platform.review.cases import Case, Filter, Row, Status
from matching_platform.review.decisions import Decision
from matching_platform.review.records import Decisions
from matching_platform_tests.access.people import PASSWORD, QUICK, add
from matching_platform_tests.delivery.parts import free_port
from matching_platform_tests.desk.companies import OPEN
from matching_platform_tests.waiting import until

# Everybody's password is PASSWORD.
PEOPLE: Final[Mapping[str, Role]] = {
    "anna": Role.BOOKER,
    "bert": Role.BOOKER,
    "rita": Role.READER,
    "adam": Role.ADMIN,
}


@dataclass(frozen=True)
class Desk:
    """A desk that answers at `url`; `platform` is the same data seen from here."""

    platform: Platform
    url: str

    @property
    def access(self) -> Access:
        return Access(self.platform.database, self.platform.settings.desk)

    def session(self, name: str) -> str:
        """The key of a new session."""
        return self.access.login(name, PASSWORD, "127.0.0.1")

    def rows(self, *statuses: Status, month: str = OPEN) -> list[Row]:
        """What the desk lists of a month, the most valuable doubt first; without a status, what waits."""
        review = Review(self.platform)
        return [*review.queue(month, Filter(frozenset(statuses or [Status.WAITING])), size=1000).rows]

    def case(self, transfer_id: str) -> Case:
        return Review(self.platform).case(transfer_id)

    def decisions(self) -> list[Decision]:
        """All decisions, as the database has them."""
        return Decisions(self.platform.database).read()

    def carried(self, month: str) -> pl.DataFrame:
        """The rows of the warehouse's table `decisions` of a month, once it has the last decision."""
        last = self.decisions()[-1].number
        until(lambda: self.platform.warehouse.last_appended("decisions") == last)
        return self.platform.warehouse.read_appended("decisions", month)


def people(platform: Platform) -> None:
    """Adds everybody."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_HASHER", QUICK)
        access = Access(platform.database, platform.settings.desk)
        for name, role in PEOPLE.items():
            add(access, name, role)


@contextmanager
def served(platform: Platform) -> Iterator[Desk]:
    """The desk of a platform whose warehouse and store are files."""
    given, port = platform.settings, free_port()
    variables = {
        "WAREHOUSE": given.warehouse,
        "STORE": given.store,
        "FIRST_MONTH": given.first_month,
        "LAST_MONTH": given.last_month,
        "DESK__PORT": port,
    }
    environment = {f"MATCHING_PLATFORM_{name}": str(value) for name, value in variables.items() if value}
    log = Path(str(given.warehouse)).parent / "desk.log"
    command = [sys.executable, "-m", "matching_platform.desk.server"]
    with log.open("wb") as written:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=written, stderr=written)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: process.poll() is not None or _ready(url), log.read_text)
        assert process.poll() is None, log.read_text()
        yield Desk(platform, url)
    finally:
        process.terminate()
        process.wait()
        platform.database.dispose()
    assert "Traceback" not in log.read_text(), log.read_text()


def _ready(url: str) -> bool:
    return httpx.get(f"{url}/healthz", trust_env=False).is_success
