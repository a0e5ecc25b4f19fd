"""The desk on a cluster: what is applied is valid, closed to strangers, and what its process can start with."""

import copy
import re
from typing import Any, Final

import pytest
import yaml

from matching_platform.environment import DEFAULTS, PREFIX, Settings
from matching_platform_tests.deploy.manifests import DEPLOY, KUBERNETES, Manifest, build, one, validate
from matching_platform_tests.deploy.policies import broken
from matching_platform_tests.deploy.prometheus import MONITORING

PLACES: Final = ("production", "staging")
FOLDER: Final = DEPLOY / "kubernetes" / "desk" / "overlays"
# Policies of the matching service that are none of the desk's, which is one process: it cannot be scaled, spread or
# replaced without a pause. It runs beside the platform, and asks a database and people's provider.
OTHERS: Final = {
    "replaces pods one for one",
    "is spread over zones",
    "runs on its own nodes",
    "survives a drained node",
    "is scaled",
    "asks nobody outside",
}


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def built(place: str) -> list[Manifest]:
    return build(FOLDER / place)


@pytest.mark.parametrize("version", KUBERNETES)
def test_a_cluster_takes_the_desk(built: list[Manifest], version: str) -> None:
    for manifest in built:
        validate(manifest, version)


def test_it_keeps_the_policies_that_are_its_own(built: list[Manifest]) -> None:
    assert broken(built).keys() - OTHERS == set()


def test_there_is_one_process_at_a_time(built: list[Manifest]) -> None:
    spec = one(built, "Deployment/desk")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def containers(built: list[Manifest]) -> dict[str, Any]:
    pod = one(built, "Deployment/desk")["spec"]["template"]["spec"]
    return {container["name"]: container for container in pod["containers"]}


def given(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each.get("value", "postgresql+psycopg2://desk@db/desk") for each in container["env"]}


def test_the_process_starts_with_these_settings(
    built: list[Manifest], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given(containers(built)["desk"]).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    desk = settings.desk
    assert desk.url is not None
    assert desk.url.startswith("https://")
    # Whoever is not in this pod may send what headers he likes.
    assert desk.proxy is not None
    assert [str(network) for network in desk.proxy.addresses] == ["127.0.0.1/32"]
    assert desk.proxy.readers
    assert desk.proxy.bookers
    assert desk.proxy.admins
    assert desk.port == next(port["containerPort"] for port in containers(built)["desk"]["ports"])
    assert settings.production == f"http://matching-service.matching-{place}"
    if place == "production":
        assert settings.production == DEFAULTS["production"]["production"]


def test_the_proxy_passes_to_the_desk_and_takes_identities_away(built: list[Manifest]) -> None:
    proxy = containers(built)["proxy"]
    arguments = dict(argument.removeprefix("--").split("=", 1) for argument in proxy["args"])
    port = containers(built)["desk"]["ports"][0]["containerPort"]
    assert arguments["upstream"] == f"http://127.0.0.1:{port}"
    assert re.match(arguments["skip-auth-route"], "/api/months")
    assert not re.match(arguments["skip-auth-route"], "/users")
    assert not re.match(arguments["skip-auth-route"], "/metrics")
    # It would take a program's token away.
    assert "pass-authorization-header" not in arguments
    assert (arguments["skip-auth-strip-headers"], arguments["cookie-secure"]) == ("true", "true")
    desk = given(containers(built)["desk"])
    assert given(proxy)["OAUTH2_PROXY_REDIRECT_URL"] == f"{desk[f'{PREFIX}DESK__URL']}/oauth2/callback"


def test_no_secret_is_written_down(built: list[Manifest]) -> None:
    named = {
        each["name"]: each["valueFrom"]["secretKeyRef"]["name"]
        for container in containers(built).values()
        for each in container["env"]
        if "valueFrom" in each
    }
    assert named == {
        f"{PREFIX}DESK__DATABASE": "desk",
        "OAUTH2_PROXY_CLIENT_ID": "desk-proxy",
        "OAUTH2_PROXY_CLIENT_SECRET": "desk-proxy",
        "OAUTH2_PROXY_COOKIE_SECRET": "desk-proxy",
    }


def admitted(policy: Manifest) -> dict[str, list[dict[str, str]]]:
    """Labels of the namespaces that may come in, by port."""
    return {
        rule["ports"][0]["port"]: [each["namespaceSelector"]["matchLabels"] for each in rule["from"]]
        for rule in policy["spec"]["ingress"]
    }


def test_people_come_by_the_proxy_and_only_prometheus_to_the_desk_itself(built: list[Manifest]) -> None:
    assert admitted(one(built, "NetworkPolicy/desk")) == {
        "http": [{"matching-platform/ingress": "true"}],
        "desk": [{"matching-platform/monitoring": "true"}],
    }
    (port,) = one(built, "Service/desk")["spec"]["ports"]
    assert port["targetPort"] == "http"
    assert {each["name"] for each in containers(built)["proxy"]["ports"]} == {"http"}


def test_what_it_may_ask(built: list[Manifest], place: str) -> None:
    rules = one(built, "NetworkPolicy/desk")["spec"]["egress"]
    asked = {(each.get("ipBlock", {}).get("cidr"), rule["ports"][0]["port"]) for rule in rules for each in rule["to"]}
    assert {port for address, port in asked if address} == {53, 80, 443, 5432}
    matching = [each for rule in rules for each in rule["to"] if rule["ports"][0]["port"] == "http"]
    assert matching == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": f"matching-{place}"}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "matching-service"}},
        }
    ]
    (people,) = one(built, "NetworkPolicy/people")["spec"]["egress"]
    (anywhere,) = people["to"]
    assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"} <= set(anywhere["ipBlock"]["except"])


def test_the_service_is_asked_by_the_desk_dagster_and_monitoring_alone(built: list[Manifest], place: str) -> None:
    service = build(DEPLOY / "kubernetes" / "overlays" / place)
    (rule,) = one(service, "NetworkPolicy/matching-service")["spec"]["ingress"]
    client, monitoring, dagster = rule["from"]
    namespace = one(built, f"Namespace/desk-{place}")["metadata"]["labels"]
    pod = one(built, "Deployment/desk")["spec"]["template"]["metadata"]["labels"]
    assert client["namespaceSelector"]["matchLabels"].items() <= namespace.items()
    assert client["podSelector"]["matchLabels"].items() <= pod.items()
    assert monitoring == {"namespaceSelector": {"matchLabels": {"matching-platform/monitoring": "true"}}}
    assert dagster == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "dagster"}}}


def test_prometheus_finds_the_desk(built: list[Manifest], place: str) -> None:
    monitor = one(build(MONITORING), "PodMonitor/matching-desk")["spec"]
    deployment = one(built, "Deployment/desk")
    assert deployment["metadata"]["namespace"] in monitor["namespaceSelector"]["matchNames"]
    assert monitor["selector"]["matchLabels"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in containers(built)["desk"]["ports"]}
    environment = re.fullmatch(endpoint["relabelings"][1]["regex"], deployment["metadata"]["namespace"])
    assert environment is not None
    assert environment[1] == place


def test_flux_writes_the_image_of_main() -> None:
    flux = {**{m["metadata"]["name"]: m for m in build(DEPLOY / "flux") if m["kind"] == "ImageUpdateAutomation"}}
    policies = [m for m in build(DEPLOY / "dagster" / "release") if m["kind"] == "ImagePolicy"]
    (policy,) = (m for m in policies if m["metadata"]["name"] == "user-code")
    automation = flux["desk"]["spec"]
    assert automation["policySelector"]["matchLabels"].items() <= policy["metadata"]["labels"].items()
    assert policy["spec"]["digestReflectionPolicy"] == "IfNotPresent"  # The mark of the digest would stay as it is.
    text = (DEPLOY.parent / automation["update"]["path"] / "kustomization.yaml").read_text()
    marks = [yaml.safe_load(mark)["$imagepolicy"] for mark in re.findall(r"# (\{\"\$imagepolicy.*\})", text)]
    assert marks == [f"flux-system:user-code:{field}" for field in ("name", "tag", "digest")]


def test_a_desk_that_anybody_reaches_is_seen(built: list[Manifest]) -> None:
    changed = copy.deepcopy(built)
    one(changed, "NetworkPolicy/desk")["spec"]["ingress"].append({})
    assert "says who may reach it" in broken(changed)
