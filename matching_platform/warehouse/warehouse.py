"""What the platform asks of a warehouse, whichever it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import polars as pl

from matching_platform.matching.candidates import Pairs, Question


class WarehouseError(RuntimeError):
    """The warehouse cannot be used; the message says what to do."""


class HeldError(WarehouseError):
    """A row with the same key is there already; nothing was added."""


class Warehouse(Protocol):
    """Raw tables in, results out; `table` is 'invoices', 'transfers' or 'matches', or the name of a table of results."""

    def charged_to(self, run: str, step: str) -> "Warehouse":
        """This warehouse for one step of a Dagster run, whose queries are labelled and summed."""

    def costs(self) -> dict[str, float]:
        """What the queries of the step came to, for its metadata; empty where queries cost nothing."""

    def months(self) -> dict[str, dict[str, str]]:
        """The fingerprint of each month of the raw tables, by table: it changes when a row does, and begins with the number
        of rows and a '-'. One cheap query."""

    def read_month(self, table: str, month: str) -> pl.DataFrame:
        """The raw rows of `month` as they came."""

    def taken(self, table: str, month: str) -> pl.Series:
        """The keys of the raw rows of `month` that an earlier month of `table` has already."""

    def unknown_invoices(self, month: str) -> pl.Series:
        """The invoice ids that the raw matches of `month` name and no raw invoice has."""

    def load_folder(self, folder: Path) -> None:
        """Replaces every month found in a folder of the three raw tables."""

    def write_months(self, table: str, frames: Mapping[str, pl.DataFrame]) -> None:
        """Replaces months of a raw table, each as a whole; without any, there is at least the table."""

    def rows_with(self, table: str, keys: pl.Series) -> pl.DataFrame:
        """The raw rows of any month that have one of these keys; none where there is no such table yet."""

    def add_rows(self, table: str, frame: pl.DataFrame) -> None:
        """Adds rows to the months of their dates, all of them or none, and makes the raw tables that are not there.

        `frame` has the contract's columns and types at the edges. HeldError where a key of it is there already.
        """

    def publish(self, table: str, month: str, frame: pl.DataFrame) -> None:
        """Replaces `month` of a table of results by `frame` (see `tables.PUBLISHED`), as a whole."""

    @property
    def append_pause(self) -> float:
        """Seconds to leave between one `append` and the next, so that no quota is used up."""

    def append(self, table: str, frame: pl.DataFrame, after: int) -> None:
        """Adds rows to a table that only grows (see `tables.APPENDED`), all of them or none.

        `after` is the last number that the table has; all of `frame` are above it. Where somebody appended since, nothing
        happens.
        """

    def last_appended(self, table: str) -> int:
        """The last number in such a table; 0 where it is not there yet."""

    def appended(self, table: str) -> dict[str, str]:
        """The fingerprint of each month of such a table: it changes when rows are added."""

    def read_appended(self, table: str, month: str) -> pl.DataFrame:
        """The rows of `month` in their order; none where the table is not there yet."""

    def candidates(self, question: Question) -> Pairs:
        """The candidate pairs of a question, joined by the warehouse."""
