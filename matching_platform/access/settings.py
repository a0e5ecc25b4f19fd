"""Where the desk answers, what it rests on, and who is let in by what."""

from ipaddress import IPv4Network, IPv6Network

from pydantic import BaseModel, ConfigDict, Field


class ProxySettings(BaseModel):
    """A proxy that logs people in by OpenID Connect, such as oauth2-proxy, and says in headers who they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    addresses: tuple[IPv4Network | IPv6Network, ...] = Field(
        description="Where the proxy's requests come from; headers from anywhere else are ignored"
    )
    user_header: str = Field(default="X-Forwarded-Email", description="The header with the person's name")
    groups_header: str = Field(default="X-Forwarded-Groups", description="The header with the person's groups")
    readers: frozenset[str] = Field(default=frozenset(), description="Groups that may read")
    bookers: frozenset[str] = Field(default=frozenset(), description="Groups that may decide and import")
    admins: frozenset[str] = Field(default=frozenset(), description="Groups that may do everything")


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
