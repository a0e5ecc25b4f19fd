"""Messages arrive once, and a channel that fails neither raises nor shows its address."""

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from matching_platform.monitoring.notify import ATTEMPTS, LogNotifier, Message, OncePerEvent, SlackNotifier
from matching_platform.store.files import Files

MESSAGE = Message("gate/2024-03/quality", "Kestrel & Co <b> falls by 2 %")


class Channel(ThreadingHTTPServer):
    """A webhook on this machine that answers with the statuses it was given, the last one for ever."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses, self.received = [200], []

    @property
    def webhook(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/s3cret"


class _Handler(BaseHTTPRequestHandler):
    server: Channel

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(json.loads(body)["text"])
        statuses = self.server.statuses
        self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def channel() -> Iterator[Channel]:
    with Channel() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("statuses", "delivered", "attempts"),
    [
        ([200], True, 1),
        ([503, 429, 200], True, 3),
        ([500], False, ATTEMPTS),
        ([404], False, 1),
    ],
)
def test_slack(
    channel: Channel, caplog: pytest.LogCaptureFixture, statuses: list[int], delivered: bool, attempts: int
) -> None:
    caplog.set_level(logging.DEBUG)
    channel.statuses = statuses.copy()
    assert SlackNotifier(channel.webhook).notify(MESSAGE) is delivered
    assert channel.received == ["Kestrel &amp; Co &lt;b&gt; falls by 2 %"] * attempts
    assert (MESSAGE.key in caplog.text) is not delivered
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("webhook", ["http://127.0.0.1:1/s3cret", "nowhere/s3cret", "http://[s3cret", ""])
def test_an_address_where_nobody_answers(caplog: pytest.LogCaptureFixture, webhook: str) -> None:
    assert SlackNotifier(webhook).notify(MESSAGE) is False
    assert MESSAGE.key in caplog.text
    assert "s3cret" not in caplog.text + repr(SlackNotifier(webhook))


def test_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert LogNotifier().notify(MESSAGE)
    assert MESSAGE.text in caplog.text


@dataclass
class Recorder:
    works: bool = True
    told: list[str] = field(default_factory=list)

    def notify(self, message: Message) -> bool:
        self.told.append(message.key)
        return self.works


def test_an_event_is_told_once_also_by_another_process(tmp_path: Path) -> None:
    recorder = Recorder()
    for _ in range(2):
        notifier = OncePerEvent(recorder, Files(str(tmp_path)))
        assert notifier.notify(MESSAGE)
        assert notifier.notify(Message("gate/2024-04/quality", MESSAGE.text))
    assert recorder.told == ["gate/2024-03/quality", "gate/2024-04/quality"]


def test_what_was_not_delivered_is_tried_again(tmp_path: Path) -> None:
    recorder = Recorder(works=False)
    notifier = OncePerEvent(recorder, Files(str(tmp_path)))
    assert not notifier.notify(MESSAGE)
    recorder.works = True
    assert notifier.notify(MESSAGE)
    assert len(recorder.told) == 2
