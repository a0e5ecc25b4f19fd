"""Where the desk may listen, and whether its API answers without a token."""

from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from matching_platform.access.access import Access
from matching_platform.access.settings import DeskSettings
from matching_platform.access.users import AccessError

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
# Where the machine itself reaches what listens on all its addresses.
_NEAREST: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_SETTING: Final = "MATCHING_PLATFORM_DESK__"


def is_loopback(host: str) -> bool:
    """Whether an address or name is that of the machine itself."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def host_of(url: str) -> str:
    """The host of the desk's url; AccessError where it has none."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or parts.path.strip("/") or parts.query or parts.fragment:
        raise AccessError(f"{_SETTING}URL is '{url}'; give it as https://HOST or https://HOST:PORT")
    return host


def is_local(settings: DeskSettings) -> bool:
    """Whether the desk can be reached from its own machine alone, as far as its settings say."""
    reached = host_of(settings.url) if settings.url else settings.host
    return is_loopback(settings.host) and is_loopback(reached) and settings.proxy is None


def base_url(settings: DeskSettings) -> str:
    """Where people reach the desk, without a slash at the end."""
    return (settings.url or _url(settings.host, settings.port)).rstrip("/")


def local_url(settings: DeskSettings) -> str:
    """Where its own machine reaches the desk, past any proxy."""
    return _url(_NEAREST.get(settings.host, settings.host), settings.port)


def link_of(settings: DeskSettings, key: str) -> str:
    """The link of an invitation, as its user opens it."""
    return f"{base_url(settings)}/welcome?key={key}"


def may_listen(access: Access, settings: DeskSettings) -> None:
    """AccessError where the desk would listen to others before it is closed to strangers.

    Elsewhere than on the loopback it needs a url, encrypted unless a proxy logs people in, and a token for the API.
    """
    encrypted = bool(settings.url) and urlsplit(settings.url or "").scheme == "https"
    known = bool(settings.url and host_of(settings.url))
    missing = []
    if not is_loopback(settings.host):
        if not known:
            missing.append(f"{_SETTING}URL, the address by which people reach it")
        if not any(token.active(access.clock()) for token in access.tokens()):
            missing.append("a token for the API: run `matching-platform tokens issue NAME --role reader`")
    if known and not encrypted and settings.proxy is None and not is_local(settings):
        missing.append(f"{_SETTING}URL that begins with https://, or {_SETTING}PROXY, since passwords travel")
    if missing:
        where = "" if is_loopback(settings.host) else f" on {settings.host}"
        raise AccessError(
            f"the desk does not listen{where} yet. It needs {'; and '.join(missing)}. "
            f"Without {_SETTING}HOST and {_SETTING}URL it listens on the loopback alone"
        )


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
