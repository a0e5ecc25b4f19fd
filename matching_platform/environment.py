"""Where the platform runs: local, staging or production, chosen once, as one table of defaults."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import polars as pl
from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from matching_platform.learning.gate import Thresholds
from matching_platform.learning.train_set import ASSETS, ledger_of
from matching_platform.ledger.months import parse_month
from matching_platform.ledger.reading import Ledger
from matching_platform.monitoring.notify import LogNotifier, Notifier, OncePerEvent, SlackNotifier
from matching_platform.store.catalog import Catalog
from matching_platform.store.registry import Registry
from matching_platform.store.versions import Store, Version
from matching_platform.warehouse.duck import DuckWarehouse

_T = TypeVar("_T")

PREFIX: Final = "MATCHING_PLATFORM_"

Month = Annotated[str, AfterValidator(parse_month)]


class NotConfiguredError(RuntimeError):
    """The environment lacks what the platform needs; the message names it."""


class Settings(BaseSettings):
    """Each is read from MATCHING_PLATFORM_<NAME>; what is not given comes from the environment's row in DEFAULTS."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", frozen=True)

    environment: Literal["local", "staging", "production"] = "local"
    warehouse: Path | None = Field(default=None, description="The DuckDB file with the raw tables")
    store: str | None = Field(
        default=None, description="Where versions and records lie: any path or URL that fsspec knows"
    )
    first_month: Month | None = Field(default=None, description="The first month of all monthly assets")
    last_month: Month | None = Field(default=None, description="The last one; without it the calendar decides")
    split_months: int = Field(
        default=5, description="From how many of the first labelled months the frozen test is drawn"
    )
    promised_precision: float = Field(default=0.995, description="What share of unattended bookings must be right")
    port: int | None = Field(default=None, description="Where the rolled-out service answers")
    thresholds: Thresholds = Thresholds()
    search_trials: int = Field(default=20, ge=1, description="Trials of a search of training settings, at most")
    search_minutes: float = Field(
        default=30.0, gt=0, description="Its minutes, at most; its first trial is always finished"
    )
    slack_webhook: SecretStr | None = Field(default=None, description="Where people are told; without it, the log is")


DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "local": {
        "warehouse": Path(".demo/warehouse.duckdb"),
        "store": ".demo/store",
        "first_month": "2024-01",
        "last_month": "2024-12",
        "port": 3456,
    },
    "staging": {},
    "production": {},
}
REQUIRED: Final = ("warehouse", "store", "first_month", "port")


def load() -> Settings:
    """The settings in force; NotConfiguredError that names every one that is missing."""
    given = Settings()
    absent = {name: value for name, value in DEFAULTS[given.environment].items() if name not in given.model_fields_set}
    settings = given.model_copy(update=absent)
    missing = [f"{PREFIX}{name.upper()}" for name in REQUIRED if getattr(settings, name) is None]
    if missing:
        raise NotConfiguredError(f"the environment '{settings.environment}' needs {', '.join(missing)}; set them")
    return settings


@dataclass(frozen=True)
class Platform:
    """What assets work with, opened when first used: warehouse, store, and what rests on the store."""

    settings: Settings

    @cached_property
    def warehouse(self) -> DuckWarehouse:
        return DuckWarehouse(_required(self.settings.warehouse))

    @cached_property
    def store(self) -> Store:
        return Store(_required(self.settings.store))

    @cached_property
    def catalog(self) -> Catalog:
        return Catalog(self.store)

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.store)

    @cached_property
    def notifier(self) -> Notifier:
        """Who is told what needs a person, once per event."""
        webhook = self.settings.slack_webhook
        channel = SlackNotifier(webhook.get_secret_value()) if webhook else LogNotifier()
        return OncePerEvent(channel, self.store.files)

    @property
    def home(self) -> Path:
        """The local folder of what is no version: built bentos, the running server, checkpoints of trainings."""
        return _required(self.settings.warehouse).parent

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
        found = {asset: self.catalog.months(asset) for asset in ASSETS}
        months = sorted({month for months in found.values() for month in months if month <= until})
        return {
            month: {asset: self.current(asset, month) for asset in ASSETS if month in found[asset]} for month in months
        }

    def ledger(self, until: str) -> Ledger:
        """All accepted months up to `until`, see `train_set.ledger_of`."""
        return ledger_of(self.store, self.in_force(until))


def _required(value: _T | None) -> _T:
    if value is None:
        raise NotConfiguredError("the settings are incomplete; take them from `environment.load`")
    return value
