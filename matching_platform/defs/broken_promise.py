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
from matching_platform.delivery.serving.place import CandidateError, RolloutError
from matching_platform.environment import PRODUCTION, Platform
from matching_platform.learning.yardstick import Difference, evaluate, paired_bootstrap
from matching_platform.ledger.months import month_of
from matching_platform.matching.matcher import Matcher, ModelError
from matching_platform.monitoring import realised
from matching_platform.monitoring.promise import Verdict, holds_from
from matching_platform.monitoring.realised import believed, tagged_alike
from matching_platform.store.catalog import Current
from matching_platform.store.files import StoreError
from matching_platform.store.record import LostRaceError, Record
from matching_platform.store.registry import MODELS, Promotion, RegistryError
from matching_platform.store.unattended import NEVER, Change
from matching_platform.store.versions import Version

ASSET: Final = "realised_quality"
BOOKINGS: Final = "bookings.parquet"
# Metadata: the models whose proposals a month's figures are about.
PROPOSED_BY: Final = "models"
COMPARISONS: Final = "comparisons"
# What keeps a comparison from being made may pass by itself: it is tried every hour, so often at most.
AGAIN_SECONDS: Final = 3600
ATTEMPTS: Final = 24


@dataclass(frozen=True)
class Evidence:
    """What is known about the unattended bookings of `model`: the current figures of the months in which it made some."""

    model: str
    current: dict[str, Current]

    def bookings(self, platform: Platform) -> pl.DataFrame:
        """A row a booking that can be judged: transfer_id, confidence, exact.

        Where people tag hardly any booking but those that they correct, what nobody objected to counts as right. Otherwise
        one correction at the desk would be all that is known about thousands of bookings. Whoever keeps the promise is
        accused no more often by that: there are no more corrections than errors.
        """
        frames = [_judgeable(platform, one) for one in self.current.values()]
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
    """The champion and the model before it on the same `transfers`; `exact` and `booked` are what the one before gains.

    `booked` is about transfers that are booked unattended: by the champion from the confidence that is in force for it
    now, by the one before from its own or, where these very transfers speak against that, from where on they bear it out.
    """

    transfers: int
    exact: Difference
    booked: Difference

    @property
    def better(self) -> bool:
        """Whether the model before is more exact beyond chance, or books more beyond chance and is not less exact.

        Wrong bookings need no comparison: both are held to the promise, the champion since its threshold was raised, and
        the one before since it comes back with a higher one where these transfers speak against its own. Who errs less only
        because he books less is no better than a champion that grew careful.
        """
        return self.exact.low > 0 or (self.booked.low > 0 and self.exact.high >= 0)

    @property
    def told(self) -> str:
        gains = ", ".join(
            f"{name} {gain.mean * 100:+.1f} points (95 % interval {gain.low * 100:+.1f} to {gain.high * 100:+.1f})"
            for name, gain in (("exact", self.exact), ("booked unattended", self.booked))
        )
        return f"on the same {self.transfers} transfers the model before was {'' if self.better else 'not '}better: {gains}"


@dataclass(frozen=True)
class Due:
    """A comparison that is to be made: the champion's threshold was `raised`, and there is a model before it."""

    champion: Promotion
    before: Version
    evidence: Evidence
    raised: Change

    @property
    def asked(self) -> dict[str, str]:
        """What is compared, and why: once for each broken promise, since asked often enough chance says yes."""
        return {"model": self.champion.model.name, "before": self.before.name, "raised": str(self.raised.number)}


def _judgeable(platform: Platform, one: Current) -> pl.DataFrame:
    bookings = pl.read_parquet(platform.store.fetch(one.version) / BOOKINGS)
    return bookings if tagged_alike(one.metadata) else bookings.with_columns(pl.col("exact").fill_null(value=True))


def evidence(latest: Mapping[str, Current], model: str) -> Evidence:
    """What the `latest` figures of all months tell about a model."""
    return Evidence(model, {month: one for month, one in latest.items() if model in _models(one)})


def grow_careful(platform: Platform, known: Evidence) -> Found:
    """Judges what a model still books unattended; where the promise is broken, it books from a higher confidence at once.

    Only what lies above the threshold in force is judged: what was answered once is not answered again. What a person
    decided about the threshold stands until there is news.
    """
    model, bookings = known.model, known.bookings(platform)
    last = _last_change(platform, model)
    in_force = last.auto_from if last and last.auto_from else 0.0
    bookings = bookings.filter(pl.col("confidence") >= in_force)
    verdict = _judged(platform, bookings)
    if not verdict.broken:
        return Found(model, verdict, verdict.told + _since(last))
    if last and last.actor != OURSELVES and all(one.since <= last.time for one in known.current.values()):
        return Found(model, verdict, f"{verdict.told}; that was known when its threshold was set on {last.signed}")
    cut = _holds_from(platform, bookings)
    reason = f"{verdict.told} ({', '.join(known.current)}); {_holds(cut)}"
    platform.unattended.book_from(model, cut, actor=OURSELVES, reason=reason)
    return Found(model, verdict, reason)


def due(platform: Platform) -> Due | None:
    """The comparison that the champion's broken promise asks for; None where there is none, or where it was answered.

    The promise is broken where the platform raised the threshold since this champion is in force, and no person has
    decided about it afterwards.
    """
    champion = platform.registry.champion()
    raised = _last_change(platform, champion.model.name) if champion else None
    if champion is None or raised is None or raised.auto_from is None or raised.actor != OURSELVES:
        return None
    before, known = _before(platform, champion), evidence(platform.catalog.latest(ASSET), champion.model.name)
    if raised.time < champion.time or before is None or not known.current:
        return None
    asked = Due(champion, before, known, raised)
    return None if any(_tried(platform, asked)) else asked


def compare(platform: Platform, asked: Due) -> tuple[Compared, pl.DataFrame] | None:
    """Both models on all transfers that can be judged, of the months in which the champion broke its promise, and the
    outcomes of the model before; None where that one had learned from them.

    Each knows what was known before the month, and books from its own threshold. What the champion did then it does again.
    """
    now, before = (Matcher.load(platform.store.fetch(model)) for model in (asked.champion.model, asked.before))
    months = [month for month in asked.evidence.current if month > max(m.card["trained_until"] for m in (now, before))]
    ledger = platform.ledger(platform.catalog.months("matches")[-1])
    booked = ledger.transfers.filter(month_of("booked_on").is_in(months)).select("transfer_id")
    tags = believed(ledger).join(booked, on="transfer_id", how="semi", maintain_order="left")
    if tags.is_empty():
        return None
    in_force, find = platform.unattended.permission().thresholds, platform.candidates(platform.warehouse)
    mine, theirs = (
        evaluate(matcher.match(ledger, months, candidates=find), tags).outcomes for matcher in (now, before)
    )
    careful = max(in_force.get(asked.before.name, 0.0), _holds_from(platform, theirs.filter("auto")))
    still = in_force.get(asked.champion.model.name, 0.0)
    more = paired_bootstrap(_booked(theirs, careful), _booked(mine, still))
    return Compared(mine.height, paired_bootstrap(theirs, mine), more), theirs


@dg.op(
    description="Compares a champion that broke its promise with the model before it, and goes back where that was better.",
    tags=op_tags("proposals"),
)
def reconsider(context: dg.OpExecutionContext, platform: PlatformParam) -> None:
    try:
        asked = due(platform)
        context.log.info(_reconsidered(platform, asked) if asked else "no comparison is asked for any more")
    except StoreError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


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


def _reconsidered(platform: Platform, asked: Due) -> str:
    """Answers what was asked; a Failure where that cannot be done, noted so that nothing is tried for ever."""
    try:
        return _answered(platform, asked)
    except LostRaceError as error:
        return f"somebody changed the champion meanwhile, and has the last word: {error}"
    except (ModelError, CandidateError) as error:
        raise dg.Failure(_note(platform, asked, str(error)), allow_retries=False) from error
    except (RolloutError, StoreError) as error:
        told, last = str(error), len(_tried(platform, asked)) + 1 >= ATTEMPTS
        if last:
            told = f"{told}; given up after {ATTEMPTS} attempts: see `matching-platform models rollback`"
        raise dg.Failure(_note(platform, asked, told, answered=last), allow_retries=False) from error


def _tried(platform: Platform, asked: Due) -> list[bool]:
    """For each attempt to answer what is asked, whether that settled it."""
    noted = (entry.payload for entry in Record(platform.store, COMPARISONS).entries())
    return [one["answered"] for one in noted if one["asked"] == asked.asked]


def _note(platform: Platform, asked: Due, told: str, *, answered: bool = True) -> str:
    """Notes what came of an attempt."""
    payload = {"asked": asked.asked, "answered": answered}
    Record(platform.store, COMPARISONS).append(payload, actor=OURSELVES, reason=told)
    return told


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
        rolled = roll_back(
            platform,
            actor=OURSELVES,
            reason=reason,
            to=asked.before.name,
            instead_of=number,
            expected_last=asked.champion.number,
        )
        if rolled is None:
            return f"release {number} is no longer in force"
    return _note(platform, asked, told)


def _grow_careful_before(platform: Platform, model: str, outcomes: pl.DataFrame) -> None:
    """What the model before would have booked is out-of-sample, too: where that speaks against it, it books less again.

    Unlike a model in force it need not be accused: it comes back after an error, and must be no other.
    """
    bookings = outcomes.filter("auto")
    cut = _holds_from(platform, bookings)
    if cut:
        reason = f"comes back; of what it would have booked, {_judged(platform, bookings).told}; {_holds(cut)}"
        platform.unattended.book_from(model, cut, actor=OURSELVES, reason=reason)


def _judged(platform: Platform, bookings: pl.DataFrame) -> Verdict:
    """The verdict on bookings (confidence, exact)."""
    return Verdict(int((~bookings["exact"]).sum()), bookings.height, platform.settings.promised_precision)


def _holds_from(platform: Platform, bookings: pl.DataFrame) -> float:
    """From where on bookings (confidence, exact) bore the promise out; 0 where they do not speak against it."""
    if not _judged(platform, bookings).doubtful:
        return 0.0
    confidence, exact = bookings["confidence"].to_numpy(), bookings["exact"].to_numpy()
    return holds_from(confidence, exact, platform.settings.promised_precision)


def _last_change(platform: Platform, model: str) -> Change | None:
    """Who decided last from where on a model books."""
    return next((change for change in reversed(platform.unattended.history()) if change.model == model), None)


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


def _booked(outcomes: pl.DataFrame, auto_from: float) -> pl.DataFrame:
    """The same where what is counted as exact is that it is booked unattended from this confidence on."""
    return outcomes.with_columns(exact=pl.col("auto") & (pl.col("confidence") >= auto_from))


def _holds(cut: float) -> str:
    return "it holds from no confidence on" if cut >= NEVER else f"it holds from a confidence of {cut:.5f} on"


def _since(last: Change | None) -> str:
    return f", from the threshold of {last.signed} on" if last and last.auto_from else ""


defs = dg.Definitions(jobs=[reconsider_job], sensors=[broken_promise])
