"""What stands between a message and its channels: memory, company and patience."""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from matching_platform.monitoring.notify.message import Message, Notifier
from matching_platform.store.files import Files, StoreError

FOLDER: Final = "notices"
REST_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


def once_per_event(channels: Mapping[str, Notifier], files: Files) -> Notifier:
    """All channels as one that tells each event once. What each of several was told is remembered by its name."""
    spared = {name: Sparing(channel) for name, channel in channels.items()}
    if len(spared) == 1:
        (only,) = spared.values()
        return OncePerEvent(only, files)
    each = [OncePerEvent(channel, files, f"{FOLDER}/{name}") for name, channel in spared.items()]
    return OncePerEvent(Several(each), files)


@dataclass(frozen=True)
class OncePerEvent:
    """Passes on one message per event key, also across processes: what was delivered is remembered in the store.

    A message that could not be delivered is not remembered, so the next one with its key is tried again. Two processes
    with the same event at the same moment may both tell it; none is ever lost between them.
    """

    notifier: Notifier
    files: Files
    folder: str = FOLDER

    def notify(self, message: Message) -> bool:
        name = f"{self.folder}/{hashlib.sha256(message.key.encode()).hexdigest()[:32]}.json"
        try:
            if self.files.exists(name):
                return True
        except (StoreError, OSError) as error:
            _log.error("Nobody knows whether '%s' was told; it is not told now: %s", message.key, error)
            return False
        if not self.notifier.notify(message):
            return False
        content = json.dumps({"key": message.key, "text": message.text}, ensure_ascii=False)
        try:
            self.files.create(name, content.encode())
        except FileExistsError:
            _log.info("'%s' was told by another process at the same moment", message.key)
        except (StoreError, OSError) as error:
            _log.error("'%s' was told, but cannot be remembered, and may be told again: %s", message.key, error)
        return True


@dataclass(frozen=True)
class Several:
    """Tells all of its channels, whatever became of the others; delivered is what all of them delivered.

    Channels that remember what they told are not told it again when the others are.
    """

    notifiers: Sequence[Notifier]

    def notify(self, message: Message) -> bool:
        delivered = [notifier.notify(message) for notifier in self.notifiers]
        return all(delivered)


@dataclass
class Sparing:
    """Leaves a channel alone for a minute after it failed, so that one that hangs does not keep the others waiting."""

    notifier: Notifier
    seconds: float = REST_SECONDS
    _again: float = field(default=0.0, init=False, repr=False)

    def notify(self, message: Message) -> bool:
        if time.monotonic() < self._again:
            _log.info("'%s' is told later: its channel failed a moment ago", message.key)
            return False
        delivered = self.notifier.notify(message)
        self._again = 0.0 if delivered else time.monotonic() + self.seconds
        return delivered
