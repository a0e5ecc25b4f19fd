"""Prometheus and Alertmanager as Debian has them, and what the files in deploy/monitoring hold."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from matching_platform_tests.containers.engine import REQUIRED
from matching_platform_tests.deploy.manifests import DEPLOY

MONITORING: Final = DEPLOY / "monitoring"
RULES: Final = MONITORING / "rules.yaml"
ALERTMANAGER: Final = MONITORING / "alertmanager.yml"
TOOLS: Final = ("prometheus", "promtool", "prometheus-alertmanager", "amtool")
PACKAGES: Final = "prometheus prometheus-alertmanager"
# What Grafana puts in place of its variables.
_VARIABLES: Final = {"$__rate_interval": "5m", "$environment": "local"}
_NAME: Final = re.compile(r"\b[a-z_][a-z0-9_]*(?::[a-z0-9_]+)*\b(?=\s*[{\[])")


def required() -> None:
    """Skips what needs these tools where they are missing, and fails where there have to be containers, too."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        told = f"no {', '.join(missing)}; apt-get install -y --no-install-recommends {PACKAGES}"
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(told)


def run(*command: str | Path) -> str:
    """What a tool writes; the test fails with what it complains about."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts by their names."""
    return {rule["alert"]: rule for rule in _rules() if "alert" in rule}


def recorded() -> set[str]:
    """The series that rules make of others."""
    return {rule["record"] for rule in _rules() if "record" in rule}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MONITORING / "grafana" / "matching.json").read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """The panels that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    """What the dashboard asks Prometheus, with its variables filled in."""
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    found += [annotation["expr"] for annotation in dashboard()["annotations"]["list"]]
    for name, value in _VARIABLES.items():
        found = [query.replace(name, value) for query in found]
    return found


def series() -> set[str]:
    """The names of all series that a rule or the dashboard reads."""
    asked = [rule["expr"] for rule in _rules()] + queries()
    return {name for expression in asked for name in _NAME.findall(expression)}


def _rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        yield from group["rules"]
