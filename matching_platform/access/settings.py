"""Who is let in by what: settings of the desk that concern access."""

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
