"""The cluster as a place: the real client talks to a server that holds our own manifests, roles among them."""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from kubernetes.config import kube_config

from matching_platform.delivery import probe
from matching_platform.delivery.images.image import Image, ImageError, tag_of
from matching_platform.delivery.serving import kubernetes
from matching_platform.delivery.serving.kubernetes import Cluster
from matching_platform.delivery.serving.place import Release, RolloutError
from matching_platform_tests.deploy.manifests import DEPLOY, Manifest, build, one
from matching_platform_tests.emulators import flux, kubernetes_api
from matching_platform_tests.emulators.kubernetes_api import DAGSTER, STRANGER, Fate, Model, Server

GOOD: Final = "sha256:" + "a" * 64
BETTER: Final = "sha256:" + "b" * 64
BROKEN: Final = "sha256:" + "c" * 64
PROPOSAL: Final = {
    "transfer_id": "probe-single",
    "invoice_id": "i",
    "amount": 1.0,
    "decision": "book",
    "confidence": 1.0,
}
# The place's own waits, in the tests' short time.
SHORT: Final = {"POLL": 0.005, "PATIENCE": 1.0, "PAUSE": 0.01, "FLUX": 1.0, "STUCK": 0.05, "SETTLE": 0.3}
NOW: Final = datetime(2024, 1, 31, 23, 59, 59, tzinfo=UTC)


@dataclass
class Shelf:
    """A repository in a registry: digests by tag; `down` where it does not answer."""

    held: dict[str, str] = field(default_factory=dict)
    down: bool = False

    def tags(self) -> list[str]:
        if self.down:
            raise ImageError("the registry does not answer")
        return list(self.held)

    def digest(self, tag: str) -> str:
        return self.held[tag]

    def tag(self, digest: str, tag: str) -> None:
        self.held[tag] = digest


@dataclass(frozen=True)
class World:
    """A cluster, the registry that it pulls from, and releases of both models."""

    server: Server
    shelf: Shelf
    good: Release
    better: Release

    def place(self, name: str = "staging", patience: float = 20.0) -> Cluster:
        return Cluster(name, self.server.url(name), self.shelf, context="test", patience=patience)

    def running(self, name: str = "staging") -> set[str]:
        return {pod.digest for pod in self.server.workloads[f"matching-{name}"].pods if pod.going is None}


@pytest.fixture(scope="module")
def overlays() -> dict[str, list[Manifest]]:
    return {place: build(DEPLOY / "kubernetes" / "overlays" / place) for place in ("staging", "production")}


@pytest.fixture(scope="module")
def objects() -> list[Manifest]:
    return build(DEPLOY / "flux")


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flux.repository(tmp_path_factory.mktemp("git"), DEPLOY)


@pytest.fixture
def world(
    tmp_path: Path,
    overlays: dict[str, list[Manifest]],
    objects: list[Manifest],
    remote: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    for name, seconds in SHORT.items():
        monkeypatch.setattr(kubernetes, f"_{name}_SECONDS", seconds)
    shelf = Shelf({tag_of("good", NOW): GOOD, tag_of("better", NOW + timedelta(days=1)): BETTER})
    played = flux.Flux(objects, shelf, Path(shutil.copytree(remote, tmp_path / "remote.git")))
    with kubernetes_api.serve(played, overlays) as server:
        server.fates |= {GOOD: "comes up", BETTER: "comes up"}
        server.models |= {GOOD: Model("good", [PROPOSAL]), BETTER: Model("better", [PROPOSAL])}
        for place in overlays:
            server.serve(place, GOOD)
        as_user(server, DAGSTER, tmp_path, monkeypatch)
        yield World(server, shelf, *(release(tmp_path, *made) for made in (("good", GOOD), ("better", BETTER))))


def as_user(server: Server, account: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = folder / "kubeconfig"
    settings.write_text(server.kubeconfig(account))
    # Read from the environment when the module is imported.
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(settings))


def release(folder: Path, model: str, digest: str) -> Release:
    bento = folder / model
    (bento / "src").mkdir(parents=True)
    probe.write(probe.Probe(model, probe.REQUEST, [PROPOSAL]), bento / "src" / probe.FILE)
    return Release(model, bento, Image("registry/matching-service", "any", digest, 1, model, "bento", "base"))


def test_staging_serves_what_was_pushed(world: World) -> None:
    deployed = world.place().deploy(world.better)
    assert (deployed.model, deployed.digest, deployed.changed) == ("better", BETTER, True)
    assert (world.running(), world.place().serving()) == ({BETTER}, "better")
    assert len(world.shelf.held) == 2  # The tag of the push was enough.
    assert world.running("production") == {GOOD}


def test_what_serves_already_is_left_alone(world: World) -> None:
    world.place().deploy(world.better)
    world.server.used.clear()
    assert not world.place().deploy(world.better).changed
    assert not [verb for _, _, verb, *_ in world.server.used if verb not in ("get", "list")]
    assert len(world.shelf.held) == 2


def test_a_rollback_is_a_newer_tag_on_the_older_image(world: World) -> None:
    world.place().deploy(world.better)
    before = set(world.shelf.held)
    assert world.place().deploy(world.good).changed
    assert (world.running(), world.place().serving()) == ({GOOD}, "good")
    (tag,) = world.shelf.held.keys() - before
    assert (world.shelf.held[tag], tag > max(before)) == (GOOD, True)


def test_production_follows_a_promotion_alone(world: World) -> None:
    world.place("staging").deploy(world.better)
    assert world.server.flux.choose("matching-production") is None
    world.place("production").deploy(world.better)
    assert world.running("production") == {BETTER}
    (tag,) = [tag for tag in world.shelf.held if tag.startswith("production-")]
    assert (world.shelf.held[tag], re.fullmatch(r"production-\d{14}-better", tag) is not None) == (BETTER, True)


def test_a_new_tag_is_the_newest_whatever_the_clocks_say(world: World) -> None:
    ahead = tag_of("better", datetime.now(UTC) + timedelta(days=400))
    world.shelf.tag(BETTER, ahead)
    world.place().deploy(world.good)
    assert world.running() == {GOOD}
    assert max(world.shelf.held) > ahead


def test_a_tag_that_hides_all_later_ones_is_named(world: World) -> None:
    world.shelf.tag(BETTER, "99999999999999-better")
    with pytest.raises(RolloutError, match="99999999999999-better, names no time; remove it"):
        world.place().deploy(world.good)


@pytest.mark.parametrize("place", ["staging", "production"])
def test_tags_look_as_the_policy_says(objects: list[Manifest], place: str) -> None:
    policy = one(objects, f"ImagePolicy/matching-{place}")["spec"]["filterTags"]
    assert policy == {"pattern": kubernetes.TAG.format(prefix=kubernetes.PREFIXES[place]), "extract": "$time"}


def test_a_rollout_that_was_killed_goes_on(world: World) -> None:
    """The promotion was tagged, and nobody asked Flux."""
    world.shelf.tag(BETTER, "production-" + tag_of("better", datetime.now(UTC)))
    tags = len(world.shelf.held)
    world.place("production").deploy(world.better)
    assert (world.running("production"), len(world.shelf.held)) == ({BETTER}, tags)


FATES: Final[list[tuple[Fate, list[str]]]] = [
    ("ImagePullBackOff", ["did not roll out", "0 of 1|1 of 1", "ImagePullBackOff", "Failed: what happened to uid"]),
    ("CrashLoopBackOff", ["CrashLoopBackOff|its container ended", "its log ends with", "the model of .* is cut short"]),
    ("never ready", ["Progressing: the ReplicaSet has timed out", "Running, not ready"]),
    ("Unschedulable", ["PodScheduled: 0/3 nodes: too little cpu"]),
]


@pytest.mark.parametrize(("fate", "told"), FATES)
def test_a_rollout_that_fails_says_what_the_cluster_says(world: World, fate: Fate, told: list[str]) -> None:
    world.server.fates[BETTER] = fate
    with pytest.raises(RolloutError) as error:
        world.place().deploy(world.better)
    assert [part for part in told if not re.search(part, str(error.value))] == []
    assert world.place().serving() == "good"  # Its pods never went.
    world.place().deploy(world.good)
    assert world.running() == {GOOD}


def test_a_log_that_may_not_be_read_hides_nothing(world: World) -> None:
    world.server.fates[BETTER] = "CrashLoopBackOff"
    world.server.forbidden.add("pods/log")
    with pytest.raises(RolloutError, match=r"(?s)CrashLoopBackOff.*more is not to be had: the cluster forbids it"):
        world.place().deploy(world.better)


def test_a_slow_rollout_is_waited_for(world: World) -> None:
    world.server.fates[BETTER] = "slow"
    assert world.place().deploy(world.better).changed
    assert world.running() == {BETTER}


def test_patience_ends(world: World) -> None:
    world.server.fates[BETTER] = "slow"
    with pytest.raises(RolloutError, match="are available"):
        world.place(patience=0.01).deploy(world.better)


@pytest.mark.parametrize("failures", [[503] * 3, ["drop"] * 3, [429, 409, "drop", 500], [410]])
def test_an_api_server_that_restarts_is_waited_for(world: World, failures: list[kubernetes_api.How]) -> None:
    world.server.fail(*failures)
    assert world.place().deploy(world.better).changed


def test_an_api_server_that_stays_away_is_an_error(world: World) -> None:
    world.server.stop()
    with pytest.raises(RolloutError, match=r"the cluster's API server cannot be reached: .*refused"):
        world.place().deploy(world.better)


REFUSALS: Final = [
    (["drop"] * 50, "cannot be reached"),
    ([503] * 50, "answers 503: Service Unavailable"),
    ([401], "does not know us: log in again"),
    ([403], r"forbids it \(Forbidden\); the roles are rollout-observer"),
    ([404], "no Deployment matching-service in matching-staging; apply deploy/flux"),
    ([200 + 222], "answers 422"),
]


@pytest.mark.parametrize(("failures", "told"), REFUSALS)
def test_a_refusal_says_what_to_do(world: World, failures: list[kubernetes_api.How], told: str) -> None:
    world.server.fail(*failures)
    with pytest.raises(RolloutError, match=told):
        world.place().deploy(world.better)


def test_who_has_no_role_is_told_which(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(world.server, STRANGER, tmp_path, monkeypatch)
    with pytest.raises(RolloutError, match=r'cannot get resource "deployments" in matching-staging.*rollout-observer'):
        world.place().deploy(world.better)


TROUBLES: Final = [
    (
        "imagerepositories",
        {"type": "Ready", "status": "False", "message": "401 of the registry"},
        "401 of the registry",
    ),
    ("imagepolicies", "silent", "matching-staging is not ready: it has not answered; is its controller running"),
    ("imageupdateautomations", {"type": "Ready", "status": "False", "message": "push refused"}, "push refused"),
    (
        "gitrepositories",
        {"type": "Stalled", "status": "True", "message": "no such branch"},
        "gitrepositories/matching-p",
    ),
    ("kustomizations", {"type": "Ready", "status": "False", "message": "no such path"}, "no such path"),
]


@pytest.mark.parametrize(("plural", "trouble", "told"), TROUBLES)
def test_flux_is_quoted_where_it_fails(world: World, plural: str, trouble: dict[str, str], told: str) -> None:
    world.server.troubles[plural] = trouble
    with pytest.raises(RolloutError, match=told):
        world.place().deploy(world.better)
    assert world.running() == {GOOD}


def test_a_tag_that_came_after_ours_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tag_of("other", datetime.now(UTC) + timedelta(days=1))
    chosen = flux.Chosen("registry/matching-service", other, GOOD)
    monkeypatch.setattr(flux.Flux, "choose", lambda *_: chosen)
    with pytest.raises(RolloutError, match=f"it chose the tag {other}, not .*-better"):
        world.place().deploy(world.better)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Model("good", [PROPOSAL]), "serves good, not better"),
        (Model("better", []), "does not answer as the packed model did"),
    ],
)
def test_a_model_that_answers_wrongly_is_found(world: World, model: Model, told: str) -> None:
    world.server.models[BETTER] = model
    with pytest.raises(RolloutError, match=told):
        world.place().deploy(world.better)


def test_what_is_not_accepted_is_an_error(world: World) -> None:
    with pytest.raises(RolloutError, match="staging serves better, which is not accepted: too slow; too big"):
        world.place().deploy(world.better, accept=lambda url: ["too slow", "too big"])


def test_pods_count_what_they_failed(world: World) -> None:
    place = world.place()
    world.server.counts = {200: 90, 400: 5, 500: 4, 504: 1}
    before = place.traffic()
    assert (before.requests, before.errors) == (100, 5)  # Probes are not counted.
    world.server.counts[500] += 10
    assert place.traffic().since(before) == (10, 10)
    place.terminate()
    assert place.traffic().since(before) == (110, 15)  # Another pod counts from its start.


def test_pods_that_do_not_count_are_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "metrics", lambda _: "not metrics {")
    with pytest.raises(RolloutError, match="/metrics does not answer as it must"):
        world.place().traffic()


def test_one_pod_ends_and_is_replaced(world: World) -> None:
    before = {pod.name for pod in world.server.workloads["matching-staging"].pods}
    world.place().terminate()
    pods = world.server.workloads["matching-staging"].pods
    assert all(pod.ready for pod in pods)
    assert (len(pods), len(before & {pod.name for pod in pods})) == (len(before), len(before) - 1)


def test_in_production_nobody_ends_pods(world: World) -> None:
    with pytest.raises(RolloutError, match='cannot delete resource "pods" in matching-production'):
        world.place("production").terminate()


def test_the_roles_grant_what_is_used_and_nothing_else(
    world: World, objects: list[Manifest], overlays: dict[str, list[Manifest]]
) -> None:
    for place in overlays:
        world.place(place).deploy(world.better)
    world.place().terminate()
    world.server.fates[BROKEN] = "CrashLoopBackOff"
    broken = Release("good", world.good.bento, Image("registry/matching-service", "any", BROKEN, 1, "good", "", ""))
    for place in overlays:
        with pytest.raises(RolloutError, match="its log ends with"):
            world.place(place).deploy(broken)
    manifests = [*objects, *(manifest for built in overlays.values() for manifest in built)]
    granted = {
        (DAGSTER, role["metadata"]["namespace"], verb, group, resource)
        for role in manifests
        if role["kind"] == "Role"
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert world.server.used == granted


def _no_image(world: World) -> None:
    world.place().deploy(Release("better", world.better.bento))


def _no_context(world: World) -> None:
    Cluster("staging", world.server.url("staging"), world.shelf, context="other").deploy(world.better)


def _no_cluster(world: World) -> None:
    Cluster("staging", world.server.url("staging"), world.shelf).deploy(world.better)


def _no_registry(world: World) -> None:
    world.shelf.down = True
    world.place().deploy(world.better)


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (_no_image, "a cluster runs images, and there is none of better"),
        (_no_context, "no usable context 'other'; name one of `kubectl config get-contexts`"),
        (_no_cluster, "this runs in no cluster"),
        (_no_registry, "was not named staging's newest image: the registry does not answer"),
    ],
)
def test_what_is_missing_is_named(world: World, act: Callable[[World], None], told: str) -> None:
    with pytest.raises(RolloutError, match=told):
        act(world)
