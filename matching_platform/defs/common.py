"""What all assets share: the months, the platform, and how a version becomes a materialization."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import dagster as dg
import polars as pl

from matching_platform.environment import Platform, load
from matching_platform.ledger.months import next_month
from matching_platform.store.record import Record
from matching_platform.store.versions import Version
from matching_platform.warehouse.warehouse import Warehouse

SETTINGS: Final = load()
PLATFORM: Final = Platform(SETTINGS)

MONTHS: Final = dg.MonthlyPartitionsDefinition(
    start_date=str(SETTINGS.first_month),
    end_date=next_month(SETTINGS.last_month) if SETTINGS.last_month else None,
    fmt="%Y-%m",
)
# One run takes many months; a month that fails would take the others with it, so nothing that refuses a month has this.
MANY_MONTHS: Final = dg.BackfillPolicy.single_run()
MONTH_BY_MONTH: Final = dg.BackfillPolicy.multi_run(max_partitions_per_run=1)

# The metadata that says what a month was made of, so that one can tell whether it is up to date.
SOURCE: Final = "source"
# The source where a table has no row of the month.
NONE: Final = "none"

PlatformParam = dg.ResourceParam[Platform]

_SHOWN: Final = 16  # digits of a data version, as many as a folder of the store carries


@dataclass(frozen=True)
class Made:
    """A version that an asset made, and what the UI shows about it."""

    version: Version
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def costing(self, costs: Mapping[str, float]) -> "Made":
        """The same with what it cost to make it this time, which is no part of what is kept about the version."""
        return Made(self.version, {**self.metadata, **costs})


def materialized(
    context: dg.AssetExecutionContext,
    platform: Platform,
    made: Made | Mapping[str, Made],
    check_results: list[dg.AssetCheckResult] | None = None,
) -> dg.MaterializeResult:
    """The result of an asset that made one version, or one for each month of its run."""
    if isinstance(made, Made):
        metadata, digest = _metadata(platform, made), made.version.digest
    elif len(made) == 1:
        (only,) = made.values()
        metadata, digest = _metadata(platform, only), only.version.digest
    else:
        for month, one in made.items():
            context.add_asset_metadata(_metadata(platform, one), partition_key=month)
        metadata, digest = {}, _joint(made)
    return dg.MaterializeResult(
        metadata=metadata, data_version=dg.DataVersion(digest[:_SHOWN]), check_results=check_results or []
    )


def charged(context: dg.AssetExecutionContext, platform: Platform) -> Warehouse:
    """The warehouse, with what its queries cost summed for this step and its run."""
    return platform.warehouse.charged_to(context.run.run_id, context.asset_key.to_user_string())


def keep(platform: Platform, asset: str, month: str, made: Made) -> Made:
    """Makes a version current for its month, with the plain ones among its metadata."""
    plain = {name: value for name, value in made.metadata.items() if isinstance(value, str | int | float)}
    platform.catalog.set(asset, month, made.version, plain)
    return made


def note(platform: Platform, what: str, version: Version, model: Version) -> None:
    """Remembers `version` as the newest `what` ("bentos", "images") of `model`."""
    Record(platform.store, what).append({"version": asdict(version), "model": asdict(model)})


def newest(platform: Platform, what: str, model: Version) -> Version | None:
    """The newest `what` of `model`, whatever was made of other models since: an old bento never follows a new champion."""
    noted = (entry.payload for entry in reversed(Record(platform.store, what).entries()))
    return next((Version(**one["version"]) for one in noted if Version(**one["model"]) == model), None)


def table(frame: pl.DataFrame, rows: int = 20) -> dg.MetadataValue:
    """The first rows of a frame as a Markdown table."""
    lines = [frame.columns, ["---"] * frame.width, *frame.head(rows).rows()]
    return dg.MetadataValue.md("\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines))


def link(platform: Platform, version: Version, file: str) -> dg.MetadataValue:
    """A file of a version as something to click on, where the store lies on this machine or on Cloud Storage."""
    path = platform.store.files.path(f"{version.folder}/{file}")
    if platform.store.files.local:
        return dg.MetadataValue.url(Path(path).resolve().as_uri())
    return dg.MetadataValue.url(browsed(path)) if path.startswith("gs://") else dg.MetadataValue.path(path)


def browsed(path: str) -> str:
    """The page of a gs:// file, for who is logged in and may read it."""
    return f"https://storage.cloud.google.com/{quote(path.removeprefix('gs://'))}"


def actor(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> str:
    """Who asked for a run: the person the UI knows, or the run itself."""
    return context.run.tags.get("dagster/user") or os.environ.get("USER") or f"run {context.run.run_id[:8]}"


def _metadata(platform: Platform, made: Made) -> dict[str, Any]:
    place = platform.store.files.path(made.version.folder)
    return {"version": made.version.name, "path": dg.MetadataValue.path(place), **made.metadata}


def _joint(made: Mapping[str, Made]) -> str:
    return hashlib.sha256("".join(made[month].version.digest for month in sorted(made)).encode()).hexdigest()


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value).replace("|", "\\|")
