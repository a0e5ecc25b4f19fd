import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import google.auth
import pytest
from google.auth.exceptions import DefaultCredentialsError
from tenacity import wait_none

from matching_platform.delivery.images import distribution
from matching_platform.delivery.images.distribution import BASE_DIGEST_LABEL, BASE_LABEL, BENTO_LABEL, Repository
from matching_platform.delivery.images.image import ImageError, tag_of
from matching_platform_tests.containers import engine as parts
from matching_platform_tests.containers.engine import Engine
from matching_platform_tests.delivery.images import oci
from matching_platform_tests.delivery.images.oci import DROP, Answer, FakeRegistry

BASE = "docker.io/library/python@sha256:" + "b" * 64
LAYERS = [
    oci.layer({"etc/name": b"below", "usr/share/one": b"1"}),
    oci.layer({"./etc/name": b"above"}),
]


def labels(bento: str, base: str = BASE) -> dict[str, str]:
    name, _, digest = base.partition("@")
    return {BENTO_LABEL: bento, BASE_LABEL: name, BASE_DIGEST_LABEL: digest}


def at(day: int, model: str = "m") -> str:
    return tag_of(model, datetime(2024, 1, day, tzinfo=UTC))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where nobody is logged in anywhere; and nothing is waited for before it is asked again."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(distribution, "BACKOFF", wait_none())
    return tmp_path


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with oci.fake_registry() as server:
        yield server


def log_in(file: Path, host: str, login: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    auth = base64.b64encode(login.encode()).decode()
    file.write_text(json.dumps({"auths": {host: {"auth": auth}, "empty.example": {}}}))


@pytest.mark.containers
@pytest.mark.parametrize("kind", ["oci", "docker"])
@pytest.mark.parametrize("is_indexed", [False, True])
def test_a_real_registry_s_images_are_found_and_read(
    engine: Engine, registry: str, kind: str, is_indexed: bool
) -> None:
    name = f"read/{kind}-{is_indexed}".lower()
    repository = Repository(f"{registry}/{name}")
    assert repository.tags() == []
    made = oci.image(labels("abc"), LAYERS, kind)
    oci.push(registry, name, made.digest, made)
    if is_indexed:
        other = oci.image(labels("other"), LAYERS[:1], kind)
        oci.push(registry, name, other.digest, other)
        made = oci.index({"arm64": other, "amd64": made}, kind)
    oci.push(registry, name, at(1), made)
    assert repository.tags() == [at(1)]
    assert repository.digest(at(1)) == made.digest
    image = repository.image(made.digest, at(1))
    assert (image.reference, image.model) == (f"{registry}/{name}@{made.digest}", "m")
    assert (image.bento, image.base, image.size) == ("abc", BASE, sum(map(len, LAYERS)))
    assert repository.read(made.digest, ["/etc/name", "/usr/share/one"]) == {
        "/etc/name": b"above",
        "/usr/share/one": b"1",
    }


@pytest.mark.containers
def test_an_image_gets_another_tag_without_being_built_or_sent(engine: Engine, registry: str) -> None:
    repository, made = Repository(f"{registry}/retag"), oci.image(labels("abc"), LAYERS)
    oci.push(registry, "retag", at(1), made)
    repository.tag(made.digest, f"production-{at(1)}")
    repository.tag(made.digest, f"production-{at(1)}")
    assert repository.tags() == [at(1), f"production-{at(1)}"]
    assert repository.digest(f"production-{at(1)}") == made.digest
    with pytest.raises(ImageError, match=r"retag has no sha256:0+"):
        repository.tag(f"sha256:{'0' * 64}", "new")


@pytest.mark.containers
def test_the_newest_image_of_a_bento_and_base_is_found(engine: Engine, registry: str) -> None:
    repository, elsewhere = Repository(f"{registry}/find"), BASE.replace("b" * 64, "c" * 64)
    pushed = {
        at(1): labels("abc"),
        at(2): labels("abc") | {"again": "1"},
        at(3): labels("abc", elsewhere),
        at(4): labels("xyz"),
        at(5, "n"): labels("abc") | {"again": "2"},
        at(6): None,
        f"production-{at(1)}": labels("abc"),
        "latest": labels("abc"),
    }
    for tag, told in pushed.items():
        oci.push(registry, "find", tag, oci.image(told, LAYERS))
    cases = {
        ("abc", BASE, "m"): at(2),
        ("abc", elsewhere, "m"): at(3),
        ("abc", BASE.partition("@")[0], "m"): at(3),
        ("abc", BASE, None): at(5, "n"),
        ("xyz", BASE, "n"): None,
        ("no such", BASE, None): None,
    }
    found = {case: repository.find(*case) for case in cases}
    assert {case: image and image.tag for case, image in found.items()} == cases


@pytest.mark.containers
def test_a_registry_that_wants_a_password_gets_it(engine: Engine, home: Path, tmp_path: Path) -> None:
    with parts.registry(tmp_path, closed=True) as address:
        repository, made = Repository(f"{address}/closed"), oci.image(labels("abc"), LAYERS)
        with pytest.raises(ImageError, match=rf"refuses .*/closed .*podman login {address}"):
            repository.tags()
        log_in(home / ".docker" / "config.json", address, "somebody:wrong")
        with pytest.raises(ImageError, match="refuses"):
            repository.tags()
        log_in(home / ".config" / "containers" / "auth.json", address, parts.LOGIN)
        oci.push(address, "closed", at(1), made, auth=tuple(parts.LOGIN.split(":", 1)))
        assert repository.digest(at(1)) == made.digest


@pytest.mark.parametrize("name", ["token", "access_token"])
def test_a_token_is_had_where_the_registry_says(fake: FakeRegistry, home: Path, name: str) -> None:
    challenge = f'Bearer realm="http://{fake.address}/token",service="a, b",scope="repository:one:pull,push"'
    manifest = oci.image(labels("abc"), LAYERS)
    fake.holds("one", "t", manifest)
    fake.answers["/v2/one/manifests/t"].insert(0, Answer(401, headers={"www-authenticate": challenge}))
    fake.answers["/token"] = [Answer(200, json.dumps({name: "xyz"}).encode())]
    log_in(home / ".docker" / "config.json", fake.address, "me:secret")
    assert Repository(f"{fake.address}/one").digest("t") == manifest.digest
    first, token, second = fake.asked
    assert first.authorization == ""
    assert token.path == "/token?service=a%2C+b&scope=repository%3Aone%3Apull%2Cpush"
    assert token.authorization == f"Basic {base64.b64encode(b'me:secret').decode()}"
    assert second.authorization == "Bearer xyz"


def test_a_password_is_not_sent_in_the_open(fake: FakeRegistry, home: Path) -> None:
    challenge = {"www-authenticate": 'Bearer realm="http://elsewhere.example/token"'}
    fake.answers["/v2/one/manifests/t"] = [Answer(401, headers=challenge)]
    log_in(home / ".docker" / "config.json", fake.address, "me:secret")
    with pytest.raises(ImageError, match="not encrypted"):
        Repository(f"{fake.address}/one").digest("t")


def test_all_pages_of_tags_are_read(fake: FakeRegistry) -> None:
    fake.answers["/v2/one/tags/list?n=1000"] = [
        Answer(200, b'{"tags": ["b", "c"]}', {"link": '</v2/one/tags/list?last=c&n=1000>; rel="next"'})
    ]
    fake.answers["/v2/one/tags/list?last=c&n=1000"] = [Answer(200, b'{"tags": ["a"]}')]
    assert Repository(f"{fake.address}/one").tags() == ["a", "b", "c"]


@pytest.mark.parametrize("fault", [Answer(429), Answer(500), Answer(503), DROP])
def test_what_may_pass_is_asked_again(fake: FakeRegistry, fault: Answer) -> None:
    held = oci.image(labels("abc"), LAYERS)
    fake.holds("one", "t", held)
    for answers in fake.answers.values():
        answers[:0] = [fault, fault]
    repository = Repository(f"{fake.address}/one")
    assert repository.image(held.digest, at(1)).bento == "abc"
    assert repository.read(held.digest, ["/etc/name"]) == {"/etc/name": b"above"}


MANIFEST_PATH = "/v2/one/manifests/t"
HELD = oci.image(labels("abc"), LAYERS)
FAULTS = {
    "no such tag": ({MANIFEST_PATH: Answer(404)}, "has no t; push it"),
    "not allowed": ({MANIFEST_PATH: Answer(403)}, "refuses .* to this account"),
    "down": ({MANIFEST_PATH: Answer(502, b"bad gateway")}, "answers 502 for t .*bad gateway"),
    "hangs up": ({MANIFEST_PATH: DROP}, "does not answer"),
    "moved for good": ({MANIFEST_PATH: Answer(400, b"no")}, "answers 400"),
    "no manifest": (
        {MANIFEST_PATH: Answer(200, b"<html>", {"content-type": "text/html"})},
        "text/html at t, and no image",
    ),
    "a broken manifest": (
        {MANIFEST_PATH: Answer(200, b"{}", {"content-type": HELD.media_type})},
        "has no sha256:44136fa",
    ),
    "other content": ({f"/v2/one/manifests/{HELD.digest}": Answer(200, b"{}")}, "is damaged"),
    "other labels": ({f"/v2/one/blobs/{key}": Answer(200, b"{}") for key in HELD.blobs}, "is damaged"),
}


@pytest.mark.parametrize(("answers", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told(fake: FakeRegistry, answers: dict[str, Answer], message: str) -> None:
    fake.holds("one", "t", HELD)
    fake.answers.update({path: [answer] for path, answer in answers.items()})
    repository = Repository(f"{fake.address}/one")
    with pytest.raises(ImageError, match=message):
        repository.tag(repository.image(repository.digest("t"), at(1)).digest, "new")


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (oci.image({}, LAYERS), "does not say which bento"),
        (oci.image(None, LAYERS), "does not say which bento"),
        (oci.index({"arm64": HELD}), "not built for linux/amd64"),
    ],
)
def test_an_image_that_is_none_of_ours_is_told(fake: FakeRegistry, held: oci.Handmade, message: str) -> None:
    fake.holds("one", "t", HELD)
    fake.holds("one", "t", held)
    with pytest.raises(ImageError, match=message):
        Repository(f"{fake.address}/one").image(held.digest, at(1))


@pytest.mark.parametrize(
    ("layer", "answer", "message"),
    [
        (oci.layer({"other": b""}), None, "has no /etc/name; build it again"),
        (b"no archive", None, "packed in a way that is not known"),
        (oci.layer({"etc/name": b"1"}), Answer(200, oci.layer({"etc/name": b"2"})), "is damaged"),
    ],
)
def test_a_layer_that_cannot_be_read_is_told(
    fake: FakeRegistry, layer: bytes, answer: Answer | None, message: str
) -> None:
    held = oci.image(labels("abc"), [layer])
    fake.holds("one", "t", held)
    if answer:
        fake.answers[f"/v2/one/blobs/{oci.digest(layer)}"] = [answer]
    with pytest.raises(ImageError, match=message):
        Repository(f"{fake.address}/one").read(held.digest, ["/etc/name"])


def test_nobody_listens() -> None:
    with pytest.raises(ImageError, match=r"127\.0\.0\.1:1 does not answer .*see that it runs"):
        Repository("127.0.0.1:1/one").tags()


def test_google_cloud_is_asked_for_its_own_registries_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_credentials(**_: object) -> None:
        raise DefaultCredentialsError("none here")

    monkeypatch.setattr(google.auth, "default", no_credentials)
    for host in ("europe-docker.pkg.dev", "eu.gcr.io", "gcr.io"):
        with pytest.raises(ImageError, match="gcloud auth application-default login"):
            Repository(f"{host}/project/one").credentials()
    assert Repository("registry.example/one").credentials() is None


def test_a_broken_file_of_logins_is_told(home: Path) -> None:
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text('{"auths": {"a.example": {"auth": "%"}}}')
    with pytest.raises(ImageError, match=r"config\.json cannot be read .*podman login"):
        Repository("a.example/one").credentials()


@pytest.mark.parametrize(("host", "is_local"), [
    ("127.0.0.1:5000", True), ("localhost:5000", True), ("[::1]:5000", True), ("registry.example", False),
    ("localhost.example:5000", False),
])  # fmt: skip
def test_only_this_machine_is_spoken_to_in_the_open(host: str, is_local: bool) -> None:
    assert Repository(f"{host}/one").is_local == is_local


@pytest.mark.parametrize("name", ["", "one", "/one", "host/"])
def test_a_repository_has_a_host_and_a_path(name: str) -> None:
    with pytest.raises(ImageError, match="write HOST/PATH"):
        Repository(name)
