"""What the whole test session shares: one small company, and a model trained on it."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.validation import validate
from matching_platform_tests.emulators import cloud_storage

# Enough to learn what a number in a title means; a promise of 0.995 would need more transfers than that.
MONTHS, TRANSFERS_PER_MONTH, PROMISED = 6, 200, 0.9


@pytest.fixture(scope="session")
def sample() -> dict[str, pl.DataFrame]:
    """The raw tables of the small company, `audit` among them."""
    from matching_platform.sample.company import Settings, generate

    return generate(Settings(seed=11, months=MONTHS, transfers_per_month=TRANSFERS_PER_MONTH))


@pytest.fixture(scope="session")
def small_ledger(sample: dict[str, pl.DataFrame]) -> Ledger:
    """The small company's tables, validated."""
    return Ledger(*(validate(name, sample[name]) for name in ("invoices", "transfers", "matches")))


@pytest.fixture(scope="session")
def small_model(small_ledger: Ledger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model trained on all but the last month."""
    from matching_platform.learning.training import TrainingSettings
    from matching_platform.learning.walk import Learner

    settings = TrainingSettings(promised_precision=PROMISED, folds=2, hidden=32, batch_transfers=32)
    folder = tmp_path_factory.mktemp("small") / "model"
    Learner(small_ledger, settings).train(small_ledger.months()[-2], lambda *_: None).save(folder)
    return folder


@pytest.fixture(scope="session")
def google() -> Iterator[cloud_storage.Server]:
    """Cloud Storage for the session: gcsfs keeps to the first server that it meets."""
    with cloud_storage.serve() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", server.endpoint)
        yield server
