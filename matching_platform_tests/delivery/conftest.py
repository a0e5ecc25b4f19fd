"""A model trained on a small sample, its bento, and a server of it: made once for all tests of the room."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from matching_platform.delivery.packing import build_bento
from matching_platform.delivery.serving.place import Release
from matching_platform.delivery.serving.rollout import Rollout
from matching_platform.learning.examples import label_month
from matching_platform.learning.training import TrainingSettings, train
from matching_platform.ledger.reading import Ledger, read_ledger
from matching_platform.sample.company import Settings, write
from matching_platform_tests.delivery.parts import VERSION, Batch, free_port


@pytest.fixture(scope="session")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    folder = tmp_path_factory.mktemp("company")
    write(folder, Settings(months=3, transfers_per_month=60))
    return read_ledger(folder)


@pytest.fixture(scope="session")
def model(ledger: Ledger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    months = ledger.months()
    settings = TrainingSettings(folds=2, hidden=8, pair_epochs=2, set_epochs=2)
    folder = tmp_path_factory.mktemp("models") / "model"
    train([label_month(ledger, month) for month in months], ledger, months[-1], settings).save(folder)
    return folder


@pytest.fixture(scope="session")
def batch(ledger: Ledger) -> Batch:
    return Batch(ledger.transfers.tail(20), ledger.invoices.tail(60))


@pytest.fixture(scope="session")
def bento(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bento(model, VERSION, tmp_path_factory.mktemp("bentos") / "bento").path


@pytest.fixture(scope="session")
def url(bento: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the model is served, rolled out as it would be."""
    rollout = Rollout("production", tmp_path_factory.mktemp("rollout"), free_port())
    try:
        yield rollout.deploy(Release(VERSION, bento)).url
    finally:
        rollout.stop()
