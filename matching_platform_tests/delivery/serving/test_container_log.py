"""A container of the real image writes its log to a mounted folder of the store, and sees there what it may book."""

from pathlib import Path

import httpx
import polars as pl
import pytest

from matching_platform.delivery.images.image import Image
from matching_platform.delivery.packing import BentoArtefact
from matching_platform.delivery.probe import REQUEST
from matching_platform.delivery.serving.place import Release
from matching_platform.environment import DEFAULTS, Platform, Settings
from matching_platform.predictions import reading, states
from matching_platform.predictions.headers import REQUEST_ID
from matching_platform_tests.containers.engine import Engine
from matching_platform_tests.delivery.parts import free_port
from matching_platform_tests.waiting import until

pytestmark = pytest.mark.containers


def test_a_container_keeps_what_it_answers_and_sees_a_freeze(
    engine: Engine, service_image: Image, service_bento: BentoArtefact, tmp_path: Path
) -> None:
    here = {"warehouse": tmp_path / "warehouse.duckdb", "store": str(tmp_path / "store"), "port": free_port()}
    settings = Settings(**{**DEFAULTS["local"], **here, "serving": "containers"})
    platform = Platform(settings)
    platform.unattended.open()
    place = platform.here()
    try:
        place.deploy(Release(service_image.model, service_bento.path, service_image))
        (container,) = place._servers.find(place.folder)
        for path, writable in {"predictions": True, "records/unattended": False, "": False}.items():
            touched = f"touch /store/{path}/file && echo yes || echo no"
            told = engine.podman("exec", container.id, "sh", "-c", touched)
            assert told.strip().endswith("yes" if writable else "no"), path
        platform.unattended.freeze(actor="jana", reason="a test")
        metrics = f"{place.url}/metrics"
        until(lambda: "matching_frozen 1.0" in httpx.get(metrics, timeout=60, trust_env=False).text)
        answer = httpx.post(f"{place.url}/match", json=REQUEST, timeout=60, trust_env=False)
        assert "auto" not in {one["decision"] for one in answer.json()["proposals"]}
    finally:
        place.stop()
    (day,) = reading.days(platform.predictions)
    kept = reading.read(platform.predictions, day)
    assert set(kept["purpose"]) == {"probe", "asked"}
    assert kept.filter(pl.col("purpose") == "asked")["request_id"].to_list() == [answer.headers[REQUEST_ID]]
    (state,) = states.load(platform.predictions, states.names(platform.predictions))
    assert (state.end, state.written) == ("closed", kept.height)
