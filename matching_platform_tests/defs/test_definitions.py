"""The asset graph as it is meant: a change of it must be a change here."""

import subprocess
import sys

import dagster as dg
import pytest

from matching_platform.definitions import defs
from matching_platform.defs.pods import GPU_POOL
from matching_platform.defs.serving import POOL

TABLES = {"invoices", "transfers", "matches"}
# By asset: what it depends on, and whether it has months.
GRAPH = {
    "raw_invoices": (set(), True),
    "raw_transfers": (set(), True),
    "raw_matches": (set(), True),
    "raw_decisions": (set(), True),
    "invoices": ({"raw_invoices"}, True),
    "transfers": ({"raw_transfers"}, True),
    "decisions": ({"raw_decisions"}, True),
    "matches": ({"raw_matches", "decisions", "invoices", "transfers"}, True),
    "labelled_pairs": (TABLES | {"decisions"}, True),
    "test_split": ({"labelled_pairs"}, False),
    "train_set": ({"labelled_pairs", "test_split"}, True),
    "model": ({"train_set"}, True),
    "evaluation_report": ({"model", "test_split"}, True),
    "champion": ({"evaluation_report"}, False),
    "bento": ({"champion"}, False),
    "image": ({"bento"}, False),
    "staging": ({"image"}, False),
    "deployment": ({"staging"}, False),
    "proposals": ({"invoices", "transfers", "champion"}, True),
    "drift_report": ({"invoices", "transfers", "proposals"}, True),
    "prediction_log": ({"deployment"}, False),
    "realised_quality": ({"proposals", "matches"}, True),
}
CHECKS = {"data", "split", "quality", "segments", "calibration", "speed"}
POOLS = {"model": GPU_POOL, "staging": POOL, "deployment": POOL}
DRIFT_CHECKS = {"invoices_as_before", "transfers_as_before", "candidates_as_before", "confidence_as_before"}
SERVED = {"answers", "served_quality", "schema", "malformed", "latency", "throughput", "memory", "shutdown"}


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    return defs.get_repository_def()


def test_the_asset_graph(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    found = {
        key.to_user_string(): (
            {parent.to_user_string() for parent in graph.get(key).parent_keys},
            graph.get(key).is_partitioned,
        )
        for key in graph.get_all_asset_keys()
    }
    assert found == GRAPH


def test_every_asset_says_what_it_is_and_whose(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    for node in (graph.get(key) for key in graph.get_all_asset_keys()):
        assert node.description
        assert node.owners
        assert node.kinds
        assert node.group_name != "default"
        assert node.is_external or (node.code_version and node.automation_condition)


def test_every_asset_asks_a_cluster_for_a_pod() -> None:
    assets = [asset for asset in defs.assets or [] if isinstance(asset, dg.AssetsDefinition) and asset.is_executable]
    assert len(assets) == len([upstream for upstream, _ in GRAPH.values() if upstream])
    for asset in assets:
        assert "dagster-k8s/config" in asset.op.tags, asset.key
        assert asset.op.pool == POOLS.get(asset.key.to_user_string())


def test_the_checks_of_the_gate_block(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    assert {key.name: graph.get_check_spec(key).blocking for key in graph.asset_check_keys} == {
        **dict.fromkeys(CHECKS | SERVED, True),
        "sensors_alive": False,
        **dict.fromkeys(("log_is_whole", "promise_kept", "bookings_tagged"), False),
        **dict.fromkeys(DRIFT_CHECKS, False),
    }


def test_an_unfinished_environment_names_what_it_lacks() -> None:
    script = "import matching_platform.environment as e; e.load()"
    environment = {"MATCHING_PLATFORM_ENVIRONMENT": "staging", "MATCHING_PLATFORM_STORE": "gs://some"}
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert result.returncode != 0
    told = "the environment 'staging' needs MATCHING_PLATFORM_FIRST_MONTH"
    assert told in result.stderr
