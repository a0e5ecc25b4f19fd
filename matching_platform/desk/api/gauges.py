"""How the desk stands, asked anew each time that Prometheus does."""

from collections import Counter
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from starlette.datastructures import State

from matching_platform.access import Access
from matching_platform.access.log import Event
from matching_platform.access.tables import AUDIT
from matching_platform.desk.review import Review
from matching_platform.review.decisions import Action

REFUSALS: Final = (
    Event.LOGIN_REFUSED,
    Event.LOGIN_DELAYED,
    Event.LINK_REFUSED,
    Event.PROXY_REFUSED,
    Event.TOKEN_REFUSED,
    Event.REFUSED,
)
_AT_ONCE: Final = 5000
_MONTHS: Final = 12


class Gauges(Collector):
    """What waits, what was decided, and who was refused, from the desk's own records."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._counting, self._last, self._actions = Lock(), 0, Counter[str]()

    def describe(self) -> Iterable[Metric]:
        """Nothing: the database is not asked before somebody wants to know."""
        return ()

    def collect(self) -> Iterable[Metric]:
        review: Review = self._state.review
        access: Access = self._state.access
        backlog = review.outbox.backlog()
        known = {table: count for table, count in backlog.items() if count is not None}
        answers = GaugeMetricFamily("desk_warehouse_answers", "Whether the warehouse says what it has")
        answers.add_metric((), len(known) == len(backlog))
        yield answers
        agrees = not review.outbox.refusal
        yield GaugeMetricFamily("desk_warehouse_agrees", "Whether the warehouse holds nothing that is not ours", agrees)
        yield _gauge("desk_outbox_entries", "Entries that the warehouse lacks", "table", known)
        yield GaugeMetricFamily("desk_champion_ready", "Whether a champion proposes anew here", review.is_ready)
        backlog_anew = review.proposer.backlog
        yield GaugeMetricFamily("desk_proposing_transfers", "Transfers that are to be proposed anew", backlog_anew)
        waiting = {month: review.summary(month).waiting for month in review.months()[-_MONTHS:]}
        yield _gauge("desk_waiting_transfers", "Transfers that wait for a person", "month", waiting)
        yield _counter("desk_decisions", "Decisions, by what was done", "action", Action, self._decided(review))
        yield _counter("desk_refusals", "Refusals, once an hour each", "event", REFUSALS, _refused(access))

    def _decided(self, review: Review) -> Mapping[str, int]:
        """All decisions ever made, of which only the newest are read."""
        with self._counting:
            while made := review.decisions_after(self._last, _AT_ONCE):
                self._actions.update(decision.action.value for decision in made)
                self._last = made[-1].number
            return Counter(self._actions)


def _refused(access: Access) -> Mapping[str, int]:
    """What the audit log holds of refusals."""
    action = AUDIT.c.action
    counts = select(action, func.count().label("times")).where(action.in_(REFUSALS)).group_by(action)
    with access.engine.connect() as connection:
        return {row.action: row.times for row in connection.execute(counts)}


def _gauge(name: str, about: str, label: str, values: Mapping[str, int]) -> Metric:
    metric = GaugeMetricFamily(name, about, labels=[label])
    for key, value in values.items():
        metric.add_metric([key], value)
    return metric


def _counter(name: str, about: str, label: str, keys: Iterable[str], counts: Mapping[str, int]) -> Metric:
    # A rate needs the zero before the first.
    metric = CounterMetricFamily(name, about, labels=[label])
    for key in keys:
        metric.add_metric([key], counts.get(key, 0))
    return metric
