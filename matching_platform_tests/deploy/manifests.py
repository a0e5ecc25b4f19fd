"""What kustomize makes of the folders in `deploy`, and whether a cluster would take it."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import pytest
import yaml

Manifest = dict[str, Any]

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
# GKE's oldest version still in use, and the newest that the schemas know.
KUBERNETES: Final = ("1.32", "1.37")
FLUX: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {
    (schema["properties"]["apiVersion"]["const"], schema["properties"]["kind"]["const"]): schema
    for schema in (json.loads(path.read_text()) for path in sorted(Path(__file__).parent.glob("schemas/*/*.json")))
}
# What the overlay of production needs to have a challenger beside the champion.
CHALLENGER: Final = """
components:
  - ../../components/challenger
images:
  - name: matching-challenger
    newName: europe-west1-docker.pkg.dev/example-project/matching/matching-service
    digest: sha256:1111111111111111111111111111111111111111111111111111111111111111
"""


class InvalidManifestError(ValueError):
    """A cluster would refuse the manifest, or ignore a part of it."""


def build(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k` would send."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.fail("no kubectl; install it (https://kubernetes.io/docs/tasks/tools/), version 1.27 or newer")
    built = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, timeout=60)
    assert built.returncode == 0, f"{folder} does not build: {built.stderr}"
    return list(yaml.safe_load_all(built.stdout))


def with_challenger(folder: Path) -> Path:
    """A copy, under `folder`, of the manifests in which production has a challenger; its overlay."""
    overlay = Path(shutil.copytree(DEPLOY / "kubernetes", folder / "kubernetes"), "overlays", "production")
    path = overlay / "kustomization.yaml"
    settings, more = yaml.safe_load(path.read_text()), yaml.safe_load(CHALLENGER)
    path.write_text(yaml.safe_dump({**settings, **more, "images": settings["images"] + more["images"]}))
    return overlay


def validate(manifest: Manifest, kubernetes: str = KUBERNETES[-1]) -> None:
    """InvalidManifestError where kind, field or value is unknown to Kubernetes and to Flux."""
    schema = FLUX.get((manifest["apiVersion"], manifest["kind"]))
    try:
        if schema:
            jsonschema.validate(manifest, schema)
        else:
            kubernetes_validate.validate(manifest, kubernetes, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        raise InvalidManifestError(f"{named(manifest)}: {error.json_path}: {error.message}") from error
    except kubernetes_validate.SchemaNotFoundError as error:
        raise InvalidManifestError(f"{named(manifest)}: {error.message}") from error


def named(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def one(manifests: list[Manifest], name: str) -> Manifest:
    """The manifest `Kind/name`."""
    return next(manifest for manifest in manifests if named(manifest) == name)
