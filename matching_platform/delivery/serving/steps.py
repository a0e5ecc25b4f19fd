"""How a new server gets the traffic: in which steps, and what ends each of them early."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, Field

from matching_platform.delivery.serving.figures import COUNTERS, Counts
from matching_platform.delivery.serving.front import Challenger

# Fewer latencies say nothing about the slow ones.
_ENOUGH: Final = 20

_NOTHING: Final = Counts(**dict.fromkeys(COUNTERS, 0), p50=None, p95=None, differences=())


@dataclass(frozen=True)
class Step:
    """So many seconds in which the challenger gets copies, or its share of the matchings."""

    name: str
    seconds: float
    share: float

    def challenger(self, address: str) -> Challenger:
        return Challenger(address, self.share, shadow=self.share == 0.0)


class Steps(BaseModel, frozen=True):
    """The steps from the old server to the new one, none of them by default, and their limits.

    Meanwhile the old server answers whatever the new one, the challenger, does not.
    """

    shadow_seconds: float = Field(
        default=0.0, ge=0, description="How long the challenger gets copies of live matchings"
    )
    shadow_differences: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="What share of their transfers it may answer otherwise; without it, that is only reported",
    )
    canary_share: float = Field(
        default=0.0, ge=0, lt=1, description="What share of the live matchings the challenger answers at first"
    )
    canary_seconds: float = Field(default=30.0, ge=0, description="For how long it does")
    watch_seconds: float = Field(
        default=0.0, ge=0, description="How long the old server stands by when the challenger answers all matchings"
    )
    error_rate: float = Field(default=0.01, ge=0, lt=1, description="What share the challenger may fail in each step")
    slower: float | None = Field(
        default=None, gt=0, description="How many times the old server's p95 the challenger's may be; without it, any"
    )

    def steps(self) -> Iterator[Step]:
        """Those that are taken, in order."""
        every = (
            Step("shadow", self.shadow_seconds, 0.0),
            Step("canary", self.canary_seconds if self.canary_share else 0.0, self.canary_share),
            Step("watch", self.watch_seconds, 1.0),
        )
        return (step for step in every if step.seconds)


AT_ONCE: Final = Steps()


@dataclass(frozen=True)
class Seen:
    """What was counted of the challenger in a step, beside the old server's latencies."""

    step: Step
    requests: int
    errors: int
    copies: int
    dropped: int
    compared: int
    different: int
    p95: float | None
    other_p95: float | None
    words: tuple[str, ...]

    def failing(self, limits: Steps) -> list[str]:
        """The limit on errors where it is passed: one failed request of few is enough, since nothing is lost by caution."""
        if self.errors > limits.error_rate * self.requests:
            return [f"{self.errors} of {self.requests} requests failed, and {limits.error_rate:.1%} may"]
        return []

    def problems(self, limits: Steps) -> list[str]:
        """All limits that are passed at the step's end, in words."""
        found = self.failing(limits)
        allowed, slower = limits.shadow_differences, limits.slower
        if allowed is not None and self.different > allowed * self.compared:
            told = "; ".join(self.words)
            found.append(
                f"{self.different} of {self.compared} transfers were answered otherwise, and {allowed:.1%} may: {told}"
            )
        if self.copies and not self.requests:
            found.append(f"none of {self.copies} copies was answered in time")
        if slower and self.p95 and self.other_p95 and self.p95 > slower * self.other_p95:
            figures = f"{self.p95 * 1000:.0f} ms, the old server's {self.other_p95 * 1000:.0f} ms"
            found.append(f"the p95 is {figures}, and {slower:g} times that is the limit")
        return found

    def __str__(self) -> str:
        told = f"{self.step.name}: {self.requests} requests, {self.errors} failed"
        if self.compared:
            told += f", {self.different} of {self.compared} transfers answered otherwise"
        if self.dropped:
            told += f", {self.dropped} copies dropped"
        if self.p95 and self.other_p95:
            told += f", p95 {self.p95 * 1000:.0f} ms beside {self.other_p95 * 1000:.0f} ms"
        return told


def seen(step: Step, before: Counts | None, after: Counts | None, other: Counts | None) -> Seen:
    """What happened in a step: `before` and `after` it the challenger's counts, and `other` the old server's."""
    before, after, other = before or _NOTHING, after or _NOTHING, other or _NOTHING
    if after.requests < before.requests:  # The front was started anew meanwhile.
        before = _NOTHING
    enough = min(after.requests, other.requests) >= _ENOUGH
    return Seen(
        step=step,
        **{name: getattr(after, name) - getattr(before, name) for name in COUNTERS},
        p95=after.p95 if enough else None,
        other_p95=other.p95 if enough else None,
        words=after.differences,
    )
