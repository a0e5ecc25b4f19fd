"""What the sensor over production does with what the front has counted."""

from dataclasses import dataclass, field

import dagster as dg
import pytest

from matching_platform.defs.rollback import AGAIN_SECONDS, LEAST_REQUESTS, failing_service
from matching_platform.delivery.serving.place import Reading, RolloutError
from matching_platform.delivery.serving.releases import Releases
from matching_platform.environment import DEFAULTS, Platform, Settings
from matching_platform.monitoring.notify import Message
from matching_platform.store.versions import Version

NOW = 1_700_000_000.0
SERVER = "127.0.0.1:4000"


@dataclass
class Told:
    """A channel that keeps what it is told."""

    messages: list[Message] = field(default_factory=list)

    def notify(self, message: Message) -> bool:
        self.messages.append(message)
        return True


@dataclass
class Production:
    """A place that has counted so much; nothing, where it does not answer."""

    reading: Reading | None = None

    def serving(self) -> str | None:
        return None

    def traffic(self) -> Reading:
        if self.reading is None:
            raise RolloutError("nobody answers")
        return self.reading


@dataclass
class Watched:
    """A platform of which `served` models were rolled out, the last one being watched."""

    platform: Platform
    production: Production
    told: Told
    cursor: str | None = None

    @property
    def releases(self) -> Releases:
        return self.platform.releases("production")

    def serve(self, *models: str) -> None:
        for number, model in enumerate(models):
            self.releases.append("deploy", model, Version("bentos", f"{number:064x}"), reason="a test")

    def tick(self, requests: int, errors: int, server: str = SERVER) -> dg.SensorResult | dg.SkipReason:
        self.production.reading = Reading("front", server, requests, errors)
        context = dg.build_sensor_context(cursor=self.cursor, resources={"platform": self.platform})
        result = failing_service(context)
        if isinstance(result, dg.SensorResult):
            self.cursor = result.cursor
        return result

    def asked(self, requests: int, errors: int, server: str = SERVER) -> list[dg.RunRequest]:
        result = self.tick(requests, errors, server)
        assert isinstance(result, dg.SensorResult)
        return list(result.run_requests or [])


@pytest.fixture
def watched(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    settings = Settings(**{**DEFAULTS["local"], "store": str(tmp_path / "store"), "warehouse": tmp_path / "w.duckdb"})
    platform, production, told = Platform(settings), Production(), Told()
    monkeypatch.setitem(platform.__dict__, "notifier", told)
    monkeypatch.setattr(Platform, "place", lambda *_: production)
    return Watched(platform, production, told)


def test_where_nothing_serves_nothing_is_watched(watched: Watched) -> None:
    assert isinstance(watched.tick(100, 100), dg.SkipReason)


def test_a_front_that_does_not_answer_is_told(watched: Watched) -> None:
    watched.serve("one", "two")
    context = dg.build_sensor_context(resources={"platform": watched.platform})
    result = failing_service(context)
    assert isinstance(result, dg.SkipReason)
    assert result.skip_message == "Production does not say how it serves: nobody answers"
    assert [message.text for message in watched.told.messages] == [result.skip_message]


@pytest.mark.parametrize(
    ("requests", "errors", "rolls_back"),
    [
        (LEAST_REQUESTS - 1, LEAST_REQUESTS - 1, False),
        (LEAST_REQUESTS, 0, False),
        (1000, 10, False),
        (1000, 11, True),
        (LEAST_REQUESTS, LEAST_REQUESTS, True),
    ],
)
def test_the_limit(watched: Watched, requests: int, errors: int, rolls_back: bool) -> None:
    watched.serve("one", "two")
    assert watched.asked(5000, 5000) == []  # Before anybody looked.
    assert bool(watched.asked(5000 + requests, 5000 + errors)) is rolls_back


def test_another_server_counts_from_its_start(watched: Watched) -> None:
    watched.serve("one", "two")
    assert watched.asked(5000, 5000) == []
    assert watched.asked(100, 0, server="127.0.0.1:4001") == []
    assert watched.asked(130, 30, server="127.0.0.1:4001") != []


def test_a_rollback_is_asked_for_once_and_says_why(watched: Watched) -> None:
    watched.serve("one", "two")
    assert watched.asked(0, 0) == []
    (request,) = watched.asked(100, 50)
    (again,) = watched.asked(200, 100)
    assert request.run_key == again.run_key
    assert request.run_config["ops"]["back"]["config"] == {
        "reason": "50 of 100 requests failed in production within 300 s, more than 1.0%",
        "instead_of": 2,
    }


def test_what_failed_long_ago_does_not_count(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.serve("one", "two")
    now = [NOW]
    monkeypatch.setattr("matching_platform.defs.rollback.time", lambda: now[0])
    asked = []
    for moment, requests, errors in ((0, 0, 0), (290, 100, 0), (595, 130, 2), (600, 160, 4)):
        now[0] = NOW + moment
        asked.append(bool(watched.asked(requests, errors)))
    # At 595 s the looks before are forgotten, and it is the first within the window.
    assert asked == [False, False, False, True]


@pytest.mark.parametrize("models", [("one",), ("one", "two", "<")])
def test_as_far_back_as_goes_by_itself(watched: Watched, models: tuple[str, ...]) -> None:
    """Without an earlier model, and after a rollback: what ails the service may not be the model."""
    watched.serve(*(model for model in models if model != "<"))
    if "<" in models:
        watched.releases.append("rollback", "one", Version("bentos", f"{0:064x}"), actor="Ada", reason="a test")
    assert watched.asked(0, 0) == []
    assert watched.asked(100, 50) == []
    (message,) = watched.told.messages
    assert message.text == (
        "50 of 100 requests failed in production within 300 s; this is as far back as goes by itself: look at the service "
        "of one."
    )


def test_another_try_after_a_while(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [NOW]
    monkeypatch.setattr("matching_platform.defs.rollback.time", lambda: now[0])
    watched.serve("one", "two")
    keys = []
    for moment, requests in ((0, 0), (30, 100), (60, 200), (60 + AGAIN_SECONDS, 300), (90 + AGAIN_SECONDS, 400)):
        now[0] = NOW + moment
        keys += [request.run_key for request in watched.asked(requests, requests)]
    assert len(keys) > len(set(keys)) > 1
