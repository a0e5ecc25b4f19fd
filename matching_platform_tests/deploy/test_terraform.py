"""Terraform's files without Terraform's provider: formatted, every name resolves, nobody may do more than it must."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from matching_platform.environment import DEFAULTS, PREFIX, Settings
from matching_platform_tests.deploy.google_provider import FACTS
from matching_platform_tests.deploy.manifests import build
from matching_platform_tests.deploy.terraform import Body, Module, blocks, read_module, references

FOLDER: Final = Path(__file__).parents[2] / "deploy" / "terraform"
README: Final = FOLDER.parents[1] / "README.md"
META: Final = {"count", "depends_on", "for_each", "lifecycle", "provider"}
# What HCL itself names within an expression.
HCL: Final = {"each", "count", "self", "path", "terraform"}
GPU: Final = 'machine="g2-standard-16",accelerator="nvidia-l4",spot=true'
# The random provider, of which one resource is used: hashicorp/random 3.7.
RANDOM: Final = {"ephemeral.random_password": {"length", "special", "result"}}


@pytest.fixture(scope="module")
def module() -> Module:
    return read_module(FOLDER)


@pytest.fixture(scope="module")
def types() -> dict[str, Any]:
    return json.loads(FACTS.read_text())["types"]


def terraform(*arguments: str, folder: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["terraform", f"-chdir={folder}", *arguments], capture_output=True, text=True, check=False)


def unknown(module: Module, types: dict[str, Any]) -> Iterator[str]:
    """Arguments and blocks that the provider does not have, and those that it misses."""
    for (kind, name), body in module.resources.items():
        if kind in RANDOM:
            yield from (f"{kind}.{name}: no argument {given}" for given in body.keys() - RANDOM[kind])
            continue
        if kind not in types:
            yield f"{kind}.{name}: no such type in google_provider.json; run google_provider.py"
            continue
        known = types[kind]["arguments"]
        given = {key: value for key, value in body.items() if key not in META}
        yield from (f"{kind}.{name}: {problem}" for problem in _misfits(given, known))
        for way, inner in blocks(given):
            here = known
            for step in way:
                here = here.get(step, {})["block"] if isinstance(here.get(step), dict) else {}
            if here:
                yield from (f"{kind}.{name}.{'.'.join(way)}: {problem}" for problem in _misfits(inner, here))


def _misfits(given: Body, known: dict[str, Any]) -> Iterator[str]:
    dynamic = {made for one in given.get("dynamic", []) for made in one}
    names = (given.keys() - {"dynamic"}) | dynamic
    yield from (f"no argument {name}" for name in sorted(names - known.keys()))
    required = {name for name, fact in known.items() if (fact["required"] if isinstance(fact, dict) else fact)}
    yield from (f"{name} is missing" for name in sorted(required - names))


def unresolved(module: Module, types: dict[str, Any]) -> Iterator[str]:
    """References to what nobody declares."""
    everything = [*module.resources.items(), *(("output", one) for one in module.outputs.values())]
    for place, body in [*everything, ("locals", module.locals)]:
        loops = HCL | {made for _, made in _dynamic(body)} | _bound(body)
        for reference in references(body):
            head, *rest = re.sub(r"\[[^\]]*\]", "", reference).split(".")
            if head in loops:
                continue
            if head == "var":
                missing = rest[0] not in module.variables
            elif head == "local":
                missing = rest[0] not in module.locals
            else:
                kind, name, *attribute = (
                    [head, *rest] if head not in ("data", "ephemeral") else [f"{head}.{rest[0]}", *rest[1:]]
                )
                missing = (kind, name) not in module.resources or bool(
                    attribute and attribute[0] not in _attributes(kind, types)
                )
            if missing:
                yield f"{place}: {reference}"


def _attributes(kind: str, types: dict[str, Any]) -> set[str]:
    return RANDOM[kind] if kind in RANDOM else {*types[kind]["attributes"], "id"}


def _dynamic(value: Any) -> Iterator[tuple[Body, str]]:
    if isinstance(value, dict):
        for one in value.get("dynamic", []):
            yield from ((inner, made) for made, inner in one.items())
        for each in value.values():
            yield from _dynamic(each)
    elif isinstance(value, list):
        for each in value:
            yield from _dynamic(each)


def _bound(value: Any) -> set[str]:
    """Names that `for` expressions give."""
    bound = re.findall(r"\bfor\s+(\w+)(?:\s*,\s*(\w+))?\s+in\b", json.dumps(value))
    return {name for pair in bound for name in pair if name}


def test_formatted() -> None:
    assert terraform("fmt", "-check", "-diff").returncode == 0, terraform("fmt", "-check", "-diff").stdout


def test_the_provider_knows_every_argument(module: Module, types: dict[str, Any]) -> None:
    assert list(unknown(module, types)) == []


def test_every_reference_resolves(module: Module, types: dict[str, Any]) -> None:
    assert list(unresolved(module, types)) == []


@pytest.mark.parametrize(
    ("file", "text", "instead", "problem"),
    [
        ("storage.tf", "force_destroy   ", "force_destroyed ", "no argument force_destroyed"),
        ("storage.tf", "matches_prefix", "matching_prefix", "no argument matching_prefix"),
        ("registry.tf", '  format                 = "DOCKER"\n', "", "format is missing"),
        ("cluster.tf", "key    = taint", "name   = taint", "no argument name"),
        ("messages.tf", "google_pubsub_topic.dead_letters.id", "google_pubsub_topic.dead_letter.id", "dead_letter.id"),
        ("accounts.tf", '"runs"].member', '"runs"].address', "address"),
        ("network.tf", "var.network_range.nodes", "var.network_ranges.nodes", "var.network_ranges"),
        ("outputs.tf", "local.registry", "local.registries", "local.registries"),
        ("delivery.tf", "google_cloudbuild_trigger", "google_cloud_build_trigger", "no such type"),
    ],
)
def test_what_is_broken_is_seen(
    tmp_path: Path, types: dict[str, Any], file: str, text: str, instead: str, problem: str
) -> None:
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    whole = (tmp_path / file).read_text()
    assert text in whole
    (tmp_path / file).write_text(whole.replace(text, instead))
    broken = read_module(tmp_path)
    assert any(problem in one for one in [*unknown(broken, types), *unresolved(broken, types)])


def early(module: Module) -> Iterator[str]:
    """What Terraform may make, or look up, before the services that it needs are on."""
    needs = {f"{kind}.{name}": set(_resources(body, module)) for (kind, name), body in module.resources.items()}
    sure = {"google_project_service.used"}
    while later := {place for place, needed in needs.items() if place not in sure and needed & sure}:
        sure |= later
    yield from (place for place in needs if "google_" in place and place not in sure)


def _resources(value: Any, module: Module) -> Iterator[str]:
    """The resources that expressions within `value` refer to, by themselves or through a local."""
    for reference in references(value):
        head, *rest = re.sub(r"\[[^\]]*\]", "", reference).split(".")
        if head == "local":
            yield from _resources(module.locals[rest[0]], module)
        elif head not in HCL | {"var"}:
            yield ".".join([head, *rest][: 3 if head in ("data", "ephemeral") else 2])


def test_nothing_is_made_before_its_service_is_on(module: Module) -> None:
    assert list(early(module)) == []
    (services,) = re.findall(r"toset\((\[.*\])\)", module.resources["google_project_service", "used"]["for_each"])
    # What Terraform itself asks.
    assert {"cloudresourcemanager.googleapis.com", "serviceusage.googleapis.com"} <= set(
        re.findall(r'"(.*?)"', services)
    )


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("accounts.tf", "google_service_account.of"),
        ("delivery.tf", "google_iam_workload_identity_pool.github"),
        ("messages.tf", "data.google_project.this"),
        ("network.tf", "google_container_cluster.this"),
    ],
)
def test_what_is_made_too_early_is_seen(tmp_path: Path, file: str, place: str) -> None:
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / file, *([tmp_path / "accounts.tf"] if file == "network.tf" else [])):
        path.write_text(path.read_text().replace("depends_on = [google_project_service.used]", ""))
    assert place in early(read_module(tmp_path))


def test_nothing_is_declared_for_nobody(module: Module) -> None:
    used = {".".join(one.split(".")[:2]) for one in _all_references(module)}
    used |= {f"var.{name}" for name in re.findall(r"var\.(\w+)", (FOLDER / "versions.tf").read_text())}
    used = {re.sub(r"\[.*", "", one) for one in used}
    assert {f"var.{name}" for name in module.variables} <= used
    assert {f"local.{name}" for name in module.locals} <= used


def test_accounts_that_are_named_exist(module: Module) -> None:
    accounts = module.locals["accounts"]
    named = {name for one in _all_references(module) for name in re.findall(r'service_account\.of\["(\w+)"\]', one)}
    tables = ("project_roles", "bucket_roles", "registry_roles")
    named |= {grant["account"] for table in tables for grant in module.locals[table].values()}
    named |= set(module.locals["workloads"].values())
    assert named == set(accounts)


def test_every_variable_says_what_it_is(module: Module) -> None:
    for name, variable in module.variables.items():
        assert len(variable["description"]) > 20, name
        assert "type" in variable, name
        for validation in variable.get("validation", []):
            assert f"var.{name}" in validation["condition"]
            assert validation["error_message"].endswith(".")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The variables by themselves, which Terraform can judge without a provider."""
    folder = tmp_path_factory.mktemp("variables")
    shutil.copy(FOLDER / "variables.tf", folder)
    started = terraform("init", "-backend=false", "-input=false", folder=folder)
    assert started.returncode == 0, started.stderr
    return folder


def test_terraform_takes_the_settings(alone: Path) -> None:
    planned = terraform("plan", "-input=false", f"-var-file={FOLDER}/production.tfvars", folder=alone)
    assert planned.returncode == 0, planned.stderr


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("environment=local", "The environment is staging or production"),
        ("project=My Project", "lower-case letters"),
        ("first_month=2024-13", "YYYY-MM"),
        ("raw_dataset=a.b.c", "PROJECT.DATASET"),
        ('administrators={all="0.0.0.0/0"}', "the whole internet"),
        ("github_repository=matching", "OWNER/NAME"),
        ("keep_days=1", "7 days at least"),
        ("prediction_days=0", "a day at least"),
        (f'gpu={{{GPU},nodes=0,zones=["europe-west1-b"]}}', "1 to 8 nodes"),
        (f"gpu={{{GPU},nodes=1,zones=[]}}", "zones of the region"),
        (f'gpu={{{GPU},nodes=1,zones=["europe-west4-a"]}}', "zones of the region"),
    ],
)
def test_terraform_refuses_what_cannot_be(alone: Path, setting: str, problem: str) -> None:
    planned = terraform(
        "plan", "-no-color", "-input=false", f"-var-file={FOLDER}/production.tfvars", f"-var={setting}", folder=alone
    )
    assert planned.returncode != 0
    assert problem in " ".join(planned.stderr.replace("│", " ").split())


def grants(module: Module) -> Iterator[tuple[str, str, str]]:
    """Place, role and member of everything that is granted, tables of the locals written out."""
    for (kind, name), body in module.resources.items():
        if "_iam_" not in kind or "workload_identity_pool" in kind:
            continue
        table = re.fullmatch(r"\$\{local\.(\w+_roles)\}", str(body.get("for_each", "")))
        roles = [one["role"] for one in module.locals[table[1]].values()] if table else [body["role"]]
        yield from ((f"{kind}.{name}", role, body["member"]) for role in roles)


def test_nobody_may_do_more_than_it_must(module: Module) -> None:
    for place, role, member in grants(module):
        assert role.startswith("roles/"), place
        assert not re.search(r"owner|editor$|admin|\*", role.replace("cloudbuild.builds.editor", "")) or role in (
            "roles/bigquery.dataEditor",
        ), (place, role)
        assert "allUsers" not in member
        assert "allAuthenticatedUsers" not in member
    kinds = {kind for kind, _ in module.resources}
    assert not any(
        kind.endswith(("_iam_policy", "_iam_binding")) for kind in kinds
    )  # they take rights away from others
    assert "google_service_account_key" not in kinds
    assert "service" not in {grant["account"] for grant in module.locals["project_roles"].values()}


def test_the_runs_have_what_the_readme_asks_for(module: Module) -> None:
    asked = set(re.findall(r"`(roles/[\w.]+)`", README.read_text().split("The account needs")[1].split("\n\n")[0]))
    assert asked >= {"roles/bigquery.user", "roles/storage.objectUser"}
    tables = ("project_roles", "bucket_roles", "registry_roles")
    granted = {
        grant["role"] for table in tables for grant in module.locals[table].values() if grant["account"] == "runs"
    }
    granted |= {role for _, role, member in grants(module) if 'of["runs"]' in member}
    assert asked <= granted


def test_buckets_are_closed(module: Module) -> None:
    buckets = [body for (kind, _), body in module.resources.items() if kind == "google_storage_bucket"]
    assert len(buckets) == 2
    for bucket in buckets:
        assert bucket["uniform_bucket_level_access"] is True
        assert bucket["public_access_prevention"] == "enforced"
        assert bucket["force_destroy"] is False
    store = module.resources["google_storage_bucket", "store"]
    assert store["versioning"][0]["enabled"] is True
    assert store["lifecycle"][0]["prevent_destroy"] is True
    for rule in store["lifecycle_rule"]:
        (condition,) = rule["condition"]
        assert rule["action"][0]["type"] != "Delete" or (
            condition.get("with_state") == "ARCHIVED"
            or set(condition["matches_prefix"]) <= {"store/checkpoints/", "store/predictions/", "builds/"}
        )


def test_builds_see_nothing_but_builds(module: Module) -> None:
    grants = [grant for grant in module.locals["bucket_roles"].values() if grant["account"] == "builds"]
    assert {grant["role"] for grant in grants if grant["folder"] is None} == {"roles/storage.legacyBucketReader"}
    assert {grant["folder"] for grant in grants} == {None, "builds/"}


def test_no_image_that_served_is_ever_deleted(module: Module) -> None:
    """Artifact Registry keeps what any rule keeps. A served image has a tag, and is of the service."""
    policies = module.resources["google_artifact_registry_repository", "images"]["cleanup_policies"]
    kept = [one["condition"][0] for one in policies if one["action"] == "KEEP" and "condition" in one]
    service = DEFAULT_IMAGE.rsplit("/", 1)[1]
    assert {"tag_state": "TAGGED", "package_name_prefixes": [service]} in kept
    assert all("older_than" in one["condition"][0] for one in policies if one["action"] == "DELETE")


DEFAULT_IMAGE: Final = read_module(FOLDER).outputs["environment"]["value"]["MATCHING_PLATFORM_IMAGE_REPOSITORY"]


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_names_are_those_of_the_environment(module: Module, environment: str) -> None:
    name = "matching" if environment == "production" else f"matching-{environment}"
    assert module.locals["name"] == '${var.environment == "production" ? "matching" : "matching-${var.environment}"}'
    assert module.locals["dataset"] == '${replace(local.name, "-", "_")}'
    bucket = module.resources["google_storage_bucket", "store"]["name"]
    assert (
        f"gs://{bucket}/store".replace("${var.project}", "{project}").replace("${local.name}", name)
        == (DEFAULTS[environment]["store"])
    )
    assert name.replace("-", "_") == DEFAULTS[environment]["dataset"]
    assert module.variables["raw_dataset"]["default"] == DEFAULTS[environment]["raw_dataset"]
    scratch = module.resources["google_bigquery_dataset", "scratch"]
    assert scratch["dataset_id"] == "${local.dataset}_scratch"
    assert scratch["default_table_expiration_ms"] == 2 * 24 * 3600 * 1000


def test_outputs_are_the_platforms_settings(module: Module) -> None:
    given = module.outputs["environment"]["value"]
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {"DAGSTER_LOGS_BUCKET"}
    assert {name.partition("__")[0] for name in given} <= known
    assert {f"{PREFIX}{name}" for name in ("ENVIRONMENT", "PROJECT", "STORE", "DATASET", "FIRST_MONTH")} <= set(given)


def test_trainings_at_once_are_as_many_as_gpus(module: Module) -> None:
    import yaml

    instance = yaml.safe_load((FOLDER.parent / "dagster" / "production" / "dagster.yaml").read_text())
    gpu = next(line for line in (FOLDER / "variables.tf").read_text().split("variable ") if line.startswith('"gpu"'))
    assert f"nodes       = {instance['concurrency']['pools']['default_limit']}" in gpu


def test_flux_may_read_the_registry_as_itself(module: Module) -> None:
    """Its controller looks for tags as the service account that Flux installs, which no manifest of ours annotates."""
    bound = module.resources["google_artifact_registry_repository_iam_member", "flux_looks_for_tags"]
    assert bound["role"] == "roles/artifactregistry.reader"
    pool = "${google_container_cluster.this.workload_identity_config[0].workload_pool}"
    assert bound["member"] == (
        "principal://iam.googleapis.com/projects/${data.google_project.this.number}/locations/global"
        f"/workloadIdentityPools/{pool}/subject/ns/flux-system/sa/image-reflector-controller"
    )
    scanned = [*build(FOLDER.parent / "flux"), *build(FOLDER.parent / "dagster" / "release")]
    for repository in (one for one in scanned if one["kind"] == "ImageRepository"):
        assert repository["metadata"]["namespace"] == "flux-system"
        assert repository["spec"]["provider"] == "gcp"
        assert "serviceAccountName" not in repository["spec"]


def test_manifests_name_the_accounts_that_are_made(module: Module) -> None:
    """Whoever acts as a Google account in a manifest is let by a binding, and the account is one of ours."""
    deploy = FOLDER.parent
    asked = {
        found.group(1)
        for path in [*deploy.rglob("*.yaml")]
        for found in re.finditer(r"iam\.gke\.io/gcp-service-account: (\S+)@example-project\.iam", path.read_text())
    }
    made = {f"matching-{name}" for name in module.locals["accounts"]}
    assert asked <= made
    assert {"matching-runs", "matching-dagster"} <= asked


def _all_references(module: Module) -> Iterator[str]:
    yield from references([*module.resources.values(), module.locals, *module.outputs.values()])
