import subprocess
from pathlib import Path

import httpx
import pytest

from matching_platform_tests.containers import engine as parts
from matching_platform_tests.containers.engine import Engine


@pytest.mark.containers
def test_images_go_to_the_registry_and_come_back_by_digest(
    engine: Engine, registry: str, base_image: str, tmp_path: Path
) -> None:
    name, digest = f"{registry}/base", tmp_path / "digest"
    engine.podman("push", "--digestfile", str(digest), base_image, f"{name}:1")
    assert httpx.get(f"http://{registry}/v2/base/tags/list").json()["tags"] == ["1"]
    assert engine.podman("run", "--rm", f"{name}@{digest.read_text()}", "python3", "-c", "print(1 + 1)") == "2"


@pytest.mark.containers
def test_nothing_of_the_machine_is_used(engine: Engine, base_image: str) -> None:
    (mine,) = engine.podman(
        "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={base_image}"
    ).split()
    assert mine == base_image
    assert engine.podman("info", "--format", "{{.Store.GraphRoot}}") == str(engine.folder / "images")
    machine = subprocess.run(
        ["podman", "info", "--format", "{{.Store.GraphRoot}}"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert machine.stdout.strip() != str(engine.folder / "images")


@pytest.mark.parametrize(("set_", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_a_missing_engine_is_no_silent_pass(
    monkeypatch: pytest.MonkeyPatch, set_: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv(parts.REQUIRED, set_)
    with pytest.raises(outcome, match="apt-get install"):
        parts.required()
