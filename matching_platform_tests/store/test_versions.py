import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from matching_platform.store.files import CorruptError, Files, StoreError
from matching_platform.store.versions import MANIFEST, Store, UnknownVersionError, Version, only

ELSEWHERE = ["object store", pytest.param("google cloud", marks=pytest.mark.cloud)]
CONTENT = {"weights.bin": b"\x00\x01" * 500, "memory/accounts.txt": "PL61 żółć".encode(), "card.json": b"{}"}


def write(folder: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def read(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_what_is_put_is_fetched(store: Store, tmp_path: Path) -> None:
    version = store.put("models", write(tmp_path / "model", CONTENT))
    assert read(store.fetch(version)) == CONTENT
    assert read(store.fetch(version)) == CONTENT
    assert store.versions("models") == [version]
    assert store.manifest(version).size == sum(map(len, CONTENT.values()))
    assert Version(**asdict(version)) == version


def test_the_same_content_is_the_same_version(store: Store, tmp_path: Path) -> None:
    version = store.put("models", write(tmp_path / "one", CONTENT))
    created = store.manifest(version).created
    other = write(tmp_path / "two", dict(reversed(CONTENT.items())))
    os.utime(other / "card.json", (1, 1))
    (other / "empty").mkdir()
    assert store.put("models", other) == version
    assert store.put("models", store.fetch(version)) == version
    assert store.manifest(version).created == created


@pytest.mark.parametrize(
    "content",
    [
        {**CONTENT, "card.json": b"{ }"},
        {**CONTENT, "more": b""},
        {"weights.bin": CONTENT["weights.bin"]},
        {**{name: data for name, data in CONTENT.items() if name != "card.json"}, "card.jsn": b"{}"},
    ],
    ids=["a byte", "a file more", "files fewer", "a file's name"],
)
def test_other_content_is_another_version(store: Store, tmp_path: Path, content: dict[str, bytes]) -> None:
    versions = [store.put("models", write(tmp_path / str(i), files)) for i, files in enumerate((CONTENT, content))]
    assert versions[0] != versions[1]
    assert store.versions("models") == versions


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), st.binary(max_size=4), min_size=1), st.randoms())
def test_order_of_writing_does_not_matter(tmp_path_factory: pytest.TempPathFactory, content, random) -> None:
    root = tmp_path_factory.mktemp("order")
    shuffled = random.sample(list(content), len(content))
    store = Store(root / "store")
    one = store.put("models", write(root / "one", content))
    assert one == store.put("models", write(root / "two", {name: content[name] for name in shuffled}))


def test_a_frame_comes_back_whatever_its_chunks(store: Store) -> None:
    frame = pl.DataFrame({"invoice_id": ["a", "b"], "amount": [1, None], "evidence": [["x"], []]})
    chunked = pl.concat([frame.head(1), frame.tail(1)], rechunk=False)
    version = store.put_frame("invoices", frame)
    assert store.put_frame("invoices", chunked) == version
    assert_frame_equal(store.read_frame(version), frame)


def test_of_a_frame_only_what_is_needed_is_read(store: Store) -> None:
    frame = pl.DataFrame({"transfer_id": ["a", "b", "c"], "amount": [1, 2, 3]})
    lazy = store.open_frame(store.put_frame("transfers", frame))
    chosen = lazy.filter(pl.col("transfer_id") != "b").select("amount")
    assert "Parquet SCAN" in chosen.explain()
    assert chosen.collect()["amount"].to_list() == [1, 3]


def test_bytes_are_stored_under_their_name(store: Store) -> None:
    version = store.put_bytes("train_sets", "manifest.json", b"[]")
    assert read(store.fetch(version)) == {"manifest.json": b"[]"}


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("weights.bin", lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x07"), "is not what was written"),
    ("weights.bin", lambda path: path.write_bytes(b""), "is not what was written"),
    ("memory/accounts.txt", Path.unlink, "is missing"),
    ("stray.txt", Path.touch, "does not belong to the version"),
    (MANIFEST, lambda path: path.write_text("{"), "cannot be read"),
    (MANIFEST, lambda path: path.write_text(path.read_text().replace("card.json", "card")), "is not what was written"),
    (MANIFEST, Path.unlink, "is missing"),
]


@pytest.mark.parametrize(("name", "damage", "problem"), DAMAGES)
def test_damage_is_found_and_the_file_named(
    disk: Store, tmp_path: Path, name: str, damage: Callable[[Path], object], problem: str
) -> None:
    model = write(tmp_path / "model", CONTENT)
    version = disk.put("models", model)
    folder = disk.fetch(version)
    damage(folder / name)
    for use in (disk.verify, disk.fetch, lambda _: disk.put("models", model)):
        with pytest.raises(CorruptError, match=problem) as caught:
            use(version)
        assert caught.value.path == str(folder / name)
    # And it does what the message says.
    assert f"remove {folder} and make the version again" in str(caught.value)
    shutil.rmtree(folder)
    assert disk.put("models", model) == version


@pytest.mark.parametrize("root", ELSEWHERE, indirect=True)
@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("card.json", b"[]", "is not what was written"),
        ("card.json", None, "is missing"),
        (MANIFEST, b"{", "cannot be read"),
        (MANIFEST, None, "is missing"),
    ],
)
def test_damage_in_an_object_store_is_found_and_the_file_named(
    store: Store, elsewhere: Store, tmp_path: Path, name: str, content: bytes | None, problem: str
) -> None:
    version = store.put("models", write(tmp_path / "model", CONTENT))
    path = store.files.path(f"{version.folder}/{name}")
    if content is None:
        store.files.fs.rm_file(path)
    else:
        store.files.fs.pipe_file(path, content)
    for use in (elsewhere.fetch, elsewhere.verify, store.verify):
        with pytest.raises(CorruptError, match=f"{path}: {problem}"):
            use(version)
    assert read(store.fetch(version)) == CONTENT, "the cache has what was written"


@pytest.mark.parametrize("root", ELSEWHERE, indirect=True)
def test_what_does_not_belong_to_a_version_in_an_object_store_is_named(store: Store) -> None:
    version = store.put_bytes("models", "a", b"1")
    store.files.fs.pipe_file(store.files.path(f"{version.folder}/deep/stray"), b"")
    with pytest.raises(CorruptError, match="deep/stray: does not belong to the version"):
        store.verify(version)


@pytest.mark.parametrize("root", ELSEWHERE, indirect=True)
@pytest.mark.parametrize(("name", "damage", "problem"), DAMAGES)
def test_damage_in_the_cache_is_mended(
    store: Store, tmp_path: Path, name: str, damage: Callable[[Path], object], problem: str
) -> None:
    version = store.put("models", write(tmp_path / "model", CONTENT))
    damage(store.fetch(version) / name)
    assert read(store.fetch(version)) == CONTENT
    damage(store.fetch(version) / name)
    assert store.put("models", tmp_path / "model") == version
    assert read(store.fetch(version)) == CONTENT


@pytest.mark.parametrize("root", ELSEWHERE, indirect=True)
def test_damage_on_the_way_is_fetched_again(
    store: Store, elsewhere: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download, times = Files.download, Counter()

    def garble(files: Files, name: str, target: Path) -> None:
        download(files, name, target)
        times[name] += 1
        if times[name] == 1:
            target.write_bytes(target.read_bytes()[:-1] + b"?")

    version = store.put("models", write(tmp_path / "model", CONTENT))
    monkeypatch.setattr(Files, "download", garble)
    assert read(elsewhere.fetch(version)) == CONTENT
    assert set(times.values()) == {2}


@pytest.mark.parametrize("root", ELSEWHERE, indirect=True)
def test_the_cache_forgets_what_nobody_fetches(store: Store, tmp_path: Path) -> None:
    versions = [store.put_bytes("models", "x", data) for data in (b"1", b"2")]
    folders = [store.fetch(version) for version in versions]
    for folder in folders:
        os.utime(folder / MANIFEST, (1, 1))
    store.fetch(versions[0])
    store.put_bytes("models", "x", b"3")
    assert [folder.exists() for folder in folders] == [True, False]
    assert read(store.fetch(versions[1])) == {"x": b"2"}


def test_an_upload_that_was_cut_short_does_not_count_and_is_completed(tmp_path: Path) -> None:
    whole, store = (Store(f"memory://{name}", cache=tmp_path / "cache") for name in ("whole", "cut"))
    model = write(tmp_path / "model", CONTENT)
    version = whole.put("models", model)
    store.files.fs.pipe_file(store.files.path(f"{version.folder}/weights.bin"), b"half")
    assert not store.holds(version)
    assert store.versions("models") == []
    assert store.put("models", model) == version
    assert read(store.fetch(version)) == CONTENT


def test_what_killed_writers_left_is_removed_by_a_later_one(disk: Store) -> None:
    disk.put_bytes("models", "a", b"1")
    old, young = (Path(disk.files.root, ".tmp", name) for name in ("old", "young"))
    for folder in (old, young):
        write(folder, CONTENT)
    os.utime(old, (1, 1))
    disk.put_bytes("models", "a", b"2")
    assert not old.exists()
    assert young.exists(), "its writer may be alive"
    assert len(disk.versions("models")) == 2


def test_nothing_to_store_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="no file to store as a version of models"):
        store.put("models", tmp_path / "empty")


def test_an_unknown_version_is_named(store: Store) -> None:
    version = Version("models", "0" * 64)
    for use in (store.fetch, store.verify, store.manifest):
        with pytest.raises(UnknownVersionError, match="there is no version models/0000000000000000 in "):
            use(version)
    assert store.versions("models") == []


@pytest.mark.parametrize(("kind", "digest"), [("../x", "0" * 64), ("a/b", "0" * 64), (".tmp", "0" * 64), ("a", "00")])
def test_a_version_cannot_point_elsewhere(kind: str, digest: str) -> None:
    with pytest.raises(ValueError, match="should match pattern"):
        Version(kind, digest)


VERSIONS = [Version("models", start.ljust(64, "0")) for start in ("ab1", "ab2", "c")]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ab1", 0),
        ("models/ab2", 1),
        ("c", 2),
        ("c".ljust(64, "0"), 2),
        ("ab", "'ab' is the beginning of 2 names of a model"),
        ("d", "'d' is no name of a model"),
        ("", "'' is "),
    ],
)
def test_a_version_is_found_by_the_beginning_of_its_name(name: str, found: int | str) -> None:
    if isinstance(found, int):
        assert only(name, VERSIONS, "model") == VERSIONS[found]
    else:
        with pytest.raises(UnknownVersionError, match=found):
            only(name, VERSIONS, "model")
