"""What assets, jobs and the command line share about releases: what a model serves from, and the way back.

A place's own record says what served there and how well. The way back leads to what served well in production, by the
image or bento that it had then, and the champion follows: never to what staging refused, or never saw.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from filelock import FileLock

from matching_platform.defs.common import newest, note
from matching_platform.delivery import acceptance, probe
from matching_platform.delivery.images.image import Built, Image
from matching_platform.delivery.packing import BentoArtefact, build_bento
from matching_platform.delivery.serving.place import CandidateError, Deployment, Release, RolloutError
from matching_platform.delivery.serving.releases import Action, Served
from matching_platform.environment import PRODUCTION, STAGING, Platform
from matching_platform.learning import split
from matching_platform.learning.examination import frozen_exam
from matching_platform.learning.gate import Verdict
from matching_platform.matching.matcher import ModelError
from matching_platform.store.files import StoreError
from matching_platform.store.record import LostRaceError
from matching_platform.store.registry import Promotion
from matching_platform.store.versions import Version

BENTOS: Final = "bentos"
IMAGES: Final = "images"
# Who goes back where nobody was asked.
OURSELVES: Final = "platform"

IMAGE: Final = "image.json"
LOG: Final = "build.log"
MATERIALS: Final = "materials.json"

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A model and what it serves from: its newest bento, and the image of that where servers are made of images."""

    model: Version
    bento: Version
    image: Image | None

    @property
    def subject(self) -> str:
        """The digest of what runs."""
        return self.image.digest if self.image else self.bento.digest

    @property
    def runs(self) -> str:
        """What runs, for people."""
        return self.image.reference if self.image else str(self.bento)


@dataclass(frozen=True)
class RolledBack:
    """The champion in force again, and what answers in production; None where nothing ever did."""

    champion: Promotion
    deployment: Deployment | None


def pack(platform: Platform, model: Version) -> tuple[Version, BentoArtefact]:
    """Packs `model` and notes it."""
    with TemporaryDirectory() as folder:
        built = build_bento(platform.store.fetch(model), model.name, Path(folder, "bento"))
        version = platform.store.put(BENTOS, built.path)
    note(platform, BENTOS, version, model)
    return version, built


def keep_image(platform: Platform, model: Version, built: Built) -> Version:
    """Stores what is known about the image of `model`, with its build log and bill of materials."""
    with TemporaryDirectory() as folder:
        Path(folder, IMAGE).write_text(json.dumps(asdict(built.image), indent=2), encoding="utf-8")
        Path(folder, LOG).write_text(built.log, encoding="utf-8")
        Path(folder, MATERIALS).write_text(json.dumps(built.materials, indent=2), encoding="utf-8")
        version = platform.store.put(IMAGES, Path(folder))
    note(platform, IMAGES, version, model)
    return version


def candidate(platform: Platform, model: Version) -> Candidate:
    """What serves `model` here; RolloutError where it was never packed, or where an image is needed and none was built."""
    packed = newest(platform, BENTOS, model)
    if packed is None:
        raise RolloutError(f"the model {model.name} was never packed: materialize bento first")
    if platform.settings.serving == "processes":
        return Candidate(model, packed, None)
    image = _image(platform, model)
    if image is None or image.bento != packed.digest:
        raise RolloutError(f"there is no image of the newest bento of {model.name}: materialize image first")
    return Candidate(model, packed, image)


def release(platform: Platform, chosen: Candidate | Served) -> Release:
    """The same with the bento's files at hand, and with the record in which its servers look what they may book."""
    name = chosen.model if isinstance(chosen, Served) else chosen.model.name
    # A store that holds the bento is the right one.
    bento = platform.store.fetch(chosen.bento)
    platform.unattended.open()
    return Release(name, bento, chosen.image)


def examine(platform: Platform, chosen: Candidate) -> list[Verdict]:
    """What an examination of the candidate in staging finds; RolloutError where there can be none."""
    frozen = split.current(platform.store)
    if frozen is None:
        raise RolloutError("there is no frozen test yet: materialize test_split first")
    exam, place = frozen_exam(frozen), platform.place(STAGING)
    with _alone(platform):
        try:
            url = place.deploy(release(platform, chosen)).url
        except CandidateError as error:
            return [Verdict(check, False, str(error)) for check in acceptance.CHECKS]
        folder, limits = platform.store.fetch(chosen.model), platform.settings.acceptance
        return acceptance.examine(url, folder, exam, limits, place.terminate, chosen.model.name)


def refusal(verdicts: Sequence[Verdict]) -> str:
    """What the examination did not find as it must be, in words; empty where all is well."""
    return "; ".join(f"{verdict.check}: {verdict.reason}" for verdict in verdicts if not verdict.passed)


def roll_out(platform: Platform, place: str, chosen: Candidate) -> Deployment:
    """Makes a candidate serve at a place, and remembers that it serves well there; raises as `Place.deploy` does."""
    deployed = platform.place(place).deploy(release(platform, chosen))
    if not serves(platform, place, chosen):
        remember(platform, place, "deploy", chosen, reason="it came up, and answers as packed")
    return deployed


def serves(platform: Platform, place: str, chosen: Candidate) -> bool:
    """Whether it is what serves well at a place by its record."""
    served = platform.releases(place).current()
    return served is not None and served.good and _is(served, chosen)


def failed(platform: Platform, place: str, chosen: Candidate) -> bool:
    """Whether it is what was tried last at a place, and did not serve well there."""
    served = platform.releases(place).current()
    return served is not None and not served.good and _is(served, chosen)


def remember(
    platform: Platform,
    place: str,
    action: Action,
    chosen: Candidate | Served,
    *,
    good: bool = True,
    actor: str = OURSELVES,
    reason: str,
) -> None:
    """Notes in the record of a place what serves there, or that it does not serve well."""
    name = chosen.model if isinstance(chosen, Served) else chosen.model.name
    platform.releases(place).append(action, name, chosen.bento, chosen.image, good=good, actor=actor, reason=reason)


def way_back(platform: Platform, *, failing: bool = False) -> Served | None:
    """Where a rollback leads; None where nothing served well in production.

    That is what serves there, where the champion is another by now and it is not `failing`; else what served before it.
    """
    served, champion = platform.releases(PRODUCTION).current(), platform.registry.champion()
    if served and served.good:
        # A deployment that was killed before it was noted leaves another model there.
        other = platform.place(PRODUCTION).serving() if failing else champion.model.name if champion else None
        if other not in (None, served.model):
            return served
    return platform.releases(PRODUCTION).last_good()


def roll_back(
    platform: Platform,
    *,
    actor: str,
    reason: str,
    to: str | None = None,
    instead_of: int | None = None,
    expected_last: int | None = None,
) -> RolledBack | None:
    """What served well in production before, or the model whose name begins with `to`, serves again and is champion.

    Nothing is trained or built: it serves from the image or bento that it had. An earlier champion that never served
    there is examined in staging first. Whatever was cut off on the way, the same call again finishes. With `instead_of`,
    the number of a release that fails, nothing happens (None) where another is in force by now. With `expected_last`, the
    number of the promotion that is to be taken back, LostRaceError where another came after it: that champion has the
    last word, and serves again where it did so well. StoreError where there is nothing to go back to, ModelError where
    the model does not load, RolloutError where it does not serve, CandidateError where that is its own fault: then what
    served before serves on.
    """
    served = platform.releases(PRODUCTION).current()
    if served is None:
        champion = platform.registry.rollback(
            actor=actor, reason=reason, check=probe.answers, to=to, expected_last=expected_last
        )
        return RolledBack(champion, None)
    if instead_of not in (None, served.number):
        return None
    served_well = platform.releases(PRODUCTION).good(to) if to else way_back(platform, failing=instead_of is not None)
    target = served_well or _examined_now(platform, to)
    deployed = _serve_again(platform, PRODUCTION, target, actor=actor, reason=reason)
    try:
        champion = _champion_again(platform, deployed.model, actor=actor, reason=reason, expected_last=expected_last)
    except LostRaceError:
        _follow_another(platform, deployed.model)
        raise
    return RolledBack(champion, deployed)


def withdraw(platform: Platform, place: str, failed: Candidate, reason: str) -> list[str]:
    """What follows where a candidate failed at a place: what served well there serves again, and what serves well in
    production is champion.

    Says in words what was done, and what could not be done. A model that serves well in production stays champion.
    """
    remember(platform, place, "deploy", failed, good=False, reason=reason)
    told, good = [], platform.releases(place).last_good()
    if good and platform.lasts(place):
        try:
            again = _serve_again(platform, place, good, actor=OURSELVES, reason=reason)
            told.append(f"{again.model} serves in {place}")
        except (RolloutError, StoreError) as error:
            told.append(f"{place} could not be taken back: {error}")
    champion, served = platform.registry.champion(), _serves_well(platform)
    if champion and served and champion.model == failed.model and served.model != failed.model.name:
        try:
            _champion_again(platform, served.model, actor=OURSELVES, reason=reason)
            told.append(f"{served.model} is champion again")
        except (ModelError, StoreError) as error:
            told.append(f"the champion could not be taken back: {error}")
    return told


def _examined_now(platform: Platform, to: str | None) -> Candidate:
    """An earlier champion that staging accepts now; RegistryError where there is none, CandidateError where it does not."""
    model = platform.registry.earlier(to).model
    if platform.settings.serving == "processes" and newest(platform, BENTOS, model) is None:
        pack(platform, model)
    chosen = candidate(platform, model)
    if refused := refusal(examine(platform, chosen)):
        raise CandidateError(f"{model.name} never served in production, and staging refuses it: {refused}")
    return chosen


def follow(platform: Platform, champion: Promotion, reason: str) -> Deployment:
    """The champion serves again in production as it did before; RolloutError where it never did so well."""
    served = platform.releases(PRODUCTION).good(champion.model.name)
    if served is None:
        raise RolloutError(f"{reason}, and never served in production: materialize bento to deployment")
    return _serve_again(platform, PRODUCTION, served, actor=OURSELVES, reason=reason)


def _follow_another(platform: Platform, instead_of: str) -> None:
    """Whoever has become champion while `instead_of` was rolled out serves again; where it never did, its rollout comes."""
    champion = platform.registry.champion()
    if champion and platform.releases(PRODUCTION).good(champion.model.name):
        follow(platform, champion, f"{champion.model.name} has become champion while {instead_of} was rolled out")


@contextmanager
def _alone(platform: Platform) -> Iterator[None]:
    """Nobody else on this machine uses staging meanwhile, and nothing runs there afterwards that need not."""
    platform.home.mkdir(parents=True, exist_ok=True)
    with FileLock(platform.home / "staging.lock"):
        try:
            yield
        finally:
            try:
                platform.place(STAGING).stop()
            except RolloutError as error:
                _log.warning("what runs in staging was not stopped: %s", error)


def _serves_well(platform: Platform) -> Served | None:
    """What should serve in production by its record."""
    served = platform.releases(PRODUCTION).current()
    return served if served is None or served.good else platform.releases(PRODUCTION).last_good()


def _serve_again(platform: Platform, place: str, served: Candidate | Served, *, actor: str, reason: str) -> Deployment:
    deployed = platform.place(place).deploy(release(platform, served))
    current = platform.releases(place).current()
    if current is None or not current.good or not _is(current, served):
        remember(platform, place, "rollback", served, actor=actor, reason=reason)
    return deployed


def _champion_again(
    platform: Platform, model: str, *, actor: str, reason: str, expected_last: int | None = None
) -> Promotion:
    champion = platform.registry.champion()
    if champion and champion.model.name == model:
        return champion
    return platform.registry.rollback(
        actor=actor, reason=reason, check=probe.answers, to=model, expected_last=expected_last
    )


def _is(served: Served, other: Candidate | Served) -> bool:
    """Whether both are of the same bento and, where there is one, image; a bento is of one model."""
    mine, its = (one.image.reference if one.image else None for one in (served, other))
    return (served.bento, mine) == (other.bento, its)


def _image(platform: Platform, model: Version) -> Image | None:
    """The newest image of `model`; None where none was built."""
    version = newest(platform, IMAGES, model)
    told: dict[str, Any] = json.loads((platform.store.fetch(version) / IMAGE).read_text()) if version else {}
    return Image(**told) if "digest" in told else None
