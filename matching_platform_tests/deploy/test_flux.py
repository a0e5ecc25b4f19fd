"""A pushed image is the deployment: our manifests' policies and marks, a real registry, a real git repository."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from matching_platform.delivery.images.distribution import Repository
from matching_platform.delivery.images.image import tag_of
from matching_platform_tests.containers.engine import Engine
from matching_platform_tests.deploy.manifests import DEPLOY, Manifest, build, one
from matching_platform_tests.emulators.flux import Chosen, Flux, git, repository, rewritten

NOW: Final = datetime(2024, 1, 31, 23, 59, 59, tzinfo=UTC)
NONE: Final = "sha256:" + "0" * 64

TAGS: Final = [
    ("staging", ["20240131235959-a", "20240201000000-b", "20231231000000-z"], "20240201000000-b"),
    ("staging", ["20240131235959-a", "production-20240301000000-b"], "20240131235959-a"),
    (
        "staging",
        ["20240131235959-2024-01.1_x", "20240131-b", "latest", "20240131235960-B", "v1"],
        "20240131235959-2024-01.1_x",
    ),
    ("staging", ["production-20240131235959-a", "sha256-abc.sig", "20240131235959"], None),
    ("production", ["20240131235959-a", "latest"], None),
    ("production", ["production-20240131235959-a", "20250131235959-b"], "production-20240131235959-a"),
    ("production", ["production-20240131235959-z", "production-20240131235960-a"], "production-20240131235960-a"),
    ("production", ["not-production-20240131235959-a", "production-20240131-a"], None),
]


@dataclass(frozen=True)
class Tags:
    """A repository that holds one image under many tags."""

    held: list[str]

    def tags(self) -> list[str]:
        return self.held

    def digest(self, tag: str) -> str:
        return NONE

    def tag(self, digest: str, tag: str) -> None:
        self.held.append(tag)


@pytest.fixture(scope="module")
def objects() -> list[Manifest]:
    return build(DEPLOY / "flux")


@pytest.mark.parametrize(("place", "tags", "wanted"), TAGS)
def test_a_policy_chooses(objects: list[Manifest], tmp_path: Path, place: str, tags: list[str], wanted: str) -> None:
    chosen = Flux(objects, Tags(tags), tmp_path).choose(f"matching-{place}")
    assert (chosen and chosen.tag) == wanted


def test_a_mark_is_rewritten_and_nothing_else() -> None:
    text = (DEPLOY / "kubernetes" / "overlays" / "staging" / "kustomization.yaml").read_text()
    chosen = Chosen("registry.example/service", "20240131235959-m", "sha256:" + "a" * 64)
    changed = rewritten(text, {"flux-system:matching-staging": chosen, "flux-system:matching-production": None})
    differ = [(old, new) for old, new in zip(text.splitlines(), changed.splitlines(), strict=True) if old != new]
    assert len(differ) == 3
    assert [old.split("#")[1] for old, _ in differ] == [new.split("#")[1] for _, new in differ]
    image = yaml.safe_load(changed)["images"][0]
    assert image == {"name": "matching-service", "newName": chosen.name, "newTag": chosen.tag, "digest": chosen.digest}


@dataclass(frozen=True)
class Site:
    """A registry and a git repository, with Flux between them."""

    engine: Engine
    images: Repository
    flux: Flux

    def push(self, folder: Path, model: str, when: datetime) -> str:
        """Builds and pushes an image as the `image` asset does; its digest."""
        folder.mkdir(exist_ok=True)
        (folder / "Containerfile").write_text("FROM scratch\nCOPY model /model\n")
        (folder / "model").write_text(model)
        reference, digest = f"{self.images.name}:{tag_of(model, when)}", folder / "digest"
        self.engine.podman("build", "--tag", reference, str(folder))
        self.engine.podman("push", "--digestfile", str(digest), reference)
        return digest.read_text().strip()

    def serves(self, place: str) -> str:
        """The image that Flux applies, once it has looked at registry and repository."""
        self.flux.update(f"matching-{place}")
        built = self.flux.build(f"matching-{place}", self.flux.revision())
        deployment: Any = one(built, "Deployment/matching-service")
        return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


@pytest.fixture
def site(engine: Engine, registry: str, objects: list[Manifest], tmp_path: Path) -> Site:
    images = Repository(f"{registry}/flux/matching-service")
    ours = [
        {**found, "spec": {**found["spec"], "image": images.name}} if found["kind"] == "ImageRepository" else found
        for found in objects
    ]
    return Site(engine, images, Flux(ours, images, repository(tmp_path / "git", DEPLOY)))


@pytest.mark.containers
def test_push_promote_and_roll_back(site: Site, tmp_path: Path) -> None:
    name = site.images.name
    first = site.push(tmp_path / "image", "first", NOW)
    assert site.serves("staging") == f"{name}:{tag_of('first', NOW)}@{first}"
    assert NONE in site.serves("production")  # Nothing was promoted.

    second = site.push(tmp_path / "image", "second", NOW + timedelta(hours=1))
    assert site.serves("staging").endswith(second)
    assert site.flux.update("matching-staging") is None  # Nothing is left to be changed.

    promoted = f"production-{tag_of('second', NOW + timedelta(hours=2))}"
    site.images.tag(second, promoted)
    assert site.serves("production") == f"{name}:{promoted}@{second}"
    assert site.serves("staging") == f"{name}:{tag_of('second', NOW + timedelta(hours=1))}@{second}"

    # The way back is a tag: the registry has the image, so nothing is built or pushed.
    site.images.tag(first, tag_of("first", NOW + timedelta(hours=3)))
    assert site.serves("staging").endswith(first)
    assert site.serves("production").endswith(second)
    site.images.tag(first, f"production-{tag_of('first', NOW + timedelta(hours=4))}")
    assert site.serves("production").endswith(first)

    site.engine.podman("pull", site.serves("production"))
    log = git(site.flux.remote, "log", "--format=%an: %s", "main").splitlines()
    assert len(log) == 6
    assert log[0] == "Flux: Production serves another image [skip ci]"


@pytest.mark.containers
def test_a_commit_in_between_is_kept(site: Site, tmp_path: Path) -> None:
    """Flux rewrites what is there, whoever changed it last."""
    site.push(tmp_path / "image", "third", NOW + timedelta(days=1))
    work = tmp_path / "git" / "work"
    path = work / "deploy/kubernetes/overlays/staging/kustomization.yaml"
    path.write_text(path.read_text() + "namePrefix: other-\n")
    git(
        work, "-c", "user.name=A", "-c", "user.email=a@example.com", "commit", "--quiet", "--all", "--message", "Prefix"
    )
    git(work, "push", "--quiet", "origin", "HEAD:main")
    site.flux.update("matching-staging")
    built = site.flux.build("matching-staging", site.flux.revision())
    assert one(built, "Deployment/other-matching-service")
