"""Failed logins, counted per name and per address in the database: how long the next one has to wait.

An attempt counts as failed before its password is looked at, so that many at once are no way around the limit. Who has
to wait is not counted again: nobody can make another's wait endless.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from matching_platform.access.keys import digest
from matching_platform.access.tables import ATTEMPTS

# How many may fail before the first wait. Many people share the address of a proxy.
FREE: Final[Mapping[str, int]] = {"name": 5, "address": 20}
FIRST_WAIT: Final = timedelta(seconds=30)
LONGEST_WAIT: Final = timedelta(minutes=15)
FORGOTTEN: Final = timedelta(days=1)

_MOST_DOUBLINGS: Final = 10


def keys(name: str, address: str) -> tuple[str, ...]:
    """What is counted of a login; an empty address is not. What is typed as a name may be a password: it is not kept."""
    by_name = f"name:{digest(name)}"
    return (by_name, f"address:{_network(address)}") if address else (by_name,)


def take(connection: Connection, counted: Sequence[str], now: datetime) -> timedelta:
    """Counts an attempt as failed; or says how long it has to wait, and counts nothing."""
    connection.execute(delete(ATTEMPTS).where(ATTEMPTS.c.last < now - FORGOTTEN))
    rows = connection.execute(select(ATTEMPTS).where(ATTEMPTS.c.key.in_(counted))).all()
    wait = max((row.last + wait_after(row.key, row.failures) - now for row in rows), default=timedelta())
    if wait > timedelta():
        return wait
    known = {row.key for row in rows}
    for key in counted:
        if key in known:
            again = update(ATTEMPTS).where(ATTEMPTS.c.key == key)
            connection.execute(again.values(failures=ATTEMPTS.c.failures + 1, last=now))
        else:
            connection.execute(insert(ATTEMPTS).values(key=key, failures=1, last=now))
    return timedelta()


def forgive(connection: Connection, counted: Sequence[str]) -> None:
    """A login succeeded: its name starts anew, and its address is as it was before."""
    name, *address = counted
    connection.execute(delete(ATTEMPTS).where(ATTEMPTS.c.key == name))
    less = update(ATTEMPTS).where(ATTEMPTS.c.key.in_(address), ATTEMPTS.c.failures > 0)
    connection.execute(less.values(failures=ATTEMPTS.c.failures - 1))


def wait_after(key: str, failures: int) -> timedelta:
    """How long after the last of `failures` the next attempt is looked at."""
    over = failures - FREE[key.partition(":")[0]]
    return min(FIRST_WAIT * 2 ** min(over, _MOST_DOUBLINGS), LONGEST_WAIT) if over >= 0 else timedelta()


def _network(address: str) -> str:
    """The address, or the /64 of IPv6 that one customer has for himself."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else address
