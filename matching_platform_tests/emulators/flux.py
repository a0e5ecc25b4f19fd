"""Flux's part for tests: reads our manifests, chooses a tag, rewrites the marks in a git repository, builds what it applies.

Registry and repository are real ones, or stand-ins of the same form; what Flux does in between is done as it documents it.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from matching_platform.delivery.serving.kubernetes import Registry
from matching_platform_tests.deploy.manifests import Manifest, build

_MARK: Final = re.compile(
    r"""(?P<before>^[ -]*\w+:\ *["']?)(?P<value>[^"'\s]*)(?P<after>["']?\ *\#\ *\{"\$imagepolicy":\ *
    "(?P<policy>[^:"]+:[^:"]+):(?P<field>name|tag|digest)"\}\s*$)""",
    re.MULTILINE | re.VERBOSE,
)
_AUTHOR: Final = ("-c", "user.name=Flux", "-c", "user.email=flux@example.com")


@dataclass(frozen=True)
class Chosen:
    """The image that a policy names."""

    name: str
    tag: str
    digest: str


@dataclass(frozen=True)
class Flux:
    """The controllers, for the objects in `objects`; `remote` is the repository that the GitRepository stands for."""

    objects: list[Manifest]
    registry: Registry
    remote: Path

    def choose(self, policy: str) -> Chosen | None:
        """What the ImagePolicy of this name chooses among the registry's tags; None where no tag suits."""
        found = self._object("ImagePolicy", policy)
        assert found["policy"] == {"numerical": {"order": "asc"}}, "another order is not played here"
        pattern, extract = found["filterTags"]["pattern"], found["filterTags"]["extract"]
        group = extract.removeprefix("$")
        suiting = {tag: float(match[group]) for tag in self.registry.tags() if (match := re.search(pattern, tag))}
        if not suiting:
            return None
        tag = max(suiting, key=suiting.__getitem__)
        image = self._object("ImageRepository", found["imageRepositoryRef"]["name"])["image"]
        return Chosen(image, tag, self.registry.digest(tag))

    def update(self, automation: str) -> str | None:
        """The commit that the ImageUpdateAutomation of this name pushes; None where nothing is to be changed."""
        found = self._object("ImageUpdateAutomation", automation)
        with TemporaryDirectory() as folder:
            git(
                folder, "clone", "--quiet", "--branch", found["git"]["checkout"]["ref"]["branch"], str(self.remote), "."
            )
            chosen = {name: self.choose(name) for name in self._policies(found["policySelector"]["matchLabels"])}
            for path in Path(folder, found["update"]["path"]).rglob("*.yaml"):
                path.write_text(
                    rewritten(path.read_text(), {f"flux-system:{name}": one for name, one in chosen.items()})
                )
            if not git(folder, "status", "--porcelain"):
                return None
            title = found["git"]["commit"]["messageTemplate"].splitlines()[0]
            git(folder, *_AUTHOR, "commit", "--quiet", "--all", "--message", title)
            git(folder, "push", "--quiet", "origin", f"HEAD:{found['git']['push']['branch']}")
            return git(folder, "rev-parse", "HEAD")

    def revision(self) -> str:
        """What the GitRepository finds at the remote."""
        return git(self.remote, "rev-parse", "main")

    def build(self, kustomization: str, revision: str) -> list[Manifest]:
        """What the Kustomization of this name applies of a revision."""
        with TemporaryDirectory() as folder:
            git(folder, "clone", "--quiet", str(self.remote), ".")
            git(folder, "checkout", "--quiet", revision)
            return build(Path(folder, self._object("Kustomization", kustomization)["path"]))

    def _object(self, kind: str, name: str) -> Manifest:
        return next(one["spec"] for one in self.objects if one["kind"] == kind and one["metadata"]["name"] == name)

    def _policies(self, labels: Mapping[str, str]) -> list[str]:
        policies = [one["metadata"] for one in self.objects if one["kind"] == "ImagePolicy"]
        return [one["name"] for one in policies if labels.items() <= one["labels"].items()]


def rewritten(text: str, chosen: Mapping[str, Chosen | None]) -> str:
    """The text with what the marked fields are to be; fields of policies that chose nothing stay."""

    def field(mark: re.Match[str]) -> str:
        image = chosen.get(mark["policy"])
        return mark[0] if image is None else f"{mark['before']}{getattr(image, mark['field'])}{mark['after']}"

    return _MARK.sub(field, text)


def repository(folder: Path, deploy: Path) -> Path:
    """A bare repository in `folder` that holds `deploy` on its branch `main`, as this one does."""
    remote, work = folder / "remote.git", folder / "work"
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet", "--bare", "--initial-branch", "main", str(remote))
    git(folder, "clone", "--quiet", str(remote), str(work))
    for name in ("kubernetes", "flux"):
        shutil.copytree(deploy / name, work / "deploy" / name)
    git(work, "add", "--all")
    git(work, *_AUTHOR, "commit", "--quiet", "--message", "What is deployed")
    git(work, "push", "--quiet", "origin", "HEAD:main")
    return remote


def git(folder: Path | str, *arguments: str) -> str:
    """What git writes, without anybody's settings."""
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    result = subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, f"git {' '.join(arguments)}: {result.stderr}"
    return result.stdout.strip()
