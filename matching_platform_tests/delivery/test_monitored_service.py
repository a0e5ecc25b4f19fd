"""A real Prometheus over a real service and desk: every series that an alert or the dashboard reads is there, and no rule
fails."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from matching_platform.delivery.probe import REQUEST
from matching_platform.delivery.serving.place import Release
from matching_platform.delivery.serving.rollout import Rollout
from matching_platform.delivery.serving.servers import BentoServers
from matching_platform.predictions.settings import PredictionSettings, passed_on
from matching_platform.store.unattended import Unattended
from matching_platform.store.versions import Store
from matching_platform_tests.browser import desks
from matching_platform_tests.delivery.parts import VERSION, free_port
from matching_platform_tests.deploy import prometheus
from matching_platform_tests.deploy.prometheus import MONITORING, RULES
from matching_platform_tests.desk.companies import MONTHS, bare_platform
from matching_platform_tests.waiting import until

# What Prometheus makes by itself, and what a cluster's kube-state-metrics tells.
ELSEWHERE: Final = {"up", "ALERTS", "kube_deployment_status_replicas_available"}
# They appear with the first such event.
OCCASIONAL: Final = {"front_different_total", "front_compared_total"}


@pytest.fixture(scope="module")
def served(bento: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the service answers that keeps a log and asks what it may book, and has answered and refused."""
    prometheus.required()
    home = tmp_path_factory.mktemp("monitored")
    Unattended(Store(home / "store")).open()
    servers = BentoServers(passed_on(PredictionSettings(), str(home / "store")))
    rollout = Rollout("production", home / "place", free_port(), servers=servers)
    try:
        url = rollout.deploy(Release(VERSION, bento)).url
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            assert client.post("/match", json=REQUEST).is_success
            assert client.post("/match", content=b"x").status_code == 400
        yield url
    finally:
        rollout.stop()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a desk answers that nobody has used yet."""
    with desks.served(bare_platform(tmp_path_factory.mktemp("desk"), MONTHS)) as desk:
        yield desk.url


def exported(*urls: str) -> set[str]:
    """The names of all series at some pages."""
    pages = [httpx.get(url, trust_env=False, timeout=60).text for url in urls]
    families = [family for page in pages for family in text_string_to_metric_families(page)]
    # A counter nobody has counted yet has a family without samples.
    names = {f"{family.name}_total" for family in families if family.type == "counter"}
    return names | {sample.name for family in families for sample in family.samples}


def test_every_series_that_is_read_is_there(served: str, desk: str) -> None:
    read = prometheus.series() - prometheus.recorded() - ELSEWHERE
    assert len(read) > 20
    pages = (f"{served}/metrics", f"{served}/front/metrics", f"{desk}/metrics")
    until(lambda: read <= exported(*pages), lambda: read - exported(*pages))


@pytest.fixture(scope="module")
def watching(served: str, desk: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Prometheus with our settings, but for the ports and a hurry."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    settings = (MONITORING / "prometheus.yml").read_text(encoding="utf-8")
    places = {"3456": served.removeprefix("http://"), "3457": desk.removeprefix("http://"), "9093": "127.0.0.1:9"}
    for ours, theirs in places.items():
        settings = settings.replace(f"localhost:{ours}", theirs)
    given = yaml.safe_load(settings)
    given["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(given))
    (folder / "rules.yaml").write_text(RULES.read_text(encoding="utf-8").replace("interval: 5m", "interval: 1s"))
    command = [
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = folder / "log"
    with (
        log.open("wb") as written,
        subprocess.Popen(command, stdout=written, stderr=written) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False, timeout=60) as client,
    ):
        try:
            until(lambda: client.get("/query", params={"query": "1"}).is_success, log.read_text)
            yield client
        finally:
            process.terminate()


def data(client: httpx.Client, path: str, **given: str) -> Any:
    answer = client.get(path, params=given)
    answer.raise_for_status()
    return answer.json()["data"]


def test_its_targets_are_up(watching: httpx.Client) -> None:
    def states() -> dict[str, str]:
        found = data(watching, "/targets")["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in found}

    wanted = {"matching-service": "up", "matching-front": "up", "matching-desk": "up"}
    until(lambda: states() == wanted, states)


def rules(client: httpx.Client) -> list[dict[str, Any]]:
    return [rule for group in data(client, "/rules")["groups"] for rule in group["rules"]]


def test_its_rules_are_evaluated_and_none_fails(watching: httpx.Client) -> None:
    until(lambda: "unknown" not in {rule["health"] for rule in rules(watching)})
    failed = {rule["name"]: rule["lastError"] for rule in rules(watching) if rule["health"] != "ok"}
    assert failed == {}
    named = {rule["name"] for rule in rules(watching) if rule["type"] == "alerting"}
    assert named == set(prometheus.alerts())


def test_nothing_is_wrong_with_it(watching: httpx.Client) -> None:
    """A service that answers, refuses one request and keeps its log makes no noise."""
    model = "count by (version) (matching_model_info)"
    until(lambda: data(watching, "/query", query=model)["result"])
    found = data(watching, "/alerts")["alerts"]
    # Before its first look, Prometheus has no target; that is no alert unless it lasts.
    assert [alert["labels"] for alert in found if alert["state"] == "firing"] == []


def test_the_dashboard_is_not_empty(watching: httpx.Client, served: str) -> None:
    """Each panel finds something as soon as requests come, but for what is rare, and days that have not passed."""
    asked = [query for query in prometheus.queries() if not any(name in query for name in OCCASIONAL)]
    asked = [query for query in asked if "1d" not in query and "changes(" not in query and "{alertname" not in query]
    asked = [query for query in asked if "ALERTS" not in query and "matching-challenger" not in query]
    assert len(asked) > 20

    def empty() -> list[str]:
        httpx.post(f"{served}/match", content=json.dumps(REQUEST), trust_env=False, timeout=60)
        return [query for query in asked if not data(watching, "/query", query=query)["result"]]

    until(lambda: not empty(), empty)
