"""The image of the pipeline's code, as its Dockerfile describes it."""

import fnmatch
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = ROOT / "deploy" / "docker" / "Dockerfile"


@dataclass(frozen=True)
class Step:
    """An instruction, in capitals, and what follows it on its lines."""

    name: str
    rest: str


def read(text: str) -> list[Step]:
    """The instructions of a Dockerfile, continued lines joined and comments left out."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")).replace("\\\n", " ")
    parted = (line.strip().partition(" ") for line in lines.splitlines() if line.strip())
    return [Step(name.upper(), " ".join(rest.split())) for name, _, rest in parted]


def stages(steps: list[Step]) -> list[list[Step]]:
    """The instructions of each stage, its FROM first."""
    found: list[list[Step]] = []
    for step in steps:
        if step.name == "FROM":
            found.append([step])
        elif found:
            found[-1].append(step)
    return found


def problems(text: str) -> Iterator[str]:
    """What is wrong with a Dockerfile of ours, in words."""
    steps = read(text)
    built = stages(steps)
    given = {name for step in steps if step.name == "ARG" for name in [step.rest.partition("=")[0]]}
    defaults = dict(step.rest.split("=", 1) for step in steps if step.name == "ARG" and "=" in step.rest)
    for stage in built:
        image = re.sub(r"\$\{?(\w+)\}?", lambda found: defaults.get(found[1], ""), stage[0].rest.split()[0])
        if "${" not in stage[0].rest and "@sha256:" not in image:
            yield f"{image} is neither given nor pinned by digest"
        if not re.search(r":[\w.-]*\d[\w.-]*(@sha256:|$)", image) or image.endswith(":latest"):
            yield f"{image} names no version"
        yield from (f"ARG {name} is unknown" for name in re.findall(r"\$\{(\w+)\}", stage[0].rest) if name not in given)
    last = built[-1]
    users = [step.rest for step in last if step.name == "USER"]
    if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
        yield "the last stage runs as root, or as a user without a number"
    for step in steps:
        if step.name == "ADD":
            yield "ADD unpacks and downloads; COPY copies"
        if step.name == "RUN" and re.search(r"\bapt(-get)? install\b", step.rest):
            if "--no-install-recommends" not in step.rest:
                yield "apt installs what it recommends"
            if "rm -rf /var/lib/apt/lists" not in step.rest:
                yield "apt's lists stay in the layer"
        if step.name == "RUN" and re.search(r"\b(curl|wget)\b", step.rest):
            yield "something is downloaded that nobody pinned"
        if step.name == "RUN" and "pip install" in step.rest and "--constraint" not in step.rest:
            yield "pip installs what is not pinned"
        if step.name == "COPY" and "--from" not in step.rest:
            yield from (f"{source} does not exist" for source in _sources(step) if not (ROOT / source).exists())
            yield from (f"{source} is in .dockerignore" for source in _sources(step) if _ignored(source))
    if any(re.search(r"\b(gcc|g\+\+|build-essential|python3-dev)\b", step.rest) for step in last):
        yield "the last stage has a compiler"
    if "HEALTHCHECK" not in {step.name for step in last}:
        yield "nobody sees whether it is well"


def _sources(step: Step) -> list[str]:
    return [word for word in shlex.split(step.rest)[:-1] if not word.startswith("--")]


def _ignored(source: str) -> bool:
    """By .dockerignore, whose last fitting line decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and fnmatch.fnmatch(source, pattern):
            ignored = not line.startswith("!")
    return ignored


def test_nothing_is_wrong_with_it() -> None:
    assert list(problems(DOCKERFILE.read_text())) == []


@pytest.mark.parametrize(
    ("text", "instead", "problem"),
    [
        ("USER 10001:10001\n", "", "runs as root"),
        ("USER 10001:10001", "USER platform", "without a number"),
        ("python:3.11-slim-bookworm", "python:latest", "names no version"),
        ("FROM ${PYTHON}\n", "FROM docker.io/library/python:3.11\n", "neither given nor pinned"),
        ("COPY bento bento", "COPY bentos bentos", "bentos does not exist"),
        ("COPY bento bento", "COPY docs docs", "docs is in .dockerignore"),
        ("COPY constraints.txt", "ADD https://example.com/constraints.txt", "ADD unpacks"),
        ("pip install --constraint constraints.txt --index-url", "pip install --index-url", "not pinned"),
        ("RUN mkdir -p /opt", "RUN apt-get install gcc && mkdir -p /opt", "has a compiler"),
        ("RUN mkdir -p /opt", "RUN apt-get install gcc && mkdir -p /opt", "apt's lists stay"),
        ("HEALTHCHECK", "LABEL", "nobody sees"),
    ],
)
def test_what_is_wrong_is_seen(text: str, instead: str, problem: str) -> None:
    whole = DOCKERFILE.read_text()
    assert text in whole
    assert any(problem in found for found in problems(whole.replace(text, instead)))


def test_it_serves_the_port_that_the_chart_asks() -> None:
    import yaml

    values = yaml.safe_load((ROOT / "deploy" / "dagster" / "release" / "values.yaml").read_text())
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    steps = {step.name: step.rest for step in stages(read(DOCKERFILE.read_text()))[-1]}
    port = str(deployment["port"])
    assert steps["EXPOSE"] == port
    assert port in json.loads(steps["HEALTHCHECK"].partition("CMD ")[2])
    command = json.loads(steps["CMD"])
    assert command[-2:] == deployment["dagsterApiGrpcArgs"]
    user, group = steps["USER"].split(":")
    security = deployment["podSecurityContext"]
    assert (str(security["runAsUser"]), str(security["runAsGroup"])) == (user, group)
    home = next(word for word in shlex.split(steps["ENV"]) if word.startswith("DAGSTER_HOME="))
    assert home == "DAGSTER_HOME=/opt/dagster/dagster_home"  # where the chart mounts the instance


def test_the_gpus_driver_is_found() -> None:
    """On GKE's nodes it lies where only these lead."""
    steps = {step.name: step.rest for step in stages(read(DOCKERFILE.read_text()))[-1]}
    given = dict(word.split("=", 1) for word in shlex.split(steps["ENV"]))
    assert "/usr/local/nvidia/lib64" in given["LD_LIBRARY_PATH"].split(":")
    assert "/usr/local/nvidia/bin" in given["PATH"].split(":")


def test_the_commands_are_dagsters() -> None:
    from click.testing import CliRunner
    from dagster._cli import create_dagster_cli

    for words in (["api", "grpc-health-check", "--help"], ["api", "grpc", "--help"]):
        answer = CliRunner().invoke(create_dagster_cli(), words)
        assert answer.exit_code == 0
        assert "--port" in answer.output
