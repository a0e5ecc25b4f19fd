"""What assets, jobs and the command line share about releases: what a model serves from, and the way back."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from matching_platform.defs.common import newest, note
from matching_platform.delivery import probe
from matching_platform.delivery.images.image import Built, Image
from matching_platform.delivery.packing import BentoArtefact, build_bento
from matching_platform.delivery.serving.place import Deployment, Release, RolloutError
from matching_platform.delivery.serving.releases import Action, Served
from matching_platform.environment import PRODUCTION, Platform
from matching_platform.store.files import StoreError
from matching_platform.store.registry import Promotion
from matching_platform.store.versions import Version

BENTOS: Final = "bentos"
IMAGES: Final = "images"
STAGING: Final = "staging"
# Who goes back where nobody was asked.
OURSELVES: Final = "platform"

IMAGE: Final = "image.json"
LOG: Final = "build.log"
MATERIALS: Final = "materials.json"


@dataclass(frozen=True)
class RolledBack:
    """The champion in force again, and what answers in production; None where nothing ever did."""

    promotion: Promotion
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


def release(platform: Platform, model: Version) -> Release:
    """What serves `model`; RolloutError where it was never packed, or where an image is needed and none was built."""
    packed = _packed(platform, model)
    image = image_of(platform, model)
    if platform.builder is not None and (image is None or image.bento != packed.digest):
        raise RolloutError(f"there is no image of the newest bento of {model.name}: materialize image first")
    return Release(model.name, platform.store.fetch(packed), image)


def image_of(platform: Platform, model: Version) -> Image | None:
    """The newest image of `model`; None where none was built."""
    version = newest(platform, IMAGES, model)
    told: dict[str, Any] = json.loads((platform.store.fetch(version) / IMAGE).read_text()) if version else {}
    return Image(**told) if "digest" in told else None


def roll_out(platform: Platform, place: str, model: Version) -> Deployment:
    """Makes `model` serve at a place, and remembers that it served well there; RolloutError as `Place.deploy`."""
    chosen = release(platform, model)
    deployed = platform.place(place).deploy(chosen)
    last = platform.releases(place).current()
    if last is None or not last.good or (last.model, last.image) != (chosen.model, chosen.image):
        remember(platform, place, "deploy", model, reason="it came up, and answers as packed")
    return deployed


def remember(
    platform: Platform,
    place: str,
    action: Action,
    model: Version,
    *,
    good: bool = True,
    actor: str = OURSELVES,
    reason: str,
) -> None:
    """Notes in the record of a place what serves there, or that it does not serve well."""
    packed, image = _packed(platform, model), image_of(platform, model)
    platform.releases(place).append(action, model.name, packed, image, good=good, actor=actor, reason=reason)


def roll_back(platform: Platform, *, actor: str, reason: str, to: str | None = None) -> RolledBack:
    """The last good model of production, or the one whose name begins with `to`, is champion again and serves there.

    Nothing is trained and no image is built: it serves from what it had. A rollback that was cut short after the change
    of champion is finished first. Raises what `Registry.rollback` raises, and RolloutError where there is no image of
    the model, or where it does not come up: then what served before serves on.
    """
    champion, served = platform.registry.champion(), platform.releases(PRODUCTION).current()
    if served is None:
        back = platform.registry.rollback(actor=actor, reason=reason, check=probe.answers, to=to)
        return RolledBack(back, None)
    if champion is None or not _cut_short(champion, served, to):
        target = platform.registry.earlier(to or _last_good(platform, champion, served)).model
        _make_ready(platform, target)
        champion = platform.registry.rollback(actor=actor, reason=reason, check=probe.answers, to=target.name)
    return RolledBack(champion, _serve_again(platform, PRODUCTION, champion.model, actor=actor, reason=reason))


def withdraw(platform: Platform, place: str, failed: Version, reason: str) -> list[str]:
    """What follows where a release failed at a place: the last good one serves there again, and is champion again.

    Says in words what was done, and what could not be done.
    """
    remember(platform, place, "deploy", failed, good=False, reason=reason)
    told, good = [], platform.releases(place).last_good()
    try:
        if good:
            model = platform.registry.show(good.model).manifest.version
            again = _serve_again(platform, place, model, actor=OURSELVES, reason=reason)
            told.append(f"{again.model} serves in {place}")
        champion = platform.registry.champion()
        if champion and champion.model == failed:
            back = platform.registry.rollback(actor=OURSELVES, reason=reason, check=probe.answers)
            told.append(f"{back.model.name} is champion again")
    except (RolloutError, StoreError) as error:
        told.append(f"not everything could be taken back: {error}")
    return told


def _packed(platform: Platform, model: Version) -> Version:
    packed = newest(platform, BENTOS, model)
    if packed is None:
        raise RolloutError(f"the model {model.name} was never packed: materialize bento first")
    return packed


def _make_ready(platform: Platform, model: Version) -> None:
    """RolloutError where `model` has nothing to serve from. A bento alone takes seconds, and is packed now."""
    if platform.builder is None and newest(platform, BENTOS, model) is None:
        pack(platform, model)
    release(platform, model)


def _cut_short(champion: Promotion, served: Served, to: str | None) -> bool:
    """Whether a rollback to the champion was begun that production has not followed."""
    wanted = to is None or champion.model.name.startswith(to)
    return champion.action == "rollback" and served.model != champion.model.name and wanted


def _last_good(platform: Platform, champion: Promotion | None, served: Served) -> str | None:
    """The model to go back to: what serves, where that is not the champion, else what served well before it."""
    if champion and served.good and served.model != champion.model.name:
        return served.model
    good = platform.releases(PRODUCTION).last_good()
    return good.model if good else None


def _serve_again(platform: Platform, place: str, model: Version, *, actor: str, reason: str) -> Deployment:
    deployed = platform.place(place).deploy(release(platform, model))
    remember(platform, place, "rollback", model, actor=actor, reason=reason)
    return deployed
