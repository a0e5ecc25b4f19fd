"""Queries of BigQuery, each with a label, a limit and a place in its run's budget, and their answers as Arrow."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import google.auth.exceptions
import pyarrow as pa
import requests
from google.api_core import exceptions as api
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient

from matching_platform.store.record import LostRaceError, Record
from matching_platform.warehouse.warehouse import WarehouseError

# What BigQuery bills for a table that a query reads, at least.
LEAST_BILLED: Final = 10 * 2**20
USD_PER_TIB: Final = 6.25  # on demand, list price of most regions
_TRANSIENT: Final = (
    api.ServerError,
    api.TooManyRequests,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    google.auth.exceptions.TransportError,
)
SECONDS: Final = 60.0  # for one answer of the API; the job that it tells of may run much longer
_LABEL: Final = 63  # characters of a label's value


class BudgetError(WarehouseError):
    """A query would cost more than was allowed; nothing was run."""


class Budget:
    """What a run may still be billed, in bytes, shared by all its steps, wherever they run, through a record.

    Each entry carries the sum so far, so that of two steps that ask at the same moment one sees the other's.
    """

    def __init__(self, record: Record, limit: int) -> None:
        self._record, self._limit = record, limit

    @property
    def spent(self) -> int:
        """Bytes billed or set aside so far."""
        last = self._record.last()
        return last.payload["total"] if last else 0

    def take(self, size: int, what: str) -> None:
        """Sets `size` bytes aside for a query, or gives back where it is negative; BudgetError where they are not left."""
        while True:
            last = self._record.last()
            number, total = (last.number, last.payload["total"] + size) if last else (0, size)
            if size > 0 and total > self._limit:
                raise BudgetError(
                    f"{what} would read {shown(size)}, and of the run's budget of {shown(self._limit)} "
                    f"{shown(self._limit - total + size)} are left; nothing was read. Raise MATCHING_PLATFORM_RUN_BUDGET, "
                    "or materialize fewer months at once"
                )
            try:
                self._record.append({"bytes": size, "total": total, "for": what}, expected_last=number)
            except LostRaceError:
                continue
            return


class Queries:
    """Runs queries for one step; `billed` is the sum of bytes of its own."""

    def __init__(
        self,
        client: bigquery.Client,
        reader: BigQueryReadClient,
        limit: int,
        labels: Mapping[str, str],
        budget: Budget | None = None,
    ) -> None:
        self.client, self._reader, self._limit, self.budget = client, reader, limit, budget
        self.labels = {name: _label(value) for name, value in labels.items()}
        self.billed = 0

    def batches(self, sql: str, what: str) -> Iterator[pa.RecordBatch]:
        """The answer in batches, as they arrive over the Storage Read API; `what` the query does is told in errors."""
        job = self.run(sql, what)
        with explained(what):
            rows = job.result(timeout=SECONDS)
            yield from rows.to_arrow_iterable(bqstorage_client=self._reader, max_queue_size=1)

    def run(self, sql: str, what: str) -> bigquery.QueryJob:
        """Runs a query to its end. BudgetError before it costs more than the limit of a query, or the run has left."""
        with explained(what):
            estimate = self._estimate(sql)
            if estimate > self._limit:
                raise BudgetError(
                    f"{what} would read {shown(estimate)}, more than the {shown(self._limit)} that one query may; nothing "
                    "was read. Raise MATCHING_PLATFORM_QUERY_LIMIT if that is what it takes"
                )
            if self.budget:
                self.budget.take(estimate, what)
            billed = 0
            try:
                config = bigquery.QueryJobConfig(maximum_bytes_billed=self._limit, labels=self.labels)
                job = self.client.query(sql, job_config=config, timeout=SECONDS)
                job.result(max_results=0)
                billed = job.total_bytes_billed or 0
            finally:
                self.billed += billed
                if self.budget and billed != estimate:
                    self.budget.take(billed - estimate, what)
        return job

    def _estimate(self, sql: str) -> int:
        """What the query will be billed, in bytes: without running it, and for nothing."""
        config = bigquery.QueryJobConfig(dry_run=True, use_query_cache=False, labels=self.labels)
        job = self.client.query(sql, job_config=config, timeout=SECONDS)
        return max(job.total_bytes_processed or 0, LEAST_BILLED * len(job.referenced_tables))


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Errors of the API as one WarehouseError: what failed, why, and what to do next."""
    try:
        yield
    except api.Forbidden as error:
        raise _told(what, error, "give the account of this process the roles that README.md lists") from error
    except api.NotFound as error:
        raise _told(what, error, "see `matching-platform doctor`") from error
    except (google.auth.exceptions.DefaultCredentialsError, google.auth.exceptions.RefreshError) as error:
        raise _told(
            what, error, "log in with `gcloud auth application-default login`, or bind a service account"
        ) from error
    except (api.RetryError, *_TRANSIENT) as error:
        raise _told(what, error, "BigQuery could not be reached or is overloaded; run it again") from error
    except api.GoogleAPICallError as error:
        raise _told(what, error, "nothing was changed") from error


def shown(size: int) -> str:
    """Bytes as people read them."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.4g} {units[0]}"


def _told(what: str, error: Exception, advice: str) -> WarehouseError:
    # What the API said, without the address that it was said to.
    details = [one["message"] for one in getattr(error, "errors", []) if isinstance(one, dict) and one.get("message")]
    reason = details[0] if details else str(error) or type(error).__name__
    return WarehouseError(f"{what} failed: {reason.splitlines()[0].strip().rstrip('.')}; {advice}")


def _label(value: str) -> str:
    """As BigQuery wants labels: lower case, digits, '_' and '-'."""
    kept = (char if char.isalnum() or char in "_-" else "-" for char in value.lower())
    return "".join(kept)[:_LABEL]
