"""One setting chooses an environment; what an environment lacks is named before anything runs."""

import traceback
from pathlib import Path

import pytest

from matching_platform.environment import DEFAULTS, NotConfiguredError, Platform, Settings, load
from matching_platform.matching.candidates import find
from matching_platform.warehouse.duck import DuckWarehouse


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"ENVIRONMENT": "production"}, ["FIRST_MONTH"]),
        (
            {"ENVIRONMENT": "staging", "TRAINING_REQUESTS": "projects/p/subscriptions/s"},
            ["FIRST_MONTH", "DEAD_LETTERS"],
        ),
        ({"TRAINING_REQUESTS": "projects/p/subscriptions/s"}, ["DEAD_LETTERS"]),
        ({"ENVIRONMENT": "production", "FIRST_MONTH": "2023-07"}, []),
        ({}, []),
    ],
)
def test_what_an_environment_lacks_is_named(
    given: dict[str, str], missing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"MATCHING_PLATFORM_{name}", value)
    if not missing:
        assert load().environment == given.get("ENVIRONMENT", "local")
        return
    with pytest.raises(NotConfiguredError) as raised:
        load()
    assert str(raised.value).endswith("needs " + ", ".join(f"MATCHING_PLATFORM_{name}" for name in missing))


def test_a_laptop_has_duckdb_and_joins_candidates_itself() -> None:
    platform = Platform(Settings(**DEFAULTS["local"]))
    assert isinstance(platform.warehouse, DuckWarehouse)
    assert platform.candidates(platform.warehouse) is find


@pytest.mark.cloud
@pytest.mark.usefixtures("google")
@pytest.mark.parametrize(("environment", "dataset"), [("staging", "matching_staging"), ("production", "matching")])
def test_google_cloud_is_told_apart_by_its_names(environment: str, dataset: str) -> None:
    settings = Settings(environment=environment, **DEFAULTS[environment], project="books")
    platform = Platform(settings)
    bucket = f"gs://books-{dataset.replace('_', '-')}/store"
    assert platform.store.files.path("") == f"{bucket}/"
    assert (settings.dataset, platform.raw_tables) == (dataset, "books.finance")
    assert settings.candidates == "warehouse"
    assert platform.home == Path(f".{environment}")


def test_a_duckdb_file_may_stand_in_for_bigquery_anywhere(tmp_path: Path) -> None:
    given = {**DEFAULTS["production"], "warehouse": tmp_path / "w.duckdb", "store": str(tmp_path)}
    platform = Platform(Settings(environment="production", **given))
    assert isinstance(platform.warehouse, DuckWarehouse)
    assert platform.candidates(platform.warehouse) != find


def test_without_credentials_the_error_says_how_to_get_some() -> None:
    with pytest.raises(NotConfiguredError, match="gcloud auth application-default login"):
        _ = Platform(Settings(environment="production", **DEFAULTS["production"])).warehouse


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"MAIL__LOGIN": "jana:s3cret"}, "MATCHING_PLATFORM_MAIL__SERVER: Field required"),
        (
            {"MAIL__LOGIN": "s3cret", "MAIL__SERVER": "a", "MAIL__SENDER": "b@c.de", "MAIL__RECIPIENTS": "d@e.de"},
            "MATCHING_PLATFORM_MAIL__LOGIN: Value error, a login is USER:PASSWORD, in ASCII",
        ),
        (
            {"DESK__DATABSE": "postgresql://desk:s3cret@db/desk"},
            "MATCHING_PLATFORM_DESK__DATABSE is no setting; look for a typo in its name",
        ),
        ({"PORT": "99999"}, "MATCHING_PLATFORM_PORT: Input should be less than or equal to 65535, not '99999'"),
        ({"PROMISED_PRECISION": "1.0"}, "MATCHING_PLATFORM_PROMISED_PRECISION: Input should be less than 1, not '1.0'"),
        ({"PROMISED_PRECISION": "0"}, "MATCHING_PLATFORM_PROMISED_PRECISION: Input should be greater than 0, not '0'"),
        (
            {"PREDICTIONS__MASK": "title,s3cret"},
            "MATCHING_PLATFORM_PREDICTIONS__MASK: Value error, give some of counterparty_id, counterparty_name, "
            "counterparty_account, counterparty_tax_id, title, number, reference, with commas between them, or `none`",
        ),
        (
            {"DRIFT__DISTENCE": "0.3"},
            "MATCHING_PLATFORM_DRIFT__DISTENCE is no setting; look for a typo in its name",
        ),
    ],
)
def test_a_setting_that_is_wrong_is_named_and_no_secret_is_told(
    given: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"MATCHING_PLATFORM_{name}", value)
    with pytest.raises(NotConfiguredError) as error:
        load()
    assert str(error.value) == told
    assert "s3cret" not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("given", ["title,reference", '["title", "reference"]'])
def test_columns_to_mask_are_named_with_commas_or_as_json(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATCHING_PLATFORM_PREDICTIONS__MASK", given)
    assert load().predictions.masked == ("title", "reference")
