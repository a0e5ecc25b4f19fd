"""What a work finished is found on another machine, whole; what fails on the way costs no work."""

import time
from pathlib import Path

import pytest

from matching_platform.store import checkpoints
from matching_platform.store.checkpoints import forget, kept
from matching_platform.store.files import Files, StoreError
from matching_platform.store.versions import Store


@pytest.fixture
def files(store: Store) -> Files:
    return store.files


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_machine_goes_on(files: Files, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    with pytest.raises(KeyboardInterrupt), kept(files, "work", here):
        write(here / "of-this" / "pairs-0.safetensors", b"one")
        write(here / "of-this" / "pairs-1.unfinished", b"tw")
        raise KeyboardInterrupt
    with kept(files, "work", there):
        assert contents(there) == {"of-this/pairs-0.safetensors": b"one"}
        write(there / "of-this" / "pairs-1.safetensors", b"two")
    with kept(files, "other work", tmp_path / "other"):
        assert contents(tmp_path / "other") == {}
    with kept(files, "work", here):
        assert contents(here)["of-this/pairs-1.safetensors"] == b"two"


def test_what_is_finished_is_kept_meanwhile(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS", 0.01)
    with kept(files, "work", tmp_path / "here"):
        write(tmp_path / "here" / "pairs-0.safetensors", b"one")
        until = time.monotonic() + 20
        while not files.exists("checkpoints/work/pairs-0.safetensors"):
            assert time.monotonic() < until
            time.sleep(0.01)


def test_each_file_travels_once(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[str] = []
    create = files.create
    monkeypatch.setattr(files, "create", lambda name, data: (created.append(name), create(name, data)))
    for name in ("pairs-0", "pairs-1"):
        with kept(files, "work", tmp_path / "here"):
            write(tmp_path / "here" / f"{name}.safetensors", name.encode())
    assert created == ["checkpoints/work/pairs-0.safetensors", "checkpoints/work/pairs-1.safetensors"]


def test_two_attempts_at_once_do_not_hinder_each_other(files: Files, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    with kept(files, "work", one), kept(files, "work", other):
        write(one / "pairs-0.safetensors", b"one")
        write(other / "pairs-0.safetensors", b"one")
        write(other / "pairs-1.safetensors", b"two")
    assert set(files.walk("checkpoints/work")) == {"pairs-0.safetensors", "pairs-1.safetensors"}


def test_finished_work_leaves_nothing(files: Files, tmp_path: Path) -> None:
    with kept(files, "work", tmp_path / "here"):
        write(tmp_path / "here" / "pairs-0.safetensors", b"one")
    forget(files, "work", tmp_path / "here")
    assert not (tmp_path / "here").exists()
    assert files.walk("checkpoints/work") == {}
    forget(files, "work", tmp_path / "here")


def test_a_failing_store_costs_no_work(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, data: bytes) -> None:
        raise StoreError(f"{name}: the object store could not be used")

    with monkeypatch.context() as patch:
        patch.setattr(files, "create", fail)
        with kept(files, "work", tmp_path / "here"):
            write(tmp_path / "here" / "pairs-0.safetensors", b"one")
    with kept(files, "work", tmp_path / "here"):
        pass
    assert set(files.walk("checkpoints/work")) == {"pairs-0.safetensors"}
