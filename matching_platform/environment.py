"""Where the platform runs: local, staging or production, chosen once, as one table of defaults."""

import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

import polars as pl
from pydantic import AfterValidator, ByteSize, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from matching_platform.access.settings import DeskSettings
from matching_platform.delivery.acceptance.limits import Limits
from matching_platform.delivery.images.image import Builder
from matching_platform.delivery.serving.containers import ContainerServers, Mount
from matching_platform.delivery.serving.place import Place
from matching_platform.delivery.serving.releases import Releases
from matching_platform.delivery.serving.rollout import Rollout
from matching_platform.delivery.serving.servers import BentoServers, Servers
from matching_platform.delivery.serving.steps import Steps
from matching_platform.learning.gate import Thresholds
from matching_platform.learning.train_set import ASSETS, ledger_of
from matching_platform.ledger.months import parse_month
from matching_platform.ledger.reading import Ledger
from matching_platform.matching.candidates import Finder, find
from matching_platform.monitoring.drift.limits import Limits as DriftLimits
from matching_platform.monitoring.notify import (
    EmailNotifier,
    LogNotifier,
    Mail,
    Notifier,
    SlackNotifier,
    once_per_event,
)
from matching_platform.predictions.settings import FOLDER as PREDICTIONS
from matching_platform.predictions.settings import PredictionSettings, passed_on
from matching_platform.store.catalog import Catalog
from matching_platform.store.files import Files
from matching_platform.store.record import FOLDER as RECORDS
from matching_platform.store.registry import Registry
from matching_platform.store.unattended import RECORD as UNATTENDED
from matching_platform.store.unattended import Unattended
from matching_platform.store.versions import Store, Version
from matching_platform.warehouse.duck import DuckWarehouse
from matching_platform.warehouse.warehouse import Warehouse

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from matching_platform.delivery.images.distribution import Repository

_T = TypeVar("_T")

PREFIX: Final = "MATCHING_PLATFORM_"
# The places where models serve: to be examined, and for those who ask.
STAGING: Final = "staging"
PRODUCTION: Final = "production"
DATABASE: Final = "desk.sqlite"  # of the desk, beside the warehouse, where no other is named

Month = Annotated[str, AfterValidator(parse_month)]


class NotConfiguredError(RuntimeError):
    """The environment lacks what the platform needs; the message names it."""


class Settings(BaseSettings):
    """Each is read from MATCHING_PLATFORM_<NAME>; what is not given comes from the environment's row in DEFAULTS."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, hide_input_in_errors=True
    )

    environment: Literal["local", "staging", "production"] = "local"
    warehouse: Path | None = Field(default=None, description="A DuckDB file; without it, the warehouse is BigQuery")
    project: str | None = Field(
        default=None, description="The Google Cloud project; without it, that of the credentials in force"
    )
    location: str | None = Field(default=None, description="Where BigQuery keeps the datasets, for instance EU")
    raw_dataset: str | None = Field(
        default=None, description="BigQuery's dataset with the company's raw tables, DATASET or PROJECT.DATASET"
    )
    dataset: str | None = Field(default=None, description="BigQuery's dataset for what the platform makes")
    candidates: Literal["arrays", "warehouse"] | None = Field(
        default=None, description="Where candidate pairs are joined: in this process, or in the warehouse"
    )
    query_limit: ByteSize = Field(
        default=ByteSize(100 * 2**30), description="What BigQuery may bill for one query, at most"
    )
    run_budget: ByteSize = Field(
        default=ByteSize(2**40), description="What it may bill for all queries of a Dagster run together"
    )
    store: str | None = Field(
        default=None,
        description="Where versions and records lie: any path or URL that fsspec knows; {project} stands for the project",
    )
    home: Path | None = Field(
        default=None, description="A local folder of what is no version: checkpoints, packed services"
    )
    training_requests: str | None = Field(
        default=None,
        pattern=r"^projects/[^/]+/subscriptions/[^/]+$",
        description="The Pub/Sub subscription whose messages start trainings",
    )
    dead_letters: str | None = Field(
        default=None,
        pattern=r"^projects/[^/]+/topics/[^/]+$",
        description="The Pub/Sub topic for messages that cannot be understood",
    )
    first_month: Month | None = Field(default=None, description="The first month of all monthly assets")
    last_month: Month | None = Field(default=None, description="The last one; without it the calendar decides")
    split_months: int = Field(
        default=5, description="From how many of the first labelled months the frozen test is drawn"
    )
    promised_precision: float = Field(
        default=0.995, gt=0, lt=1, description="What share of unattended bookings must be right"
    )
    thresholds: Thresholds = Thresholds()
    search_trials: int = Field(default=20, ge=1, description="Trials of a search of training settings, at most")
    search_minutes: float = Field(
        default=30.0, gt=0, description="Its minutes, at most; its first trial is always finished"
    )
    image_builder: Literal["podman", "cloud_build"] | None = Field(
        default=None, description="What builds the service's image; without it, it is only described"
    )
    image_repository: str | None = Field(
        default=None,
        pattern=r"^[\w.-]+(:\d+)?(/([\w.-]|\{project\})+)+$",
        description="Where images go, host/path/name; {project} stands for the project",
    )
    base_image: str = Field(
        default="docker.io/library/python:3.11-slim-bookworm", description="What the service's image rests on"
    )
    image_limit: ByteSize = Field(
        default=ByteSize(2 * 2**30), description="How much of a node's disk an image may take, unpacked"
    )
    build_region: str | None = Field(default=None, description="Where Cloud Build runs; without it, globally")
    build_machine: Literal["E2_MEDIUM", "E2_STANDARD_2", "E2_HIGHCPU_8", "E2_HIGHCPU_32"] = Field(
        default="E2_HIGHCPU_8", description="Cloud Build's machine type"
    )
    build_minutes: int = Field(default=30, ge=1, description="How long a build may take")
    build_account: str | None = Field(
        default=None, description="The e-mail address of the account that builds run as; else the project's own"
    )
    serving: Literal["processes", "containers", "kubernetes"] | None = Field(
        default=None, description="What serves: processes or containers of this machine, or a cluster"
    )
    port: int | None = Field(default=None, ge=1, le=65535, description="Where the service answers on this machine")
    staging: str | None = Field(default=None, description="The staging service's URL on a cluster")
    production: str | None = Field(default=None, description="The production service's URL on a cluster")
    cluster: str | None = Field(
        default=None, description="The context of the kubeconfig; without it, the cluster in which this runs"
    )
    acceptance: Limits = Limits()
    rollout: Steps = Steps()
    drift: DriftLimits = DriftLimits()
    predictions: PredictionSettings = PredictionSettings()
    desk: DeskSettings = DeskSettings()
    ui: str | None = Field(default=None, description="The address of Dagster's pages, for links in messages")
    mail: Mail | None = Field(default=None, description="Who is told by e-mail, and how")
    slack_webhook: SecretStr | None = Field(default=None, description="Where people are told; without it, the log is")


# What an environment is, where nothing else is set. What `local` keeps in files, the others keep on Google Cloud.
DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "local": {
        "warehouse": Path(".demo/warehouse.duckdb"),
        "candidates": "arrays",
        "store": ".demo/store",
        "first_month": "2024-01",
        "last_month": "2024-12",
        "serving": "processes",
        "port": 3456,
    },
    "staging": {
        "raw_dataset": "finance",
        "dataset": "matching_staging",
        "candidates": "warehouse",
        "store": "gs://{project}-matching-staging/store",
        "home": Path(".staging"),
        "serving": "processes",
        "port": 3456,
    },
    "production": {
        "raw_dataset": "finance",
        "dataset": "matching",
        "candidates": "warehouse",
        "store": "gs://{project}-matching/store",
        "home": Path(".production"),
        "image_builder": "cloud_build",
        "image_repository": "europe-west1-docker.pkg.dev/{project}/matching/matching-service",
        "build_region": "europe-west1",
        "serving": "kubernetes",
        "staging": "http://matching-service.matching-staging",
        "production": "http://matching-service.matching-production",
    },
}
REQUIRED: Final = ("store", "first_month")
# Where a container sees the store.
_MOUNTED: Final = "/store"
# Settings of which no word is repeated.
SECRET: Final = frozenset(("mail", "predictions", "slack_webhook"))
# What a choice needs besides.
NEEDED: Final[Mapping[str, Mapping[str | None, Sequence[str]]]] = {
    "image_builder": {"podman": ["image_repository"], "cloud_build": ["image_repository"]},
    "serving": {
        "processes": ["port"],
        "containers": ["port", "image_builder"],
        "kubernetes": ["image_builder", "staging", "production"],
    },
}


def load() -> Settings:
    """The settings in force; NotConfiguredError that names the first that is wrong, or every one that is missing."""
    try:
        given = Settings()
    except ValidationError as error:
        raise NotConfiguredError(_refusal(error)) from error
    absent = {name: value for name, value in DEFAULTS[given.environment].items() if name not in given.model_fields_set}
    settings = given.model_copy(update=absent)
    required = [*REQUIRED, *(["dead_letters"] if settings.training_requests else [])]
    required += [needed for name, choices in NEEDED.items() for needed in choices.get(getattr(settings, name), [])]
    missing = [f"{PREFIX}{name.upper()}" for name in required if getattr(settings, name) is None]
    if missing:
        raise NotConfiguredError(f"the environment '{settings.environment}' needs {', '.join(missing)}")
    return settings


def _refusal(error: ValidationError) -> str:
    """The first setting that is refused, by the name of its variable; what it held only where that is no secret."""
    first = error.errors()[0]
    name = f"{PREFIX}{'__'.join(map(str, first['loc'])).upper()}"
    if first["type"] == "extra_forbidden":
        return f"{name} is no setting; look for a typo in its name"
    told = f"{name}: {first['msg']}"
    return told if first["loc"][0] in SECRET or first["type"] == "missing" else f"{told}, not '{first['input']}'"


@dataclass(frozen=True)
class Platform:
    """What assets work with, opened when first used: warehouse, store, and what rests on the store."""

    settings: Settings

    @cached_property
    def warehouse(self) -> Warehouse:
        """DuckDB where a file is named, else BigQuery."""
        given = self.settings
        return DuckWarehouse(given.warehouse) if given.warehouse else self._bigquery()

    @cached_property
    def store(self) -> Store:
        return Store(self._root)

    @property
    def _root(self) -> str:
        root = _required(self.settings.store)
        return root.replace("{project}", self.project) if "{project}" in root else root

    @cached_property
    def project(self) -> str:
        """The Google Cloud project, that of the credentials where none is set."""
        project = self.settings.project or credentials()
        if project is None:
            raise NotConfiguredError(f"the credentials name no Google Cloud project; set {PREFIX}PROJECT")
        return project

    def candidates(self, warehouse: Warehouse) -> Finder:
        """What joins candidate pairs here: `warehouse`, or this process."""
        return warehouse.candidates if self.settings.candidates == "warehouse" else find

    @property
    def raw_tables(self) -> str:
        """Where the raw tables are, for people."""
        given = self.settings
        raw = _required(given.raw_dataset) if given.warehouse is None else ""
        return str(given.warehouse) if given.warehouse else raw if "." in raw else f"{self.project}.{raw}"

    @cached_property
    def catalog(self) -> Catalog:
        return Catalog(self.store)

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.store)

    @cached_property
    def unattended(self) -> Unattended:
        """What may be booked unattended."""
        return Unattended(self.store)

    @cached_property
    def predictions(self) -> Files:
        """Where the log of what was asked and answered lies, see `predictions.reading`."""
        return Files(self.store.files.path(PREDICTIONS))

    @cached_property
    def database(self) -> "Engine":
        """The desk's database: who may use it, and what was decided there."""
        # Imported here: what serves models does not pay for it.
        from matching_platform.database import connect

        if self.settings.desk.database:
            return connect(self.settings.desk.database)
        self.home.mkdir(parents=True, exist_ok=True)
        return connect(f"sqlite:///{self.home / DATABASE}")

    @cached_property
    def builder(self) -> Builder | None:
        """What builds images of the service; None where none is configured."""
        builders = {"podman": self._podman, "cloud_build": self._cloud_build}
        return builders[self.settings.image_builder]() if self.settings.image_builder else None

    def releases(self, place: str) -> Releases:
        """What served at a place, and what served well."""
        return Releases(self.store, place)

    def place(self, name: str) -> Place:
        """Where models serve: `staging`, to be examined, or `production`."""
        return self._on_cluster(name) if self.settings.serving == "kubernetes" else self.here(name)

    def lasts(self, place: str) -> bool:
        """Whether something serves at the place all the time; staging on this machine only while it is examined."""
        return place == PRODUCTION or self.settings.serving == "kubernetes"

    def here(self, name: str = PRODUCTION) -> Rollout:
        """A place on this machine; production answers at the port of the settings, and keeps what it answers."""
        given = self.settings
        if given.serving == "kubernetes":
            raise NotConfiguredError(f"the service of '{given.environment}' runs on a cluster, and not here")
        folder = self.home / ("service" if name == PRODUCTION else name)
        if name == PRODUCTION:
            return Rollout(name, folder, _required(given.port), self._logging_servers(), given.rollout)
        return Rollout(
            name, folder, self._staging_port, ContainerServers() if given.serving == "containers" else BentoServers()
        )

    def _logging_servers(self) -> Servers:
        """What serves for those who ask: it keeps what it answers, and looks in the store what it may book."""
        kept, root = self.settings.predictions, self._root
        local = "://" not in root
        place = str(Path(root).resolve()) if local else root
        if self.settings.serving != "containers":
            return BentoServers(passed_on(kept, place))
        if not local:
            return ContainerServers(variables=passed_on(kept, place))
        mounts = (
            Mount(Path(place, PREDICTIONS), f"{_MOUNTED}/{PREDICTIONS}", writable=True),
            Mount(Path(place, RECORDS, UNATTENDED), f"{_MOUNTED}/{RECORDS}/{UNATTENDED}"),
        )
        return ContainerServers(variables=passed_on(kept, _MOUNTED), mounts=mounts)

    def _on_cluster(self, name: str) -> Place:
        # Imported here: a laptop without a cluster does not pay for its client.
        from matching_platform.delivery.serving.kubernetes import Cluster

        given = self.settings
        url = _required(given.production if name == PRODUCTION else given.staging)
        return Cluster(name, url, self.repository, given.cluster)

    def _podman(self) -> Builder:
        from matching_platform.delivery.images.containerize import PodmanBuilder

        given = self.settings
        return PodmanBuilder(self.repository, given.base_image, self.home / "wheels", given.image_limit)

    def _cloud_build(self) -> Builder:
        from matching_platform.delivery.images.cloud_build import CloudBuilder, CloudBuildSettings, connect

        given = self.settings
        settings = CloudBuildSettings(
            project=self.project,
            region=given.build_region or "global",
            bucket=f"{self._bucket}/builds",
            base=given.base_image,
            machine=given.build_machine,
            timeout_minutes=given.build_minutes,
            service_account=given.build_account,
            labels={"environment": given.environment},
        )
        return CloudBuilder(settings, connect(), self.repository)

    @property
    def _bucket(self) -> str:
        """The bucket of the store, gs://NAME."""
        found = re.match(r"gs://[^/]+", self.store.files.root)
        if found is None:
            raise NotConfiguredError(
                f"Cloud Build takes what it builds from Cloud Storage; {PREFIX}STORE lies elsewhere"
            )
        return found[0]

    @cached_property
    def _staging_port(self) -> int:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return int(free.getsockname()[1])

    @cached_property
    def repository(self) -> "Repository":
        """Where images of the service lie."""
        from matching_platform.delivery.images.distribution import Repository

        name = _required(self.settings.image_repository)
        return Repository(name.replace("{project}", self.project) if "{project}" in name else name)

    @cached_property
    def notifier(self) -> Notifier:
        """Who is told what needs a person, once per event."""
        webhook, mail = self.settings.slack_webhook, self.settings.mail
        channels: dict[str, Notifier] = {}
        if webhook:
            channels["slack"] = SlackNotifier(webhook.get_secret_value())
        if mail:
            channels["mail"] = EmailNotifier(mail)
        return once_per_event(channels or {"log": LogNotifier()}, self.store.files)

    @property
    def home(self) -> Path:
        """The local folder of what is no version: built bentos, the running server, checkpoints of trainings."""
        return self.settings.home or _required(self.settings.warehouse).parent

    def _bigquery(self) -> Warehouse:
        # Imported here: a laptop without Google Cloud does not pay for its clients.
        from dagster_gcp import BigQueryResource

        from matching_platform.warehouse.bigquery import BigQueryWarehouse, reader

        given = self.settings
        credentials()
        with BigQueryResource(project=self.project, location=given.location).get_client() as client:
            return BigQueryWarehouse(
                client,
                reader(),
                self.store,
                raw_dataset=_required(given.raw_dataset),
                dataset=_required(given.dataset),
                query_limit=given.query_limit,
                run_budget=given.run_budget,
                labels={"application": "matching-platform", "environment": given.environment},
            )

    def read(self, asset: str, month: str) -> pl.DataFrame:
        """The current rows of `asset` for `month`; LookupError where there are none."""
        return self.store.read_frame(self.current(asset, month))

    def current(self, asset: str, month: str) -> Version:
        """The version in force; LookupError where there is none."""
        current = self.catalog.get(asset, month)
        if current is None:
            raise LookupError(f"there is no {asset} for {month}: materialize {asset} for that month first")
        return current.version

    def in_force(self, until: str) -> dict[str, dict[str, Version]]:
        """The current versions of every accepted month up to `until`, by month and asset."""
        found = {asset: self.catalog.latest(asset) for asset in ASSETS}
        months = sorted({month for made in found.values() for month in made if month <= until})
        return {
            month: {asset: made[month].version for asset, made in found.items() if month in made} for month in months
        }

    def ledger(self, until: str) -> Ledger:
        """All accepted months up to `until`, see `train_set.ledger_of`."""
        return ledger_of(self.store, self.in_force(until))


def credentials() -> str | None:
    """Finds the application default credentials, and the project that they name; NotConfiguredError without any."""
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        _, project = google.auth.default()
    except DefaultCredentialsError as error:
        raise NotConfiguredError(
            "there are no Google Cloud credentials; log in with `gcloud auth application-default login`, or bind a "
            "service account to this workload"
        ) from error
    return project


def _required(value: _T | None) -> _T:
    if value is None:
        raise NotConfiguredError("the settings are incomplete; take them from `environment.load`")
    return value
