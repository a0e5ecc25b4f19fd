"""The staging overlay runs on this machine: the manifest that a cluster gets, the real image, podman for a kubelet."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from matching_platform.delivery.images.image import Image
from matching_platform.delivery.packing import BentoArtefact
from matching_platform.delivery.serving import checks
from matching_platform.delivery.serving.place import Release
from matching_platform_tests.containers.engine import Engine
from matching_platform_tests.deploy.manifests import DEPLOY, Manifest, build, one, with_challenger

pytestmark = pytest.mark.containers

READY_SECONDS: Final = 30.0


@pytest.fixture(scope="module")
def staging() -> list[Manifest]:
    return build(DEPLOY / "kubernetes" / "overlays" / "staging")


@contextmanager
def played(engine: Engine, folder: Path, image: Image, deployment: Manifest, *others: Manifest) -> Iterator[str]:
    """The URL of the Deployment's pod, and its end.

    Podman knows no Services, no autoscaler, and not which image Flux wrote: a port of this machine, one pod and the image
    are put in, and nothing else is changed. The rest podman heeds, or ignores where only a scheduler could heed it.
    """
    container: Any = deployment["spec"]["template"]["spec"]["containers"][0]
    port = _free_port()
    container["image"] = f"{image.repository}:{image.tag}@{image.digest}"
    deployment["spec"]["replicas"] = 1
    container["ports"][0] |= {"hostPort": port, "hostIP": "127.0.0.1"}
    path = folder / "pod.yaml"
    path.write_text(yaml.safe_dump_all([*others, deployment]))
    engine.podman("kube", "play", str(path))
    try:
        yield f"http://127.0.0.1:{port}"
    except httpx.HTTPError as error:
        command = ["podman", "logs", pod_container(deployment)]
        log = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
        pytest.fail(f"{error!r}; the container's log: {log.stdout}")
    finally:
        engine.podman("kube", "down", str(path))


def pod_container(deployment: Manifest) -> str:
    """What podman calls the container of the Deployment's first pod."""
    return f"{deployment['metadata']['name']}-pod-0-{deployment['spec']['template']['spec']['containers'][0]['name']}"


@retry(
    retry=retry_if_exception_type(httpx.HTTPError),
    stop=stop_after_delay(READY_SECONDS),
    wait=wait_fixed(0.2),
    reraise=True,
)
def await_answer(url: str) -> None:
    httpx.get(url, timeout=5.0, trust_env=False).raise_for_status()


def test_the_overlay_serves_as_packed(
    engine: Engine, service_image: Image, service_bento: BentoArtefact, staging: list[Manifest], tmp_path: Path
) -> None:
    deployment = one(staging, "Deployment/matching-service")
    probes = deployment["spec"]["template"]["spec"]["containers"][0]
    with played(engine, tmp_path, service_image, deployment) as url:
        await_answer(url + probes["startupProbe"]["httpGet"]["path"])
        await_answer(url + probes["livenessProbe"]["httpGet"]["path"])
        checks.check(url, checks.packed(Release(service_image.model, service_bento.path)))
        # What a place on a cluster counts failures by.
        counted = r'bentoml_service_request_total\{endpoint="/match",http_response_code="200".*\} 1\.0'
        assert re.search(counted, checks.get(f"{url}/metrics").text)
        inside = pod_container(deployment)
        assert engine.podman("exec", inside, "id", "-u") == "1034"
        for path, writable in (("/home/bentoml/x", False), ("/usr/x", False), ("/tmp/x", True)):
            assert _writes(engine, inside, path) == writable
        status = engine.podman("exec", inside, "grep", "-E", "^(CapEff|NoNewPrivs|Seccomp):", "/proc/1/status")
        assert dict(line.split(":\t") for line in status.splitlines()) == {
            "CapEff": "0000000000000000",
            "NoNewPrivs": "1",
            "Seccomp": "2",
        }
        host = json.loads(engine.podman("inspect", inside))[0]["HostConfig"]
        assert (host["Memory"], host["NanoCpus"] or host["CpuQuota"] / host["CpuPeriod"] * 1e9) == (2 * 2**30, 2e9)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_the_front_is_in_the_image(engine: Engine, service_image: Image, tmp_path: Path) -> None:
    manifests = build(with_challenger(tmp_path))
    front, routes = one(manifests, "Deployment/matching-front"), one(manifests, "ConfigMap/matching-front")
    path = front["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"]
    with played(engine, tmp_path, service_image, front, routes) as url:
        await_answer(url + path)
        # There is no champion behind it here.
        assert httpx.get(url + "/model", timeout=30.0, trust_env=False).status_code == httpx.codes.BAD_GATEWAY


def _writes(engine: Engine, container: str, path: str) -> bool:
    command = ["podman", "exec", container, "touch", path]
    return subprocess.run(command, capture_output=True, timeout=30).returncode == 0


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
