"""When a champion is reconsidered, what makes the model before better, and how it ends where that cannot be told."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from matching_platform.defs import broken_promise, releasing
from matching_platform.defs.broken_promise import (
    ASSET,
    ATTEMPTS,
    COMPARISONS,
    PROPOSED_BY,
    Compared,
    due,
    reconsider_job,
)
from matching_platform.delivery.serving.place import CandidateError, RolloutError
from matching_platform.environment import DEFAULTS, Platform, Settings
from matching_platform.learning.yardstick import Difference
from matching_platform.matching.matcher import ModelError
from matching_platform.store.files import StoreError
from matching_platform.store.record import Entry, Record
from matching_platform.store.registry import MODELS
from matching_platform.store.unattended import NEVER
from matching_platform.store.versions import Version

MONTH = "2024-03"
OURSELVES = {"actor": "platform", "reason": "the promise is broken"}
ADA = {"actor": "Ada", "reason": "a wrong tag"}
OUTCOMES = {"auto": pl.Boolean, "confidence": pl.Float64, "exact": pl.Boolean}


@dataclass(frozen=True)
class Court:
    """A platform with a champion and a model before it, of which figures tell; nothing serves."""

    platform: Platform
    before: Version
    champion: Version

    def promote(self, model: Version) -> None:
        evaluation = self.platform.store.put_bytes("evaluations", "e", b"e")
        self.platform.registry.promote(model, evaluation, "gate", "better")

    def figures(self, told: str) -> None:
        """Tags have come."""
        version = self.platform.store.put_bytes(ASSET, "figures", told.encode())
        self.platform.catalog.set(ASSET, MONTH, version, {PROPOSED_BY: self.champion.name})

    def accuse(self, auto_from: float = 0.99) -> None:
        self.platform.unattended.book_from(self.champion.name, auto_from, **OURSELVES)

    def reconsider(self) -> dg.ExecuteInProcessResult:
        return reconsider_job.execute_in_process(resources={"platform": self.platform}, raise_on_error=False)

    @property
    def noted(self) -> list[Entry]:
        return Record(self.platform.store, COMPARISONS).entries()


@pytest.fixture
def court(tmp_path: Path) -> Court:
    settings = Settings(**{**DEFAULTS["local"], "store": str(tmp_path / "store"), "warehouse": tmp_path / "w.duckdb"})
    platform = Platform(settings)
    court = Court(platform, *(platform.store.put_bytes(MODELS, "card.json", name) for name in (b"before", b"now")))
    court.promote(court.before)
    court.promote(court.champion)
    court.figures("first")
    return court


def gain(low: float, high: float) -> Difference:
    return Difference("exact", (low + high) / 2, low, high)


@pytest.mark.parametrize(
    ("exact", "booked", "better"),
    [
        pytest.param((0.01, 0.03), (0.2, 0.3), True, id="both"),
        pytest.param((0.01, 0.03), (-0.3, -0.2), True, id="more exact, and books less"),
        pytest.param((-0.01, 0.01), (0.2, 0.3), True, id="as exact, and books more"),
        pytest.param((-0.03, -0.01), (0.2, 0.3), False, id="less exact"),
        pytest.param((-0.01, 0.01), (-0.01, 0.01), False, id="alike"),
        pytest.param((0.0, 0.0), (0.0, 0.0), False, id="the same"),
        pytest.param((-0.01, 0.01), (0.0, 0.02), False, id="books more by chance"),
    ],
)
def test_what_makes_the_model_before_better(
    exact: tuple[float, float], booked: tuple[float, float], better: bool
) -> None:
    compared = Compared(100, gain(*exact), gain(*booked))
    assert compared.better is better
    assert ("was not better" in compared.told) is not better


@pytest.mark.parametrize(
    ("happened", "asked"),
    [
        pytest.param([], False, id="kept its promise"),
        pytest.param(["accused"], True, id="broke it"),
        pytest.param(["accused", "tags"], True, id="broke it, and more tags came"),
        pytest.param(["accused", "cleared"], False, id="a person cleared it"),
        pytest.param(["accused", "cleared", "accused"], True, id="and it broke it again"),
        pytest.param(["accused", "raised"], False, id="a person decided since"),
        pytest.param(["raised"], False, id="a person grew careful"),
        pytest.param(["accused", "left", "promoted"], False, id="it came back, and is careful already"),
        pytest.param(["accused", "left", "promoted", "accused more"], True, id="and not careful enough"),
        pytest.param(["accused", "answered"], False, id="answered"),
        pytest.param(["accused", "answered", "tags"], False, id="answered, whatever tags come late"),
        pytest.param(["accused", "answered", "accused more"], True, id="answered, and broken again"),
    ],
)
def test_when_a_comparison_is_asked_for(
    court: Court, monkeypatch: pytest.MonkeyPatch, happened: list[str], asked: bool
) -> None:
    monkeypatch.setattr(broken_promise, "compare", lambda *_: None)
    model, unattended = court.champion.name, court.platform.unattended
    steps: dict[str, Callable[[], object]] = {
        "accused": court.accuse,
        "accused more": lambda: court.accuse(NEVER),
        "cleared": lambda: unattended.book_from_own(model, **ADA),
        "raised": lambda: unattended.book_from(model, 0.999, **ADA),
        "left": lambda: court.promote(court.platform.store.put_bytes(MODELS, "card.json", b"another")),
        "promoted": lambda: court.promote(court.champion),
        "tags": lambda: court.figures("second"),
        "answered": court.reconsider,
    }
    for one in happened:
        steps[one]()
    assert (due(court.platform) is not None) is asked


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        pytest.param(np.zeros(2000, bool), None, id="nothing speaks against it"),
        pytest.param(np.arange(2000) % 100 == 0, NEVER, id="nothing bears it out"),
        pytest.param(np.arange(2000) < 12, None, id="no more than chance explains"),
        pytest.param(np.arange(2000) < 40, 0.9, id="some bears it out"),
        pytest.param(np.zeros(50, bool), None, id="too little to tell"),
        pytest.param(np.zeros(0, bool), None, id="it would have booked nothing"),
    ],
)
def test_the_model_before_comes_back_as_careful_as_its_own_bookings_demand(
    court: Court, wrong: np.ndarray, told: float | None
) -> None:
    confidence = np.linspace(0.9, 0.99, len(wrong))
    outcomes = pl.DataFrame({"auto": np.ones(len(wrong), bool), "confidence": confidence, "exact": ~wrong})
    for _ in range(2):
        broken_promise._grow_careful_before(court.platform, court.before.name, outcomes)
    raised = court.platform.unattended.permission().thresholds.get(court.before.name)
    if told is None or told == NEVER:
        assert raised == told
    else:
        assert told < raised < told + 0.01
    assert len(court.platform.unattended.history()) == (told is not None)


def failing(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (ModelError("the model does not load"), 1),
        (CandidateError("staging refuses it: latency"), 1),
        (RolloutError("the engine does not answer"), ATTEMPTS),
        (StoreError("the bucket does not answer"), ATTEMPTS),
    ],
)
def test_what_cannot_be_answered_is_not_tried_for_ever(
    court: Court, monkeypatch: pytest.MonkeyPatch, error: Exception, attempts: int
) -> None:
    court.accuse()
    monkeypatch.setattr(broken_promise, "compare", failing(error))
    asked = due(court.platform)
    for _ in range(attempts - 1):
        with pytest.raises(dg.Failure, match=str(error)):
            broken_promise._reconsidered(court.platform, asked)
        assert due(court.platform) == asked
    assert not court.reconsider().success
    assert due(court.platform) is None
    assert court.reconsider().success
    assert len(court.noted) == attempts
    assert str(error) in court.noted[-1].reason
    assert ("given up after" in court.noted[-1].reason) is (attempts > 1)


def test_what_is_promoted_meanwhile_has_the_last_word(court: Court, monkeypatch: pytest.MonkeyPatch) -> None:
    court.accuse()
    newest = court.platform.store.put_bytes(MODELS, "card.json", b"newest")
    better = Compared(100, gain(0.1, 0.2), gain(0.1, 0.2)), pl.DataFrame(schema=OUTCOMES)
    monkeypatch.setattr(broken_promise, "compare", lambda *_: better)
    monkeypatch.setattr(releasing.probe, "answers", lambda _: court.promote(newest))
    assert court.reconsider().success
    champion = court.platform.registry.champion()
    assert (champion.model, champion.action) == (newest, "promote")
    assert not court.noted
    assert due(court.platform) is None
