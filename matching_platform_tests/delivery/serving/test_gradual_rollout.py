"""The traffic moves step by step, over real processes; whatever the new server does, every request is answered well."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from matching_platform.delivery.serving import traffic as counted
from matching_platform.delivery.serving.place import RolloutError
from matching_platform.delivery.serving.rollout import Rollout
from matching_platform.delivery.serving.steps import Steps
from matching_platform_tests.delivery.parts import free_port
from matching_platform_tests.delivery.serving.light import Make, served, traffic

GRADUAL = Steps(shadow_seconds=1.5, canary_share=0.3, canary_seconds=1.5, watch_seconds=1.5)


@pytest.fixture(scope="module")
def place(light: Make, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """Folder and port of a rollout on which `one` serves; tests that use it leave it so."""
    folder, port = tmp_path_factory.mktemp("gradual"), free_port()
    rollout = Rollout("production", folder, port)
    try:
        rollout.deploy(light("one"))
        yield folder, port
    finally:
        rollout.stop()


def rollout(place: tuple[Path, int], steps: Steps) -> Rollout:
    return Rollout("production", *place, steps=steps)


def test_a_good_server_takes_over_step_by_step(light: Make, tmp_path: Path) -> None:
    ours = Rollout("production", tmp_path, free_port(), steps=GRADUAL)
    try:
        assert ours.deploy(light("old")).steps == ()
        with traffic(ours.url) as live:
            live.await_more(1)
            deployed = ours.deploy(light("new"))
            live.await_more(3)
        assert live.statuses == {200}
        assert [told.partition(":")[0] for told in deployed.steps] == ["shadow", "canary", "watch"]
        assert all(" 0 failed" in told for told in deployed.steps)
        assert ", 0 of " in deployed.steps[0]
        answered = [one.model for one in live.asked]
        assert answered[0] == "old"
        canary = answered[answered.index("new") :]
        assert "old" in canary
        assert set(answered[-3:]) == {"new"}
        routes = [entry.payload["challenger"] for entry in ours.record.entries()]
        assert [route and (route["share"], route["shadow"]) for route in routes] == [
            None,
            (0.0, True),
            (0.3, False),
            (1.0, False),
            None,
        ]
        assert ours.status().strays == 0
    finally:
        ours.stop()


FAULTS = {
    "it answers wrongly": (
        {"proposals": 'PROBE["proposals"] if asked == 0 else PROBE["proposals"][:1]'},
        Steps(shadow_seconds=1.0, shadow_differences=0.0),
        "'shadow': [0-9]+ of [0-9]+ transfers were answered otherwise, and 0.0% may: transfer probe-",
    ),
    "it fails as a shadow": (
        {"proposals": 'PROBE["proposals"] if asked == 0 else nowhere'},
        Steps(shadow_seconds=30.0),
        "'shadow': [0-9]+ of [0-9]+ requests failed, and 1.0% may",
    ),
    "it fails as a canary": (
        {"proposals": 'PROBE["proposals"] if asked < 2 else nowhere'},
        Steps(canary_share=0.5, canary_seconds=30.0),
        "'canary': [0-9]+ of [0-9]+ requests failed, and 1.0% may",
    ),
    "it is slow": (
        {"seconds": "0.0 if asked == 0 else 0.2"},
        Steps(canary_share=0.5, canary_seconds=4.0, slower=3.0),
        "'canary': the p95 is [0-9]+ ms, the old server's [0-9]+ ms, and 3 times that is the limit",
    ),
    "it starts to fail when all traffic is there": (
        {"proposals": 'PROBE["proposals"] if asked < 30 else nowhere'},
        Steps(watch_seconds=30.0),
        "'watch': [0-9]+ of [0-9]+ requests failed, and 1.0% may",
    ),
    "it dies when all traffic is there": (
        {"proposals": 'PROBE["proposals"] if asked < 30 else os.kill(os.getppid(), 9) or os._exit(1)'},
        Steps(watch_seconds=30.0),
        "'watch': [0-9]+ of [0-9]+ requests failed, and 1.0% may",
    ),
}


@pytest.mark.parametrize(("fault", "steps", "message"), FAULTS.values(), ids=FAULTS)
def test_a_server_that_fails_a_step_is_taken_back_and_no_request_with_it(
    place: tuple[Path, int], light: Make, fault: dict[str, str], steps: Steps, message: str
) -> None:
    ours = rollout(place, steps)
    before = ours.status()
    with traffic(ours.url) as live:
        live.await_more(1)
        with pytest.raises(RolloutError, match=message):
            ours.deploy(light("broken", **fault))
        live.await_more(3)
    assert live.statuses == {200}
    assert {one.model for one in live.asked[-3:]} == {"one"}
    assert ours.status() == before
    assert ours.serving() == "one"


def test_a_shadow_that_hangs_holds_no_request_up(place: tuple[Path, int], light: Make) -> None:
    ours = rollout(place, Steps(shadow_seconds=1.0))
    with traffic(ours.url) as live:
        live.await_more(1)
        with pytest.raises(RolloutError, match=r"none of [0-9]+ copies was answered in time"):
            ours.deploy(light("hangs", seconds="0.0 if asked == 0 else 600"))
    assert live.statuses == {200}
    assert live.models == {"one"}
    assert max(one.seconds for one in live.asked) < 2.0


def test_a_rollout_killed_in_a_step_leaves_the_good_server_and_the_next_call_tidies_up(
    place: tuple[Path, int], light: Make
) -> None:
    ours = rollout(place, Steps())
    before = ours.status()
    script = (
        "import sys; from pathlib import Path; from matching_platform.delivery.serving.place import Release;"
        "from matching_platform.delivery.serving.rollout import Rollout, Steps;"
        "rollout = Rollout('production', Path(sys.argv[1]), int(sys.argv[2]), steps=Steps(watch_seconds=600));"
        "rollout.deploy(Release('orphan', Path(sys.argv[3])))"
    )
    folder, port = place
    command = [sys.executable, "-c", script, str(folder), str(port), str(light("orphan").bento)]
    with traffic(ours.url) as live:
        killed = subprocess.Popen(command)
        try:
            while "orphan" not in live.models:
                live.await_more(1)
        finally:
            killed.kill()
            killed.wait()
        live.await_more(10)
        assert (ours.status().model, ours.status().strays) == ("one", 0)
        assert not ours.resume().changed
        live.await_more(3)
    assert live.statuses == {200}
    assert {one.model for one in live.asked[-3:]} == {"one"}
    assert ours.status() == before


def test_the_error_rate_is_read_since_a_moment(light: Make, tmp_path: Path) -> None:
    ours = Rollout("production", tmp_path, free_port())
    try:
        ours.deploy(light("one", proposals='PROBE["proposals"] if asked < 3 else nowhere'))
        with traffic(ours.url, clients=1) as live:
            live.await_more(1)
        earlier = counted.read(ours.url)
        with traffic(ours.url, clients=1) as live:
            live.await_more(5)
        later = counted.read(ours.url)
        assert later.since(earlier)[0] == len(live.asked)
        assert later.since(earlier)[1] == sum(one.status >= 500 for one in live.asked) > 0
        ours.stop()
        with pytest.raises(RolloutError, match="does not tell what it counts"):
            counted.read(ours.url)
        ours.resume()
        assert counted.read(ours.url).since(later) == (0, 0)
        assert served(ours.url) == "one"
    finally:
        ours.stop()
