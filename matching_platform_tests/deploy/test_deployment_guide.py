"""docs/deployment.md says what to type: names that settings, manifests and Terraform have, in an order that works."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from matching_platform.access.settings import DeskSettings
from matching_platform.environment import PREFIX, Settings
from matching_platform.monitoring.notify.mail import Mail
from matching_platform_tests.deploy.manifests import DEPLOY, ROOT, build
from matching_platform_tests.deploy.terraform import read_module

GUIDE: Final = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
SERVICE: Final = DEPLOY / "kubernetes" / "overlays" / "production"
DESK: Final = DEPLOY / "kubernetes" / "desk" / "overlays" / "production"
COMMANDS: Final = "\n".join(re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL))


def test_every_setting_is_one() -> None:
    fields = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    mail = {f"{PREFIX}MAIL__{name.upper()}" for name in Mail.model_fields}
    desk = {f"{PREFIX}DESK__{name.upper()}" for name in DeskSettings.model_fields}
    named = set(re.findall(rf"{PREFIX}[A-Z_]+", GUIDE))
    assert named <= fields | mail | desk
    required = {f"{PREFIX}MAIL__{name.upper()}" for name, field in Mail.model_fields.items() if field.is_required()}
    assert required <= named  # a part of them alone would stop the platform from starting


def test_what_the_pods_read_is_made() -> None:
    made = set(re.findall(r"kubectl create (configmap|secret generic) ([\w-]+) --namespace=([\w-]+)", COMMANDS))
    made |= {
        ("secret generic", name, "flux-system") for name in re.findall(r"flux create secret git ([\w-]+)", COMMANDS)
    }
    assert made == {
        *(("configmap", name, "dagster") for name in _named("envConfigMaps")),
        *(("secret generic", name, "dagster") for name in _named("envSecrets")),
        ("secret generic", "dagster-postgresql", "dagster"),
        *(("secret generic", name, "flux-system") for name in _secrets_of_flux()),
        *(("secret generic", name, "matching-production") for name in _secrets(SERVICE)),
        *(("secret generic", name, "desk-production") for name in _secrets(DESK)),
        *(("configmap", found["name"], "desk-production") for found in _at(build(DESK), "configMapRef")),
    }


def _named(key: str) -> set[str]:
    """The ConfigMaps or Secrets that the chart's values name."""
    values = yaml.safe_load((DEPLOY / "dagster" / "release" / "values.yaml").read_text())
    return {one["name"] for found in _at(values, key) for one in found}


def _at(value: Any, key: str) -> Iterator[Any]:
    for name, each in value.items() if isinstance(value, dict) else enumerate(value):
        if name == key:
            yield each
        elif isinstance(each, dict | list):
            yield from _at(each, key)


def _secrets_of_flux() -> set[str]:
    return {found["name"] for found in _at(build(DEPLOY / "flux"), "secretRef")}


def test_what_terraform_is_asked_for_is_an_output() -> None:
    module = read_module(DEPLOY / "terraform")
    assert set(re.findall(r"output -\w+ (\w+)", COMMANDS)) == {"environment", *_github_outputs()}
    assert {"environment", *_github_outputs()} <= module.outputs.keys()
    assert set(re.findall(r"jq -r \.(\w+)", COMMANDS)) <= module.locals["accounts"].keys()


def _github_outputs() -> set[str]:
    """The outputs that the variables of GitHub's workflows come from."""
    workflow = (ROOT / ".github" / "workflows" / "images.yml").read_text()
    by_variable = dict(re.findall(r"gh variable set (\w+) .*output -\w+ (\w+)", COMMANDS))
    assert by_variable.keys() == set(re.findall(r"\$\{\{ vars\.(\w+) \}\}", workflow))
    return set(by_variable.values())


def test_each_step_finds_what_it_needs() -> None:
    order = (
        "gcloud services enable",
        "buckets create",
        "terraform -chdir=deploy/terraform init",
        "terraform -chdir=deploy/terraform apply",
        "get-credentials",
        "gh variable set",
        "gh workflow run images.yml",
        "kubectl apply -f deploy/dagster/release/namespace.yaml",
        "kubectl create configmap",
        "flux install",
        "kubectl apply -k deploy/flux",
    )
    places = [COMMANDS.index(command) for command in order]
    assert places == sorted(places)
    for path in set(re.findall(r"deploy/[\w./-]+", GUIDE)):
        assert (ROOT / path.rstrip("./")).exists(), path


def _secrets(overlay: Path) -> set[str]:
    return {found["name"] for found in _at(build(overlay), "secretKeyRef")}
