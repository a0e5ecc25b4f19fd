"""The record of what served where; whatever is deployed and rolled back, going back leads to what served well."""

from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matching_platform.delivery.images.image import Image
from matching_platform.delivery.serving.releases import ReleaseError, Releases, Served
from matching_platform.store.record import LostRaceError
from matching_platform.store.versions import Store, Version


def bento(model: str) -> Version:
    return Version("bentos", model[0].encode().hex() * 32)


def image(model: str, digest: str = "0" * 64) -> Image:
    return Image("127.0.0.1:5000/matching-service", f"20240131235959-{model}", digest, 7, model, "1" * 64, "base")


def back(releases: Releases, to: Served | None = None) -> Served:
    target = to or releases.last_good()
    assert target is not None
    return releases.append("rollback", target.model, target.bento, target.image, actor="jana", reason="errors")


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    return Releases(Store(tmp_path), "production")


def test_nothing_served_yet(releases: Releases) -> None:
    assert releases.current() is releases.last_good() is None
    assert releases.history() == []
    assert releases.good("a") is None


def test_an_entry_is_read_as_it_was_written_and_places_are_apart(releases: Releases, tmp_path: Path) -> None:
    served = releases.append("deploy", "a", bento("a"), image("a"), actor="jana", reason="better")
    assert served == releases.current() == releases.history()[0] == releases.good("a")
    assert (served.model, served.bento, served.image, served.good) == ("a", bento("a"), image("a"), True)
    assert (served.action, served.actor, served.reason) == ("deploy", "jana", "better")
    assert Releases(Store(tmp_path), "staging").current() is None


@pytest.mark.parametrize(("actor", "reason"), [("", "why"), ("jana", ""), (" ", " ")])
def test_a_rollback_is_signed(releases: Releases, actor: str, reason: str) -> None:
    with pytest.raises(ReleaseError, match="says who made it and why"):
        releases.append("rollback", "a", bento("a"), actor=actor, reason=reason)
    assert releases.current() is None


def test_who_decides_on_an_old_entry_is_told(releases: Releases) -> None:
    first = releases.append("deploy", "a", bento("a"), expected_last=0)
    releases.append("deploy", "b", bento("b"), expected_last=first.number)
    with pytest.raises(LostRaceError):
        releases.append("deploy", "c", bento("c"), expected_last=first.number)


# What happened (a letter is deployed, an upper one did not serve well, "<" is a rollback), and where the next leads.
STORIES = [
    ("a", None),
    ("ab", "a"),
    ("abc", "b"),
    ("abc<", "a"),
    ("abc<<", None),
    ("ab<c", "a"),
    ("ab<c<", None),
    ("aB", "a"),
    ("aBC", "a"),
    ("aBc", "a"),
    ("aBc<", None),
    ("baB", "a"),
    ("bAB", None),
    ("baBc<", None),
    ("abb", "a"),
    ("aba", "b"),
    ("A", None),
    ("Ab", None),
]


@pytest.mark.parametrize(("story", "expected"), STORIES)
def test_where_a_rollback_leads(releases: Releases, story: str, expected: str | None) -> None:
    for what in story:
        if what == "<":
            back(releases)
        else:
            releases.append("deploy", what.lower(), bento(what.lower()), good=what.islower())
    found = releases.last_good()
    assert (found.model if found else None) == expected


def test_another_image_of_the_same_model_is_another_release(releases: Releases) -> None:
    for digest in ("2" * 64, "3" * 64):
        releases.append("deploy", "a", bento("a"), image("a", digest))
    found = releases.last_good()
    assert found is not None
    assert found.image == image("a", "2" * 64)


def test_the_newest_good_release_of_a_model(releases: Releases) -> None:
    releases.append("deploy", "a", bento("a"), image("a", "2" * 64))
    wanted = releases.append("deploy", "a", bento("a"), image("a", "3" * 64))
    releases.append("deploy", "a", bento("a"), image("a", "4" * 64), good=False)
    assert releases.good("a") == wanted
    releases.append("deploy", "ab", bento("b"))
    with pytest.raises(ReleaseError, match="is the beginning of a, ab"):
        releases.good("a")
    assert releases.good("ab").model == "ab"


EVENTS = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()) | st.none(), max_size=10)


@settings(max_examples=60, deadline=None)
@given(events=EVENTS)
def test_rolling_back_ends_and_never_leads_to_the_same_or_to_what_failed(events: list[tuple[str, bool] | None]) -> None:
    releases = Releases(Store(f"memory://releases/{uuid4().hex}"), "production")
    for event in events:
        if event is not None:
            releases.append("deploy", event[0], bento(event[0]), good=event[1])
        elif releases.last_good():
            back(releases)
    seen: list[int] = []
    while (target := releases.last_good()) is not None:
        history = releases.history()
        assert target.model != history[-1].model
        assert [served.good for served in history if served.model == target.model][-1]
        assert not seen or target.number < seen[-1]
        seen.append(target.number)
        assert back(releases).model == target.model
