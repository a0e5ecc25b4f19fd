"""The desk as a process of its own, at whatever address it was given."""

import socket
from pathlib import Path

import httpx
import pytest

from matching_platform.access.listening import base_url
from matching_platform.desk import server
from matching_platform.environment import Platform, load
from matching_platform_tests.delivery.parts import free_port


def _has_ipv6() -> bool:
    """Whether this machine has the address that is the harder one to write."""
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_it_answers_where_it_says_until_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {
        "WAREHOUSE": tmp_path / "warehouse.duckdb",
        "STORE": tmp_path / "store",
        "DESK__HOST": "::1" if _has_ipv6() else "127.0.0.1",
        "DESK__PORT": free_port(),
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"MATCHING_PLATFORM_{name}", str(value))
    platform = Platform(load())
    server.start(platform)
    try:
        url = base_url(platform.settings.desk)
        assert httpx.get(f"{url}/login", trust_env=False).is_success
        with pytest.raises(server.DeskError, match=r"a desk answers .* already; end it with `matching-platform stop`"):
            server.run(platform)
        # Of another folder, it is not `stop` that ends it.
        elsewhere = Platform(platform.settings.model_copy(update={"warehouse": tmp_path / "other" / "w.duckdb"}))
        with pytest.raises(server.DeskError, match=r"already; end it where it runs, or set"):
            server.run(elsewhere)
        assert not server.stop(elsewhere)
        assert server.stop(platform)
        assert not server.stop(platform)
    finally:
        server.stop(platform)
        platform.database.dispose()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/login", trust_env=False)


def test_a_port_that_another_program_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATCHING_PLATFORM_WAREHOUSE", str(tmp_path / "warehouse.duckdb"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0)
        port = other.getsockname()[1]
        monkeypatch.setenv("MATCHING_PLATFORM_DESK__PORT", str(port))
        platform = Platform(load())
        told: list[str] = []
        with pytest.raises(
            server.DeskError, match=rf"cannot listen at 127\.0\.0\.1, port {port}: Address already in use"
        ):
            server.run(platform, told.append)
        assert told == []
        platform.database.dispose()
