"""Real containers, pulled by digest from a real registry: the traffic never leaves the good one."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from matching_platform.delivery.serving import rollout as rollout_module
from matching_platform.delivery.serving.containers import ContainerServers
from matching_platform.delivery.serving.place import Release, RolloutError
from matching_platform.delivery.serving.rollout import Rollout
from matching_platform.delivery.serving.steps import AT_ONCE, Steps
from matching_platform_tests.containers.engine import Engine
from matching_platform_tests.delivery.parts import free_port
from matching_platform_tests.delivery.serving.light import Make, traffic

pytestmark = pytest.mark.containers

SMALL = ContainerServers(memory="256m", cpus=0.5)


@pytest.fixture(scope="module")
def place(images: Make, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Steps], Rollout]]:
    """A place on which `one` serves; tests that use it leave it so."""
    folder, port = tmp_path_factory.mktemp("containers"), free_port()

    def rollout(steps: Steps = AT_ONCE) -> Rollout:
        return Rollout("production", folder, port, SMALL, steps)

    try:
        rollout().deploy(images("one"))
        yield rollout
    finally:
        rollout().stop()


def in_force(rollout: Rollout) -> Release:
    status = rollout.status()
    return Release(status.model, status.bento, status.image)


def test_a_container_can_do_nothing_but_serve(place: Callable[..., Rollout], engine: Engine) -> None:
    (server,) = SMALL.find(place().folder)
    image = place().status().image
    asked = (
        "{{.HostConfig.ReadonlyRootfs}} {{.Config.User}} {{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.ImageName}}"
    )
    assert engine.podman("inspect", "--format", asked, server.id).split() == [
        "true",
        "1034:1034",
        str(256 * 2**20),
        "500000000",
        image.reference,
    ]
    status = engine.podman("exec", server.id, "grep", "-E", "Cap(Eff|Bnd)|NoNewPrivs", "/proc/1/status").split()
    assert status == ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]
    for path, written in {"/": False, "/home": False, "/run": False, "/tmp": True}.items():
        done = subprocess.run(["podman", "exec", server.id, "touch", f"{path}/file"], capture_output=True)
        assert (done.returncode == 0) is written, path
    port = server.address.split(":")[1]
    assert engine.podman("port", server.id) == f"3000/tcp -> 127.0.0.1:{port}"


def test_deploying_what_serves_changes_nothing(place: Callable[..., Rollout]) -> None:
    before, entries = place().status(), place().record.entries()
    again = place().deploy(in_force(place()))
    assert (again.place, again.model, again.digest, again.changed) == ("production", "one", before.image.digest, False)
    assert (place().status(), place().record.entries()) == (before, entries)


def test_forward_step_by_step_and_back_by_digest_lose_no_request(images: Make, tmp_path: Path, engine: Engine) -> None:
    steps = Steps(shadow_seconds=1.0, canary_share=0.3, canary_seconds=1.0, watch_seconds=1.0)
    ours = Rollout("production", tmp_path, free_port(), SMALL, steps)
    back = Rollout("production", tmp_path, ours.port, SMALL)
    old, new = images("old", seconds=0.05), images("new", seconds=0.05)
    try:
        ours.deploy(old)
        with traffic(ours.url) as live:
            live.await_more(1)
            assert ours.deploy(new).digest == new.image.digest
            live.await_more(3)
            started = time.monotonic()
            assert back.deploy(old).digest == old.image.digest
            seconds = time.monotonic() - started
            live.await_more(3)
        assert live.statuses == {200}
        answered = [one.model for one in live.asked]
        assert (answered[0], "new" in answered, set(answered[-3:])) == ("old", True, {"old"})
        assert seconds < 20
        assert len(SMALL.find(tmp_path)) == 1
    finally:
        ours.stop()
    assert SMALL.find(tmp_path) == []


FAULTS = {
    "it answers wrongly": ({"proposals": "[]"}, AT_ONCE, "probe-single: expected .*, got no answer"),
    "it does not come up": (
        {"start": "raise SystemExit('out of order')"},
        AT_ONCE,
        "does not come up(.|\n)*out of order",
    ),
    "it serves another version": ({"named": "'another'"}, AT_ONCE, "serves another, not broken"),
    "it differs on live requests": (
        {"proposals": 'PROBE["proposals"][asked > 0:]'},
        Steps(shadow_seconds=1.5, shadow_differences=0.0),
        "'shadow': .* transfers were answered otherwise",
    ),
    "it is slow": (
        {"seconds": "0.3 if asked else 0"},
        Steps(canary_share=0.5, canary_seconds=15.0, slower=3.0),
        "'canary': the p95 is [0-9]+ ms",
    ),
    "it fails when all traffic is there": (
        {"proposals": 'PROBE["proposals"] if asked < 20 else nowhere'},
        Steps(watch_seconds=30.0),
        "'watch': .* requests failed",
    ),
}


@pytest.mark.parametrize(("fault", "steps", "message"), FAULTS.values(), ids=FAULTS)
def test_whatever_a_new_container_does_the_good_one_answers(
    place: Callable[..., Rollout], images: Make, fault: dict[str, str], steps: Steps, message: str
) -> None:
    ours = place(steps)
    before = ours.status()
    with traffic(ours.url) as live:
        live.await_more(1)
        with pytest.raises(RolloutError, match=message):
            ours.deploy(images("broken", **fault))
        live.await_more(3)
    assert live.statuses == {200}
    assert {one.model for one in live.asked[-3:]} == {"one"}
    assert ours.status() == before


def test_a_container_that_hangs_is_given_up(
    place: Callable[..., Rollout], images: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_module, "START_SECONDS", 2.0)
    with pytest.raises(RolloutError, match="was not ready after 2 s"):
        place().deploy(images("hangs", start="time.sleep(600)"))
    assert place().status().strays == 0
    assert place().serving() == "one"


def test_an_image_that_is_not_there_is_told(place: Callable[..., Rollout], light: Make) -> None:
    release = light("missing")
    with pytest.raises(RolloutError, match="there is no image of missing; build it first"):
        place().deploy(release)
    image = replace(place().status().image, digest=f"sha256:{'0' * 64}", model="missing")
    with pytest.raises(RolloutError, match=r"podman run failed: .*manifest unknown"):
        place().deploy(replace(release, image=image))
    assert place().status().strays == 0


def test_an_engine_that_is_not_there_is_told(tmp_path: Path, images: Make) -> None:
    rollout = Rollout("production", tmp_path, free_port(), ContainerServers(engine="no-such-engine"))
    with pytest.raises(RolloutError, match="there is no no-such-engine here; install it"):
        rollout.deploy(images("one"))


def test_a_killed_rollout_leaves_a_stray_that_the_next_call_removes(
    place: Callable[..., Rollout], images: Make
) -> None:
    orphan = images("orphan")
    script = (
        "import sys, os, signal; from dataclasses import replace; from pathlib import Path;"
        "from matching_platform.delivery.images.image import Image;"
        "from matching_platform.delivery.serving.containers import ContainerServers;"
        "from matching_platform.delivery.serving.place import Release;"
        "from matching_platform.delivery.serving.rollout import Rollout;"
        "die = lambda url: os.kill(os.getpid(), signal.SIGKILL);"
        "rollout = Rollout('production', Path(sys.argv[1]), int(sys.argv[2]), ContainerServers('256m', 0.5));"
        f"rollout.deploy(Release('orphan', Path(sys.argv[3]), {orphan.image!r}), die)"
    )
    command = [sys.executable, "-c", script, str(place().folder), str(place().port), str(orphan.bento)]
    assert subprocess.run(command, check=False).returncode < 0
    assert place().status().strays == 1
    assert not place().resume().changed
    assert place().status().strays == 0
    assert len(SMALL.find(place().folder)) == 1


def test_a_container_that_was_killed_comes_back(place: Callable[..., Rollout], engine: Engine) -> None:
    (server,) = SMALL.find(place().folder)
    engine.podman("kill", server.id)
    assert place().serving() is None
    assert place().resume().changed
    assert place().serving() == "one"
    assert place().status().strays == 0
