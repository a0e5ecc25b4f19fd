"""Whether a server answers as the model that was packed, asked over HTTP: the same here and on a cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx
from pydantic import TypeAdapter

from matching_platform.delivery import probe
from matching_platform.delivery.probe import Probe
from matching_platform.delivery.serving.front import ANSWER_SECONDS
from matching_platform.delivery.serving.place import Release, RolloutError
from matching_platform.predictions.headers import PROBE, PURPOSE

_CARD: Final = TypeAdapter(dict[str, Any])


def packed(release: Release) -> Probe:
    """The probe in the release's bento; RolloutError where it is no bento of ours, or another model's."""
    try:
        found = probe.read(release.bento)
    except (OSError, ValueError, TypeError) as error:
        raise RolloutError(f"{release.bento} is no bento of ours; pack the model again ({error})") from error
    if found.version != release.model:
        raise RolloutError(f"{release.bento} is packed as {found.version}, not {release.model}; pack that model")
    return found


def check(url: str, wanted: Probe) -> None:
    """RolloutError where the server at `url` is not ready, serves another version, or answers otherwise than packed.

    It may be more careful than packed: what is frozen is served, and gone back to, as well.
    """
    with answering(url):
        get(f"{url}/readyz").raise_for_status()
    version = _version(url)
    if version != wanted.version:
        raise RolloutError(f"{url} serves {version}, not {wanted.version}")
    with answering(url):
        answer = httpx.post(
            f"{url}/match", json=wanted.request, headers={PURPOSE: PROBE}, timeout=ANSWER_SECONDS, trust_env=False
        )
    if answer.status_code != httpx.codes.OK:
        raise RolloutError(f"{url}/match answers {answer.status_code} to the packed request: {answer.text}")
    with answering(url):
        given = probe.given(answer.content)
    if different := probe.mistakes(wanted.proposals, given):
        raise RolloutError(f"{url} does not answer as the packed model did: {'; '.join(different)}")


def serving(url: str) -> str | None:
    """The version that the server at `url` names; None where none answers well."""
    try:
        return _version(url)
    except RolloutError:
        return None


@contextmanager
def answering(url: str) -> Iterator[None]:
    """RolloutError where what is asked within does not come, or not as the JSON that it should be."""
    try:
        yield
    except (httpx.HTTPError, ValueError) as error:
        raise RolloutError(f"{url} does not answer as it must: {error!r}") from error


def get(url: str, seconds: float = 10.0) -> httpx.Response:
    """The answer, whatever its status; without the proxies of the environment."""
    return httpx.get(url, timeout=seconds, trust_env=False)


def _version(url: str) -> str | None:
    with answering(url):
        return _CARD.validate_json(get(f"{url}/model").raise_for_status().content).get("version")
