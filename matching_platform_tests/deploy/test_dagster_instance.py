"""The instances of one machine and of a cluster are what Dagster reads them as."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster._config import process_config
from dagster._core.instance.ref import InstanceRef
from dagster._serdes.config_class import ConfigurableClassData
from dagster_k8s import K8sRunLauncher

DAGSTER = Path(__file__).parents[2] / "deploy" / "dagster"
ENVIRONMENT = {
    "DAGSTER_HOME": "/opt/dagster/dagster_home",
    "DAGSTER_PG_PASSWORD": "of-this-test",
    "DAGSTER_LOGS_BUCKET": "finance-matching-logs",
    "DAGSTER_K8S_INSTANCE_CONFIG_MAP": "dagster-instance",
    "DAGSTER_K8S_PG_PASSWORD_SECRET": "dagster-postgresql",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def production() -> InstanceRef:
    return InstanceRef.from_dir(str(DAGSTER / "production"))


def parts(ref: InstanceRef) -> Iterator[ConfigurableClassData]:
    yield from (each for each in ref if isinstance(each, ConfigurableClassData))
    yield ref.run_storage_data
    yield ref.event_storage_data
    yield ref.schedule_storage_data


def configured(data: ConfigurableClassData) -> Any:
    """The values that the class gets, environment variables resolved; every name and type must be one that it knows."""
    module = __import__(data.module_name, fromlist=[data.class_name])
    read = process_config(getattr(module, data.class_name).config_type(), data.config_dict)
    assert read.success, [error.message for error in read.errors]
    return read.value


@pytest.mark.parametrize("folder", [DAGSTER, DAGSTER / "production"], ids=["one machine", "cluster"])
def test_every_part_knows_its_settings(folder: Path) -> None:
    for data in parts(InstanceRef.from_dir(str(folder))):
        configured(data)


def test_a_setting_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    text = (DAGSTER / "production" / "dagster.yaml").read_text()
    (tmp_path / "dagster.yaml").write_text(text.replace("job_namespace:", "job_namespaces:"))
    with pytest.raises(AssertionError, match="job_namespaces"):
        for data in parts(InstanceRef.from_dir(str(tmp_path))):
            configured(data)
    (tmp_path / "dagster.yaml").write_text(text.replace("max_retries:", "max_retry:"))
    with pytest.raises(Exception, match="max_retry"):
        InstanceRef.from_dir(str(tmp_path))


def test_passwords_come_from_the_environment(production: InstanceRef) -> None:
    storage = configured(production.run_storage_data)
    assert storage["postgres_db"]["password"] == ENVIRONMENT["DAGSTER_PG_PASSWORD"]
    assert ENVIRONMENT["DAGSTER_PG_PASSWORD"] not in (DAGSTER / "production" / "dagster.yaml").read_text()
    assert configured(production.compute_logs_data)["bucket"] == ENVIRONMENT["DAGSTER_LOGS_BUCKET"]


def test_only_crashed_workers_are_tried_again(production: InstanceRef) -> None:
    retries = production.settings["run_retries"]
    assert retries["enabled"]
    assert not retries["retry_on_asset_or_op_failure"]
    monitoring = production.settings["run_monitoring"]
    assert monitoring["enabled"]
    assert monitoring["max_resume_run_attempts"] > 0
    assert K8sRunLauncher.supports_run_worker_crash_recovery.fget(None)  # a worker can be taken over only then


def test_trainings_wait_for_a_gpu(production: InstanceRef) -> None:
    pools = production.settings["concurrency"]["pools"]
    assert pools == {"granularity": "op", "default_limit": 1}


@pytest.mark.parametrize("folder", [DAGSTER, DAGSTER / "production"], ids=["one machine", "cluster"])
def test_months_that_are_late_are_looked_for(folder: Path) -> None:
    assert InstanceRef.from_dir(str(folder)).settings["freshness"] == {"enabled": True}


def test_nothing_is_told_to_anybody(production: InstanceRef) -> None:
    assert not production.settings["telemetry"]["enabled"]
