"""News of the platform's records: who is champion, what serves in production, what may be booked unattended.

Another record that people hear of is one line of SOURCES: its name, and what makes messages of its new entries.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from matching_platform.defs import news
from matching_platform.defs.messages.events import report
from matching_platform.defs.messages.runs import Runs
from matching_platform.delivery.serving.releases import RECORD
from matching_platform.environment import PRODUCTION, Platform
from matching_platform.learning import examination
from matching_platform.learning.examination import Examined
from matching_platform.monitoring.notify import Message
from matching_platform.store import unattended
from matching_platform.store.files import StoreError
from matching_platform.store.record import Record
from matching_platform.store.registry import PROMOTIONS
from matching_platform.store.versions import Version


@dataclass(frozen=True)
class Records:
    """The records of a platform, and the runs that appended to them."""

    platform: Platform
    runs: Runs

    def ends(self) -> dict[str, int]:
        """The number of the last entry of each."""
        return {name: Record(self.platform.store, name).count() for name in SOURCES}

    def between(self, told: Mapping[str, int], upto: Mapping[str, int]) -> Iterator[Message | None]:
        """What the entries after some numbers say, up to others."""
        for name, source in SOURCES.items():
            if upto[name] > told[name]:
                yield from source(self, told[name], upto[name])

    def promotions(self, after: int, upto: int) -> Iterator[Message | None]:
        """Changes of champion, by the gate or by hand."""
        for one in self.platform.registry.history()[after:upto]:
            if one.action == "rollback":
                yield news.taken_back(one)
                continue
            read = report(self.platform.store.files.path(one.evaluation.folder), self.runs.ui)
            source = replace(self.runs.made_by("champion", one.model.name), report=read)
            yield news.promoted(one, self._examined(one.evaluation), source)

    def served(self, after: int, upto: int) -> Iterator[Message | None]:
        """What got the traffic of production."""
        for release in self.platform.releases(PRODUCTION).history()[after:upto]:
            yield news.served(release, self.runs.made_by("deployment", release.model))

    def unattended(self, after: int, upto: int) -> Iterator[Message]:
        """Freezes, their ends, and thresholds."""
        history = self.platform.unattended.history()
        for number in range(after, upto):
            yield news.unattended(history[number], history[:number])

    def _examined(self, evaluation: Version) -> Examined | None:
        """An evaluation; None where it cannot be read: a message without figures is better than none."""
        try:
            return examination.read(self.platform.store, evaluation)
        except (StoreError, OSError):
            return None


SOURCES: Final[Mapping[str, Callable[[Records, int, int], Iterator[Message | None]]]] = {
    PROMOTIONS: Records.promotions,
    f"{RECORD}/{PRODUCTION}": Records.served,
    unattended.RECORD: Records.unattended,
}
