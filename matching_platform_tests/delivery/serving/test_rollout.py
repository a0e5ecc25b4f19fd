"""Real processes throughout. Most servers are light ones, which answer the packed probe and come up in a second."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from matching_platform.delivery.serving import processes
from matching_platform.delivery.serving import rollout as rollout_module
from matching_platform.delivery.serving.front import SERVED_BY
from matching_platform.delivery.serving.place import Release, RolloutError
from matching_platform.delivery.serving.rollout import Rollout
from matching_platform_tests.delivery.parts import VERSION, free_port
from matching_platform_tests.delivery.serving.light import Make, served, traffic


@pytest.fixture
def rollout(tmp_path: Path) -> Iterator[Rollout]:
    rollout = Rollout("production", tmp_path / "rollout", free_port())
    try:
        yield rollout
    finally:
        rollout.stop()


@pytest.fixture(scope="module")
def serving(light: Make, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rollout]:
    """A rollout on which `one` serves; tests that use it leave it so."""
    rollout = Rollout("production", tmp_path_factory.mktemp("serving"), free_port())
    try:
        rollout.deploy(light("one"))
        yield rollout
    finally:
        rollout.stop()


def in_force(rollout: Rollout) -> Release:
    status = rollout.status()
    return Release(status.model, status.bento, status.image)


def kill(rollout: Rollout, role: str) -> None:
    """As when the machine's memory runs out: the process and its children are gone, and nothing was tidied up."""
    root = next(process for found, process in processes.find(rollout.folder) if found == role)
    tree = [root, *root.children(recursive=True)]
    for process in tree:
        process.kill()
    psutil.wait_procs(tree, timeout=10)


def test_deploying_what_serves_changes_nothing(serving: Rollout) -> None:
    status, entries = serving.status(), serving.record.entries()
    assert (status.model, status.server, status.front, status.strays) == ("one", True, True, 0)
    again = serving.deploy(in_force(serving))
    assert not again.changed
    assert (again.place, again.model, again.url, again.digest) == ("production", "one", serving.url, None)
    assert serving.status() == status
    assert serving.record.entries() == entries


BROKEN = {
    "the worker does not come up": ({"start": "raise ValueError('out of order')"}, "out of order"),
    "the service does not import": ({"seconds": "nowhere("}, "SyntaxError"),
    "it names another version": ({"named": "'another'"}, "serves another, not broken"),
    "it cannot say what it is": ({"named": "nowhere"}, "does not answer as it must.*500"),
    "its answer is not of the form": ({"proposals": "{}"}, "does not answer as it must"),
    "its rows are not of the form": ({"proposals": "[{'transfer_id': 1}]"}, "does not answer as it must"),
    "it fails at matching": ({"proposals": "nowhere"}, "answers 500"),
    "it answers otherwise than packed": ({"proposals": "[]"}, "probe-single: expected .*, got no answer"),
}


@pytest.mark.parametrize(("fault", "message"), BROKEN.values(), ids=BROKEN)
def test_a_server_that_fails_its_check_gets_no_traffic(
    serving: Rollout, light: Make, fault: dict[str, str], message: str
) -> None:
    before = serving.status()
    with pytest.raises(RolloutError, match=message):
        serving.deploy(light("broken", **fault))
    assert serving.status() == before
    assert served(serving.url) == "one"


def test_a_server_that_never_gets_ready_is_given_up(
    serving: Rollout, light: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_module, "START_SECONDS", 4.0)
    with pytest.raises(RolloutError, match="was not ready after 4 s"):
        serving.deploy(light("hangs", start="time.sleep(600)"))
    assert serving.status().strays == 0
    assert served(serving.url) == "one"


def test_a_server_that_is_not_accepted_gets_no_traffic(serving: Rollout, light: Make) -> None:
    asked = []

    def refuse(url: str) -> list[str]:
        asked.append(httpx.get(f"{url}/model", trust_env=False).json()["version"])
        return ["too slow"]

    with pytest.raises(RolloutError, match="too slow"):
        serving.deploy(light("slow"), accept=refuse)
    assert asked == ["slow"]
    assert served(serving.url) == "one"


def test_a_server_that_cannot_be_asked_gets_no_traffic(serving: Rollout, light: Make) -> None:
    def ask(url: str) -> list[str]:
        raise httpx.ReadTimeout("no answer in time")

    with pytest.raises(RolloutError, match="no answer in time"):
        serving.deploy(light("silent"), accept=ask)
    assert served(serving.url) == "one"


def test_a_folder_that_is_no_bento_is_refused(serving: Rollout, tmp_path: Path) -> None:
    with pytest.raises(RolloutError, match="no bento of ours"):
        serving.deploy(Release("one", tmp_path))


def test_a_corrupt_model_gets_no_traffic(serving: Rollout, bento: Path, tmp_path: Path) -> None:
    corrupt = tmp_path / "bento"
    shutil.copytree(bento, corrupt)
    weights = corrupt / "src" / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(RolloutError, match="not as it was saved"):
        serving.deploy(Release(VERSION, corrupt))
    assert served(serving.url) == "one"


def test_the_real_service_is_rolled_out_and_its_bento_stays_as_it_was(url: str, bento: Path) -> None:
    assert not list(bento.rglob("__pycache__"))
    response = httpx.get(f"{url}/model", trust_env=False)
    assert response.json()["version"] == VERSION
    assert response.headers[SERVED_BY].startswith("127.0.0.1:")


def test_a_switch_loses_no_request(rollout: Rollout, light: Make) -> None:
    rollout.deploy(light("old", seconds=0.2))
    with traffic(rollout.url) as live:
        live.await_more(1)
        rollout.deploy(light("new", seconds=0.2))
        live.await_more(3)
    assert live.statuses == {200}
    assert live.asked[0].model == "old"
    assert live.models == {"old", "new"}
    assert rollout.serving() == served(rollout.url) == "new"
    assert rollout.status().strays == 0
    assert len(list((rollout.folder / "servers").iterdir())) == 1


@pytest.mark.parametrize("role", ["front", "server"])
def test_what_was_killed_is_put_right(serving: Rollout, role: str) -> None:
    status = serving.status()
    kill(serving, f"front:{serving.port}" if role == "front" else status.address)
    assert not getattr(serving.status(), role)
    assert serving.deploy(in_force(serving)).changed
    assert served(serving.url) == "one"
    healed = serving.status()
    assert (healed.server, healed.front, healed.strays) == (True, True, 0)


def test_the_server_of_a_killed_rollout_is_stopped(serving: Rollout, light: Make) -> None:
    script = (
        "import sys, os, signal; from pathlib import Path; from matching_platform.delivery.serving.rollout import Rollout;"
        "from matching_platform.delivery.serving.place import Release;"
        "die = lambda url: os.kill(os.getpid(), signal.SIGKILL);"
        "Rollout('production', Path(sys.argv[1]), int(sys.argv[2])).deploy(Release('orphan', Path(sys.argv[3])), accept=die)"
    )
    command = [sys.executable, "-c", script, str(serving.folder), str(serving.port), str(light("orphan").bento)]
    assert subprocess.run(command, check=False).returncode < 0
    assert serving.status().strays == 1
    assert served(serving.url) == "one"
    assert not serving.deploy(in_force(serving)).changed
    assert serving.status().strays == 0


def test_what_was_stopped_resumes(serving: Rollout) -> None:
    serving.stop()
    status = serving.status()
    assert (status.model, status.server, status.front) == ("one", False, False)
    assert serving.resume().model == "one"
    assert served(serving.url) == "one"


def test_a_port_that_is_taken_is_told_before_anything_changes(tmp_path: Path, light: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        rollout = Rollout("production", tmp_path / "rollout", other.getsockname()[1])
        with pytest.raises(RolloutError, match="another program listens on port"):
            rollout.deploy(light("one"))
        assert processes.find(rollout.folder) == []
        assert rollout.record.last() is None


def test_nothing_deployed_cannot_resume(tmp_path: Path) -> None:
    rollout = Rollout("production", tmp_path, free_port())
    assert rollout.status().model is None
    with pytest.raises(RolloutError, match="nothing was ever deployed"):
        rollout.resume()
