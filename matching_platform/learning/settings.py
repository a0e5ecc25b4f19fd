"""Training settings from outside: a JSON object of some or all of their fields, checked before anything is trained."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from matching_platform.learning.training import TrainingSettings

_DEFAULTS: Final = {field.name: field.default for field in fields(TrainingSettings)}
# What every store of settings, forms in a browser among them, can hold of a whole number.
_LARGEST: Final = 2**31 - 1
# Whatever is not named here and is a number must be above zero.
_LIMITS: Final = {
    "promised_precision": Field(gt=0, lt=1),
    "folds": Field(ge=2, le=_LARGEST),
    "weight_decay": Field(ge=0),
    "seed": Field(ge=0, le=_LARGEST),
}
_USUAL: Final = {int: Field(gt=0, le=_LARGEST), float: Field(gt=0)}


class TrainingSettingsError(ValueError):
    """What is given are no training settings; the message names the field."""


def settings_of(given: Mapping[str, Any]) -> TrainingSettings:
    """The settings with the fields `given`, the others at their defaults; TrainingSettingsError names what is wrong."""
    if unknown := sorted(given.keys() - _DEFAULTS):
        raise TrainingSettingsError(f"'{unknown[0]}' is no training setting; there are {', '.join(_DEFAULTS)}")
    try:
        return TrainingSettings(**_checked()(**given).model_dump())
    except ValidationError as error:
        first = error.errors()[0]
        raise TrainingSettingsError(f"{first['loc'][0]}: {first['msg']}, not {first['input']!r}") from error


def read_settings(path: Path) -> TrainingSettings:
    """The settings in a JSON file; OSError where it cannot be read, TrainingSettingsError where it holds none."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingSettingsError(f"{path} is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise TrainingSettingsError(f"{path} must hold one JSON object, such as {json.dumps(dict([_example()]))}")
    try:
        return settings_of(given)
    except TrainingSettingsError as error:
        raise TrainingSettingsError(f"{path}: {error}") from error


def write_settings(settings: TrainingSettings, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")


def _checked() -> type[BaseModel]:
    limited = {
        name: (Annotated[kind, _LIMITS.get(name, _USUAL.get(kind, Field()))], _DEFAULTS[name])
        for name, kind in get_type_hints(TrainingSettings).items()
    }
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return create_model("TrainingSettings", __config__=config, **limited)  # type: ignore[call-overload]


def _example() -> tuple[str, Any]:
    return next(iter(_DEFAULTS.items()))
