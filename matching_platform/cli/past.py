"""Past proposals beside their tags, from files or from the platform's store, for the command `thresholds`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from matching_platform.cli.shared import UsageError
from matching_platform.learning.examples import credible_tags
from matching_platform.learning.thresholds import Past, judge
from matching_platform.learning.training import TrainingSettings
from matching_platform.ledger.months import month_of
from matching_platform.ledger.proposals import read_proposals
from matching_platform.ledger.reading import Ledger, read_file, read_raw, table_path
from matching_platform.ledger.validation import validate

if TYPE_CHECKING:
    from matching_platform.environment import Platform
    from matching_platform.store.catalog import Current
    from matching_platform.store.versions import Version

_MOSTLY: Final = 0.5  # a month of which less is tagged tells little


@dataclass(frozen=True)
class Reading:
    """Past proposals judged, the promise they are held against, the threshold in force, and what should be known."""

    past: Past
    promised: float
    in_force: float | None
    notes: list[str]


@dataclass(frozen=True)
class Months:
    """From `first` to `last`, both included; None is open."""

    first: str | None
    last: str | None

    def __contains__(self, month: str) -> bool:
        return (self.first or "") <= month <= (self.last or "9999-12")

    def of(self, transfers: pl.DataFrame) -> pl.DataFrame:
        return transfers.filter(
            month_of("booked_on").is_between(pl.lit(self.first or ""), pl.lit(self.last or "9999-12"))
        )

    def __str__(self) -> str:
        return " ".join(f"{word} {month}" for word, month in (("from", self.first), ("to", self.last)) if month)


def of_files(proposals: Path, truth: Path, months: Months, promised: float | None) -> Reading:
    """The proposals of a file, judged by another; invoices and transfers beside the truth tell months and currencies."""
    beside = {name: table_path(truth.parent, name) for name in ("invoices", "transfers")}
    invoices, transfers = (read_file(path, name) if path else None for name, path in beside.items())
    proposed, raw = read_proposals(proposals), read_raw(truth)
    tags = held = validate("audit", raw, source=str(truth))
    by_people = "tagged_on" in raw.columns
    if by_people and invoices is not None and transfers is not None:
        held = credible_tags(Ledger(invoices, transfers, validate("matches", raw, source=str(truth))))
    if months != Months(None, None):
        if transfers is None:
            raise UsageError(
                f"no transfers beside {truth} tell the months; put them there, or leave --from and --to out"
            )
        proposed = proposed.join(months.of(transfers), on="transfer_id", how="semi", maintain_order="left")
        if proposed.is_empty():
            raise UsageError(f"{proposals} proposes nothing for transfers booked {months}; ask for other months")
    try:
        past = judge(proposed, held, transfers, invoices)
    except ValueError as error:
        raise UsageError(
            f"{truth} judges no transfer of {proposals}: give tags or audit of the months proposed"
        ) from error
    decided: float | None = proposed.filter(decision="auto")["confidence"].min()  # type: ignore[assignment]
    in_force = [f"In force is what the file itself books: from {_threshold(decided)} on."] if decided else []
    notes = [*in_force, *(_on_tags(proposed, tags, held) if by_people else ()), *_on_months(past)]
    return Reading(past, promised or TrainingSettings().promised_precision, decided, notes)


def of_platform(platform: "Platform", model: str | None, months: Months, promised: float | None) -> Reading:
    """What the platform proposed of past months before anything was learned from them; of one model, where it is named."""
    from matching_platform.review.proposed import MODEL, minor

    chosen = platform.registry.show(model).manifest.version if model else None
    made = {
        month: found
        for month in platform.catalog.months("proposals")
        if month in months and (found := _in_advance(platform, month, chosen))
    }
    if not made:
        of = f" by model {chosen.name}" if chosen else ""
        raise UsageError(
            f"no month asked for has proposals{of} that were made before their tags were learned from: materialize "
            "proposals of a month after the one until which the champion was trained"
        )
    ledger = platform.ledger(max(made))
    dated = ledger.transfers.select("transfer_id", month=month_of("booked_on"))
    proposed = pl.concat(
        minor(platform.store.read_frame(found.version)).join(dated.filter(month=month), on="transfer_id", how="semi")
        for month, found in made.items()
    )
    held = credible_tags(ledger)
    try:
        past = judge(proposed, held, ledger.transfers, ledger.invoices)
    except ValueError as error:
        raise UsageError(
            f"no transfer proposed for in {min(made)} to {max(made)} is tagged yet: ask again when tags have come"
        ) from error
    models = {str(found.metadata[MODEL]) for found in made.values()}
    in_force, told = _in_force(platform, chosen)
    notes = [*told, *_on_models(models), *_on_tags(proposed, ledger.matches, held), *_on_months(past)]
    return Reading(past, promised or platform.settings.promised_precision, in_force, notes)


def _in_advance(platform: "Platform", month: str, chosen: "Version | None") -> "Current | None":
    """The last proposals of the month by a model, or by the one chosen, that had not learned from it."""
    from matching_platform.review.proposed import MODEL, in_advance, made_in_advance

    if chosen is None:
        return made_in_advance(platform.catalog, month)
    of_it = (one for one in platform.catalog.history("proposals", month) if one.metadata.get(MODEL) == chosen.name)
    advance = [one for one in of_it if in_advance(one, month)]
    return advance[-1] if advance else None


def _in_force(platform: "Platform", chosen: "Version | None") -> tuple[float | None, list[str]]:
    """From which confidence the model chosen, or else the champion, books now, and how that came about."""
    from matching_platform.matching.matcher import own_threshold

    champion = platform.registry.champion()
    model = chosen or (champion.model if champion else None)
    if model is None:
        return None, ["There is no champion, so that no threshold is in force."]
    own, permission = own_threshold(platform.store.fetch(model)), platform.unattended.permission()
    in_force = max(own, permission.thresholds.get(model.name) or own)
    told = f"In force: {_threshold(in_force)}, for model {model.name}"
    told += f"; it was trained to book from {_threshold(own)} on." if in_force > own else ", as it was trained."
    frozen = f"Now nothing is booked at all: {permission.told}." if permission.frozen else None
    return (in_force if in_force <= 1 else None), [told, *([frozen] if frozen else [])]


def _threshold(value: float) -> str:
    from matching_platform.learning.threshold_text import confidence

    return confidence(value) if value <= 1 else "nowhere"


def _on_models(models: set[str]) -> Iterator[str]:
    if len(models) > 1:
        named = ", ".join(sorted(models))
        yield f"{len(models)} models proposed, each with confidences of its own: {named}. --model asks of one alone."


def _on_tags(proposed: pl.DataFrame, tags: pl.DataFrame, held: pl.DataFrame) -> Iterator[str]:
    transfers = proposed.select("transfer_id").unique()
    tagged, judging = (transfers.join(one, on="transfer_id", how="semi").height for one in (tags, held))
    if tagged > judging:
        yield f"Left out, because the tables contradict their tags: {tagged - judging:,} of {tagged:,} tagged transfers."
    yield "Judged by people's tags, of which a few are wrong: in truth, precision is rather higher."


def _on_months(past: Past) -> Iterator[str]:
    proposed, tagged = (int(past.months[name].sum()) for name in ("proposed", "tagged"))
    if tagged < proposed:
        yield f"{proposed - tagged:,} of {proposed:,} transfers are not judged, for want of a tag that holds."
    for month, count, judged in past.months.drop_nulls("month").iter_rows():
        if judged < _MOSTLY * count:
            yield f"{month} is still mostly untagged ({judged:,} of {count:,} transfers): its figures tell little."
