"""Small images made by hand, and a registry that answers as it is told to."""

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

import httpx

MANIFEST: Final = {
    "oci": "application/vnd.oci.image.manifest.v1+json",
    "docker": "application/vnd.docker.distribution.manifest.v2+json",
}
INDEX: Final = {
    "oci": "application/vnd.oci.image.index.v1+json",
    "docker": "application/vnd.docker.distribution.manifest.list.v2+json",
}


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer(files: Mapping[str, bytes]) -> bytes:
    """A packed layer with these files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)


@dataclass(frozen=True)
class Handmade:
    """An image: its manifest, and its blobs by digest."""

    manifest: bytes
    media_type: str
    blobs: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        return digest(self.manifest)


def image(labels: Mapping[str, str] | None, layers: list[bytes], kind: str = "oci") -> Handmade:
    config = json.dumps({"config": {"Labels": labels}, "os": "linux", "architecture": "amd64"}).encode()
    described = [{"mediaType": "x", "digest": digest(one), "size": len(one)} for one in (config, *layers)]
    content = {"schemaVersion": 2, "mediaType": MANIFEST[kind], "config": described[0], "layers": described[1:]}
    content["config"]["mediaType"] = (
        "application/vnd.oci.image.config.v1+json"
        if kind == "oci"
        else "application/vnd.docker.container.image.v1+json"
    )
    for one in content["layers"]:
        one["mediaType"] = (
            "application/vnd.oci.image.layer.v1.tar+gzip"
            if kind == "oci"
            else "application/vnd.docker.image.rootfs.diff.tar.gzip"
        )
    blobs = {digest(one): one for one in (config, *layers)}
    return Handmade(json.dumps(content).encode(), MANIFEST[kind], blobs)


def index(images: Mapping[str, Handmade], kind: str = "oci") -> Handmade:
    """An index with an image for each architecture."""
    manifests = [
        {
            "mediaType": one.media_type,
            "digest": one.digest,
            "size": len(one.manifest),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture, one in images.items()
    ]
    content = json.dumps({"schemaVersion": 2, "mediaType": INDEX[kind], "manifests": manifests}).encode()
    return Handmade(content, INDEX[kind], {})


def push(address: str, name: str, reference: str, pushed: Handmade, **more: Any) -> None:
    """Sends an image to a registry as the specification says."""
    with httpx.Client(base_url=f"http://{address}/v2/{name}/", trust_env=False, **more) as client:
        for key, content in pushed.blobs.items():
            place = client.post("blobs/uploads/").raise_for_status().headers["location"]
            client.put(httpx.URL(place).copy_merge_params({"digest": key}), content=content).raise_for_status()
        headers = {"content-type": pushed.media_type}
        client.put(f"manifests/{reference}", content=pushed.manifest, headers=headers).raise_for_status()


class Answer(NamedTuple):
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}


DROP: Final = Answer(0)


class Asked(NamedTuple):
    method: str
    path: str
    authorization: str


@dataclass(frozen=True)
class FakeRegistry:
    """Answers by path, one after the other and the last one for ever; an answer DROP hangs up."""

    address: str
    answers: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    asked: list[Asked] = field(default_factory=list)

    def holds(self, name: str, reference: str, held: Handmade) -> None:
        answer = Answer(200, held.manifest, {"content-type": held.media_type})
        for key in (reference, held.digest):
            self.answers[f"/v2/{name}/manifests/{key}"] = [answer]
        for key, content in held.blobs.items():
            self.answers[f"/v2/{name}/blobs/{key}"] = [Answer(200, content)]


@contextmanager
def fake_registry() -> Iterator[FakeRegistry]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            fake.asked.append(Asked(self.command, self.path, self.headers.get("authorization", "")))
            answers = fake.answers.get(self.path) or fake.answers.get(self.path.partition("?")[0]) or [Answer(404)]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if answer is DROP:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_PUT = do_HEAD = answer

        def log_message(self, *_: object) -> None:
            """Nothing: the test asks what was asked."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake = FakeRegistry(f"127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
