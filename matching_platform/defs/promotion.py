"""From an evaluated model to an image of its service. Each step asks the gate itself: no button gets past it."""

import json
from dataclasses import asdict
from pathlib import Path

import dagster as dg

from matching_platform.defs import gate
from matching_platform.defs.automation import WHEN_EVALUATED, WHEN_UPSTREAM_CHANGES
from matching_platform.defs.common import Made, PlatformParam, actor, link, materialized, newest, note
from matching_platform.defs.pods import op_tags
from matching_platform.defs.releasing import BENTOS, IMAGE, IMAGES, LOG, MATERIALS, keep_image, pack
from matching_platform.delivery.images.image import Built, ImageError
from matching_platform.environment import Platform
from matching_platform.store.record import LostRaceError
from matching_platform.store.versions import Version


@dg.asset(
    description="The model that serves: the last line of the record of promotions.",
    deps=["evaluation_report"],
    automation_condition=WHEN_EVALUATED,
    group_name="promotion",
    kinds={"json"},
    op_tags=op_tags("champion"),
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
    try:
        promotion = platform.registry.promote(
            examined.model, asked.version, actor(context), reason, expected_last=examined.promotion
        )
    except LostRaceError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
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
    op_tags=op_tags("bento"),
    code_version="1",
)
def bento(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    model = gate.champion(platform, context.instance).model
    version, built = pack(platform, model)
    metadata = {"model": model.name, "sha256": built.digest, "bytes": built.size}
    return materialized(context, platform, Made(version, metadata))


@dg.asset(
    description="The bento as an image in a registry. Without an image builder it is described, not built.",
    deps=["bento"],
    automation_condition=WHEN_UPSTREAM_CHANGES,
    group_name="promotion",
    kinds={"docker"},
    op_tags=op_tags("image"),
    code_version="2",
)
def image(context: dg.AssetExecutionContext, platform: PlatformParam) -> dg.MaterializeResult:
    model = gate.champion(platform, context.instance).model
    packed = newest(platform, BENTOS, model)
    if packed is None:
        raise dg.Failure(f"the champion {model.name} was never packed: materialize bento first", allow_retries=False)
    folder = platform.store.fetch(packed)
    if platform.builder is None:
        return materialized(context, platform, _described(platform, model, packed, folder))
    try:
        built = platform.builder.build(folder, packed.digest, model.name)
    except ImageError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    return materialized(context, platform, _built(platform, model, built))


def _built(platform: Platform, model: Version, built: Built) -> Made:
    version, image = keep_image(platform, model, built), built.image
    metadata = {
        "built": not built.reused,
        "reference": image.reference,
        "tag": image.tag,
        "digest": image.digest,
        "MB in the registry": round(image.size / 1e6, 1),
        "base image": image.base,
        "components": len(built.materials["components"]),
        "seconds": round(built.seconds, 1),
        "model": model.name,
        "build log": link(platform, version, LOG),
        "bill of materials": link(platform, version, MATERIALS),
        **built.metadata,
    }
    return Made(version, metadata)


def _described(platform: Platform, model: Version, packed: Version, folder: Path) -> Made:
    """What a container would be built from, where nothing builds one."""
    containerfile = folder / "env" / "docker" / "Dockerfile"
    description = {
        "reference": f"matching-platform:{model.name}",
        "model": asdict(model),
        "context": asdict(packed),
        "containerfile": str(containerfile.relative_to(folder)),
    }
    version = platform.store.put_bytes(IMAGES, IMAGE, json.dumps(description, indent=2).encode())
    note(platform, IMAGES, version, model)
    metadata = {
        "built": False,
        "why not": "no image builder is configured for this environment; this is what one would build",
        "reference": description["reference"],
        "context": dg.MetadataValue.path(str(folder)),
        "context digest": packed.digest,
        "containerfile": dg.MetadataValue.md(f"```\n{containerfile.read_text(encoding='utf-8')}\n```"),
    }
    return Made(version, metadata)


defs = dg.Definitions(assets=[champion, bento, image])
