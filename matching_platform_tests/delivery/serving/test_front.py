import asyncio
from pathlib import Path

import httpx
import pytest

from matching_platform.delivery.serving import front
from matching_platform.store.record import Record
from matching_platform_tests.delivery.parts import free_port


def ask(record: Record, method: str, path: str) -> httpx.Response:
    async def answer() -> httpx.Response:
        transport = httpx.ASGITransport(front.create_app(record))
        async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
            return await client.request(method, path)

    return asyncio.run(answer())


def test_before_anything_is_deployed_it_says_so(tmp_path: Path) -> None:
    response = ask(front.deployments(tmp_path), "GET", "/readyz")
    assert response.status_code == 503
    assert response.json() == {"error": "nothing is deployed yet"}


def test_a_server_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "_ATTEMPT_PAUSES", (0.0, 0.0))
    record = front.deployments(tmp_path)
    record.append({"version": "one", "bento": "one", "address": f"127.0.0.1:{free_port()}"})
    response = ask(record, "POST", "/match?a=b")
    assert response.status_code == 502
    assert "does not answer" in response.json()["error"]
