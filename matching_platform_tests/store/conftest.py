from pathlib import Path
from uuid import uuid4

import pytest

from matching_platform.store.versions import Store
from matching_platform_tests.emulators import cloud_storage


@pytest.fixture
def cloud(google: cloud_storage.Server) -> cloud_storage.Server:
    """The same for one test: empty, and with no faults left over."""
    google.reset()
    return google


ELSEWHERE = ["object store", pytest.param("google cloud", marks=pytest.mark.cloud)]


@pytest.fixture(params=["disk", *ELSEWHERE])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store may lie: on a disk, or where nothing can be renamed and an object is only created or overwritten."""
    if request.param == "disk":
        return str(tmp_path / "store")
    if request.param == "google cloud":
        return request.getfixturevalue("cloud").bucket("store") + "/of/tests"
    return f"memory://{uuid4().hex}"


@pytest.fixture
def store(root: str, tmp_path: Path) -> Store:
    return Store(root, cache=tmp_path / "cache")


@pytest.fixture
def elsewhere(root: str, tmp_path: Path) -> Store:
    """The same store, opened on another machine, which has not read anything yet."""
    return Store(root, cache=tmp_path / "elsewhere")


@pytest.fixture
def disk(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")
