"""Where the desk answers, and what it rests on."""

from pydantic import BaseModel, ConfigDict, Field

from matching_platform.access.settings import ProxySettings


class DeskSettings(BaseModel):
    """Each is read from MATCHING_PLATFORM_DESK__<NAME>."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="The address that it listens on")
    port: int = Field(default=3457, ge=1, le=65535, description="Its port")
    url: str | None = Field(default=None, description="How people reach it, https://…; without it, at host and port")
    database: str | None = Field(
        default=None, description="SQLAlchemy's URL of its database; without it, a file of SQLite beside the warehouse"
    )
    proxy: ProxySettings | None = Field(
        default=None, description="A proxy that logs people in; else they have passwords"
    )
    session_hours: float = Field(default=12, gt=0, description="After how long people log in again")
    idle_minutes: float = Field(default=60, gt=0, description="After how long without a click")
    quiet_minutes: float = Field(
        default=15, ge=0, description="After how long without a decision on a month its tags are read anew"
    )
