"""What Cloud Storage is asked, and what comes of it when it fails."""

import asyncio
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import google.auth
import pytest
from google.auth.exceptions import DefaultCredentialsError, TransportError
from tenacity import wait_none

from matching_platform.store import files
from matching_platform.store.catalog import Catalog
from matching_platform.store.files import StoreError
from matching_platform.store.record import Record
from matching_platform.store.registry import Registry
from matching_platform.store.versions import Store, Version
from matching_platform_tests.emulators.cloud_storage import Call, How, Server

# aiohttp warns of every body over a megabyte; gcsfs sends them on a thread of its own.
BIG_BODIES = "ignore:Sending a large body directly with raw bytes:ResourceWarning"
pytestmark = [pytest.mark.cloud, pytest.mark.filterwarnings(BIG_BODIES)]

MEBI = 2**20
FAILED = "the object store could not be used"
FORBIDDEN = "the account in use may not do this; give it the role Storage Object User on the bucket"
SIGNED = {"actor": "alice", "reason": "a test"}


@pytest.fixture
def root(cloud: Server) -> str:
    return cloud.bucket("company") + "/platform"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits before trying again; these are the seconds that gcsfs would have waited."""
    seconds: list[float] = []
    sleep = asyncio.sleep

    async def note(wanted: float) -> None:
        seconds.append(wanted)
        await sleep(0)

    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=note))
    monkeypatch.setattr(files, "BACKOFF", wait_none())
    return seconds


def calls(cloud: Server) -> list[str]:
    return [request.call for request in cloud.requests]


def test_a_file_is_created_only_where_there_is_none(store: Store, cloud: Server) -> None:
    store.files.create("records/x/00000001.json", b"one")
    assert [request.query["ifGenerationMatch"] for request in cloud.requests] == ["0"]
    with pytest.raises(FileExistsError):
        store.files.create("records/x/00000001.json", b"two")
    assert store.files.read("records/x/00000001.json") == b"one"


def test_what_is_in_the_cache_is_not_asked_for(store: Store, elsewhere: Store, cloud: Server) -> None:
    version = store.put_bytes("models", "weights.bin", b"1")
    elsewhere.fetch(version)
    cloud.heal()
    for machine in (store, elsewhere):
        machine.fetch(version)
    assert calls(cloud) == []


def test_content_that_is_there_is_not_sent_again(store: Store, elsewhere: Store, cloud: Server) -> None:
    store.put_bytes("models", "weights.bin", b"1")
    cloud.heal()
    elsewhere.put_bytes("models", "weights.bin", b"1")
    assert "upload" not in calls(cloud)


def test_what_was_sent_is_compared_with_the_sums_that_the_store_tells(store: Store, cloud: Server) -> None:
    version = store.put_bytes("models", "weights.bin", b"1")
    cloud.heal()
    store.verify(version)
    assert calls(cloud) == ["download", "list"], "the manifest, and the sums"


def test_the_months_of_an_asset_are_one_request(store: Store, cloud: Server) -> None:
    catalog, version = Catalog(store), store.put_bytes("transfers", "x", b"1")
    for month in ("2024-02", "2024-01", "2024-03"):
        catalog.set("transfers", month, version, {"month": month})
    cloud.heal()
    assert catalog.months("transfers") == ["2024-01", "2024-02", "2024-03"]
    assert calls(cloud) == ["list"]


def test_many_files_travel_side_by_side(store: Store, elsewhere: Store, cloud: Server, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(20):
        (many / f"{number}.txt").write_text(str(number))
    for travel in (lambda: store.put("bundles", many), lambda: elsewhere.fetch(store.versions("bundles")[0])):
        cloud.heal()
        cloud.delay = 0.02
        travel()
        assert cloud.most_at_once > 8


@pytest.mark.parametrize(
    ("how", "begun", "starts"),
    [
        (None, 1, [0, 2, 4, 6]),
        (503, 1, [0, 2, 2, 4, 6]),
        ("drop", 1, [0, 2, 2, 4, 6]),
        ("lost answer", 1, [0, 2, 2, 4, 6]),
        # Google itself has lost the upload: nothing else is possible than to start over.
        (410, 2, [0, 2, 0, 2, 4, 6]),
    ],
)
def test_a_big_file_goes_up_in_pieces_and_goes_on_after_a_failure(
    store: Store,
    elsewhere: Store,
    cloud: Server,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    how: How | None,
    begun: int,
    starts: list[int],
) -> None:
    monkeypatch.setattr(files, "CHUNK", 2 * MEBI)
    if how:
        cloud.fail("upload", how, after=2)
    content = os.urandom(6 * MEBI + 1)
    version = store.put_bytes("models", "weights.bin", content)
    sent = [r for r in cloud.requests if r.query.get("uploadType") == "resumable" and r.method != "DELETE"]
    pieces = [r.headers["content-range"] for r in sent if "upload_id" in r.query]
    assert len(sent) - len(pieces) == begun
    assert pieces == [
        f"bytes {at * MEBI}-{min(at * MEBI + 2 * MEBI, len(content)) - 1}/{len(content)}" for at in starts
    ]
    assert (elsewhere.fetch(version) / "weights.bin").read_bytes() == content


def test_what_another_machine_writes_is_seen_at_once(store: Store, elsewhere: Store) -> None:
    ours, theirs = Record(store, "promotions"), Record(elsewhere, "promotions")
    for number in range(1, 5):
        assert ours.count() == theirs.count() == number - 1
        (ours if number % 2 else theirs).append({}, number - 1)
    assert store.versions("models") == []
    version = elsewhere.put_bytes("models", "weights.bin", b"1")
    assert store.holds(version)
    assert store.versions("models") == [version]


OPERATIONS: dict[str, Callable[[Store, Version], object]] = {
    "create": lambda store, _: store.files.create("records/x/00000001.json", b"{}"),
    "store": lambda store, _: store.put_bytes("models", "weights.bin", b"new"),
    "fetch": lambda store, model: store.fetch(model).name,
    "list": lambda store, _: store.versions("models"),
    "append": lambda store, _: Record(store, "sayings").append({}, 0).number,
    "set current": lambda store, model: Catalog(store).set("model", "2024-03", model, {}).version,
    "promote": lambda store, model: Registry(store).promote(model, model, **SIGNED, expected_last=0).model,
}


class Company:
    """A store with one model in it, and a machine that has not read anything yet."""

    def __init__(self, root: str, folder: Path) -> None:
        self._root, self._folder = root, folder
        self.model = Store(root, cache=folder / "first").put_bytes("models", "weights.bin", b"1")
        self.store = Store(root, cache=folder / "second")

    def check_whole(self) -> None:
        """All that can be seen, in the store and in the machine's cache, is whole, and nothing is there twice."""
        for store in (Store(self._root, cache=self._folder / "third"), Store(self._folder / "second")):
            for version in store.versions("models"):
                store.verify(version)
            records = [str(Path(entry).parent) for entry in store.files.walk("records") if not entry.startswith("x/")]
            assert len(records) <= 1
            for record in records:
                assert len(Record(store, record).entries()) == 1


def failing_at_each_request(root: str, cloud: Server, folder: Path, how: How, times: int) -> Iterator[Company]:
    """A company each for a server that fails at the first request, at the second, ... until none is left to fail."""
    for step in count():
        company = Company(f"{root}/{step}", folder / str(step))
        fault = cloud.fail("any", how, times, after=step)
        yield company
        cloud.heal()
        company.check_whole()
        if not fault.happened:
            assert step > 0
            return


@pytest.mark.parametrize("how", [503, "drop", "lost answer"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_passing_failure_is_not_noticed(
    root: str, cloud: Server, tmp_path: Path, waits: list[float], name: str, how: How
) -> None:
    peace = Company(f"{root}/peace", tmp_path / "peace")
    expected = OPERATIONS[name](peace.store, peace.model)
    for company in failing_at_each_request(root, cloud, tmp_path, how, times=1):
        assert OPERATIONS[name](company.store, company.model) == expected


@pytest.mark.parametrize("how", [503, "lost answer", 403])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_lasting_failure_is_one_clear_error_and_leaves_nothing_half_done(
    root: str, cloud: Server, tmp_path: Path, waits: list[float], name: str, how: How
) -> None:
    problem = FORBIDDEN if how == 403 else FAILED
    for company in failing_at_each_request(root, cloud, tmp_path, how, times=10**9):
        try:
            OPERATIONS[name](company.store, company.model)
        except StoreError as error:
            assert re.match(f"gs://company.*: {problem}", str(error))
            cloud.heal()
            if how != "lost answer":  # There, it may have been done.
                OPERATIONS[name](company.store, company.model)


@pytest.mark.parametrize("how", [408, 429, 500, 502, 504])
@pytest.mark.parametrize("call", ["upload", "download", "list"])
def test_what_is_tried_again(store: Store, cloud: Server, waits: list[float], call: Call, how: int) -> None:
    version = store.put_bytes("models", "weights.bin", b"1")
    cloud.fail(call, how, times=5)
    registry = Registry(store)
    assert registry.promote(version, version, **SIGNED).number == 1
    assert [int(wait) for wait in waits] == [1, 2, 4, 8, 16]
    assert len({wait % 1 for wait in waits}) == 5, "with jitter"
    assert len(registry.history()) == 1


@pytest.mark.parametrize("how", [400, 401, 403, 404, 412])
@pytest.mark.parametrize("call", ["upload", "download", "list"])
def test_what_is_not_tried_again(store: Store, cloud: Server, waits: list[float], call: Call, how: int) -> None:
    version = store.put_bytes("models", "weights.bin", b"1")
    cloud.fail(call, how, times=10**9)
    with pytest.raises(StoreError):
        Registry(store).promote(version, version, **SIGNED)
    assert waits == []
    cloud.heal()
    assert Registry(store).history() == []


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_lost_race_that_was_none_ends_clearly(root: str, cloud: Server, tmp_path: Path, name: str) -> None:
    for company in failing_at_each_request(root, cloud, tmp_path, 412, times=1):
        with suppress(StoreError, *[FileExistsError] * (name == "create")):
            OPERATIONS[name](company.store, company.model)


@pytest.mark.parametrize("name", ["append", "fetch"])
def test_a_server_that_says_nothing_is_given_up(
    root: str, cloud: Server, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(files, "SILENCE_SECONDS", 0.1)
    for company in failing_at_each_request(root, cloud, tmp_path, "hang", times=1):
        OPERATIONS[name](company.store, company.model)
    company = Company(f"{root}/hang", tmp_path / "hang")
    cloud.fail("any", "hang", times=6)
    with pytest.raises(StoreError, match=FAILED):
        OPERATIONS[name](company.store, company.model)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_bucket_that_is_not_there_is_named(cloud: Server, tmp_path: Path, name: str) -> None:
    store = Store("gs://nowhere/platform", cache=tmp_path)
    with pytest.raises(StoreError, match="gs://nowhere"):
        OPERATIONS[name](store, Version("models", "0" * 64))


def test_without_credentials_nothing_is_asked_anonymously(monkeypatch: pytest.MonkeyPatch) -> None:
    def default(**_: object) -> None:
        raise DefaultCredentialsError("Your default credentials were not found.")

    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(google.auth, "default", default)
    store = Store("gs://x/y")
    for operation in OPERATIONS.values():
        with pytest.raises(StoreError, match=r"gs://x/y/.*: no valid credentials .*application-default login"):
            operation(store, Version("models", "0" * 64))


def test_a_server_of_credentials_may_fail_for_a_moment(
    store: Store, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    failures = [TransportError("no route"), TransportError("no route")]

    def apply(headers: dict[str, str]) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr(store.files.fs.credentials, "apply", apply)
    store.files.create("records/x/00000001.json", b"{}")
    assert not failures
    failures.extend(TransportError("no route") for _ in range(files.ATTEMPTS))
    with pytest.raises(StoreError, match=r"00000001.json: no valid credentials \(no route\)"):
        store.files.read("records/x/00000001.json")
