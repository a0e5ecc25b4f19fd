"""Who is told. A channel that fails is reported, and never takes down what had something to say."""

import hashlib
import html
import json
import logging
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Protocol

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from matching_platform.store.files import Files

ATTEMPTS: Final = 3
TIMEOUT_SECONDS: Final = 5.0
FOLDER: Final = "notices"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Message:
    """What happened, in words; `key` names the event, for instance 'gate/2024-03/quality'."""

    key: str
    text: str


class Notifier(Protocol):
    """A channel to people."""

    def notify(self, message: Message) -> bool:
        """True where the message was delivered. A channel that fails is logged and answers False; it never raises."""
        ...


class LogNotifier:
    """Tells the log, where there is no better channel."""

    def notify(self, message: Message) -> bool:
        _log.info("%s: %s", message.key, message.text)
        return True


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
        # Slack reads these three characters as markup, and names may hold them.
        text = html.escape(message.text, quote=False)
        httpx.post(self.webhook, json={"text": text}, timeout=TIMEOUT_SECONDS).raise_for_status()


@dataclass(frozen=True)
class OncePerEvent:
    """Passes on one message per event key, also across processes: what was delivered is remembered in the store.

    A message that could not be delivered is not remembered, so the next one with its key is tried again. Two processes
    with the same event at the same moment may both tell it; none is ever lost between them.
    """

    notifier: Notifier
    files: Files

    def notify(self, message: Message) -> bool:
        name = f"{FOLDER}/{hashlib.sha256(message.key.encode()).hexdigest()[:32]}.json"
        if self.files.exists(name):
            return True
        if not self.notifier.notify(message):
            return False
        content = json.dumps({"key": message.key, "text": message.text}, ensure_ascii=False)
        try:
            self.files.create(name, content.encode())
        except FileExistsError:
            _log.info("'%s' was told by another process at the same moment", message.key)
        return True


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
