"""Training settings from a file: what is wrong with it is said before anything is trained."""

from dataclasses import replace
from pathlib import Path

import pytest

from matching_platform.learning.settings import TrainingSettingsError, read_settings, settings_of, write_settings
from matching_platform.learning.training import TrainingSettings


def test_settings_come_back_as_they_were_written(tmp_path: Path) -> None:
    settings = TrainingSettings(hidden=48, learning_rate=0.001234)
    write_settings(settings, tmp_path / "new" / "settings.json")
    assert read_settings(tmp_path / "new" / "settings.json") == settings


def test_what_is_not_given_is_at_its_default() -> None:
    assert settings_of({"hidden": 48, "weight_decay": 0}) == replace(TrainingSettings(), hidden=48, weight_decay=0.0)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is not JSON"),
        ("[64]", 'must hold one JSON object, such as {"promised_precision": 0.995}'),
        ('{"hiden": 64}', "'hiden' is no training setting; there are promised_precision, folds, hidden"),
        ('{"hidden": "64"}', "hidden: Input should be a valid integer, not '64'"),
        ('{"hidden": 64.5}', "hidden: Input should be a valid integer, not 64.5"),
        ('{"hidden": true}', "hidden: Input should be a valid integer, not True"),
        ('{"hidden": null}', "hidden: Input should be a valid integer, not None"),
        ('{"pair_epochs": 0}', "pair_epochs: Input should be greater than 0, not 0"),
        ('{"folds": 1}', "folds: Input should be greater than or equal to 2, not 1"),
        ('{"promised_precision": 1.0}', "promised_precision: Input should be less than 1, not 1.0"),
        ('{"learning_rate": NaN}', "learning_rate: Input should be a finite number, not nan"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(content)
    with pytest.raises(TrainingSettingsError) as error:
        read_settings(path)
    assert told in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
