"""Folders of this machine that a container sees."""

from pathlib import Path

import pytest

from matching_platform.delivery.serving.containers import Mount
from matching_platform.delivery.serving.place import RolloutError


def test_what_is_written_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "store" / "predictions"
    for _ in range(2):
        Mount(folder, "/store/predictions", writable=True).prepare()
    assert folder.is_dir()


def test_what_is_read_must_be_there(tmp_path: Path) -> None:
    """An empty folder in place of a volume that is not mounted would be a record without freezes."""
    mount = Mount(tmp_path / "store" / "records" / "unattended", "/store/records/unattended")
    with pytest.raises(RolloutError, match=f"there is no folder {mount.outside}.*mounted"):
        mount.prepare()
    assert not (tmp_path / "store").exists()
    mount.outside.mkdir(parents=True)
    mount.prepare()
