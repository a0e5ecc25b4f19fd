import shutil
from pathlib import Path

import httpx
import polars as pl
import pytest

from matching_platform.defs.promotion import BENTOS, _note, roll_out, rollout
from matching_platform.delivery.packing import build_bento
from matching_platform.store.registry import MODELS
from matching_platform.store.versions import UnknownVersionError, Version
from matching_platform_tests.defs.conftest import MONTHS, NEWEST, World


def served(world: World) -> str:
    return str(httpx.get(f"{rollout(world.platform).url}/model", trust_env=False).json()["version"])


def packed_by_another(world: World, model: Version, folder: Path) -> Version:
    """The same model under another name, with a bento of its own, which is the newest then."""
    shutil.copytree(world.platform.store.fetch(model), folder / "model")
    (folder / "model" / "note.txt").write_text("another")
    other = world.platform.store.put(MODELS, folder / "model")
    bento = build_bento(world.platform.store.fetch(other), other.name, folder / "bento")
    _note(world.platform, BENTOS, world.platform.store.put(BENTOS, bento.path), other)
    return other


def test_the_champion_is_packed_rolled_out_and_proposes(world: World, tmp_path: Path) -> None:
    try:
        made = world.make("champion", "bento", "image", "deployment", "proposals", "drift_report", month=NEWEST)
        assert made.success, made.failure
        model = world.platform.registry.champion().model
        assert served(world) == model.name
        assert made.metadata("image")["built"] is False
        assert made.metadata("proposals")["rows"] > 0
        again = world.make("deployment")
        assert again.metadata("deployment")["changed"] is False
        other = packed_by_another(world, model, tmp_path)
        assert roll_out(world.platform, other).changed
        assert served(world) == other.name
        assert roll_out(world.platform, model).changed
        assert served(world) == model.name
        with pytest.raises(UnknownVersionError):
            roll_out(world.platform, Version(MODELS, "0" * 64))
    finally:
        rollout(world.platform).stop()


def test_where_nothing_was_rolled_out_nothing_is(world: World) -> None:
    assert roll_out(world.platform, world.platform.current("model", NEWEST)) is None


def test_proposals_of_a_month_that_was_learned_from_are_not_judged(world: World) -> None:
    assert world.make("champion").success
    proposed = world.make("proposals", month=NEWEST).metadata("proposals")
    assert proposed["in-sample"] > 0
    judged = world.make("realised_quality", month=NEWEST).metadata("realised_quality")
    assert judged["left out as in-sample"] == proposed["in-sample"]
    assert judged["transfers"] == 0


def test_what_was_proposed_in_advance_stays_proposed(world: World) -> None:
    assert world.make("champion").success
    assert world.make("proposals", month=NEWEST).success
    # As an earlier model would have proposed, before the last two transfers came.
    ids = world.platform.read("proposals", NEWEST)["transfer_id"].unique().sort()
    whole = world.platform.read("proposals", NEWEST)
    earlier = whole.filter(whole["transfer_id"].is_in(ids[:-2].implode())).with_columns(decision=pl.lit("review"))
    version = world.platform.store.put_frame("proposals", earlier)
    world.platform.catalog.set("proposals", NEWEST, version, {"trained until": MONTHS[-2]})
    for _ in range(2):
        assert world.make("proposals", month=NEWEST).metadata("proposals")["in-sample"] == 2
        now = world.platform.read("proposals", NEWEST)
        assert now.filter(now["transfer_id"].is_in(ids[:-2].implode())).equals(earlier)
        assert set(now["transfer_id"]) == set(ids)
    judged = world.make("realised_quality", month=NEWEST).metadata("realised_quality")
    assert (judged["transfers"], judged["left out as in-sample"]) == (len(ids) - 2, 2)
    assert judged["exact"] > 0.5
