"""GitHub's workflows and Cloud Build's configuration: what both accept, and nothing that could be turned on us."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml
from google.cloud.devtools import cloudbuild_v1
from google.protobuf.json_format import ParseDict, ParseError

from matching_platform_tests.deploy.terraform import read_module

ROOT: Final = Path(__file__).parents[2]
WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CLOUD_BUILD: Final = ROOT / "deploy" / "cloudbuild" / "cloudbuild.yaml"

Document = dict[str, Any]


class Loader(yaml.SafeLoader):
    """YAML 1.2, as GitHub reads it: `on` is a word."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool" or first not in "oOyYnN"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(path: Path) -> Document:
    return yaml.load(path.read_text(encoding="utf-8"), Loader)


def schema(name: str) -> Document:
    """A schema of schemastore.org, as check-jsonschema carries it."""
    text = (files("check_jsonschema") / "builtin_schemas" / "vendor" / f"{name}.json").read_text(encoding="utf-8")
    return json.loads(text)


def jobs(workflow: Document) -> dict[str, Document]:
    return workflow["jobs"]


def steps(workflow: Document) -> list[Document]:
    return [step for job in jobs(workflow).values() for step in job.get("steps", [])]


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request: pytest.FixtureRequest) -> Document:
    return load(request.param)


def test_github_accepts_it(workflow: Document) -> None:
    jsonschema.validate(workflow, schema("github-workflows"))


def test_github_would_refuse_a_slip(workflow: Document) -> None:
    name = next(iter(jobs(workflow)))
    broken = {**workflow, "jobs": {name: {**jobs(workflow)[name], "needed": ["test"]}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema("github-workflows"))


def test_nobody_gets_rights_that_it_does_not_use(workflow: Document) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in jobs(workflow).items():
        rights = job.get("permissions", {})
        authenticates = any("google-github-actions/auth" in step.get("uses", "") for step in job.get("steps", []))
        assert rights == ({"contents": "read", "id-token": "write"} if authenticates else {}), name


def test_what_it_uses_is_pinned(workflow: Document) -> None:
    for step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
    for job in jobs(workflow).values():
        assert re.fullmatch(r"ubuntu-\d\d\.\d\d", job["runs-on"]) if "runs-on" in job else job["uses"].startswith("./")


def test_no_credentials_stay_with_the_checkout(workflow: Document) -> None:
    for step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_nothing_from_outside_becomes_a_command(workflow: Document) -> None:
    """A title or a branch's name in a script would be run by it."""
    for step in steps(workflow):
        assert "${{" not in step.get("run", "")


def test_it_ends_and_does_not_pile_up(workflow: Document) -> None:
    assert workflow["concurrency"]["group"]
    assert all("timeout-minutes" in job for job in jobs(workflow).values() if "steps" in job)


def test_pull_requests_are_tested_and_push_nothing() -> None:
    events = {path.stem: load(path)["on"] for path in WORKFLOWS}
    assert [name for name, event in events.items() if "pull_request" in event] == ["test"]
    assert not any("pull_request_target" in event for event in events.values())
    assert "google-github-actions" not in (ROOT / ".github" / "workflows" / "test.yml").read_text()


def test_main_is_tested_before_it_is_pushed() -> None:
    images = load(ROOT / ".github" / "workflows" / "images.yml")
    assert images["on"].keys() == {"push", "workflow_dispatch"}  # By hand, too: the first image waits for no commit.
    assert images["on"]["push"]["branches"] == ["main"]
    assert jobs(images)["test"]["uses"] == "./.github/workflows/test.yml"
    assert set(jobs(images)["user-code"]["needs"]) == {"test", "manifests"}


def test_they_run_what_exists() -> None:
    whole = "".join(path.read_text() for path in [*WORKFLOWS, CLOUD_BUILD])
    for path in set(re.findall(r"deploy/[\w./-]+|\.ci/run", whole)):
        assert (ROOT / path.rstrip("./")).exists(), path
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for asked in re.findall(r"(?:sudo|^\s+)\s*make ([a-z ]+)$", whole, re.MULTILINE):
        assert set(asked.split()) <= targets


def test_debian_is_trusted_where_the_tests_run() -> None:
    """GitHub's machines are Ubuntu; without Debian's keys and gpg, mmdebstrap refuses the tests' base image."""
    (packages,) = re.findall(r"^ENGINE := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"mmdebstrap", "debian-archive-keyring", "gpg"} <= set(packages.replace("\\", " ").split())


@pytest.fixture
def build() -> Document:
    return yaml.safe_load(CLOUD_BUILD.read_text(encoding="utf-8"))


def parsed(build: Document) -> cloudbuild_v1.Build:
    """As the API reads it, which refuses what it does not know."""
    message = cloudbuild_v1.Build()
    ParseDict(build, message._pb)
    return message


def test_cloud_build_accepts_it(build: Document) -> None:
    read = parsed(build)
    jsonschema.validate(build, schema("cloudbuild"))
    assert [step.id for step in read.steps] == ["test", "manifests", "tag", "build", "push"]
    assert read.options.logging == cloudbuild_v1.BuildOptions.LoggingMode.CLOUD_LOGGING_ONLY
    assert read.options.substitution_option == cloudbuild_v1.BuildOptions.SubstitutionOption.MUST_MATCH


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"step": []}, "step"),
        ({"options": {"machineType": "E2_HUGE"}}, "E2_HUGE"),
        ({"timeout": "two hours"}, "two hours|Duration"),
        ({"steps": [{"name": "it", "wait_for_it": ["-"]}]}, "wait_for_it"),
    ],
)
def test_cloud_build_would_refuse_a_slip(build: Document, change: Document, problem: str) -> None:
    with pytest.raises(ParseError, match=problem):
        parsed({**build, **change})


def test_steps_wait_for_steps_that_are_there(build: Document) -> None:
    before: set[str] = {"-"}
    for step in build["steps"]:
        assert set(step.get("waitFor", [])) <= before
        before.add(step["id"])
    assert set(next(step for step in build["steps"] if step["id"] == "build")["waitFor"]) >= {"test", "manifests"}
    whole = int(build["timeout"].rstrip("s"))
    assert all(int(step["timeout"].rstrip("s")) < whole for step in build["steps"] if "timeout" in step)


def test_every_substitution_is_used_and_given(build: Document) -> None:
    """With MUST_MATCH, Cloud Build refuses the build otherwise."""
    used = set(re.findall(r"(?<!\$)\$\{?(_[A-Z_]+)\}?", json.dumps(build["steps"])))
    assert used == set(build["substitutions"])
    theirs = set(re.findall(r"(?<!\$)\$\{?([A-Z][A-Z_]*)\}?", json.dumps(build["steps"])))
    assert theirs <= {"PROJECT_ID", "BUILD_ID", "COMMIT_SHA", "SHORT_SHA", "LOCATION"}


def test_the_trigger_gives_what_the_build_takes(build: Document) -> None:
    trigger = read_module(ROOT / "deploy" / "terraform").resources["google_cloudbuild_trigger", "code"]
    assert set(trigger["substitutions"]) <= set(build["substitutions"])
    assert ROOT / trigger["filename"] == CLOUD_BUILD


def test_the_step_that_asks_kubectl_has_it(build: Document) -> None:
    """Of Google's images, those named by the version alone have it; -slim, -stable and -alpine do not."""
    (step,) = (step for step in build["steps"] if any("kubectl" in each for each in step["args"]))
    assert step["name"] == "gcr.io/google.com/cloudsdktool/google-cloud-cli:${_CLOUD_SDK}"
    assert re.fullmatch(r"\d+\.\d+\.\d+", build["substitutions"]["_CLOUD_SDK"])


def test_what_is_submitted_by_hand_can_be_read() -> None:
    (folder,) = re.findall(r"--gcs-source-staging-dir=gs://PROJECT-matching/(\S+)", CLOUD_BUILD.read_text())
    roles = read_module(ROOT / "deploy" / "terraform").locals["bucket_roles"].values()
    grants = [(one["role"], one["folder"]) for one in roles if one["account"] == "code"]
    assert grants == [("roles/storage.objectViewer", f"{folder}/")]


def test_both_build_the_same(build: Document) -> None:
    github = (ROOT / ".github" / "workflows" / "images.yml").read_text()
    cloud = CLOUD_BUILD.read_text()
    for part in ("--file deploy/docker/Dockerfile", "%Y%m%d%H%M%S", "docker.io/library/python:3.11-slim-bookworm"):
        assert part in github
        assert part in cloud
