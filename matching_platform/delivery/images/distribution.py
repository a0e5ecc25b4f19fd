"""A registry's images over HTTP, as the OCI distribution specification has it: looked up, read, and tagged anew."""

import base64
import binascii
import hashlib
import ipaddress
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, Final, TypeVar
from urllib.parse import urlsplit
from urllib.request import parse_http_list

import google.auth
import google.auth.transport.requests
import httpx
from google.auth.exceptions import GoogleAuthError
from pydantic import BaseModel, Field, ValidationError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from matching_platform.delivery.images import materials
from matching_platform.delivery.images.image import Image, ImageError, model_of

_T = TypeVar("_T", bound=BaseModel)

_OCI: Final = "application/vnd.oci.image"
_DOCKER: Final = "application/vnd.docker.distribution.manifest"
_INDEXES: Final = (f"{_OCI}.index.v1+json", f"{_DOCKER}.list.v2+json")
_MANIFESTS: Final = (f"{_OCI}.manifest.v1+json", f"{_DOCKER}.v2+json")
# What the service is built for; an index may hold others.
_PLATFORM: Final = {"os": "linux", "architecture": "amd64"}

# A builder's tag; a promotion's has a prefix.
_BUILT: Final = re.compile(r"\d{14}-(?P<model>.+)")
# The labels that the image's description (bento/Dockerfile.template) fills.
BENTO_LABEL: Final = "matching-platform.bento"
BASE_LABEL: Final = "org.opencontainers.image.base.name"
BASE_DIGEST_LABEL: Final = "org.opencontainers.image.base.digest"

_GOOGLE: Final = (".pkg.dev", "gcr.io")
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
# Docker Hub's API answers under another name than its images have.
_HUB: Final = {"docker.io": "registry-1.docker.io"}

ATTEMPTS: Final = 5
BACKOFF: Final = wait_random_exponential(multiplier=0.2, max=timedelta(seconds=10))
_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)
_PAGE: Final = 1000


class _Content(BaseModel):
    """A piece of an image: what its bytes hash to, and how many they are."""

    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    size: int = Field(ge=0)


class _Manifest(BaseModel):
    """An image as a manifest describes it."""

    config: _Content
    layers: list[_Content]


class _Variant(_Content):
    platform: dict[str, Any] = Field(default_factory=dict)


class _Index(BaseModel):
    """An image for several platforms."""

    manifests: list[_Variant]


class _Settings(BaseModel):
    """What an image tells of itself."""

    labels: dict[str, str] | None = Field(default=None, alias="Labels")


class _Config(BaseModel):
    config: _Settings = _Settings()


class _Tags(BaseModel):
    tags: list[str] | None = None


class _Token(BaseModel):
    """A bearer token, under either of its two names."""

    token: str = ""
    access_token: str = ""


@dataclass(frozen=True)
class Repository:
    """The images of one name in a registry: `host/path`; a registry on this machine is spoken to without TLS."""

    name: str

    def __post_init__(self) -> None:
        if not all(self.name.partition("/")):
            raise ImageError(f"'{self.name}' names no repository; write HOST/PATH, as localhost:5000/matching-service")

    @property
    def host(self) -> str:
        return self.name.partition("/")[0]

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, where nobody listens in."""
        return _is_loopback(self.host)

    def credentials(self) -> tuple[str, str] | None:
        """User and password: of a login that Docker or podman keeps, or of Google Cloud's environment; ImageError."""
        return _logins().get(self.host) or (_google() if self.host.endswith(_GOOGLE) else None)

    def tags(self) -> list[str]:
        """All tags, sorted; none where nothing was pushed yet."""
        with self._session() as session:
            return sorted(session.tags())

    def digest(self, tag: str) -> str:
        """What `tag` names now; ImageError where it names nothing."""
        with self._session() as session:
            return session.manifest(tag).digest

    def image(self, digest: str, tag: str) -> Image:
        """The image with this digest, of the model that `tag` names; ImageError where it is none of ours."""
        with self._session() as session:
            return session.image(digest, tag)

    def find(self, bento: str, base: str, model: str | None = None) -> Image | None:
        """The newest image of a bento on a base (`name@digest`, or a name alone), of `model` only where it is given."""
        with self._session() as session:
            for tag in sorted(session.tags(), reverse=True):
                if (built := _BUILT.fullmatch(tag)) and model in (None, built["model"]):
                    found = session.manifest(tag)
                    labels = session.labels(found)
                    if labels.get(BENTO_LABEL) == bento and base in (_base(labels), labels.get(BASE_LABEL)):
                        return session.image(found.digest, tag)
        return None

    def tag(self, digest: str, tag: str) -> None:
        """Lets `tag` name the image with this digest from now on; ImageError where there is none."""
        with self._session() as session:
            found = session.manifest(digest)
            headers = {"content-type": found.media_type}
            session.ask("PUT", f"manifests/{tag}", found.digest, content=found.content, headers=headers)

    def materials(self, image: Image) -> dict[str, Any]:
        """What an image is made of (CycloneDX, JSON), as its build noted it; ImageError where it did not."""
        return materials.bill(image, self.read(image.digest, materials.SOURCES))

    def read(self, digest: str, paths: Sequence[str]) -> dict[str, bytes]:
        """Files of an image, each of the topmost layer that has it; ImageError where one is in none."""
        with self._session() as session:
            return session.read(digest, paths)

    @contextmanager
    def _session(self) -> Iterator["_Session"]:
        host = _HUB.get(self.host, self.host)
        scheme = "http" if self.is_local else "https"
        base = f"{scheme}://{host}/v2/{self.name.partition('/')[2]}/"
        login = _Login(self)
        # What is on this machine is not asked for through a proxy.
        with httpx.Client(
            base_url=base, auth=login, timeout=_TIMEOUT, follow_redirects=True, trust_env=not self.is_local
        ) as client:
            yield _Session(self, client)


@dataclass(frozen=True)
class _Found:
    """A manifest as it lies in the registry."""

    digest: str
    media_type: str
    content: bytes


@dataclass(frozen=True)
class _Session:
    """Questions to a repository that share a connection and a login."""

    repository: Repository
    client: httpx.Client

    def tags(self) -> Iterator[str]:
        page = self.ask("GET", "tags/list", "tags", params={"n": _PAGE}, missing_ok=True)
        while page.is_success:
            yield from _read(_Tags, page.content, "a list of tags").tags or ()
            if "next" not in page.links:
                return
            page = self.ask("GET", str(page.url.join(page.links["next"]["url"])), "tags")

    def manifest(self, reference: str) -> _Found:
        """The manifest or index that a tag or digest names."""
        accept = {"accept": ", ".join((*_MANIFESTS, *_INDEXES))}
        answer = self.ask("GET", f"manifests/{reference}", reference, headers=accept)
        digest = _digest(answer.content)
        if reference.startswith("sha256:") and digest != reference:
            raise ImageError(f"{self.repository.name}@{reference} is damaged in the registry; push it again")
        media_type = answer.headers.get("content-type", "").partition(";")[0]
        if media_type not in (*_MANIFESTS, *_INDEXES):
            raise ImageError(
                f"{self.repository.name} has {media_type or 'something unknown'} at {reference}, and no image"
            )
        return _Found(digest, media_type, answer.content)

    def image(self, digest: str, tag: str) -> Image:
        found = self.manifest(digest)
        manifest, labels = self._of_platform(found), self.labels(found)
        if BENTO_LABEL not in labels:
            raise ImageError(f"{self.repository.name}@{digest} does not say which bento it holds; build it again")
        size = sum(layer.size for layer in manifest.layers)
        return Image(self.repository.name, tag, digest, size, model_of(tag), labels[BENTO_LABEL], _base(labels))

    def labels(self, found: _Found) -> dict[str, str]:
        """What the image says of itself."""
        config = self._of_platform(found).config
        answer = self.ask("GET", f"blobs/{config.digest}", config.digest)
        if _digest(answer.content) != config.digest:
            raise ImageError(f"{self.repository.name}@{found.digest} is damaged in the registry; push it again")
        return _read(_Config, answer.content, "a configuration").config.labels or {}

    def read(self, digest: str, paths: Sequence[str]) -> dict[str, bytes]:
        content: dict[str, bytes] = {}
        for layer in reversed(self._of_platform(self.manifest(digest)).layers):
            wanted = {path.lstrip("/"): path for path in paths if path not in content}
            if not wanted:
                break
            with tempfile.TemporaryFile() as file:
                self._download(layer, file)
                content |= {wanted[name]: data for name, data in _files(file, wanted.keys(), layer.digest)}
        if missing := [path for path in paths if path not in content]:
            raise ImageError(f"{self.repository.name}@{digest} has no {', '.join(missing)}; build it again")
        return content

    def ask(self, method: str, path: str, what: str, missing_ok: bool = False, **more: Any) -> httpx.Response:
        """The answer to a question for `what`, asked again where that may help; ImageError where it is refused."""

        def once() -> httpx.Response:
            answer = self.client.request(method, path, **more)
            if not (missing_ok and answer.status_code == HTTPStatus.NOT_FOUND):
                answer.raise_for_status()
            return answer

        with self._telling(what):
            return _retrying()(once)

    def _of_platform(self, found: _Found) -> _Manifest:
        """The manifest itself, or the one that an index has for the platform."""
        if found.media_type not in _INDEXES:
            return _read(_Manifest, found.content, "a manifest")
        for one in _read(_Index, found.content, "an index").manifests:
            if one.platform.items() >= _PLATFORM.items():
                return _read(_Manifest, self.manifest(one.digest).content, "a manifest")
        raise ImageError(f"{self.repository.name}@{found.digest} is not built for linux/amd64; build it again")

    def _download(self, layer: _Content, file: IO[bytes]) -> None:
        """Writes a layer's bytes into `file`."""

        def once() -> None:
            file.seek(0)
            file.truncate()
            digest = hashlib.sha256()
            with self.client.stream("GET", f"blobs/{layer.digest}") as answer:
                answer.raise_for_status()
                for chunk in answer.iter_raw():
                    digest.update(chunk)
                    file.write(chunk)
            if f"sha256:{digest.hexdigest()}" != layer.digest:
                raise ImageError(f"layer {layer.digest} of {self.repository.name} is damaged; push the image again")
            file.seek(0)

        with self._telling(layer.digest):
            _retrying()(once)

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """ImageError of what a registry refuses, or does not answer."""
        name, host = self.repository.name, self.repository.host
        try:
            yield
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise ImageError(f"{host} refuses {name} to this account ({status}); {_advice(host)}") from error
            if status == HTTPStatus.NOT_FOUND:
                raise ImageError(f"{name} has no {what}; push it, or name another") from error
            raise ImageError(f"{host} answers {status} for {what} of {name}: {error.response.text[:200]}") from error
        except httpx.HTTPError as error:
            raise ImageError(f"the registry {host} does not answer ({error!r}); see that it runs") from error


@dataclass
class _Login(httpx.Auth):
    """Says who asks, once the registry wants to know: with a password, or with a token that is had for it."""

    repository: Repository
    authorization: str = field(default="", init=False)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self.authorization:
            request.headers["authorization"] = self.authorization
        answer = yield request
        if answer.status_code != HTTPStatus.UNAUTHORIZED:
            return
        kind, _, parameters = answer.headers.get("www-authenticate", "").partition(" ")
        basic = _basic(self.repository.credentials())
        if kind.lower() == "bearer":
            token = yield self._token_request(_parameters(parameters), basic)
            if not token.is_success:
                return
            had = _read(_Token, token.read(), "a token")
            self.authorization = f"Bearer {had.token or had.access_token}"
        elif kind.lower() == "basic" and basic:
            self.authorization = basic
        else:
            return
        request.headers["authorization"] = self.authorization
        yield request

    def _token_request(self, told: Mapping[str, str], basic: str) -> httpx.Request:
        realm = told.get("realm", "")
        # A registry must not have a password sent in the open.
        where = urlsplit(realm)
        if where.scheme != "https" and not _is_loopback(where.netloc):
            raise ImageError(f"{self.repository.host} asks to log in at '{realm}', which is not encrypted")
        query = {name: told[name] for name in ("service", "scope") if name in told}
        return httpx.Request("GET", realm, params=query, headers={"authorization": basic} if basic else {})


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _logins() -> dict[str, tuple[str, str]]:
    """User and password by registry, of the files in which podman and Docker keep them; the first file wins."""
    home, runtime = Path.home(), os.environ.get("XDG_RUNTIME_DIR")
    files = [
        os.environ.get("REGISTRY_AUTH_FILE"),
        runtime and f"{runtime}/containers/auth.json",
        home / ".config" / "containers" / "auth.json",
        Path(os.environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json",
    ]
    found: dict[str, tuple[str, str]] = {}
    for file in (Path(path) for path in files if path):
        if file.is_file():
            found = _logins_of(file) | found
    return found


def _logins_of(file: Path) -> dict[str, tuple[str, str]]:
    try:
        entries = json.loads(file.read_bytes()).get("auths", {}).items()
        decoded = {
            host: base64.b64decode(told["auth"], validate=True).decode() for host, told in entries if told.get("auth")
        }
    except (OSError, ValueError, AttributeError, TypeError, binascii.Error) as error:
        raise ImageError(f"{file} cannot be read ({error}); log in again with `podman login`") from error
    parts = ((_host(name), login.partition(":")) for name, login in decoded.items())
    return {host: (user, password) for host, (user, _, password) in parts}


def _host(entry: str) -> str:
    """The registry that an entry of a file of logins is for; Docker writes its own as a URL."""
    host = entry.removeprefix("https://").partition("/")[0]
    return "docker.io" if host == "index.docker.io" else host


def _google() -> tuple[str, str]:
    try:
        credentials, _ = google.auth.default(scopes=_SCOPES)
        credentials.refresh(google.auth.transport.requests.Request())
    except GoogleAuthError as error:
        raise ImageError(f"no access to Google Cloud ({error}); run `gcloud auth application-default login`") from error
    return "oauth2accesstoken", str(credentials.token)


def _advice(host: str) -> str:
    if host.endswith(_GOOGLE):
        return "give it the role Artifact Registry Writer (roles/artifactregistry.writer) there"
    return f"log in with `podman login {host}`"


def _basic(login: tuple[str, str] | None) -> str:
    return f"Basic {base64.b64encode(':'.join(login).encode()).decode()}" if login else ""


def _parameters(challenge: str) -> dict[str, str]:
    """`realm="…",service="…"` as names and values."""
    pairs = (pair.partition("=") for pair in parse_http_list(challenge))
    return {name.strip().lower(): value.strip('"') for name, _, value in pairs}


def _read(kind: type[_T], content: bytes, what: str) -> _T:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise ImageError(f"the registry's answer is not {what}: {error}") from error


def _files(file: IO[bytes], names: Collection[str], layer: str) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=file, mode="r:*") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if name in names and (content := archive.extractfile(member)):
                    yield name, content.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ImageError(f"layer {layer} is packed in a way that is not known here ({error})") from error


def _base(labels: Mapping[str, str]) -> str:
    name, digest = labels.get(BASE_LABEL, ""), labels.get(BASE_DIGEST_LABEL, "")
    return name if "@" in name or not digest else f"{name}@{digest}"


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == HTTPStatus.TOO_MANY_REQUESTS or error.response.is_server_error
    return isinstance(error, httpx.TransportError)


def _retrying() -> Retrying:
    return Retrying(retry=retry_if_exception(_may_pass), stop=stop_after_attempt(ATTEMPTS), wait=BACKOFF, reraise=True)
