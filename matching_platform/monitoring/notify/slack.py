"""Slack's incoming webhooks, with blocks where Slack can show them and text where it cannot."""

import html
import itertools
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from matching_platform.monitoring.notify.message import SIGNS, Message

ATTEMPTS: Final = 3
TIMEOUT_SECONDS: Final = 5.0

# What Slack takes: characters of a title, a text and a figure, and figures of a block.
_TITLE: Final = 150
_TEXT: Final = 3000
_FIGURE: Final = 2000
_FIGURES: Final = 10
_CUT_ENTITY: Final = re.compile(r"&[a-z]*$")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SlackNotifier:
    """Tells a Slack channel through its incoming webhook, within some twenty seconds or not at all."""

    webhook: str = field(repr=False)  # Whoever knows the address can post: it appears in no log.

    def __post_init__(self) -> None:
        # At level INFO, httpx logs the whole address of every request.
        logging.getLogger("httpx").addFilter(_Without(self.webhook))

    def notify(self, message: Message) -> bool:
        retrying = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.25, max=2),
            retry=retry_if_exception(_may_pass),
            reraise=True,
        )
        try:
            retrying(self._post, message)
        except httpx.HTTPStatusError as error:
            _log.error("Slack refused the message '%s': HTTP %d", message.key, error.response.status_code)
            return False
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            _log.error("Slack cannot be reached for the message '%s': %s", message.key, type(error).__name__)
            return False
        return True

    def _post(self, message: Message) -> None:
        httpx.post(self.webhook, json=body(message), timeout=TIMEOUT_SECONDS).raise_for_status()


def body(message: Message) -> dict[str, Any]:
    """What is posted: blocks, and the text of notifications and of clients that show no blocks."""
    title = [{"type": "header", "text": {"type": "plain_text", "text": _title(message)}}] if message.title else []
    text = [{"type": "section", "text": _marked(_escaped(message.text), _TEXT)}] if message.text else []
    return {
        "text": _clipped(_escaped(message.plain), _TEXT),
        "blocks": [*title, *text, *_figures(message), *_links(message)],
    }


def _title(message: Message) -> str:
    return f"{SIGNS[message.level]} {message.subject}"[:_TITLE]


def _figures(message: Message) -> list[dict[str, Any]]:
    pairs = iter(message.figures.items())
    blocks = iter(lambda: dict(itertools.islice(pairs, _FIGURES)), {})
    return [{"type": "section", "fields": _fields(block)} for block in blocks]


def _fields(figures: Mapping[str, str]) -> list[dict[str, str]]:
    return [_marked(f"*{_escaped(name)}*\n{_escaped(value)}", _FIGURE) for name, value in figures.items()]


def _links(message: Message) -> list[dict[str, Any]]:
    links = " · ".join(f"<{_escaped(address)}|{_escaped(name)}>" for name, address in message.links.items())
    return [{"type": "context", "elements": [{"type": "mrkdwn", "text": links}]}] if links else []


def _marked(text: str, limit: int) -> dict[str, str]:
    return {"type": "mrkdwn", "text": _clipped(text, limit)}


def _escaped(text: str) -> str:
    """Slack reads these three characters as markup, and names may hold them."""
    return html.escape(text, quote=False)


def _clipped(escaped: str, limit: int) -> str:
    return escaped if len(escaped) <= limit else _CUT_ENTITY.sub("", escaped[: limit - 1]) + "…"


@dataclass(frozen=True)
class _Without:
    """A log filter that drops the records that show a secret; logging adds equal filters once."""

    secret: str

    def filter(self, record: logging.LogRecord) -> bool:
        return self.secret not in record.getMessage()


def _may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
