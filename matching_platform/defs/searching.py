"""Where quality misses its bar: settings are searched once for the train set, and only then people are told."""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

import dagster as dg
import polars as pl

from matching_platform.defs import gate
from matching_platform.defs.automation import search_job
from matching_platform.defs.common import PlatformParam
from matching_platform.environment import Platform
from matching_platform.learning.code import version_of
from matching_platform.learning.examination import Examined
from matching_platform.learning.settings import settings_of
from matching_platform.learning.training import TooLittleError, TrainingSettings
from matching_platform.learning.tuning import SPACE, Budget, search
from matching_platform.ledger.reading import Ledger
from matching_platform.monitoring.notify import Message
from matching_platform.store.record import LostRaceError, Record
from matching_platform.store.versions import Version

# Part of what a model, or a search, is known by: other code makes another model of the same data and settings.
TRAINING: Final = version_of()
RECORD: Final = "searches"
TABLE: Final = "search_trials"
# The metadata of a model that names the settings somebody asked for. It is judged as it is: nothing is searched instead.
ASKED_FOR: Final = "asked for"

# A run whose process was killed is asked for again, but not for ever.
ATTEMPTS: Final = 3
_TRAIN_SET: Final = "matching_platform/searched_train_set"


@dataclass(frozen=True)
class Outcome:
    """What a search came to: the fields of the better settings, none where the defaults stay, that in words, and the
    table of its trials, where there were any."""

    settings: Mapping[str, Any]
    told: str
    trials: Version | None


def outcome(platform: Platform, learned: Version) -> Outcome | None:
    """What was found for a train set; None where nothing was searched."""
    last = _record(platform, learned).last()
    if last is None or last.payload["code"] != TRAINING:
        return None
    trials = last.payload["trials"]
    return Outcome(last.payload["settings"], last.reason, Version(**trials) if trials else None)


def settings_for(platform: Platform, learned: Version, asked: Mapping[str, Any] | None = None) -> TrainingSettings:
    """The settings with which a model learns from a train set: what is asked for, else what a search found for it, else
    the defaults. TrainingSettingsError where what is asked for is none."""
    found = outcome(platform, learned)
    promised = {"promised_precision": platform.settings.promised_precision}
    return settings_of({**promised, **(found.settings if found else {}), **(asked or {})})


def search_once(
    context: dg.AssetExecutionContext,
    platform: Platform,
    learned: Version,
    examples: Mapping[str, pl.DataFrame],
    ledger: Ledger,
) -> None:
    """Searches settings for a train set and records what came of it, unless that was done before.

    `examples` and `ledger` are what its model learns from. A killed search goes on where it was.
    """
    if outcome(platform, learned):
        context.log.info("settings for %s were searched before", learned)
        return
    before = _record(platform, learned).count()
    folder = platform.home / RECORD / learned.name
    given = settings_for(platform, learned)
    budget = Budget(platform.settings.search_trials, platform.settings.search_minutes)

    def log(step: str, share: float) -> None:
        if step == "search":
            context.log.info("search of settings: %.0f %%", share * 100)

    try:
        found = search(examples, ledger, given, budget, folder, log)
    except TooLittleError as error:
        _note(platform, learned, before, Outcome({}, f"no search was possible: {error}", None))
        return
    trials = platform.store.put_frame(TABLE, found.trials)
    better = {name: getattr(found.best, name) for name in SPACE} if found.best != given else {}
    better_by = f"better settings, {found.score:.4f} instead of {found.given_score:.4f}"
    nothing = f"nothing better than the defaults, {found.given_score:.4f}"
    told = f"a search of {found.trials.height} trials found {better_by if better else nothing}"
    _note(platform, learned, before, Outcome(better, told, trials))
    shutil.rmtree(folder)


@dg.sensor(
    job=search_job,
    description="The newest model misses the bar of quality: its settings are searched once; where that did not help, "
    "or did not come to an end, people are told.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=60,
)
def missed_quality(context: dg.SensorEvaluationContext, platform: PlatformParam) -> dg.RunRequest | dg.SkipReason:
    asked = gate.newest(platform)
    if asked is None or _missed(asked.examined) is None:
        return dg.SkipReason("no model that was evaluated last misses the bar of quality")
    examined = asked.examined
    if platform.current("train_set", examined.month) != examined.train_set:
        return dg.SkipReason("the train set was replaced, and its model is not evaluated yet")
    if asked_for := _asked_for(platform, examined):
        return _tell(context, platform, examined, f"it learned with settings that were asked for: {asked_for}")
    found = outcome(platform, examined.train_set)
    if found and _learned_with(platform, examined.model) == asdict(settings_for(platform, examined.train_set)):
        return _tell(context, platform, examined, found.told)
    tags = {_TRAIN_SET: examined.train_set.name}
    runs = context.instance.get_runs(dg.RunsFilter(job_name=search_job.name, tags=tags))
    if any(not run.is_finished for run in runs):
        return dg.SkipReason("its settings are being searched")
    if len(runs) < ATTEMPTS:
        key = f"{examined.train_set.name} {len(runs)}"
        return dg.RunRequest(run_key=key, partition_key=examined.month, tags=tags)
    last = runs[0].run_id
    return _tell(context, platform, examined, f"{ATTEMPTS} searches of settings came to no end; see run {last}")


def _missed(examined: Examined) -> str | None:
    """Why quality misses its bar; None where it does not."""
    return next((one.reason for one in examined.verdicts if one.check == "quality" and not one.passed), None)


def _asked_for(platform: Platform, examined: Examined) -> str:
    """The settings that somebody asked this model to learn with; '' where nobody did."""
    made = platform.catalog.get("model", examined.month)
    return str(made.metadata.get(ASKED_FOR, "")) if made and made.version == examined.model else ""


def _learned_with(platform: Platform, model: Version) -> dict[str, Any]:
    card = json.loads((platform.store.fetch(model) / "card.json").read_text(encoding="utf-8"))
    return dict(card["settings"])


def _tell(context: dg.SensorEvaluationContext, platform: Platform, examined: Examined, after: str) -> dg.SkipReason:
    """Tells people, once for a model; what could not be delivered is tried again at the next tick."""
    key = f"quality/{examined.month}/{examined.model.name}"
    text = f"The model of {examined.month} misses the bar of quality: {_missed(examined)}; {after}. It is not promoted."
    if context.cursor != key:
        context.log.error(text)
        if platform.notifier.notify(Message(key, text)):
            context.update_cursor(key)
    return dg.SkipReason(text)


def _note(platform: Platform, learned: Version, before: int, found: Outcome) -> None:
    payload = {"settings": dict(found.settings), "trials": found.trials and asdict(found.trials), "code": TRAINING}
    # Where another run searched the same train set at the same time, the outcome that came first counts.
    with suppress(LostRaceError):
        _record(platform, learned).append(payload, before, reason=found.told)


def _record(platform: Platform, learned: Version) -> Record:
    return Record(platform.store, f"{RECORD}/{learned.name}")


defs = dg.Definitions(sensors=[missed_quality])
