"""The frozen test split: made once, from the first labelled months, by connected component.

Transfers and invoices that any chain of matches connects are one component, and lie on one side as a whole: otherwise a
model would be examined on an invoice whose other half it has seen paid. A component is in the test by a hash of its
name, so the same matches give the same split anywhere. The split is stored with the ledger it is judged in, and its
record's last entry says which version is in force: a correction of an old month cannot move the yardstick.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import polars as pl
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from matching_platform.learning.examples import credible_tags
from matching_platform.ledger.reading import Ledger
from matching_platform.store.record import LostRaceError, Record
from matching_platform.store.versions import Store, Version

KIND: Final = "test_splits"
RECORD: Final = "test_split"
TEST_SHARE: Final = 0.2

_TABLES: Final = ("invoices", "transfers", "matches")


class SplitError(ValueError):
    """There is no test split, or it cannot be made; the message says what to do."""


@dataclass(frozen=True)
class FrozenTest:
    """The version in force, the ledger of the months it was made from, and what belongs to the test.

    `transfers` (transfer_id, component) and `invoices` (invoice_id, component).
    """

    version: Version
    ledger: Ledger
    transfers: pl.DataFrame
    invoices: pl.DataFrame

    @property
    def truth(self) -> pl.DataFrame:
        """The matches of the test's transfers, without tags that the tables contradict."""
        return credible_tags(self.ledger).join(self.transfers, on="transfer_id", how="semi")


def components(matches: pl.DataFrame) -> pl.DataFrame:
    """transfer_id, invoice_id, component: the pairs of `matches`, each with the least transfer_id of its component.

    A transfer that is tagged as paying nothing has a row with a null invoice and is a component of its own.
    """
    pairs = matches.select("transfer_id", "invoice_id").unique().sort("transfer_id", "invoice_id")
    nodes = pairs.select(
        pl.col("transfer_id").rank("dense").cast(pl.Int64) - 1,
        pl.col("invoice_id").rank("dense").cast(pl.Int64) - 1,
    )
    transfers = pairs["transfer_id"].n_unique()
    edges = nodes.drop_nulls()
    size = transfers + pairs["invoice_id"].drop_nulls().n_unique()
    graph = coo_array(
        (
            np.ones(edges.height, dtype=np.int8),
            (edges["transfer_id"].to_numpy(), edges["invoice_id"].to_numpy() + transfers),
        ),
        (size, size),
    )
    labels = connected_components(graph, directed=False)[1]
    labelled = pairs.with_columns(component=pl.Series(labels[nodes["transfer_id"].to_numpy()], dtype=pl.Int64))
    return labelled.with_columns(pl.col("transfer_id").min().over("component").alias("component"))


def drawn(names: pl.Series, share: float, salt: str) -> pl.Series:
    """The names, without repetition, that fall into `share` by their hash; another salt draws others."""
    least = int(share * 2**64)
    distinct = names.unique().sort()
    return distinct.filter(pl.Series([_hash(f"{salt}/{name}") < least for name in distinct], dtype=pl.Boolean))


def make(ledger: Ledger, share: float = TEST_SHARE) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The test's transfers (transfer_id, component) and invoices (invoice_id, component) among the tagged ones."""
    pairs = components(ledger.matches)
    test = pairs.filter(pl.col("component").is_in(drawn(pairs["component"], share, "test").implode()))
    transfers = test.select("transfer_id", "component").unique().sort("transfer_id")
    invoices = test.select("invoice_id", "component").drop_nulls().unique().sort("invoice_id")
    return transfers, invoices


def current(store: Store) -> FrozenTest | None:
    """The split in force, its files compared with its hash; None before the first."""
    last = Record(store, RECORD).last()
    if last is None:
        return None
    version = Version(**last.payload["version"])
    folder = store.fetch(version)
    ledger = Ledger(*(pl.read_parquet(folder / f"{name}.parquet") for name in _TABLES))
    tests = (pl.read_parquet(folder / f"test_{name}.parquet") for name in ("transfers", "invoices"))
    return FrozenTest(version, ledger, *tests)


def freeze(
    store: Store,
    ledger: Ledger,
    months: Sequence[str],
    *,
    share: float = TEST_SHARE,
    actor: str = "platform",
    remake_because: str | None = None,
) -> FrozenTest:
    """The split in force; where there is none, one made from `ledger`, which holds `months`, and recorded.

    `remake_because` makes another one although there is one, and the reason goes into the record. Of two processes that
    make the first split, one wins and both return its split. Raises SplitError where too little is tagged, and
    LostRaceError where another split came in while one was made anew.
    """
    record = Record(store, RECORD)
    last = record.count()
    if last and remake_because is None:
        return _in_force(store)
    transfers, invoices = make(ledger, share)
    if transfers.is_empty():
        raise SplitError(f"too little is tagged in {', '.join(months)} to draw a test from; tag more, or add months")
    with TemporaryDirectory() as folder:
        for name in _TABLES:
            getattr(ledger, name).write_parquet(Path(folder, f"{name}.parquet"))
        transfers.write_parquet(Path(folder, "test_transfers.parquet"))
        invoices.write_parquet(Path(folder, "test_invoices.parquet"))
        version = store.put(KIND, Path(folder))
    payload = {"version": asdict(version), "months": list(months), "share": share}
    try:
        record.append(payload, last, actor=actor, reason=remake_because or "the first months are labelled")
    except LostRaceError:
        # Who only wanted there to be a split has one; who wanted another one must look at what came in between.
        if remake_because is not None:
            raise
    return _in_force(store)


def _in_force(store: Store) -> FrozenTest:
    split = current(store)
    if split is None:
        raise SplitError("there is no test split yet; materialize test_split first")
    return split


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
