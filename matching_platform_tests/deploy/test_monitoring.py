"""The alerts fire where they should, lead to somebody who is told what to do, and hold on a cluster as on one machine."""

import json
import re
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from matching_platform.store.watch import Watch
from matching_platform_tests.delivery.parts import free_port
from matching_platform_tests.deploy import prometheus
from matching_platform_tests.deploy.manifests import DEPLOY, KUBERNETES, ROOT, Manifest, build, one, validate
from matching_platform_tests.deploy.prometheus import ALERTMANAGER, MONITORING, RULES
from matching_platform_tests.waiting import until

CASES: Final = Path(__file__).parent / "alerts"
GUIDE: Final = ROOT / "docs" / "monitoring.md"


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    prometheus.required()


@pytest.fixture(scope="module")
def built() -> list[Manifest]:
    return build(MONITORING)


# -- rules


@pytest.mark.parametrize("name", ["minutes.yaml", "days.yaml"])
def test_alerts_fire_where_they_should(name: str) -> None:
    assert "SUCCESS" in prometheus.run("promtool", "test", "rules", CASES / name)


def test_every_alert_is_seen_to_fire_and_to_be_silent() -> None:
    fired, silent = set[str](), set[str]()
    for name in ("minutes.yaml", "days.yaml"):
        for case in yaml.safe_load((CASES / name).read_text(encoding="utf-8"))["tests"]:
            for asked in case["promql_expr_test"]:
                labels = " ".join(sample["labels"] for sample in asked["exp_samples"])
                fired |= set(re.findall(r'alertname="(\w+)"', labels))
                silent |= set() if labels else set(re.findall(r'alertname="(\w+)"', asked["expr"]))
    assert fired == set(prometheus.alerts())
    assert silent == set(prometheus.alerts())


def test_the_settings_are_prometheus_own() -> None:
    prometheus.run("promtool", "check", "rules", RULES)
    prometheus.run("promtool", "check", "config", MONITORING / "prometheus.yml")


@pytest.mark.parametrize("name", prometheus.alerts())
def test_an_alert_says_what_to_do(name: str) -> None:
    alert = prometheus.alerts()[name]
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    told = alert["annotations"]
    assert told.keys() == {"summary", "description", "runbook_url"}
    assert told["description"].endswith(".")
    assert not told["summary"].endswith(".")
    page, _, anchor = told["runbook_url"].partition("#")
    assert page.endswith(f"/{GUIDE.relative_to(ROOT)}")
    assert anchor == name.lower()


def test_every_alert_has_its_section() -> None:
    sections = dict(
        re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    )
    alerts = {name for name in sections if name.startswith("Matching")}
    assert alerts == set(prometheus.alerts())
    for name in alerts:
        assert "*Look*" in sections[name], name
        assert "*Do*" in sections[name], name


def test_links_in_the_guide_lead_somewhere() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in re.findall(r"^#+ (.+)", text, re.MULTILINE)
    }
    for page, anchor in re.findall(r"\]\((\.\.[^)#]*)?(?:#([\w-]+))?\)", text):
        assert not page or (GUIDE.parent / page).exists(), page
        assert not anchor or anchor in anchors, anchor


def test_the_limits_are_those_of_the_cluster_and_of_the_service() -> None:
    """Figures in rules that others decide."""
    deployment = yaml.safe_load((DEPLOY / "kubernetes" / "server" / "deployment.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == "2Gi"
    assert str(2 * 2**30) in prometheus.alerts()["MatchingMemoryNearLimit"]["expr"]
    stale = Watch.__init__.__defaults__[-1]
    assert prometheus.alerts()["MatchingPermissionNotRead"]["expr"].endswith(f"> {stale:.0f}")


# -- Alertmanager

ROUTES: Final = [
    ({"severity": "critical", "environment": "production"}, "people"),
    ({"severity": "critical", "environment": "local"}, "people"),
    ({"severity": "critical", "environment": "staging"}, "chat"),
    ({"severity": "warning", "environment": "production"}, "chat"),
    ({"severity": "info", "environment": "production"}, "chat"),
    ({"severity": "warning"}, "chat"),
]


def test_alertmanager_takes_its_settings() -> None:
    assert "SUCCESS" in prometheus.run("amtool", "check-config", ALERTMANAGER)


@pytest.mark.parametrize(("labels", "receiver"), ROUTES)
def test_an_alert_goes_to(labels: dict[str, str], receiver: str) -> None:
    given = [f"{name}={value}" for name, value in labels.items()]
    command = ("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"--verify.receivers={receiver}")
    assert prometheus.run(*command, *given) == receiver


def test_no_secret_is_in_it() -> None:
    """What leads to a secret is a file's name."""
    settings = yaml.safe_load(ALERTMANAGER.read_text(encoding="utf-8"))
    secret = re.compile(r"password|secret|token|api_url|credentials|routing_key|webhook", re.IGNORECASE)
    named = [name for name, _ in _settings(settings) if secret.search(name)]
    assert sorted(named) == ["slack_api_url_file", "smtp_auth_password_file"]


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    for name, inside in (
        value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    ):
        yield str(name), inside
        yield from _settings(inside)


# Two alerts of one environment, and whether the first one silences the second, which never silences the first.
INHIBITED: Final = [
    ("MatchingDown", "MatchingErrorsBurnFast", True),
    ("MatchingDown", "MatchingNotReady", True),
    ("MatchingNotReady", "MatchingTwoVersions", True),
    ("MatchingErrorsBurnFast", "MatchingErrorsBurnSlowly", True),
    ("MatchingLatencyBurnsFast", "MatchingLatencyBurnsSlowly", True),
    ("MatchingLogNotFlushed", "MatchingLogBacklogGrows", True),
    ("MatchingErrorsBurnFast", "MatchingUnattendedFell", False),
]


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Alertmanager with our settings, which finds no secrets and so tells nobody."""
    folder, port = tmp_path_factory.mktemp("alertmanager"), free_port()
    command = [
        "prometheus-alertmanager",
        f"--config.file={ALERTMANAGER}",
        f"--storage.path={folder}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    log = folder / "log"
    with (
        log.open("wb") as written,
        subprocess.Popen(command, stdout=written, stderr=written) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client,
    ):
        try:
            until(lambda: client.get("/-/ready").is_success, log.read_text)
            yield client
        finally:
            process.terminate()


@pytest.mark.parametrize(("source", "target", "silenced"), INHIBITED)
def test_what_follows_from_another_is_not_told(
    alertmanager: httpx.Client, source: str, target: str, silenced: bool
) -> None:
    """In the same environment, and nowhere else."""
    # Each case is in environments of its own, since Alertmanager keeps what it was told.
    here, there = f"{source}-{target}", f"{source}-{target}-elsewhere"
    sent = [(source, here), (target, here), (target, there)]
    alerts = [{"labels": {"alertname": name, "environment": where, "instance": "a"}} for name, where in sent]
    alertmanager.post("/api/v2/alerts", json=alerts).raise_for_status()

    def states() -> dict[tuple[str, str], str]:
        found = alertmanager.get("/api/v2/alerts", params={"filter": f'environment=~"{here}.*"'}).json()
        return {(one["labels"]["alertname"], one["labels"]["environment"]): one["status"]["state"] for one in found}

    wanted = {
        (source, here): "active",
        (target, here): "suppressed" if silenced else "active",
        (target, there): "active",
    }
    until(lambda: states() == wanted, states)


# -- dashboard


def test_every_panel_says_what_it_shows() -> None:
    for panel in prometheus.panels():
        for said in ("title", "description"):
            assert panel[said], panel["id"]
        assert panel["description"].endswith("."), panel["title"]
        heatmap = panel["type"] == "heatmap"
        assert (panel["options"]["yAxis"] if heatmap else panel["fieldConfig"]["defaults"])["unit"], panel["title"]
        assert panel["targets"], panel["title"]
    names = [panel["title"] for panel in prometheus.panels()]
    assert len(set(names)) == len(names)
    identifiers = [panel["id"] for panel in prometheus.dashboard()["panels"]]
    assert len(set(identifiers)) == len(identifiers)


def test_no_panel_lies_on_another() -> None:
    cells = {panel["title"]: _cells(panel["gridPos"]) for panel in prometheus.dashboard()["panels"]}
    for (first, its), (second, others) in combinations(cells.items(), 2):
        assert not its & others, (first, second)
    assert max(x for taken in cells.values() for x, _ in taken) < 24


def _cells(place: dict[str, int]) -> set[tuple[int, int]]:
    xs = range(place["x"], place["x"] + place["w"])
    return {(x, y) for x in xs for y in range(place["y"], place["y"] + place["h"])}


def test_every_query_is_one(tmp_path: Path) -> None:
    """promtool parses each as a rule."""
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(prometheus.queries())]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(rules)} rules found" in prometheus.run("promtool", "check", "rules", file)


def test_the_dashboard_is_provisioned() -> None:
    folder = MONITORING / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards" / "matching.yaml").read_text())["providers"]
    assert provider["options"]["path"] == "$MATCHING_DASHBOARDS"
    assert "MATCHING_DASHBOARDS=deploy/monitoring/grafana" in GUIDE.read_text(encoding="utf-8")
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())["datasources"]
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped
    variables = {one["name"]: one for one in prometheus.dashboard()["templating"]["list"]}
    assert variables["datasource"]["query"] == source["type"]


# -- cluster


@pytest.mark.parametrize("version", KUBERNETES)
def test_a_cluster_takes_the_monitoring(built: list[Manifest], version: str) -> None:
    for manifest in built:
        validate(manifest, version)


def test_the_cluster_has_the_same_rules(built: list[Manifest]) -> None:
    spec = one(built, "PrometheusRule/matching-platform")["spec"]
    assert spec == yaml.safe_load(RULES.read_text(encoding="utf-8")), (
        "make kubernetes/rules.yaml again, as its head says"
    )


def test_the_cluster_has_the_same_dashboard_and_settings(built: list[Manifest]) -> None:
    shown = one(built, "ConfigMap/matching-dashboard")["data"]["matching.json"]
    assert json.loads(shown) == prometheus.dashboard()
    assert one(built, "Secret/matching-alertmanager")["data"].keys() == {"alertmanager.yaml"}


@pytest.mark.parametrize("place", ["staging", "production"])
def test_the_pods_are_found_and_may_be_asked(built: list[Manifest], place: str) -> None:
    manifests = build(DEPLOY / "kubernetes" / "overlays" / place)
    deployment = one(manifests, "Deployment/matching-service")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    found = []
    for monitor in (manifest["spec"] for manifest in built if manifest["kind"] == "PodMonitor"):
        (endpoint,) = monitor["podMetricsEndpoints"]
        if endpoint["relabelings"][0]["replacement"] == "matching-desk":
            continue  # test_desk_manifests.py
        assert deployment["metadata"]["namespace"] in monitor["namespaceSelector"]["matchNames"]
        assert endpoint["port"] in {port["name"] for port in container["ports"]}
        if monitor["selector"]["matchLabels"].items() <= labels.items():
            found.append((endpoint["path"], endpoint["relabelings"][0]["replacement"]))
    assert found == [("/metrics", "matching-service")]
    namespace = one(built, "Namespace/monitoring")["metadata"]["labels"]
    (rule,) = one(manifests, "NetworkPolicy/matching-service")["spec"]["ingress"]
    admitted = [each["namespaceSelector"]["matchLabels"] for each in rule["from"]]
    assert any(wanted.items() <= namespace.items() for wanted in admitted)


def test_challenger_front_and_desk_have_a_job_each(built: list[Manifest]) -> None:
    components = {
        monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]: monitor["spec"][
            "podMetricsEndpoints"
        ][0]
        for monitor in built
        if monitor["kind"] == "PodMonitor"
    }
    jobs = {name: (one["path"], one["relabelings"][0]["replacement"]) for name, one in components.items()}
    assert jobs == {
        "champion": ("/metrics", "matching-service"),
        "challenger": ("/metrics", "matching-challenger"),
        "front": ("/front/metrics", "matching-front"),
        "desk": ("/metrics", "matching-desk"),
    }
    labels = {
        deployment["metadata"]["labels"]["app.kubernetes.io/component"]
        for path in (DEPLOY / "kubernetes").rglob("*.yaml")
        for deployment in yaml.safe_load_all(path.read_text())
        if isinstance(deployment, dict)
        and deployment.get("kind") == "Deployment"
        and "labels" in deployment["metadata"]
    }
    assert labels <= jobs.keys()


@pytest.mark.parametrize(
    ("kind", "path", "value", "told"),
    [
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "expression"), "up", "'expression' was unexpected"),
        ("PrometheusRule", ("spec", "groups", 0, "interval"), "often", "does not match"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "paths"), "/metrics", "'paths' was unexpected"),
        ("PodMonitor", ("spec", "selector"), {"app": "x"}, "'app' was unexpected"),
        ("PodMonitor", ("apiVersion",), "monitoring.coreos.com/v2", "Couldn't find schema"),
    ],
)
def test_a_wrong_object_is_refused(
    built: list[Manifest], kind: str, path: tuple[Any, ...], value: Any, told: str
) -> None:
    changed = json.loads(json.dumps(next(manifest for manifest in built if manifest["kind"] == kind)))
    inside = changed
    for step in path[:-1]:
        inside = inside[step]
    inside[path[-1]] = value
    with pytest.raises(ValueError, match=re.escape(told)):
        validate(changed)
