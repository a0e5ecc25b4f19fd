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
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from matching_platform.store.record import LostRaceError, Record
from matching_platform.warehouse.warehouse import WarehouseError

# What BigQuery bills for a table that a query reads, at least.
LEAST_BILLED: Final = 10 * 2**20
USD_PER_TIB: Final = 6.25  # on demand, list price of most regions
RETRY_SECONDS: Final = 2.0  # before a job is run again, about, and doubling
_PASSING: Final = ("rateLimitExceeded", "backendError", "internalError")
_AGAIN: Final = "BigQuery could not be reached or is overloaded; run it again"
_BY_REASON: Final = {
    "bytesBilledLimitExceeded": "nothing was read. Raise MATCHING_PLATFORM_QUERY_LIMIT if that is what it takes",
    "quotaExceeded": "a quota of the project is used up; wait, or raise it in the console",
    "rateLimitExceeded": "too much was asked at once; run it again, with fewer months side by side",
}
_BY_KIND: Final[Mapping[type[Exception], str]] = {
    api.Forbidden: "give the account of this process the roles that README.md lists",
    api.NotFound: "make it, or name another in the settings that README.md lists",
    api.ServerError: _AGAIN,
    api.TooManyRequests: _AGAIN,
    api.GoogleAPICallError: "nothing was changed",
}
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
        return self._last()[1]

    def take(self, size: int, what: str) -> None:
        """Sets `size` bytes aside for a query; BudgetError where they are not left."""
        while True:
            number, total = self._last()
            left = self._limit - total
            if size > left:
                raise BudgetError(
                    f"{what} would read {shown(size)}, and of the run's budget of {shown(self._limit)} "
                    f"{shown(max(0, left))} are left; nothing was read. Raise MATCHING_PLATFORM_RUN_BUDGET, "
                    "or materialize fewer months at once"
                )
            if self._add(number, total, size, what):
                return

    def settle(self, size: int, what: str) -> None:
        """Corrects what was set aside by `size` bytes, to what was billed in the end; this is never refused."""
        while size and not self._add(*self._last(), size, what):
            continue

    def _last(self) -> tuple[int, int]:
        last = self._record.last()
        return (last.number, last.payload["total"]) if last else (0, 0)

    def _add(self, number: int, total: int, size: int, what: str) -> bool:
        try:
            self._record.append({"bytes": size, "total": total + size, "for": what}, expected_last=number)
        except LostRaceError:
            return False
        return True


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
            config = bigquery.QueryJobConfig(maximum_bytes_billed=self._limit, labels=self.labels)
            job = self.client.query(sql, job_config=config, timeout=SECONDS)
            # Where the answer is lost, the query may run on, and what was set aside for it stays so.
            job.result(max_results=0)
            billed = job.total_bytes_billed or 0
            self.billed += billed
            if self.budget:
                self.budget.settle(billed - estimate, what)
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
    except api.GoogleAPICallError as error:
        advice = _BY_REASON.get(reason_of(error)) or next(
            advice for kind, advice in _BY_KIND.items() if isinstance(error, kind)
        )
        raise _told(what, error, advice) from error
    except google.auth.exceptions.TransportError as error:
        raise _told(what, error, _AGAIN) from error
    except google.auth.exceptions.GoogleAuthError as error:
        raise _told(
            what, error, "log in with `gcloud auth application-default login`, or bind a service account"
        ) from error
    except (api.RetryError, requests.RequestException) as error:
        raise _told(what, error, _AGAIN) from error


def insistent() -> Retrying:
    """Runs a job again, at growing intervals, that may run twice and failed for what passes."""
    return Retrying(
        retry=retry_if_exception(_passes),
        wait=wait_random_exponential(multiplier=RETRY_SECONDS, max=60),
        stop=stop_after_attempt(4),
        reraise=True,
    )


def reason_of(error: api.GoogleAPICallError) -> str:
    """BigQuery's own word for what went wrong, such as 'rateLimitExceeded'; '' where it gave none."""
    return next((one["reason"] for one in error.errors if isinstance(one, dict) and one.get("reason")), "")


def _passes(error: BaseException) -> bool:
    if not isinstance(error, api.GoogleAPICallError):
        return isinstance(error, requests.ConnectionError | requests.Timeout)
    return isinstance(error, api.ServerError | api.TooManyRequests) or reason_of(error) in _PASSING


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
