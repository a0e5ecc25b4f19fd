"""The runners-up of a month's proposals: stored beside them, and kept with those that are kept."""

import polars as pl

from matching_platform.matching.matcher import RUNNERS_UP
from matching_platform.review.proposed import OTHERS
from matching_platform.store.versions import Version
from matching_platform_tests.defs.conftest import MONTHS, NEWEST, World


def test_proposals_that_stay_keep_their_runners_up(world: World) -> None:
    platform = world.platform
    assert world.make("champion").success
    told = world.make("proposals", month=NEWEST).metadata("proposals")
    whole, others = platform.read("proposals", NEWEST), platform.read("runners_up", NEWEST)
    assert others.schema == RUNNERS_UP
    assert others.height > 0
    assert told[OTHERS] == platform.current("runners_up", NEWEST).digest
    assert set(others["transfer_id"]) <= set(whole["transfer_id"])

    # As an earlier model would have proposed, with other shares, before the last transfers came.
    ids = others["transfer_id"].unique().sort()
    early = pl.col("transfer_id").is_in(ids[:-2].implode())
    theirs = others.filter(early).with_columns(share=pl.lit(0.25))
    version = platform.store.put_frame("runners_up", theirs)
    metadata = {"trained until": MONTHS[-2], "model": "earlier"}
    proposed = platform.store.put_frame("proposals", whole.filter(early))
    platform.catalog.set("proposals", NEWEST, proposed, metadata | {OTHERS: version.digest})
    assert world.make("proposals", month=NEWEST).success
    now = platform.read("runners_up", NEWEST)
    assert now.filter(early).equals(theirs)
    assert now.filter(~early).equals(others.filter(~early))

    # What was made before runners-up were kept has none, and a model that has learned the month lends it none of its own.
    platform.catalog.set("proposals", NEWEST, proposed, metadata)
    assert world.make("proposals", month=NEWEST).success
    assert platform.read("runners_up", NEWEST).equals(others.filter(~early))
    current = platform.catalog.get("proposals", NEWEST)
    assert platform.store.holds(Version("runners_up", current.metadata[OTHERS]))
