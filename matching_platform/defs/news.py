"""What happened, in words: from Dagster's events and the platform's records to messages, without asking anybody.

The key of a message names its event, not the attempt at it. In a backfill, what goes wrong is told when it happens first,
under a key of the whole backfill; all the rest waits for the one message that sums it up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import dagster as dg

from matching_platform.delivery.serving.releases import Served
from matching_platform.learning.examination import Examined
from matching_platform.learning.threshold_text import confidence
from matching_platform.monitoring.notify import Level, Message
from matching_platform.store.registry import Promotion
from matching_platform.store.unattended import LIFT, NEVER, Change, Permission, permission

_REASON: Final = 600  # characters of a reason, at most
_LISTED: Final = 5  # months of a summary that are explained one by one
_SHOWN: Final = 10  # figures of a message

# The figures of a model's card, and of its examination.
_CARD: Final = {
    "cross_fitted_exact": "Exact (cross-fitted)",
    "cross_fitted_exact_paying": "Exact, paying transfers",
    "cross_fitted_auto_share": "Booked unattended",
    "doubted_tags": "Tags in doubt",
}
_EXAM: Final = {
    "exact": "Exact on the frozen test",
    "exact_paying": "Exact, paying transfers",
    "auto_share": "Booked unattended",
    "auto_precision": "Right among those booked",
}


@dataclass(frozen=True)
class Told:
    """A title, and what to do next."""

    title: str
    advice: str


_CHECKS: Final = {
    "train_set": Told(
        "The train set of {month} is not fit to learn from",
        "No model is trained on it. See to the rows and tags that are named, then materialize train_set again.",
    ),
    "evaluation_report": Told(
        "The gate stays closed for the model of {month}",
        "It is not promoted; what served before serves on. The report shows where the model loses.",
    ),
    "realised_quality": Told(
        "What was booked unattended is in doubt{of_month}",
        "A model that broke its promise books less from now on, and the one before comes back where it was better: see "
        "`matching-platform unattended`, and the tables of realised_quality for the kinds and payers that went wrong.",
    ),
    "drift_report": Told(
        "The world moved{of_month}",
        "The report shows what moved and by how much. A model learns anew once enough of the month is tagged.",
    ),
    "staging": Told(
        "Staging refuses the model {model}",
        "It does not go to production; what served there serves on. See the checks of staging, mend the cause, and "
        "materialize image and staging again.",
    ),
}
_OTHER_CHECKS: Final = Told("A check of {asset} fails{of_month}", "Look at the check in Dagster, and at what it names.")

_STEPS: Final = {
    "model": Told(
        "Training of {month} failed",
        "The champion serves on. Mend the cause and re-execute the run: it resumes from its checkpoint.",
    ),
    "champion": Told("Nothing is promoted", "The champion serves on. Do what the reason says, then ask again."),
    "image": Told(
        "No image was built", "What served before serves on. Read the build log, then materialize image again."
    ),
    "staging": Told("Staging refuses the new model", "It does not go to production; what served there serves on."),
    "deployment": Told(
        "The new model was not rolled out",
        "What serves now is in `matching-platform models list` and in the reason above.",
    ),
    "reconsider": Told(
        "The champion was not reconsidered",
        "It serves on, with the threshold that its bookings allow. Do what the reason says; the next look tries again.",
    ),
    "back": Told("The rollback failed", "What served before serves on. Do what the reason says, then go back again."),
}
_OTHER_STEPS: Final = Told("{asset} failed{of_month}", "Mend the cause, then re-execute the run from its failed step.")


@dataclass(frozen=True)
class Source:
    """The run that an event comes from, and where people read about it; empty where there is none.

    `first` is the first attempt where Dagster retried by itself, `ui` the address of Dagster's pages.
    """

    run: str = ""
    first: str = ""
    month: str = ""
    backfill: str = ""
    ui: str = ""
    report: str = ""

    @property
    def links(self) -> dict[str, str]:
        run = {"Run": f"{self.ui}/runs/{self.run}"} if self.ui and self.run else {}
        return run | ({"Report": self.report} if self.report else {})


@dataclass(frozen=True)
class Failure:
    """Why a run failed: the step where it did ('' where none did), and the reason."""

    step: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """What a backfill came to, by month where something is said of each; `exact` is that of the frozen test."""

    backfill: str
    months: Sequence[str]
    trained: Sequence[str] = ()
    promoted: Sequence[str] = ()
    served: Sequence[str] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    exact: Mapping[str, float] = field(default_factory=dict)
    ui: str = ""


def started(source: Source) -> Message:
    """A training is under way."""
    if source.backfill:
        return Message(
            f"backfill/{source.backfill}/started",
            f"It has begun with {source.month}. One message sums it up when all of its months are done.",
            title="A backfill trains models",
            links=source.links,
        )
    return Message(
        f"training/{source.first}/{source.month}/started",
        "A model learns from all labelled months up to this one. Its figures follow.",
        title=f"Training of {source.month} started",
        links=source.links,
    )


def trained(made: dg.AssetMaterialization, source: Source, *, retried: bool = False) -> Message | None:
    """A model with its figures. None where there was nothing to train; a retry may find what was trained before it."""
    told = plain(made)
    if source.backfill or not (told.get("trained") == "now" or retried):
        return None
    learned = f" from {told['transfers']:,} transfers" if "transfers" in told else ""
    return Message(
        f"model/{told['version']}/trained",
        f"The model {told['version']} learned{learned} up to {source.month}. Next it is examined, and the gate decides.",
        title=f"Training of {source.month} finished",
        figures=_shares(told, _CARD) | {"Settings": str(told.get("settings", "the defaults"))},
        links=source.links,
    )


def promoted(promotion: Promotion, examined: Examined | None, source: Source) -> Message | None:
    """A new champion, with the figures of its examination and of the champion's before it."""
    if source.backfill:
        return None
    name = promotion.model.name
    return Message(
        f"model/{name}/promoted/{promotion.number}",
        f"The model {name} passed the gate: {promotion.reason}. Promoted by {promotion.actor}; next it is packed, accepted "
        "in staging and rolled out.",
        title=f"New champion: the model of {examined.month}" if examined else f"New champion: {name}",
        level="good",
        figures=_compared(examined.figures.get("test", {})) if examined else {},
        links=source.links,
    )


def taken_back(promotion: Promotion) -> Message:
    """An earlier champion is champion again."""
    name = promotion.model.name
    return Message(
        f"model/{name}/promoted/{promotion.number}",
        f"{promotion.actor} went back to it: {promotion.reason}. Proposals are made with it from now on. See "
        "`matching-platform models history`; a better model comes through the gate as always.",
        title=f"Rollback: {name} is champion again",
        level="bad",
    )


def unattended(change: Change, before: Sequence[Change]) -> Message:
    """A freeze, its end, or another threshold; `before` are the changes before it, the first one first."""
    told = {"freeze": _frozen, "unfreeze": _lifted, "threshold": _threshold}
    title, text, level = told[change.action](change, permission(before))
    return Message(f"unattended/{change.number}", text, title=title, level=level)


def served(release: Served, source: Source) -> Message | None:
    """Another release serves in production."""
    key, image = f"model/{release.model}/served/{release.number}", _image(release)
    if release.action == "rollback":
        told = (
            f"{release.actor} went back to it: {release.reason}. Nothing was built or trained; nothing is to be done."
        )
        return Message(key, told, f"Rollback: {release.model} serves in production again", "bad", image, source.links)
    if source.backfill or not release.good:
        return None
    told = f"It has the traffic: {release.reason}. What served before is kept for a rollback."
    return Message(key, told, f"Rollout: {release.model} serves in production", "good", image, source.links)


def built(made: dg.AssetMaterialization, source: Source) -> Message | None:
    """A new image. None where one of the same bento was there already, or none is built here."""
    told = plain(made)
    if source.backfill or not told.get("built"):
        return None
    figures = {
        "Digest": str(told["digest"]),
        "In the registry": f"{told['MB in the registry']:,.0f} MB",
        "Built in": f"{told['seconds']:,.0f} s",
    }
    text = f"{told['reference']} is in the registry. Next it is tried in staging."
    title = f"Image of {told['model']} built"
    return Message(f"model/{told['model']}/image/{told['digest']}", text, title, figures=figures, links=source.links)


def accepted(
    made: dg.AssetMaterialization, checks: Sequence[dg.AssetCheckEvaluation], source: Source
) -> Message | None:
    """Staging took the model. None where a check failed, which is told as such."""
    told = plain(made)
    if source.backfill or not all(check.passed for check in checks):
        return None
    numbers = {name: value for check in checks for name, value in plain(check).items() if isinstance(value, float)}
    return Message(
        f"model/{told['model']}/staging/{source.first}",
        f"{len(checks)} checks hold: {', '.join(check.check_name for check in checks)}. Next it goes to production.",
        title=f"Staging accepts {told['model']}",
        level="good",
        figures={name.replace("_", " "): f"{value:,.4g}" for name, value in list(numbers.items())[:_SHOWN]},
        links=source.links,
    )


def checks_failed(
    asset: str,
    failed: Sequence[dg.AssetCheckEvaluation],
    source: Source,
    *,
    model: str = "",
    done: str = "",
    event: str = "",
) -> Message:
    """Checks of an asset that failed together, and what was `done` about it; `event` names them where no run does."""
    told = _CHECKS.get(asset, _OTHER_CHECKS)
    names: dict[str, list[str]] = {}
    for check in failed:
        names.setdefault(_clipped(check.description or "it gives no reason"), []).append(check.check_name)
    reasons = "\n".join(f"• {', '.join(named)}: {reason}" for reason, named in names.items())
    about = f"model/{model}/checks/{asset}" if model else f"checks/{asset}"
    event = "/".join(part for part in (about, source.month, source.first, event) if part)
    return Message(
        f"backfill/{source.backfill}/checks/{asset}" if source.backfill else event,
        "\n\n".join(part for part in (reasons, done and _sentence(done), f"{told.advice}{_more(source)}") if part),
        title=_filled(told.title, asset, source.month, model),
        level="bad" if any(check.severity is dg.AssetCheckSeverity.ERROR for check in failed) else "news",
        links=source.links,
    )


def failed(failure: Failure, sources: Sequence[Source]) -> Message:
    """Runs that failed for the same reason, one or many, and that nobody retries."""
    source, months = sources[0], sorted({one.month for one in sources if one.month})
    told = _STEPS.get(failure.step, _OTHER_STEPS)
    many = f" The same in {len(sources)} runs, of {', '.join(months)}." if len(sources) > 1 else ""
    month = months[0] if len(months) == 1 else f"{len(months)} months" if months else ""
    return Message(
        f"backfill/{source.backfill}/failed" if source.backfill else f"run/{source.first}/failed",
        f"{_sentence(failure.reason)}{many}\n\n{told.advice}{_more(source)}",
        title=_filled(told.title, failure.step or "A run", month, ""),
        level="bad",
        links=source.links,
    )


def summed_up(summary: Summary) -> Message:
    """A backfill that has come to its end."""
    months, exact = sorted(summary.months), summary.exact
    span = f"{len(months)} months, {months[0]} to {months[-1]}" if len(months) > 1 else "".join(months)
    counted = [
        _listed("trained", summary.trained),
        _listed("promoted", summary.promoted),
        f"In production now: {summary.served[-1]}." if summary.served else "",
        _explained("The checks refused", summary.refused),
        _explained("Runs failed for", summary.failed),
        "Mend what is named, then run the backfill again for these months." if summary.failed else "",
    ]
    ends = [month for month in (min(exact, default=""), max(exact, default="")) if month]
    return Message(
        f"backfill/{summary.backfill}/ended",
        "\n".join(line for line in counted if line) or "Nothing was trained, and nothing went wrong.",
        title=f"Backfill ended: {span}" if span else "Backfill ended",
        level="bad" if summary.failed else "good",
        figures={f"Exact on the frozen test, {month}": f"{exact[month]:.1%}" for month in dict.fromkeys(ends)},
        links={"Backfill": f"{summary.ui}/runs/b/{summary.backfill}"} if summary.ui else {},
    )


def plain(event: dg.AssetMaterialization | dg.AssetCheckEvaluation) -> dict[str, Any]:
    """The metadata of an event as plain values."""
    return {name: value.value for name, value in event.metadata.items()}


def _frozen(change: Change, before: Permission) -> tuple[str, str, Level]:
    """What a freeze says."""
    text = (
        f"{change.actor} froze it: {_sentence(change.reason)} Nothing is promoted, rolled out or booked unattended until "
        f"somebody lifts it; rollbacks stay possible. When all is well, {LIFT}."
    )
    return "Automation is frozen" if before.frozen is None else "Automation is frozen once more", text, "bad"


def _lifted(change: Change, before: Permission) -> tuple[str, str, Level]:
    """What the end of a freeze says."""
    since = f" It was frozen since {before.frozen.signed}." if before.frozen else ""
    text = (
        f"{change.actor} lifted the freeze: {_sentence(change.reason)}{since} What waited is asked again: the promotion "
        "and the rollout of the newest model, and the proposals of the newest month."
    )
    return "Automation runs again", text, "good"


def _threshold(change: Change, before: Permission) -> tuple[str, str, Level]:
    """What another threshold says."""
    was, now = before.thresholds.get(str(change.model)), change.auto_from
    title = f"{change.model} books less unattended" if now else f"{change.model} books as it was trained to"
    text = (
        f"It books {_limit(now)}, and booked {_limit(was)} before. {change.actor}: {_sentence(change.reason)} The proposals "
        "of the newest month are made again; see `matching-platform unattended`."
    )
    return title, text, "bad" if now else "news"


def _limit(auto_from: float | None) -> str:
    if auto_from is None:
        return "from its own threshold on"
    return "nothing" if auto_from >= NEVER else f"from a confidence of {confidence(auto_from)} on"


def _shares(told: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    return {title: f"{told[name]:.1%}" for name, title in names.items() if isinstance(told.get(name), int | float)}


def _compared(figures: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """The model's figures, beside those of the champion before it."""
    now, before = (_shares(figures.get(side, {}), _EXAM) for side in ("model", "champion"))
    return {name: f"{value} (before: {before[name]})" if name in before else value for name, value in now.items()}


def _image(release: Served) -> dict[str, str]:
    return {"Image": release.image.reference} if release.image else {}


def _listed(done: str, months: Sequence[str]) -> str:
    models = "1 model was" if len(months) == 1 else f"{len(months)} models were"
    named = sorted(months) if len(months) <= _LISTED else [f"{min(months)} to {max(months)}"]
    return f"{models} {done}: {', '.join(named)}." if months else ""


def _explained(what: str, reasons: Mapping[str, str]) -> str:
    shown = [f"• {month}: {_clipped(reason, 200)}" for month, reason in sorted(reasons.items())[:_LISTED]]
    more = [f"• and {len(reasons) - _LISTED} more"] if len(reasons) > _LISTED else []
    return "\n".join([f"{what} {len(reasons)}:", *shown, *more]) if reasons else ""


def _more(source: Source) -> str:
    return " What else the backfill meets is told when it has ended." if source.backfill else ""


def _filled(title: str, asset: str, month: str, model: str) -> str:
    of_month = f" for {month}" if month else ""
    filled = title.format(asset=asset, month=month or "no month", model=model or "that it was given", of_month=of_month)
    return filled[0].upper() + filled[1:]


def _sentence(reason: str) -> str:
    told = _clipped(reason)
    return told if told.endswith((".", "…", "!", "?")) else f"{told}."


def _clipped(text: str, limit: int = _REASON) -> str:
    told = text.strip()
    return told if len(told) <= limit else f"{told[: limit - 1]}…"
