"""What is kept of served requests, and for how long; and how a server learns of it."""

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, ByteSize, ConfigDict, Field, SecretStr, ValidationError, field_validator

PREFIX: Final = "MATCHING_PLATFORM_SERVICE_"
# Where the log lies in a store.
FOLDER: Final = "predictions"

MASKABLE: Final = (
    "counterparty_id",
    "counterparty_name",
    "counterparty_account",
    "counterparty_tax_id",
    "title",
    "number",
    "reference",
)
# What `mask` says where nothing is to be masked: a variable that is empty may be one that somebody forgot to fill.
NOTHING: Final = "none"
_MASKED: Final = "counterparty_name,counterparty_account,counterparty_tax_id,title"


class ServiceSettingsError(ValueError):
    """A server was given settings of its log that cannot be; the message names the variable."""


class PredictionSettings(BaseModel):
    """What the log of a server keeps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mask: str = Field(
        default=_MASKED,
        description="Columns of which pseudonyms are kept, or, of free text, nothing; with commas between them, or as JSON; "
        f"`{NOTHING}` masks nothing, and empty is the default",
    )
    mask_key: SecretStr | None = Field(
        default=None, description="The secret of the pseudonyms; without it, each server process has one of its own"
    )
    days: int = Field(default=400, ge=1, description="How many days the log is kept")
    queue: ByteSize = Field(
        default=ByteSize(64 * 2**20), ge=2**20, description="What may wait in a server's memory to be written"
    )

    @field_validator("mask")
    @classmethod
    def _columns(cls, given: str) -> str:
        names = [name.strip(" \"'") for name in given.strip(" []").split(",")]
        named = [name for name in names if name]
        if named != [NOTHING] and not set(named) <= set(MASKABLE):
            raise ValueError(f"give some of {', '.join(MASKABLE)}, with commas between them, or `{NOTHING}`")
        return ",".join(named) or _MASKED

    @property
    def masked(self) -> tuple[str, ...]:
        """The columns of `mask`."""
        return () if self.mask == NOTHING else tuple(self.mask.split(","))


def passed_on(settings: PredictionSettings, store: str) -> dict[str, str]:
    """The environment of a server that keeps a log in `store`, and asks there what it may book unattended."""
    given = {"STORE": store, "MASK": settings.mask, "QUEUE": str(int(settings.queue))}
    if settings.mask_key:
        given["MASK_KEY"] = settings.mask_key.get_secret_value()
    return {f"{PREFIX}{name}": value for name, value in given.items()}


def received(environment: Mapping[str, str]) -> tuple[str, PredictionSettings] | None:
    """Store and settings that a server was given; None where it shall keep no log.

    ServiceSettingsError where they are wrong.
    """
    store = environment.get(f"{PREFIX}STORE")
    if not store:
        return None
    found = {name: environment.get(f"{PREFIX}{name.upper()}") for name in ("mask", "mask_key", "queue")}
    given = {name: value for name, value in found.items() if value is not None}
    try:
        return store, PredictionSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise ServiceSettingsError(f"{PREFIX}{str(first['loc'][0]).upper()}: {first['msg']}") from None
