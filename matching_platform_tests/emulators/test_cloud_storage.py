"""The test server keeps Cloud Storage's promises, also those that its clients use only in trouble."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import httpx
import pytest

from matching_platform_tests.emulators.cloud_storage import QUANTUM, Server, serve

pytestmark = pytest.mark.cloud

UPLOAD = "/upload/storage/v1/b/b/o"
CONTENTS = [b"", b"\r", b"text\r\n", b"\n--==0==--\n", bytes(range(256)), b'{"json": true}']


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    server.reset()
    server.bucket("b")
    with httpx.Client(base_url=server.endpoint, trust_env=False) as client:
        yield client


def upload(client: httpx.Client, name: str, data: bytes = b"x", **conditions: str) -> httpx.Response:
    return client.post(UPLOAD, params={"uploadType": "media", "name": name, **conditions}, content=data)


def begin(client: httpx.Client, name: str, **conditions: str) -> httpx.Response:
    return client.post(UPLOAD, params={"uploadType": "resumable", "name": name, **conditions}, json={})


def send(client: httpx.Client, place: str, data: bytes, content_range: str) -> httpx.Response:
    return client.put(place, content=data, headers={"Content-Range": content_range})


def read(client: httpx.Client, name: str) -> bytes:
    return client.get(f"/download/storage/v1/b/b/o/{name}", params={"alt": "media"}).content


@pytest.mark.parametrize("line", ["\n", "\r\n"])
@pytest.mark.parametrize("content", CONTENTS)
def test_every_content_arrives_as_it_was_sent(client: httpx.Client, content: bytes, line: str) -> None:
    upload(client, "media", content)
    head = ["--==0==", "Content-Type: application/json", "", json.dumps({"name": "parts"}), "--==0=="]
    body = line.join([*head, "Content-Type: text/plain", "", ""]).encode() + content + f"{line}--==0==--".encode()
    headers = {"Content-Type": 'multipart/related; boundary="==0=="'}
    answer = client.post(UPLOAD, params={"uploadType": "multipart"}, content=body, headers=headers)
    assert (answer.json()["contentType"], int(answer.json()["size"])) == ("text/plain", len(content))
    place = begin(client, "pieces").headers["Location"]
    send(client, place, content, f"bytes 0-{len(content) - 1}/{len(content)}" if content else "bytes */0")
    assert [read(client, name) for name in ("media", "parts", "pieces")] == [content] * 3


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{UPLOAD}?uploadType=media&name=there"),
        ("POST", f"{UPLOAD}?uploadType=resumable&name=there"),
        ("POST", "/storage/v1/b/b/o/other/rewriteTo/b/b/o/there"),
        ("POST", "/storage/v1/b/b/o/other/copyTo/b/b/o/there"),
        ("POST", "/storage/v1/b/b/o/there/compose"),
        ("DELETE", "/storage/v1/b/b/o/there"),
    ],
)
@pytest.mark.parametrize("as_header", [False, True])
def test_preconditions_hold_or_nothing_happens(client: httpx.Client, method: str, path: str, as_header: bool) -> None:
    def ask(name: str, generation: str) -> int:
        header = {"ifGenerationMatch": "x-goog-if-generation-match"}.get(name, "x-goog-if-generation-not-match")
        condition = {"headers": {header: generation}} if as_header else {"params": {**query, name: generation}}
        return client.request(method, url.copy_with(params=query), json=body, **condition).status_code

    generation = upload(client, "there").json()["generation"]
    upload(client, "other", b"other")
    body = {"destination": {}, "sourceObjects": [{"name": "other"}]}
    url = httpx.URL(path)
    query = dict(url.params)
    assert ask("ifGenerationMatch", "0") == ask("ifGenerationMatch", "1") == 412
    assert ask("ifGenerationNotMatch", generation) == 412
    assert read(client, "there") == b"x"
    assert ask("ifGenerationMatch", generation) == 200


def test_the_refusal_is_what_cloud_storage_says(client: httpx.Client) -> None:
    upload(client, "there")
    told = upload(client, "there", ifGenerationMatch="0").json()["error"]
    assert (told["code"], told["errors"][0]["reason"]) == (412, "conditionNotMet")


@pytest.mark.parametrize("resumable", [False, True])
def test_of_many_who_create_one_object_one_succeeds(client: httpx.Client, resumable: bool) -> None:
    start = Barrier(8)
    places = [begin(client, "new", ifGenerationMatch="0").headers["Location"] for _ in range(8)]

    def create(number: int) -> int:
        data = str(number).encode()
        start.wait()
        if resumable:
            return send(client, places[number], data, "bytes 0-0/1").status_code
        return upload(client, "new", data, ifGenerationMatch="0").status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(create, range(8)))
    assert sorted(statuses) == [200] + [412] * 7
    assert read(client, "new") == str(statuses.index(200)).encode()


def test_a_resumable_upload_goes_on_where_it_was_cut(client: httpx.Client, server: Server) -> None:
    content = bytes(range(256)) * (QUANTUM // 64)  # Four times what is kept at once.
    total = len(content)
    place = begin(client, "big").headers["Location"]
    server.fail("upload", "drop")
    with pytest.raises(httpx.RemoteProtocolError):
        send(client, place, content[: 2 * QUANTUM], f"bytes 0-{2 * QUANTUM - 1}/{total}")
    asked = send(client, place, b"", f"bytes */{total}")
    assert (asked.status_code, asked.headers["Range"]) == (308, f"bytes=0-{QUANTUM - 1}")
    odd = send(client, place, content[: 3 * QUANTUM + 5], f"bytes 0-{3 * QUANTUM + 4}/{total}")
    assert (odd.status_code, odd.headers["Range"]) == (308, f"bytes=0-{3 * QUANTUM - 1}")
    assert send(client, place, b"x", f"bytes {total - 1}-{total - 1}/{total}").status_code == 400
    for _ in range(2):  # The answer may be lost, and the last piece come again.
        last = send(client, place, content[3 * QUANTUM :], f"bytes {3 * QUANTUM}-{total - 1}/{total}")
        assert (last.status_code, int(last.json()["size"])) == (200, total)
    assert read(client, "big") == content


def test_an_upload_that_was_given_up_is_gone(client: httpx.Client) -> None:
    place = begin(client, "never").headers["Location"]
    assert client.delete(place).status_code == 499
    assert send(client, place, b"x", "bytes 0-0/1").status_code == 404


@pytest.mark.parametrize(
    ("how", "took_effect"), [(503, False), ("drop", False), ("lost answer", True)], ids=["503", "drop", "lost answer"]
)
def test_failures_come_when_told(client: httpx.Client, server: Server, how: int | str, took_effect: bool) -> None:
    fault = server.fail("upload", how, times=1, after=1)
    assert upload(client, "first").status_code == 200
    try:
        status = upload(client, "second").status_code
    except (httpx.RemoteProtocolError, httpx.ReadError):
        status = None
    assert status == (how if isinstance(how, int) else None)
    assert fault.happened == 1
    assert (client.get("/storage/v1/b/b/o/second").status_code == 200) == took_effect
    assert upload(client, "third").status_code == 200
    assert [request.call for request in server.requests] == ["upload", "upload", "get", "upload"]


def test_a_download_may_break_off(client: httpx.Client, server: Server) -> None:
    upload(client, "big", b"x" * 1000)
    server.fail("download", "drop")
    with pytest.raises(httpx.RemoteProtocolError, match="500 bytes, expected 1001"):
        read(client, "big")
    assert len(read(client, "big")) == 1000


def test_a_generation_that_is_gone_is_not_found(client: httpx.Client) -> None:
    generation = upload(client, "there").json()["generation"]
    path = "/download/storage/v1/b/b/o/there"
    assert client.get(path, params={"alt": "media", "generation": generation}).status_code == 200
    upload(client, "there", b"y")
    assert client.get(path, params={"alt": "media", "generation": generation}).status_code == 404
