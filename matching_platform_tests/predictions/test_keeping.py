"""A server whose store cannot be opened when it begins."""

from functools import partial
from threading import Event
from typing import Any

import polars as pl
import pytest
from google.auth.exceptions import DefaultCredentialsError

from matching_platform.ledger.schema import PROPOSALS
from matching_platform.matching.decisions import BY_RECORD
from matching_platform.predictions import keeping as keeping_module
from matching_platform.predictions import reading
from matching_platform.predictions.keeping import Keeping
from matching_platform.predictions.settings import FOLDER, PredictionSettings
from matching_platform.store import files
from matching_platform.store.files import Files
from matching_platform.store.unattended import NEVER, Unattended
from matching_platform.store.versions import Store
from matching_platform.store.watch import Watch
from matching_platform_tests.emulators import cloud_storage
from matching_platform_tests.predictions.made import served
from matching_platform_tests.waiting import until

OWN = 0.9
PROPOSED = pl.DataFrame([("t", "i", 100, 0.99, "auto", ["title"])], schema=PROPOSALS, orient="row")


@pytest.mark.cloud
def test_without_credentials_it_starts_and_goes_on_when_they_come(
    google: cloud_storage.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    google.reset()
    root, there, opened = google.bucket("store") + "/production", Event(), files._google_cloud
    Unattended(Store(root)).book_from("m", 0.95, actor="Ada", reason="a test")

    def google_cloud() -> Any:
        if not there.is_set():
            raise DefaultCredentialsError("Your default credentials were not found.")
        return opened()

    monkeypatch.setattr(files, "_google_cloud", google_cloud)
    monkeypatch.setattr(keeping_module, "Watch", partial(Watch, every=0.01))
    keeping = Keeping.start(root, PredictionSettings())
    try:
        assert "no valid credentials" in keeping.watch.permission().told
        proposals, auto_from = keeping.decided(PROPOSED, "m", OWN)
        assert (auto_from, proposals["decision"].to_list()) == (NEVER, ["review"])
        assert proposals["evidence"].item()[1].startswith(f"{BY_RECORD}frozen since ")
        keeping.log.take(served("one"))
        until(lambda: keeping.log.figures().failures)
        assert keeping.log.figures().backlog == 1
        there.set()
        until(lambda: not keeping.watch.permission().frozen and keeping.log.figures().written)
        assert keeping.decided(PROPOSED, "m", OWN)[0].equals(PROPOSED)
        assert keeping.booked_from("m", OWN) == 0.95
    finally:
        there.set()
        keeping.close()
    kept = Files(f"{root}/{FOLDER}")
    assert [one for day in reading.days(kept) for one in reading.read(kept, day)["request_id"]] == ["one"]
