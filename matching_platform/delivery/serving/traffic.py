"""What a front has counted, read from outside: by a rollout for each of its steps, by who watches the error rate."""

import httpx
from pydantic import TypeAdapter

from matching_platform.delivery.serving.figures import Comparison
from matching_platform.delivery.serving.front import COMPARISON
from matching_platform.delivery.serving.place import Reading, RolloutError

_SECONDS = 10.0
_COMPARISON = TypeAdapter(Comparison)


def read(url: str) -> Reading:
    """What the front at `url` has counted by now; RolloutError where none answers."""
    found = observe(url)
    counts = found.servers.get(found.server or "")
    return Reading(found.front, found.server, counts.requests if counts else 0, counts.errors if counts else 0)


def observe(url: str) -> Comparison:
    """All that the front at `url` counts; RolloutError where none answers."""
    try:
        answer = httpx.get(f"{url}{COMPARISON}", timeout=_SECONDS, trust_env=False).raise_for_status()
        return _COMPARISON.validate_json(answer.content)
    except (httpx.HTTPError, ValueError) as error:
        raise RolloutError(
            f"the front at {url} does not tell what it counts; stop and deploy again ({error!r})"
        ) from error
