"""A server that is told to end answers what it was asked, and then is gone."""

import time
from pathlib import Path
from typing import Any

import pytest

from matching_platform.delivery import probe
from matching_platform.delivery.images.image import Image
from matching_platform.delivery.packing import BentoArtefact
from matching_platform.delivery.serving.containers import ContainerServers
from matching_platform.delivery.serving.place import Release, RolloutError
from matching_platform.delivery.serving.rollout import Rollout
from matching_platform_tests.delivery.parts import free_port
from matching_platform_tests.delivery.serving.light import Make, traffic

SLOW = "2.0 if asked else 0.0"


# The real service takes the better part of a second for these.
MANY = {
    **probe.REQUEST,
    "transfers": [
        {**transfer, "transfer_id": f"{transfer['transfer_id']}-{number}"}
        for number in range(3000)
        for transfer in probe.REQUEST["transfers"]
    ],
}


def check(place: Rollout, request: dict[str, Any] = probe.REQUEST) -> None:
    """Three requests are under way when it ends; all are answered, and no time is lost after them."""
    with traffic(place.url, clients=3, once=True, request=request) as live:
        time.sleep(0.3)
        assert live.asked == []
        started = time.monotonic()
        place.terminate()
        took = time.monotonic() - started
    assert [one.status for one in live.asked] == [200, 200, 200]
    assert took < 30.0
    assert place.serving() is None
    with pytest.raises(RolloutError, match=r"nothing serves at .* deploy first"):
        place.terminate()


def test_a_process_answers_what_it_was_asked(light: Make, tmp_path: Path) -> None:
    place = Rollout("staging", tmp_path, free_port())
    try:
        place.deploy(light("one", seconds=SLOW))
        check(place)
    finally:
        place.stop()


@pytest.mark.containers
def test_a_container_answers_what_it_was_asked(images: Make, tmp_path: Path) -> None:
    place = Rollout("staging", tmp_path, free_port(), ContainerServers(memory="256m", cpus=0.5))
    try:
        place.deploy(images("one", seconds=SLOW))
        check(place)
    finally:
        place.stop()


@pytest.mark.containers
def test_the_real_service_is_soon_there_and_answers_what_it_was_asked(
    service_image: Image, service_bento: BentoArtefact, tmp_path: Path
) -> None:
    place = Rollout("staging", tmp_path, free_port(), ContainerServers())
    try:
        deployed = place.deploy(Release(service_image.model, service_bento.path, service_image))
        assert deployed.digest == service_image.digest
        assert place.serving() == service_image.model
        check(place, MANY)
    finally:
        place.stop()
