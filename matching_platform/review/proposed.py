"""What is kept with a month's proposals: names of their metadata, and which of them were made in advance."""

from typing import Final

import polars as pl

from matching_platform.ledger.money import MINOR_UNITS
from matching_platform.matching.matcher import RUNNERS_UP
from matching_platform.store.catalog import Catalog, Current
from matching_platform.store.versions import Store, Version

ASSET: Final = "proposals"
# Metadata: proposals of a month up to this one are in-sample, but for those that were kept from an earlier model.
TRAINED_UNTIL: Final = "trained until"
MODEL: Final = "model"
# From which confidence the model books unattended as it was trained, and as it was allowed to.
OWN_THRESHOLD: Final = "own threshold"
BOOKED_FROM: Final = "booked from"
# Which version holds the runners-up of the proposals; what has none was made before they were kept.
OTHERS: Final = "runners-up"
# The number of the last freeze, its end, or threshold that the decisions obey.
OBEYS: Final = "obeys change"
# The kind of versions that hold runners-up.
RUNNERS_UP_KIND: Final = "runners_up"


def in_advance(made: Current, month: str) -> bool:
    """Whether proposals of `month` are of a model that had not learned from it, as far as they say so."""
    return str(made.metadata.get(TRAINED_UNTIL, month)) < month


def made_in_advance(catalog: Catalog, month: str) -> Current | None:
    """The last proposals of `month` by a model that had not learned from it; None where there are none."""
    return next((one for one in reversed(catalog.history(ASSET, month)) if in_advance(one, month)), None)


def others(store: Store, made: Current) -> pl.DataFrame:
    """The runners-up (schema RUNNERS_UP) that were kept with proposals; none where they were made before that."""
    digest = made.metadata.get(OTHERS)
    return store.read_frame(Version(RUNNERS_UP_KIND, digest)) if digest else pl.DataFrame(schema=RUNNERS_UP)


def minor(stored: pl.DataFrame) -> pl.DataFrame:
    """Stored proposals with amounts in minor units, as everything inside has them."""
    return stored.with_columns((pl.col("amount") * MINOR_UNITS).cast(pl.Int64))
