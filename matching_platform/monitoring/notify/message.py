"""What people are told, whichever way it reaches them."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

Level = Literal["news", "good", "bad"]

# What a title begins with where there are no colours.
SIGNS: Final[dict[Level, str]] = {"news": "🔵", "good": "🟢", "bad": "🔴"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Message:
    """What happened, in words; `key` names the event, for instance 'gate/2024-03/quality'.

    A title says it in one line, figures have their units ('94.1%'), and links are addresses by what they show.
    """

    key: str
    text: str
    title: str = ""
    level: Level = "news"
    figures: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def story(self) -> str:
        """What messages about the same thing share: the first two parts of a longer key, else nothing."""
        parts = self.key.split("/")
        return "/".join(parts[:2]) if len(parts) > 2 else ""

    @property
    def subject(self) -> str:
        """One line: the title, or the first sentence or so."""
        line = " ".join((self.title or self.text).split())
        return line if len(line) <= _SUBJECT else f"{line[: _SUBJECT - 1]}…"

    @property
    def plain(self) -> str:
        """All of it, where there is nothing but text."""
        figures = "\n".join(f"{name}: {value}" for name, value in self.figures.items())
        links = "\n".join(f"{name}: {address}" for name, address in self.links.items())
        return "\n\n".join(part for part in (self.title, self.text, figures, links) if part)


_SUBJECT: Final = 120


class Notifier(Protocol):
    """A channel to people."""

    def notify(self, message: Message) -> bool:
        """True where the message was delivered. A channel that fails is logged and answers False; it never raises."""
        ...


class LogNotifier:
    """Tells the log, where there is no better channel."""

    def notify(self, message: Message) -> bool:
        _log.info("%s: %s", message.key, message.plain)
        return True
