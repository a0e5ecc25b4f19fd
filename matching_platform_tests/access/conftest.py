"""What tests of access share: people, their clock, and hashes that cost little."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from matching_platform.access import Access, passwords
from matching_platform_tests.access.people import QUICK, Clock, opened


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(passwords, "_HASHER", QUICK)
    passwords._nobody.cache_clear()
    yield
    passwords._nobody.cache_clear()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(tmp_path: Path, clock: Clock) -> Iterator[Access]:
    found = opened(tmp_path, clock)
    yield found
    found.engine.dispose()
