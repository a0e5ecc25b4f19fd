"""A writer that is killed leaves what was there before or what it wanted to write, never anything between."""

import os
import random
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest

from matching_platform.store import files
from matching_platform.store.catalog import Catalog
from matching_platform.store.registry import Registry
from matching_platform.store.versions import Store, Version

WRITER = """
import sys
from pathlib import Path
from uuid import uuid4
from matching_platform.store.catalog import Catalog
from matching_platform.store.record import LostRaceError
from matching_platform.store.registry import Registry
from matching_platform.store.versions import Store

store = Store(sys.argv[1])
source = Path(sys.argv[2])
(source / "memory").mkdir(parents=True)
print("ready", flush=True)
while True:
    for name in ("weights.bin", "memory/names.bin", "card.json"):
        (source / name).write_bytes(uuid4().bytes * 20_000)
    model = store.put("models", source)
    Catalog(store).set("model", "2024-03", model, {})
    evaluation = store.put_bytes("evaluations", "figures.json", model.name.encode())
    try:
        Registry(store).promote(model, evaluation, "writer", "a test")
    except LostRaceError:
        pass
"""


def check_whole(store: Store) -> None:
    """Every version that can be seen is whole, every record is readable, and there is at most one champion."""
    root = Path(store.files.root)
    for kind in ("models", "evaluations"):
        seen = {path.name for path in (root / kind).glob("*")}
        versions = store.versions(kind)
        assert seen == {version.name for version in versions}
        for version in versions:
            store.verify(version)
    history = Registry(store).history()
    assert [promotion.number for promotion in history] == list(range(1, len(history) + 1))
    assert [model.status for model in Registry(store).models()].count("champion") == min(len(history), 1)
    for promotion in history:
        store.verify(promotion.model)
        store.verify(promotion.evaluation)
    current = Catalog(store).get("model", "2024-03")
    assert current is None or store.verify(current.version)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    store, random_moment = Store(tmp_path / "store"), random.Random(0)
    for life in range(6):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, store.files.root, str(tmp_path / f"{life}-{me}")],
                stdout=subprocess.PIPE,
                text=True,
            )
            for me in "ab"
        ]
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            time.sleep(random_moment.uniform(0, 0.2))
            writer.kill()
            writer.communicate()
            assert writer.returncode == -signal.SIGKILL
        check_whole(store)
    assert len(Registry(store).history()) > 1


def write_and_promote(store: Store, source: Path) -> Version:
    model = store.put("models", source)
    Catalog(store).set("model", "2024-03", model, {"rows": 1})
    evaluation = store.put_bytes("evaluations", "figures.json", b"{}")
    Registry(store).promote(model, evaluation, "writer", "a test")
    return model


def killed_at(step: int, store: Store, source: Path) -> bool:
    """Writes in a child process that dies before its file operation number `step`; False where it needs fewer."""
    child = os.fork()
    if child == 0:
        steps = count()

        def kill(event: str, _: tuple) -> None:
            if event in ("open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir") and next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        try:
            write_and_promote(store, source)
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # The child only writes files, then ends.
def test_killed_before_every_file_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "model"
    (source / "memory").mkdir(parents=True)
    for name in ("weights.bin", "memory/names.bin"):
        (source / name).write_bytes(name.encode())
    for step in count():
        store = Store(tmp_path / f"store-{step}")
        killed = killed_at(step, store, source)
        check_whole(store)
        model = write_and_promote(store, source)
        check_whole(store)
        assert Registry(store).champion().model == model
        assert len(Registry(store).history()) == 1
        assert len(Catalog(store).history("model", "2024-03")) == 1
        monkeypatch.setattr(files, "ABANDONED_SECONDS", -1)
        store.put_bytes("evaluations", "figures.json", b"[]")
        monkeypatch.undo()
        assert list(Path(store.files.root, ".tmp").iterdir()) == []
        if not killed:
            break
    assert step > 40
