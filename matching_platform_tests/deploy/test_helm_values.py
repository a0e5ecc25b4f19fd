"""The chart's values: names that the chart knows, objects that Kubernetes accepts, and the instance that we mean."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml
from dagster import DagsterInvalidConfigError
from dagster._core.instance.ref import InstanceRef

from matching_platform_tests.deploy.manifests import Manifest, build, one, validate

DAGSTER: Final = Path(__file__).parents[2] / "deploy" / "dagster"
RELEASE: Final = DAGSTER / "release"
CHART: Final = json.loads((Path(__file__).parent / "dagster_chart.json").read_text())["values"]
KUBERNETES: Final = "1.33"

Values = dict[str, Any]
KINDS: Final[dict[str, type]] = {"str": str, "int": int, "bool": bool}


@pytest.fixture(scope="module")
def values() -> Values:
    return yaml.safe_load((RELEASE / "values.yaml").read_text())


@pytest.fixture(scope="module")
def production() -> Values:
    return yaml.safe_load((DAGSTER / "production" / "dagster.yaml").read_text())


def problems(given: Any, known: Any, at: str = "") -> Iterator[str]:
    """What of `given` the chart does not know, by place."""
    if isinstance(known, dict):
        if not isinstance(given, dict):
            yield f"{at} is no mapping"
            return
        for name, value in given.items():
            if name not in known and "*" not in known:
                yield f"{at}.{name} is no value of the chart"
            else:
                yield from problems(value, known.get(name, known.get("*")), f"{at}.{name}")
    elif isinstance(known, list):
        if not isinstance(given, list):
            yield f"{at} is no list"
            return
        for place, value in enumerate(given):
            yield from problems(value, known[0], f"{at}[{place}]")
    elif known in KINDS:
        if type(given) is not KINDS[known]:
            yield f"{at} is no {known}"
    elif known == "PullPolicy":
        if given not in ("Always", "IfNotPresent", "Never"):
            yield f"{at} is no pull policy"
    elif known == "source":
        if not (isinstance(given, str) or (isinstance(given, dict) and set(given) == {"env"})):
            yield f"{at} is neither a value nor the name of an environment variable"
    elif known != "any":
        yield from (f"{at}: {problem}" for problem in unlike_kubernetes(given, known))


def unlike_kubernetes(given: Any, kind: str) -> Iterator[str]:
    """Why Kubernetes would refuse an object of `kind`, in a pod or a job around it."""
    probe = {key: value for key, value in given.items() if key != "enabled"} if kind.startswith("Probe") else given
    if kind.startswith("Probe"):
        probe = {"exec": {"command": ["true"]}, **probe}
    container: Values = {"name": "it", "image": "it"}
    pod: Values = {"containers": [container]}
    places: dict[str, tuple[Values, str]] = {
        "Affinity": (pod, "affinity"),
        "PodSecurityContext": (pod, "securityContext"),
        "SecurityContext": (container, "securityContext"),
        "ResourceRequirements": (container, "resources"),
        "Probe": (container, "readinessProbe"),
        "ProbeOrNot": (container, "readinessProbe"),
    }
    job: Values = {"template": {"spec": pod}}
    if kind == "PodSpec":
        pod.update(given)
    elif kind == "JobSpec":
        job.update(given)
    elif kind == "Container":
        container.update(given)
    elif kind in ("Volume", "Toleration"):
        pod[f"{kind.lower()}s"] = [given]
    elif kind == "VolumeMount":
        container["volumeMounts"] = [given]
    else:
        inside, name = places[kind]
        inside[name] = probe
    try:
        kubernetes_validate.validate(
            {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "it"}, "spec": job}, KUBERNETES, strict=True
        )
    except kubernetes_validate.ValidationError as error:
        yield error.message


def test_the_chart_knows_every_value(values: Values) -> None:
    assert list(problems(values, CHART)) == []


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("dagsterWebserver.replicas", 2, "is no value of the chart"),
        ("dagsterWebserver.replicaCount", "two", "is no int"),
        ("dagsterDaemon.image.pullPolicy", "Sometimes", "is no pull policy"),
        ("dagsterDaemon.securityContext.readOnlyRootFileSystem", True, "readOnlyRootFileSystem"),
        ("runLauncher.config.k8sRunLauncher.runK8sConfig.podSpecConfig.nodeSelectors", {}, "nodeSelectors"),
        ("computeLogManager.config.gcsComputeLogManager.folder", "logs", "is no value of the chart"),
    ],
)
def test_a_broken_value_is_seen(place: str, value: Any, problem: str) -> None:
    # Not what YAML gives: there, an anchor's places are one and the same object.
    values = json.loads(json.dumps(yaml.safe_load((RELEASE / "values.yaml").read_text())))
    *way, name = place.split(".")
    inside = values
    for step in way:
        inside = inside[step]
    inside[name] = value
    (found,) = problems(values, CHART)
    assert problem in found


def instance(values: Values) -> Values:
    """The dagster.yaml that the chart makes of these values: templates/configmap-instance.yaml and helpers/instance."""
    made = {
        "storage": {"postgres": {"postgres_db": _database(values["postgresql"])}},
        "run_coordinator": {
            "module": "dagster.core.run_coordinator",
            "class": "QueuedRunCoordinator",
            "config": _coordinator(values),
        },
        "run_launcher": {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": _launcher(values)},
        "compute_logs": {
            "module": "dagster_gcp.gcs.compute_log_manager",
            "class": "GCSComputeLogManager",
            "config": _snake(values["computeLogManager"]["config"]["gcsComputeLogManager"]),
        },
        "telemetry": values["telemetry"],
    }
    if values["concurrency"]["enabled"]:
        made["concurrency"] = {part: _snake(values["concurrency"][part]) for part in ("pools", "runs")}
    whole = values["additionalInstanceConfig"]
    assert not made.keys() & whole.keys()  # YAML would have the section twice
    return made | whole


def _coordinator(values: Values) -> Values:
    given = values["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]
    unlimited = {} if values["concurrency"]["enabled"] or not given else {"max_concurrent_runs": -1}
    return unlimited | _snake(given)


def _launcher(values: Values) -> Values:
    launcher = _snake(values["runLauncher"]["config"]["k8sRunLauncher"])
    for name in ("env_config_maps", "env_secrets"):
        launcher[name] = [source["name"] for source in launcher[name]]
    launcher["run_k8s_config"] = _snake(launcher["run_k8s_config"])
    return launcher | {
        "dagster_home": {"env": "DAGSTER_HOME"},
        "instance_config_map": {"env": "DAGSTER_K8S_INSTANCE_CONFIG_MAP"},
        "postgres_password_secret": {"env": "DAGSTER_K8S_PG_PASSWORD_SECRET"},
        "service_account_name": values["serviceAccount"]["name"],
    }


def _database(given: Values) -> Values:
    return {
        "username": given["postgresqlUsername"],
        "password": {"env": "DAGSTER_PG_PASSWORD"},
        "hostname": given["postgresqlHost"],
        "db_name": given["postgresqlDatabase"],
        "port": given["service"]["port"],
        "params": given["postgresqlParams"],
    }


def test_the_instance_is_that_of_production(values: Values, production: Values, tmp_path: Path) -> None:
    """What the chart makes of its values and what it takes over as it is, and Dagster takes it."""
    switched_off = (values["retention"], *_daemon(values, "runMonitoring", "runRetries"))
    assert not any(part["enabled"] for part in switched_off)  # else the chart writes the same section again
    assert not any(part["useThreads"] for part in _daemon(values, "sensors", "schedules"))
    made = instance(values)
    assert made == production
    concurrency = loaded(made, tmp_path).settings["concurrency"]
    assert concurrency["runs"]["max_concurrent_runs"] == 12


def test_dagster_refuses_limits_in_two_places(values: Values, tmp_path: Path) -> None:
    """What the chart makes where its own concurrency is off: a limit of the run coordinator."""
    concurrency = instance(values)["concurrency"]
    whole = values["additionalInstanceConfig"] | {"concurrency": concurrency}
    twice = instance(values | {"concurrency": {"enabled": False}, "additionalInstanceConfig": whole})
    with pytest.raises(DagsterInvalidConfigError, match="incompatible with the `concurrency > runs` config"):
        loaded(twice, tmp_path)


def loaded(made: Values, folder: Path) -> InstanceRef:
    """The instance as Dagster reads it."""
    (folder / "dagster.yaml").write_text(yaml.safe_dump(made))
    return InstanceRef.from_dir(str(folder))


def test_a_read_only_code_server_can_write_where_dagster_does(values: Values) -> None:
    (user_code,) = values["dagster-user-deployments"]["deployments"]
    assert user_code["securityContext"]["readOnlyRootFilesystem"]
    written = {mount["mountPath"]: mount["name"] for mount in user_code["volumeMounts"]}
    assert written.keys() >= {"/tmp", "/opt/dagster/dagster_home"}
    assert {"name": written["/opt/dagster/dagster_home"], "emptyDir": {}} in user_code["volumes"]


def test_one_image_for_all(values: Values) -> None:
    (user_code,) = values["dagster-user-deployments"]["deployments"]
    assert values["dagsterWebserver"]["image"] == values["dagsterDaemon"]["image"] == user_code["image"]


@pytest.fixture(scope="module")
def release() -> list[Manifest]:
    return build(RELEASE)


def test_a_cluster_with_flux_takes_it(release: list[Manifest]) -> None:
    for manifest in release:
        validate(manifest)


def test_the_release_reads_these_values(release: list[Manifest], values: Values) -> None:
    spec = one(release, "HelmRelease/dagster")["spec"]
    (source,) = spec["valuesFrom"]
    held = one(release, f"{source['kind']}/{source['name']}")
    assert yaml.safe_load(held["data"]["values.yaml"]) == values
    assert held["metadata"]["namespace"] == "flux-system"
    assert spec["targetNamespace"] == values["runLauncher"]["config"]["k8sRunLauncher"]["jobNamespace"]


def test_the_chart_is_of_our_dagster(release: list[Manifest]) -> None:
    constraints = (DAGSTER.parents[1] / "constraints.txt").read_text()
    (ours,) = (line.removeprefix("dagster==") for line in constraints.splitlines() if line.startswith("dagster=="))
    assert one(release, "HelmRelease/dagster")["spec"]["chart"]["spec"]["version"] == ours


def test_flux_writes_the_tag_that_main_pushes(release: list[Manifest], values: Values) -> None:
    policy, repository = one(release, "ImagePolicy/user-code"), one(release, "ImageRepository/user-code")
    image = values["dagsterDaemon"]["image"]
    assert repository["spec"]["image"] == image["repository"]
    pattern = policy["spec"]["filterTags"]["pattern"]
    assert re.fullmatch(pattern, image["tag"])
    assert not re.fullmatch(pattern, "latest")
    (line,) = (line for line in (RELEASE / "values.yaml").read_text().splitlines() if "$imagepolicy" in line)
    assert line.endswith('# {"$imagepolicy": "flux-system:user-code:tag"}')
    automation = one(release, "ImageUpdateAutomation/user-code")["spec"]
    assert DAGSTER.parents[1] / automation["update"]["path"] == RELEASE
    wanted = automation["policySelector"]["matchLabels"]
    assert wanted.items() <= policy["metadata"]["labels"].items()


def test_no_password_lies_in_the_values(values: Values) -> None:
    assert values["generatePostgresqlPasswordSecret"] is False
    assert "postgresqlPassword" not in values["postgresql"]


def _daemon(values: Values, *names: str) -> list[Values]:
    return [values["dagsterDaemon"][name] for name in names]


def _snake(given: Values) -> Values:
    """The chart's names, not those within, as Dagster writes them."""
    return {"".join(f"_{c.lower()}" if c.isupper() else c for c in name): value for name, value in given.items()}
