"""A training whose machine is taken away goes on elsewhere to the very same model."""

import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from matching_platform.learning.examples import label_month
from matching_platform.learning.training import Progress, TrainingSettings, train
from matching_platform.learning.walk import up_to
from matching_platform.ledger.reading import Ledger
from matching_platform.store import checkpoints
from matching_platform.store.files import Files

SETTINGS = TrainingSettings(folds=2, hidden=8, pair_epochs=6, set_epochs=6)


def learn(data: Path, root: str, machine: Path, progress: Progress) -> tuple[int, dict[str, bytes]]:
    """A training in the folder `machine`: the checkpoints that it found there, and the files of its model."""
    ledger = Ledger(*(pl.read_parquet(data / f"{name}.parquet") for name in ("invoices", "transfers", "matches")))
    examples = [pl.read_parquet(path) for path in sorted(data.glob("examples-*.parquet"))]
    folder, model = machine / "checkpoints", machine / "model"
    with checkpoints.kept(Files(root), "training", folder):
        found = len(list(folder.rglob("*.safetensors")))
        train(examples, ledger, ledger.months()[-1], SETTINGS, folder, progress).save(model)
    return found, {path.relative_to(model).as_posix(): path.read_bytes() for path in model.rglob("*") if path.is_file()}


def killed(data: Path, root: str, machine: Path, steps: int) -> None:
    """The same in a process that is killed after so many steps."""
    code = f"""
import os
from pathlib import Path
from matching_platform.store import checkpoints
from matching_platform_tests.learning.test_preempted_training import learn

checkpoints.SECONDS = 0.05
learn(Path({str(data)!r}), {root!r}, Path({str(machine)!r}), lambda *_: os.write(1, b"."))
"""
    training = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert training.stdout.read(steps) == b"." * steps
    training.kill()
    training.communicate()
    assert training.returncode == -signal.SIGKILL


@pytest.fixture
def data(small_ledger: Ledger, tmp_path: Path) -> Path:
    """A folder with what the training learns from."""
    folder, known = tmp_path / "data", up_to(small_ledger, small_ledger.months()[1])
    folder.mkdir()
    for name, frame in vars(known).items():
        frame.write_parquet(folder / f"{name}.parquet")
    for month in known.months():
        label_month(known, month).write_parquet(folder / f"examples-{month}.parquet")
    return folder


def test_killed_at_random_moments_and_gone_on_elsewhere(data: Path, tmp_path: Path) -> None:
    told: list[str] = []
    _, expected = learn(data, str(tmp_path / "undisturbed"), tmp_path / "machine", lambda step, _: told.append(step))
    moments, root = random.Random(4), str(tmp_path / "store")
    pairs = told.index("sets")
    for moment in (moments.randrange(1, pairs), moments.randrange(pairs + 1, pairs + 5)):
        killed(data, root, tmp_path / "spot machine", moment)
        shutil.rmtree(tmp_path / "spot machine")
    less: list[str] = []
    found, model = learn(data, root, tmp_path / "last machine", lambda step, _: less.append(step))
    assert found > 0
    assert len(less) < len(told)
    assert model == expected
    checkpoints.forget(Files(root), "training", tmp_path / "last machine" / "checkpoints")
    assert Files(root).walk("checkpoints") == {}
