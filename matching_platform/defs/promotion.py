"""From an evaluated model to a service that answers. Each step asks the gate itself: no button gets past it."""

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import dagster as dg
import polars as pl

from matching_platform.defs import gate
from matching_platform.defs.automation import WHEN_EVALUATED, WHEN_UPSTREAM_CHANGES
from matching_platform.defs.common import Made, PlatformParam, actor, materialized
from matching_platform.delivery.acceptance import accept
from matching_platform.delivery.packing import BentoArtefact, build_bento
from matching_platform.delivery.serving.rollout import Deployment, Rollout, RolloutError
from matching_platform.environment import Platform
from matching_platform.store.record import Record
from matching_platform.store.versions import Version

BENTOS: Final = "bentos"
IMAGES: Final = "images"

_TRIED: Final = 20  # transfers that a new server must answer as its model does


@dg.asset(
    description="The model that serves: the last line of the record of promotions.",
    deps=["evaluation_report"],
    automation_condition=WHEN_EVALUATED,
    group_name="promotion",
    kinds={"json"},
    code_version="1",
)
def champion(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    asked = gate.newest(platform)
    before = platform.registry.champion()
    if asked and before and before.model == asked.examined.model:
        metadata = {"promoted": False, "reason": "it is the champion already", "since": before.time.isoformat()}
        return materialized(context, platform, Made(before.model, metadata))
    found = gate.hurdles(platform, context.instance, asked.candidate if asked else None)
    if found or asked is None:
        raise gate.closed("the gate is closed", found)
    examined = asked.examined
    reason = "; ".join(verdict.reason for verdict in examined.verdicts)
    promotion = platform.registry.promote(
        examined.model, asked.version, actor(context), reason, expected_last=examined.promotion
    )
    metadata = {
        "promoted": True,
        "reason": reason,
        "actor": promotion.actor,
        "evaluation": asked.version.name,
        "before": before.model.name if before else "none",
    }
    return materialized(context, platform, Made(promotion.model, metadata))


@dg.asset(
    description="The champion packed as a service: code, model and the description of its image.",
    deps=["champion"],
    automation_condition=WHEN_UPSTREAM_CHANGES,
    group_name="promotion",
    kinds={"bentoml"},
    code_version="1",
)
def bento(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    model = gate.champion(platform, context.instance).model
    version, built = _pack(platform, model)
    metadata = {"model": model.name, "sha256": built.digest, "bytes": built.size}
    return materialized(context, platform, Made(version, metadata))


@dg.asset(
    description="What a container of the service is built from. Without a container engine it is described, not built.",
    deps=["bento"],
    automation_condition=WHEN_UPSTREAM_CHANGES,
    group_name="promotion",
    kinds={"docker"},
    code_version="1",
)
def image(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    model = gate.champion(platform, context.instance).model
    packed = _noted(platform, BENTOS, model)
    folder = platform.store.fetch(packed)
    containerfile = folder / "env" / "docker" / "Dockerfile"
    description = {
        "reference": f"matching-platform:{model.name}",
        "model": asdict(model),
        "context": asdict(packed),
        "containerfile": str(containerfile.relative_to(folder)),
        "built": False,
    }
    version = platform.store.put_bytes(IMAGES, "image.json", json.dumps(description, indent=2).encode())
    _note(platform, IMAGES, version, model)
    metadata: dict[str, Any] = {
        "built": False,
        "why not": "no container engine is configured for this environment; this is what one would build",
        "reference": description["reference"],
        "context": dg.MetadataValue.path(str(folder)),
        "context digest": packed.digest,
        "containerfile": dg.MetadataValue.md(f"```\n{containerfile.read_text(encoding='utf-8')}\n```"),
    }
    return materialized(context, platform, Made(version, metadata))


@dg.asset(
    description="What answers requests: started beside the old server, accepted, and only then given the traffic.",
    deps=["image"],
    automation_condition=WHEN_UPSTREAM_CHANGES,
    group_name="promotion",
    kinds={"bentoml"},
    code_version="1",
)
def deployment(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    model = gate.champion(platform, context.instance).model
    _noted(platform, IMAGES, model)
    packed = _noted(platform, BENTOS, model)
    try:
        deployed, found = _deploy(platform, model, packed)
    except RolloutError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    metadata = {
        "url": dg.MetadataValue.url(deployed.url),
        "model": model.name,
        "changed": deployed.changed,
        **found,
    }
    return materialized(context, platform, Made(packed, metadata))


def rollout(platform: Platform) -> Rollout:
    """The service of this environment."""
    return Rollout(platform.home / "service", int(platform.settings.port or 0))


def roll_out(platform: Platform, model: Version) -> Deployment | None:
    """Makes the bento of `model` serve where a service was ever rolled out; None, and nothing happens, where none was.

    A model that was never packed is packed now. RolloutError where its server is not accepted: what served before serves on.
    """
    if rollout(platform).record.last() is None:
        return None
    packed = _newest(platform, BENTOS, model) or _pack(platform, model)[0]
    return _deploy(platform, model, packed)[0]


def _pack(platform: Platform, model: Version) -> tuple[Version, BentoArtefact]:
    with TemporaryDirectory() as folder:
        built = build_bento(platform.store.fetch(model), model.name, Path(folder, "bento"))
        version = platform.store.put(BENTOS, built.path)
    _note(platform, BENTOS, version, model)
    return version, built


def _deploy(platform: Platform, model: Version, packed: Version) -> tuple[Deployment, dict[str, float]]:
    """The bento of `model` deployed, and the latencies measured, none where it served already."""
    latencies: dict[str, float] = {}

    def problems(url: str) -> tuple[str, ...]:
        result = accept(url, platform.store.fetch(model), *_examples(platform))
        latencies.update({f"{name} (ms)": getattr(result, name) * 1000 for name in ("p50", "p95", "p99")})
        return result.problems

    return rollout(platform).deploy(platform.store.fetch(packed), problems), latencies


def _examples(platform: Platform) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The newest transfers, and the newest invoices that were issued by then."""
    ledger = platform.ledger(platform.catalog.months("transfers")[-1])
    transfers = ledger.transfers.sort("booked_on").tail(_TRIED)
    issued = ledger.invoices.filter(pl.col("issued_on") <= transfers["booked_on"].max()).sort("issued_on")
    return transfers, issued.tail(10 * _TRIED)


def _note(platform: Platform, what: str, version: Version, model: Version) -> None:
    Record(platform.store, what).append({"version": asdict(version), "model": asdict(model)})


def _noted(platform: Platform, what: str, model: Version) -> Version:
    """The newest `what` of `model`, of no other: an old bento never follows a new champion."""
    version = _newest(platform, what, model)
    if version is None:
        raise dg.Failure(
            f"the {what} are not of the champion {model.name}: materialize them first", allow_retries=False
        )
    return version


def _newest(platform: Platform, what: str, model: Version) -> Version | None:
    """The newest `what` of `model`, whatever was made of other models since."""
    noted = (entry.payload for entry in reversed(Record(platform.store, what).entries()))
    return next((Version(**one["version"]) for one in noted if Version(**one["model"]) == model), None)


defs = dg.Definitions(assets=[champion, bento, image, deployment])
