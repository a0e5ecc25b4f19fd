from pathlib import Path
from uuid import uuid4

import pytest

from matching_platform.store.versions import Store


@pytest.fixture(params=["disk", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The same tests on a disk, and where nothing can be renamed and an object is only created or overwritten."""
    roots = {"disk": str(tmp_path / "store"), "object store": f"memory://{uuid4().hex}"}
    return Store(roots[request.param], cache=tmp_path / "cache")


@pytest.fixture
def disk(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")
