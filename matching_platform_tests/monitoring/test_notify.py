"""Messages arrive once, and a channel that fails neither raises nor shows its address."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from matching_platform.monitoring.notify import (
    ATTEMPTS,
    LogNotifier,
    Message,
    OncePerEvent,
    SlackNotifier,
    Sparing,
    once_per_event,
    slack,
)
from matching_platform.store.files import Files, StoreError

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
        self.server.received.append(json.loads(body))
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
    assert [body["text"] for body in channel.received] == ["Kestrel &amp; Co &lt;b&gt; falls by 2 %"] * attempts
    assert (MESSAGE.key in caplog.text) is not delivered
    assert "s3cret" not in caplog.text


def test_slack_shows_titles_figures_and_links(channel: Channel) -> None:
    message = Message(
        "model/m1/promoted/3",
        "Kestrel & Co <b>",
        title="New champion: m1",
        level="good",
        figures={f"Figure {number}": "94.1%" for number in range(12)},
        links={"Run": "https://dagster.example/runs/1?a=1&b=2", "Report": "https://dagster.example/report"},
    )
    assert SlackNotifier(channel.webhook).notify(message)
    (body,) = channel.received
    header, text, *figures, links = body["blocks"]
    assert header == {"type": "header", "text": {"type": "plain_text", "text": "🟢 New champion: m1"}}
    assert text == {"type": "section", "text": {"type": "mrkdwn", "text": "Kestrel &amp; Co &lt;b&gt;"}}
    assert [len(block["fields"]) for block in figures] == [10, 2], "a block takes ten"
    assert figures[0]["fields"][0] == {"type": "mrkdwn", "text": "*Figure 0*\n94.1%"}
    assert links["elements"][0]["text"] == (
        "<https://dagster.example/runs/1?a=1&amp;b=2|Run> · <https://dagster.example/report|Report>"
    )
    assert body["text"].startswith("New champion: m1\n\nKestrel &amp; Co &lt;b&gt;\n\nFigure 0: 94.1%\n")


def test_slack_takes_no_more_than_so_much() -> None:
    """A text that is too long is cut, and never within what stands for one character."""
    body = slack.body(Message("key", "a" * 2997 + "&&", title="t" * 200))
    assert body["blocks"][0]["text"]["text"] == "🔵 " + "t" * 119 + "…"
    assert body["blocks"][1]["text"]["text"] == "a" * 2997 + "…"
    assert max(len(block["text"]["text"]) for block in body["blocks"]) <= 3000


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


def test_one_dead_channel_neither_stops_the_others_nor_makes_them_tell_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Recorder(works=False), Recorder()
    notifier = once_per_event({"mail": first, "slack": second}, Files(str(tmp_path)))
    assert not notifier.notify(MESSAGE)
    assert not notifier.notify(MESSAGE), "it is left alone for a minute"
    first.works = True
    again = once_per_event({"mail": first, "slack": second}, Files(str(tmp_path)))
    assert again.notify(MESSAGE)
    assert again.notify(MESSAGE)
    assert (len(first.told), len(second.told)) == (2, 1)


def test_one_channel_remembers_as_it_always_did(tmp_path: Path) -> None:
    recorder = Recorder()
    assert OncePerEvent(recorder, Files(str(tmp_path))).notify(MESSAGE)
    assert once_per_event({"slack": recorder}, Files(str(tmp_path))).notify(MESSAGE)
    assert once_per_event({"slack": recorder, "mail": recorder}, Files(str(tmp_path))).notify(MESSAGE)
    assert len(recorder.told) == 1


def test_a_channel_that_failed_is_left_alone_for_a_moment() -> None:
    recorder = Recorder(works=False)
    sparing = Sparing(recorder, seconds=0.05)
    assert not sparing.notify(MESSAGE)
    recorder.works = True
    assert not sparing.notify(MESSAGE)
    time.sleep(0.06)
    assert sparing.notify(MESSAGE)
    assert sparing.notify(MESSAGE)
    assert len(recorder.told) == 3


@pytest.mark.parametrize(("broken", "delivered"), [("exists", False), ("create", True)])
def test_a_store_that_fails_is_reported_and_takes_nothing_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str, delivered: bool
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("the object store could not be used")

    recorder, files = Recorder(), Files(str(tmp_path))
    monkeypatch.setattr(files, broken, fail)
    assert OncePerEvent(recorder, files).notify(MESSAGE) is delivered
    assert len(recorder.told) == delivered
    assert "the object store could not be used" in caplog.text
