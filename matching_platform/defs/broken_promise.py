"""A promise that was broken is answered: the model books less unattended at once, and where the champion did worse than the
model before it, that one comes back.

Everything is decided from what is stored, and nothing from an event: whatever is cut off is found again by the next look,
and what was done is not done again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from time import time
from typing import Final

import dagster as dg
import polars as pl

from matching_platform.defs.common import PlatformParam
from matching_platform.defs.pods import op_tags
from matching_platform.defs.releasing import OURSELVES, roll_back, way_back
from matching_platform.delivery.serving.place import RolloutError
from matching_platform.environment import PRODUCTION, Platform
from matching_platform.learning.yardstick import Difference, evaluate, paired_bootstrap
from matching_platform.ledger.months import month_of
from matching_platform.matching.matcher import Matcher, ModelError
from matching_platform.monitoring import realised
from matching_platform.monitoring.promise import Verdict, holds_from
from matching_platform.monitoring.realised import believed
from matching_platform.store.catalog import Current
from matching_platform.store.files import StoreError
from matching_platform.store.record import Record
from matching_platform.store.registry import MODELS, Promotion, RegistryError
from matching_platform.store.unattended import NEVER, Change
from matching_platform.store.versions import Version

ASSET: Final = "realised_quality"
BOOKINGS: Final = "bookings.parquet"
# Metadata: the models whose proposals a month's figures are about.
PROPOSED_BY: Final = "models"
COMPARISONS: Final = "comparisons"
AGAIN_SECONDS: Final = 3600


@dataclass(frozen=True)
class Evidence:
    """What is known about the unattended bookings of `model`: the current figures of the months in which it made some."""

    model: str
    current: dict[str, Current]

    @property
    def digest(self) -> str:
        """Another one with every tag that came late."""
        return _digest(self.current)

    def bookings(self, platform: Platform) -> pl.DataFrame:
        """A row a booking that can be judged: transfer_id, confidence, exact."""
        frames = [pl.read_parquet(platform.store.fetch(one.version) / BOOKINGS) for one in self.current.values()]
        rows = pl.concat([pl.DataFrame(schema=realised.BOOKINGS), *frames])
        return rows.filter(model=self.model).drop_nulls("exact").select("transfer_id", "confidence", "exact")


@dataclass(frozen=True)
class Found:
    """What a look at a model's bookings found, and in words."""

    model: str
    verdict: Verdict
    told: str


@dataclass(frozen=True)
class Compared:
    """The champion and the model before it on the same `transfers`; `exact` and `errors` are what the one before gains.

    `errors` is about transfers that were not booked wrongly. `booked` is how many the one before would have booked
    unattended, `still_booked` how many the champion would from the confidence that is in force for it now.
    """

    transfers: int
    exact: Difference
    errors: Difference
    booked: int
    still_booked: int

    @property
    def better(self) -> bool:
        """Whether the model before was better beyond chance in one of both, and worse in none.

        Fewer errors alone are no reason to go back to a model that books no more than the champion still does.
        """
        more_exact = self.exact.low > 0 and self.errors.high >= 0
        fewer_errors = self.errors.low > 0 and self.exact.high >= 0 and self.booked > self.still_booked
        return more_exact or fewer_errors

    @property
    def told(self) -> str:
        gains = ", ".join(
            f"{name} {gain.mean * 100:+.1f} points (95 % interval {gain.low * 100:+.1f} to {gain.high * 100:+.1f})"
            for name, gain in (("exact", self.exact), ("not booked wrongly", self.errors))
        )
        return f"on the same {self.transfers} transfers the model before was {'' if self.better else 'not '}better: {gains}"


@dataclass(frozen=True)
class Due:
    """A comparison that is to be made: the champion broke its promise, and there is a model before it."""

    champion: Promotion
    before: Version
    evidence: Evidence

    @property
    def asked(self) -> dict[str, str]:
        """What is compared, and by what."""
        return {"model": self.champion.model.name, "before": self.before.name, "evidence": self.evidence.digest}


def evidence(latest: Mapping[str, Current], model: str) -> Evidence:
    """What the `latest` figures of all months tell about a model."""
    return Evidence(model, {month: one for month, one in latest.items() if model in _models(one)})


def grow_careful(platform: Platform, known: Evidence) -> Found:
    """Judges what a model still books unattended; where the promise is broken, it books from a higher confidence at once.

    Only what lies above the threshold in force is judged: what was answered once is not answered again. What a person
    decided about the threshold stands until there is news.
    """
    model, bookings = known.model, known.bookings(platform)
    history = platform.unattended.history()
    last = next((change for change in reversed(history) if change.model == model), None)
    in_force = last.auto_from if last and last.auto_from else 0.0
    verdict, cut = _judged(platform, bookings.filter(pl.col("confidence") >= in_force))
    if not verdict.broken:
        return Found(model, verdict, verdict.told + _since(last))
    if last and last.actor != OURSELVES and all(one.since <= last.time for one in known.current.values()):
        return Found(model, verdict, f"{verdict.told}; that was known when its threshold was set on {last.signed}")
    reason = f"{verdict.told} ({', '.join(known.current)}); {_holds(cut)}"
    platform.unattended.book_from(model, cut, actor=OURSELVES, reason=reason)
    return Found(model, verdict, reason)


def due(platform: Platform) -> Due | None:
    """The comparison that the champion's broken promise asks for; None where there is none, or where it was made."""
    champion = platform.registry.champion()
    changes = platform.unattended.history()
    if champion is None or not any(one.model == champion.model.name and one.actor == OURSELVES for one in changes):
        return None
    before, known = _before(platform, champion), evidence(platform.catalog.latest(ASSET), champion.model.name)
    if before is None or not known.current:
        return None
    asked = Due(champion, before, known)
    made = (entry.payload["asked"] for entry in Record(platform.store, COMPARISONS).entries())
    return None if asked.asked in made else asked


def compare(platform: Platform, asked: Due) -> tuple[Compared, pl.DataFrame] | None:
    """Both models on all transfers that can be judged, of the months in which the champion broke its promise, and the
    outcomes of the model before; None where that one had learned from them.

    Each knows what was known before the month, and books from its own threshold, or the one in force for it before. What
    the champion did then it does again.
    """
    now, before = (Matcher.load(platform.store.fetch(model)) for model in (asked.champion.model, asked.before))
    months = [month for month in asked.evidence.current if month > max(m.card["trained_until"] for m in (now, before))]
    ledger = platform.ledger(platform.catalog.months("matches")[-1])
    booked = ledger.transfers.filter(month_of("booked_on").is_in(months)).select("transfer_id")
    tags = believed(ledger).join(booked, on="transfer_id", how="semi", maintain_order="left")
    if tags.is_empty():
        return None
    in_force, find = platform.unattended.permission().thresholds, platform.candidates(platform.warehouse)
    before = before.booking_from(in_force.get(asked.before.name, 0.0))
    mine, theirs = (
        evaluate(matcher.match(ledger, months, candidates=find), tags).outcomes for matcher in (now, before)
    )
    still = mine.filter("auto", pl.col("confidence") >= in_force.get(asked.champion.model.name, 0.0))
    compared = Compared(
        mine.height,
        paired_bootstrap(theirs, mine),
        paired_bootstrap(_not_wrongly(theirs), _not_wrongly(mine)),
        theirs.filter("auto").height,
        still.height,
    )
    return compared, theirs


@dg.op(
    description="Compares a champion that broke its promise with the model before it, and goes back where that was better.",
    tags=op_tags("proposals"),
)
def reconsider(context: dg.OpExecutionContext, platform: PlatformParam) -> None:
    asked = due(platform)
    if asked is None:
        context.log.info("no comparison is asked for any more")
        return
    try:
        told = _answered(platform, asked)
    except (ModelError, RolloutError, StoreError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.log.info(told)


@dg.job(
    name="reconsider_champion",
    description="What the sensor `broken_promise` asks for: was the model before better on the transfers that the champion "
    "booked wrongly? Then it is champion again, and serves.",
)
def reconsider_job() -> None:
    reconsider()


@dg.sensor(
    job_name=reconsider_job.name,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Unattended bookings were less precise than promised: the model books less, or the one before comes back.",
)
def broken_promise(context: dg.SensorEvaluationContext, platform: PlatformParam) -> dg.SensorResult:
    latest = platform.catalog.latest(ASSET)
    seen = f"{_digest(latest)}/{len(platform.unattended.history())}"
    # The asset has done this, unless it was cut off.
    if seen != context.cursor:
        for model in sorted({model for one in latest.values() for model in _models(one)}):
            grow_careful(platform, evidence(latest, model))
    asked = due(platform)
    if asked is None:
        return dg.SensorResult(skip_reason="there is no champion to reconsider", cursor=seen)
    # Where it fails, and is still due, it is tried again.
    key = "/".join([*asked.asked.values(), str(int(time() // AGAIN_SECONDS))])
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=key, tags={"dagster/user": OURSELVES})], cursor=seen)


def _answered(platform: Platform, asked: Due) -> str:
    """Makes the comparison, goes back where that is better, and notes both once all is done."""
    served = platform.releases(PRODUCTION).current()
    found = compare(platform, asked)
    told = (
        found[0].told if found else f"{asked.before.name} had learned from all these transfers, and is no judge of them"
    )
    if found and found[0].better:
        if platform.registry.champion() != asked.champion:
            return "the champion is another by now"
        _grow_careful_before(platform, asked.before.name, found[1])
        reason = f"its unattended bookings of {', '.join(asked.evidence.current)} broke the promise; {told}"
        number = served.number if served else None
        to = asked.before.name
        if roll_back(platform, actor=OURSELVES, reason=reason, to=to, instead_of=number) is None:
            return f"release {number} is no longer in force"
    Record(platform.store, COMPARISONS).append({"asked": asked.asked}, actor=OURSELVES, reason=told)
    return told


def _grow_careful_before(platform: Platform, model: str, outcomes: pl.DataFrame) -> None:
    """What the model before would have booked is out-of-sample, too: it comes back as careful as that demands."""
    verdict, cut = _judged(platform, outcomes.filter("auto"))
    if verdict.broken:
        reason = f"of what it would have booked, {verdict.told}; {_holds(cut)}"
        platform.unattended.book_from(model, cut, actor=OURSELVES, reason=reason)


def _judged(platform: Platform, bookings: pl.DataFrame) -> tuple[Verdict, float]:
    """The verdict on bookings (confidence, exact), and from where on they bore the promise out."""
    promised = platform.settings.promised_precision
    right = bookings["exact"].to_numpy()
    verdict = Verdict(int((~right).sum()), len(right), promised)
    return verdict, holds_from(bookings["confidence"].to_numpy(), right, promised) if verdict.broken else 0.0


def _before(platform: Platform, champion: Promotion) -> Version | None:
    """The model to which a rollback would lead: what served well in production, else the champion before."""
    served = way_back(platform) if platform.releases(PRODUCTION).current() else None
    if served and served.model != champion.model.name:
        return platform.store.find(MODELS, served.model)
    try:
        return platform.registry.earlier().model
    except RegistryError:
        return None


def _models(current: Current) -> list[str]:
    return [name for name in str(current.metadata.get(PROPOSED_BY, "")).split(", ") if name]


def _digest(latest: Mapping[str, Current]) -> str:
    told = {month: one.version.digest for month, one in latest.items()}
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _not_wrongly(outcomes: pl.DataFrame) -> pl.DataFrame:
    """The same where what is counted as exact is that nothing wrong was booked unattended."""
    return outcomes.with_columns(exact=pl.col("exact") | ~pl.col("auto"))


def _holds(cut: float) -> str:
    return "it holds from no confidence on" if cut >= NEVER else f"it holds from a confidence of {cut:.5f} on"


def _since(last: Change | None) -> str:
    return f", from the threshold of {last.signed} on" if last and last.auto_from else ""


defs = dg.Definitions(jobs=[reconsider_job], sensors=[broken_promise])
