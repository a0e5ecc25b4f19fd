"""What must be there before anything runs, looked at one by one; a problem comes with what to do about it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Final

import dagster as dg
from packaging.requirements import Requirement

from matching_platform.delivery.images.image import ImageError
from matching_platform.delivery.serving.place import RolloutError
from matching_platform.environment import DATABASE, PREFIX, PRODUCTION, NotConfiguredError, Platform
from matching_platform.environment import credentials as find_credentials
from matching_platform.ledger.schema import RAW_TABLES, TABLES
from matching_platform.matching.matcher import Matcher, ModelError
from matching_platform.store.files import StoreError
from matching_platform.store.record import FOLDER as RECORDS
from matching_platform.store.record import Record, whoami
from matching_platform.warehouse.duck import DuckWarehouse
from matching_platform.warehouse.tables import raw_name
from matching_platform.warehouse.warehouse import WarehouseError

if TYPE_CHECKING:
    from matching_platform.warehouse.bigquery import BigQueryWarehouse

DISTRIBUTION: Final = "matching-platform"
_EXTRA: Final = "platform"


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was seen there, and, where that is a problem, what to do about it."""

    subject: str
    seen: str
    advice: str = ""

    @property
    def fine(self) -> bool:
        return not self.advice


Check = Callable[[Platform], Iterator[Finding]]


def examine(platform: Platform) -> Iterator[Finding]:
    """A finding for everything that the platform needs in its environment, as it is looked at."""
    cloud = platform.settings.warehouse is None
    for check in _CLOUD if cloud else _LAPTOP:
        subject = check.__name__.replace("_", " ")
        try:
            yield from check(platform)
        except NotConfiguredError as error:
            yield Finding(subject, "cannot be looked at", str(error))
            if check is credentials:
                return
        except (ImageError, ModelError, RolloutError, StoreError, WarehouseError) as error:
            yield Finding(subject, "failed", str(error))


def sensors(instance: dg.DagsterInstance, repository: dg.RepositoryDefinition) -> Iterator[Finding]:
    """Whether the platform's sensors and schedules are at work on a Dagster instance."""
    from matching_platform.defs.heartbeat import sensor_problems

    problems = sensor_problems(instance, repository)
    for problem in problems:
        yield Finding("sensors", problem.told, problem.advice)
    if not problems:
        yield Finding("sensors", "all run")


def versions(platform: Platform) -> Iterator[Finding]:  # noqa: ARG001 - every check is asked alike
    """Whether what is installed is what the distribution asks for."""
    seen, wrong = [], []
    for text in metadata.requires(DISTRIBUTION) or []:
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": _EXTRA}):
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is not installed")
            continue
        seen.append(wanted.name)
        if not wanted.specifier.contains(version, prereleases=True):
            wrong.append(f"{wanted.name} is {version}, not {wanted.specifier}")
    told = ", ".join(f"{name} {metadata.version(name)}" for name in ("dagster", "torch", "bentoml"))
    if wrong:
        yield Finding("packages", "; ".join(wrong), f"install again: pip install '{DISTRIBUTION}[{_EXTRA}]'")
    else:
        yield Finding("packages", f"{len(seen)} as asked for, {told}")


def duckdb(platform: Platform) -> Iterator[Finding]:
    path = platform.settings.warehouse
    if path is None or not path.exists():
        advice = "run `matching-platform load DATA`, or `make demo` for a sample company"
        yield Finding(f"warehouse {path}", "is not there yet", advice)
        return
    held = {name: months for name, months in DuckWarehouse(path).months().items() if months}
    for name in RAW_TABLES:
        months = list(held.get(name, {}))
        yield _of_months(
            f"warehouse {path}, {raw_name(name)}", months, "load a folder with `matching-platform load DATA`"
        )


def credentials(platform: Platform) -> Iterator[Finding]:
    find_credentials()
    yield Finding("credentials", f"are there, and the project is {platform.project}")


def datasets(platform: Platform) -> Iterator[Finding]:
    """The two datasets, in one location."""
    from google.api_core import exceptions as api

    from matching_platform.warehouse.queries import explained

    client, given = _bigquery(platform).client, platform.settings
    places = {}
    for full, setting in ((platform.raw_tables, "RAW_DATASET"), (f"{platform.project}.{given.dataset}", "DATASET")):
        subject = f"dataset {full}"
        try:
            with explained(f"looking at {subject}"):
                places[subject] = client.get_dataset(full).location
        except WarehouseError as error:
            if not isinstance(error.__cause__, api.NotFound):
                raise
            advice = f"make it with `bq mk --dataset {full.replace('.', ':')}`, or set {PREFIX}{setting}"
            yield Finding(subject, "does not exist", advice)
            continue
        yield Finding(subject, f"is there, in {places[subject]}")
    if len(set(places.values())) > 1:
        told = ", ".join(f"{subject} in {place}" for subject, place in places.items())
        yield Finding("location", told, "BigQuery joins only what is in one location; move one of the datasets")


def raw_tables(platform: Platform) -> Iterator[Finding]:
    """Whether each raw table is there, has the contract's columns and may be read; and which months it holds."""
    from matching_platform.warehouse.bigquery import READABLE

    warehouse = _bigquery(platform)
    for name in RAW_TABLES:
        subject = f"table {platform.raw_tables}.{raw_name(name)}"
        try:
            held = warehouse.raw_types(name)
        except WarehouseError as error:
            yield Finding(subject, "cannot be used", str(error))
            continue
        known = [column.name for column in TABLES[name].columns]
        missing = [column for column in known if column not in held]
        if missing:
            yield Finding(subject, f"lacks {', '.join(missing)}", "add the columns, as ledger/schema.py lists them")
        elif unread := [f"{column} of type {held[column]}" for column in known if held[column] not in READABLE]:
            advice = f"give the columns one of the types {', '.join(READABLE)}"
            yield Finding(subject, f"has {', '.join(unread)}", advice)
        elif held.get("amount", "").startswith("FLOAT"):
            yield Finding(
                subject, "holds amounts as floats", "make the column amount NUMERIC; a float is no exact amount"
            )
        else:
            yield Finding(subject, "has the columns of the contract")
    for name, months in warehouse.months().items():
        yield _of_months(f"months of {raw_name(name)}", list(months), "let the company's own job fill the table")


def reading(platform: Platform) -> Iterator[Finding]:
    _bigquery(platform).try_reading()
    yield Finding("Storage Read API", "answers")


def writing(platform: Platform) -> Iterator[Finding]:
    _bigquery(platform).try_writing()
    yield Finding(f"dataset {platform.project}.{platform.settings.dataset}", "can be written")


def joining(platform: Platform) -> Iterator[Finding]:
    _bigquery(platform).try_joining()
    yield Finding(f"dataset {platform.project}.{platform.settings.dataset}_scratch", "takes keys, and joins them")


def store(platform: Platform) -> Iterator[Finding]:
    """Whether the store takes an entry of a record, gives it back, and lets nobody write it again."""
    record, files = Record(platform.store, "doctor"), platform.store.files
    subject = f"store {files.root}"
    entry = record.append({"version": metadata.version(DISTRIBUTION)}, actor=whoami())
    try:
        files.create(f"{RECORDS}/doctor/{entry.number:08d}.json", b"another")
    except FileExistsError:
        yield Finding(subject, f"can be written and read, and keeps what was written first (look {record.count()})")
    else:
        advice = "use a store that creates a file only where there is none, as disks and Cloud Storage do"
        yield Finding(subject, "lets two writers create the same file", advice)


def registry(platform: Platform) -> Iterator[Finding]:
    """Whether the champion is there, whole, and of a kind that this version of the platform reads."""
    champion = platform.registry.champion()
    if champion is None:
        yield Finding("registry", "has no champion yet, which is right before the first promotion")
        return
    card = Matcher.load(platform.store.fetch(champion.model)).card
    yield Finding("registry", f"champion {champion.model.name}, trained until {card['trained_until']}, can be loaded")


def pubsub(platform: Platform) -> Iterator[Finding]:
    from matching_platform.defs.requests import PubSubError
    from matching_platform.defs.requests import examine as examine_requests

    if platform.settings.training_requests is None:
        yield Finding("training requests", f"none are listened to; {PREFIX}TRAINING_REQUESTS would name a subscription")
        return
    try:
        examine_requests(platform.settings)
    except PubSubError as error:
        yield Finding("training requests", "cannot be listened to", str(error))
    else:
        yield Finding("training requests", f"from {platform.settings.training_requests}")


def unattended(platform: Platform) -> Iterator[Finding]:
    """Whether anything may happen unattended. A freeze is told, and is no problem: somebody wants it."""
    yield Finding("automation", platform.unattended.permission().told or "is not frozen")


def images(platform: Platform) -> Iterator[Finding]:
    """Whether the image registry answers, where images are built."""
    if platform.builder is None:
        yield Finding("images", f"none are built; {PREFIX}IMAGE_BUILDER would name a builder")
        return
    yield Finding("images", f"{len(platform.repository.tags())} tags in {platform.repository.name}")


def service(platform: Platform) -> Iterator[Finding]:
    """Whether what was rolled out last answers."""
    served = platform.releases(PRODUCTION).current()
    if served is None:
        yield Finding("service", "nothing was rolled out yet, which is right before the first promotion")
        return
    if not served.good:
        yield Finding("service", f"{served.model} did not serve well: {served.reason}", "see `models history`")
        return
    place = platform.place(PRODUCTION)
    answers = place.serving()
    if answers == served.model:
        yield Finding("service", f"model {answers} answers at {place.url}")
    else:
        told = f"{answers or 'nothing'} answers at {place.url}, and {served.model} should"
        yield Finding("service", told, "run `matching-platform serve`, or materialize deployment")


def desk(platform: Platform) -> Iterator[Finding]:
    """Whether the desk's database answers, and who may log in."""
    from sqlalchemy.exc import DBAPIError

    from matching_platform.access import Access
    from matching_platform.access.listening import base_url
    from matching_platform.database import DatabaseError

    given, advice = platform.settings.desk, f"see {PREFIX}DESK__DATABASE"
    if given.database is None and not (platform.home / DATABASE).exists():
        yield Finding("desk", "has no database yet, which is right before it is used for the first time")
        return
    try:
        users = Access(platform.database, given).users()
    except (DatabaseError, DBAPIError) as error:
        yield Finding("desk", f"its database cannot be used: {getattr(error, 'orig', error)}", advice)
        return
    active = sum(one.active for one in users)
    if given.proxy is not None:
        yield Finding("desk", f"people log in at the proxy, and reach it at {base_url(given)}")
    elif active:
        yield Finding("desk", f"{active} {'person' if active == 1 else 'people'} may use it, at {base_url(given)}")
    else:
        yield Finding("desk", "nobody was invited yet; `matching-platform users invite NAME --role admin` does that")


_LAPTOP: Final = (versions, duckdb, store, registry, unattended, images, service, desk)
_CLOUD: Final = (
    *(versions, credentials, datasets, raw_tables, reading, writing, joining, store, registry, unattended, pubsub),
    *(images, service, desk),
)


def _bigquery(platform: Platform) -> "BigQueryWarehouse":
    from matching_platform.warehouse.bigquery import BigQueryWarehouse

    warehouse = platform.warehouse
    if not isinstance(warehouse, BigQueryWarehouse):
        raise TypeError(f"{warehouse} is not BigQuery")
    return warehouse


def _of_months(subject: str, months: list[str], advice: str) -> Finding:
    if not months:
        return Finding(subject, "no months yet", advice)
    return Finding(subject, f"{len(months)} months, {months[0]} to {months[-1]}")
