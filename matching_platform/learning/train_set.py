"""What a model learns from: a manifest of months and hashes, which accumulates without copying a row.

Every labelled month up to the newest takes part, but for what is withheld: the components of the frozen test, with
whatever has grown onto them since, and a share of the newest month's components, on which the new model and the
champion are compared before either has seen them. Next month those are lessons like any other.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import polars as pl

from matching_platform.learning.split import FrozenTest, components, drawn
from matching_platform.ledger.months import month_of
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import RAW_TABLES, TABLES
from matching_platform.store.files import CorruptError, side_by_side
from matching_platform.store.versions import Store, UnknownVersionError, Version

KIND: Final = "train_sets"
WITHHELD_KIND: Final = "withheld"
NEWEST_SHARE: Final = 0.25
LABELLED_PAIRS: Final = "labelled_pairs"
ASSETS: Final = (*RAW_TABLES, LABELLED_PAIRS)

_FILE: Final = "manifest.json"


@dataclass(frozen=True)
class TrainSet:
    """The versions of the months up to `until`, by month and asset, the test split, and the ids that are withheld.

    A month whose transfers were refused, or that nobody tagged, has no labelled pairs; its invoices are known all the
    same.
    """

    until: str
    months: dict[str, dict[str, Version]]
    test_split: Version
    withheld: Version

    @property
    def labelled(self) -> list[str]:
        """The months to learn from."""
        return [month for month, versions in self.months.items() if LABELLED_PAIRS in versions]

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=2, sort_keys=True).encode()

    @staticmethod
    def from_json(data: bytes) -> "TrainSet":
        raw: dict[str, Any] = json.loads(data)
        months = {
            month: {asset: Version(**version) for asset, version in versions.items()}
            for month, versions in raw["months"].items()
        }
        return TrainSet(raw["until"], months, Version(**raw["test_split"]), Version(**raw["withheld"]))


def write(store: Store, train_set: TrainSet) -> Version:
    """Stores the manifest; equal manifests are the same version, and so train nothing twice."""
    return store.put_bytes(KIND, _FILE, train_set.to_json())


def read(store: Store, version: Version) -> TrainSet:
    return TrainSet.from_json((store.fetch(version) / _FILE).read_bytes())


def ledger_of(store: Store, months: Mapping[str, Mapping[str, Version]]) -> Ledger:
    """The ledger of these versions, by month and asset.

    A transfer tagged with an invoice of a month that is not among them counts as not tagged.
    """

    def rows(table: str) -> pl.DataFrame:
        frames = side_by_side(store.read_frame, [held[table] for held in months.values() if table in held])
        return pl.concat([pl.DataFrame(schema=TABLES[table].schema), *frames])

    invoices, transfers, matches = (rows(table) for table in RAW_TABLES)
    matches = matches.join(transfers, on="transfer_id", how="semi", maintain_order="left")
    waiting = matches.drop_nulls("invoice_id").join(invoices, on="invoice_id", how="anti")
    return Ledger(invoices, transfers, matches.join(waiting, on="transfer_id", how="anti", maintain_order="left"))


def withhold(ledger: Ledger, split: FrozenTest, until: str, share: float = NEWEST_SHARE) -> pl.DataFrame:
    """What the training up to `until` must not see: table ('transfers' or 'invoices'), id, why ('test' or 'newest').

    `ledger` reaches to `until`. Of a component that touches the test everything is withheld.
    """
    pairs = components(ledger.matches)
    touched = pairs.filter(
        pl.col("transfer_id").is_in(split.transfers["transfer_id"].implode())
        | pl.col("invoice_id").is_in(split.invoices["invoice_id"].implode())
    )["component"].unique()
    booked = ledger.transfers.filter(month_of("booked_on") == until)["transfer_id"]
    newest = pairs.filter(pl.col("transfer_id").is_in(booked.implode()))["component"]
    newest = drawn(newest.filter(~newest.is_in(touched.implode())), share, until)
    why = (
        pl.when(pl.col("component").is_in(touched.implode()))
        .then(pl.lit("test"))
        .when(pl.col("component").is_in(newest.implode()))
        .then(pl.lit("newest"))
    )
    told = pairs.with_columns(why=why).drop_nulls("why")
    known = [
        told.select(table=pl.lit("transfers"), id="transfer_id", why="why"),
        told.select(table=pl.lit("invoices"), id="invoice_id", why="why"),
        # Even where a correction took their tags away.
        split.transfers.select(table=pl.lit("transfers"), id="transfer_id", why=pl.lit("test")),
        split.invoices.select(table=pl.lit("invoices"), id="invoice_id", why=pl.lit("test")),
    ]
    return pl.concat(known).drop_nulls().unique().sort("table", "id")


def lessons(pairs: pl.DataFrame, withheld: pl.DataFrame) -> pl.DataFrame:
    """The labelled pairs that neither a withheld transfer nor a withheld invoice takes part in."""
    return pairs.join(_ids(withheld, "transfers"), on="transfer_id", how="anti", maintain_order="left").join(
        _ids(withheld, "invoices"), on="invoice_id", how="anti", maintain_order="left"
    )


def without(ledger: Ledger, withheld: pl.DataFrame) -> Ledger:
    """The ledger as a training may see it."""
    transfers, invoices = _ids(withheld, "transfers"), _ids(withheld, "invoices")
    return Ledger(
        ledger.invoices.join(invoices, on="invoice_id", how="anti", maintain_order="left"),
        ledger.transfers.join(transfers, on="transfer_id", how="anti", maintain_order="left"),
        ledger.matches.join(transfers, on="transfer_id", how="anti", maintain_order="left"),
    )


def newest_transfers(withheld: pl.DataFrame, ledger: Ledger, until: str) -> pl.DataFrame:
    """transfer_id: the withheld transfers of the newest month, on which models are compared."""
    ids = _ids(withheld.filter(why="newest"), "transfers")
    return (
        ledger.transfers.filter(month_of("booked_on") == until)
        .join(ids, on="transfer_id", how="semi")
        .select("transfer_id")
    )


def leaks(pairs: pl.DataFrame, seen: Ledger, whole: Ledger, split: FrozenTest) -> list[str]:
    """What training pairs and the ledger `seen` in training share with the test, a sentence each; empty where nothing.

    `whole` is the ledger with nothing withheld: it tells the components.
    """
    transfers = pl.concat([pairs["transfer_id"], seen.matches["transfer_id"]]).unique()
    invoices = pl.concat([pairs["invoice_id"], seen.matches["invoice_id"]]).drop_nulls().unique()
    graph = components(whole.matches)
    test = graph.filter(
        pl.col("transfer_id").is_in(split.transfers["transfer_id"].implode())
        | pl.col("invoice_id").is_in(split.invoices["invoice_id"].implode())
    )["component"].unique()
    trained = graph.filter(pl.col("transfer_id").is_in(transfers.implode()))["component"].unique()
    shared = {
        "transfers": transfers.filter(transfers.is_in(split.transfers["transfer_id"].implode())),
        "invoices": invoices.filter(invoices.is_in(split.invoices["invoice_id"].implode())),
        "components": trained.filter(trained.is_in(test.implode())),
    }
    return [
        f"{len(ids)} {what} are shared with the test, for instance {ids.sort()[0]}"
        for what, ids in shared.items()
        if len(ids)
    ]


def from_the_future(pairs: pl.DataFrame, seen: Ledger, until: str) -> list[str]:
    """Rows later than the month `until`, a sentence each; empty where there are none."""
    late = {
        "transfers": seen.transfers.filter(month_of("booked_on") > until)["transfer_id"],
        "invoices": seen.invoices.filter(month_of("issued_on") > until)["invoice_id"],
    }
    booked = seen.transfers.filter(month_of("booked_on") <= until).select("transfer_id")
    late["labelled pairs"] = pairs.join(booked, on="transfer_id", how="anti")["transfer_id"]
    return [
        f"{len(ids)} {what} are later than {until}, for instance {ids.sort()[0]}"
        for what, ids in late.items()
        if len(ids)
    ]


def gaps(train_set: TrainSet, in_force: Mapping[str, Mapping[str, Version]], store: Store) -> list[str]:
    """Months or versions that are absent, damaged or not `in_force` (by month and asset), a sentence each."""
    found = []
    for month in sorted({*in_force, *train_set.months}):
        expected, versions = in_force.get(month, {}), train_set.months.get(month, {})
        absent = expected.keys() - versions.keys()
        if LABELLED_PAIRS in versions:
            absent |= set(ASSETS) - versions.keys()
        found += [f"{asset} of {month} is missing" for asset in sorted(absent)]
        for asset, version in versions.items():
            if expected.get(asset) != version:
                found.append(f"{asset} of {month} is {version}, which is not in force")
            try:
                store.verify(version)
            except (CorruptError, UnknownVersionError) as error:
                found.append(str(error))
    return found


def _ids(withheld: pl.DataFrame, table: str) -> pl.DataFrame:
    return withheld.filter(table=table).select(pl.col("id").alias(f"{table[:-1]}_id")).unique()
