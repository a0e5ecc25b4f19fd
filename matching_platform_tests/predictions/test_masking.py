"""What is masked cannot be read back, can still be counted and joined, and nothing else changes."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matching_platform.ledger.schema import TRANSFERS
from matching_platform.predictions.masking import Masking
from matching_platform.predictions.settings import PREFIX, PredictionSettings, ServiceSettingsError, passed_on, received

MASKED = ("counterparty_name", "counterparty_account", "title")
TEXTS = st.none() | st.text(min_size=0, max_size=8)
FRAMES = st.lists(st.tuples(*[TEXTS] * len(MASKED)), max_size=20).map(
    lambda rows: pl.DataFrame(rows, schema=dict.fromkeys(MASKED, pl.String), orient="row").with_row_index("transfer_id")
)


@settings(deadline=None)
@given(frame=FRAMES, secret=st.binary(max_size=100))
def test_equal_stays_equal_and_different_stays_different(frame: pl.DataFrame, secret: bytes) -> None:
    masked = Masking.of(MASKED, secret)(frame)
    assert masked["transfer_id"].equals(frame["transfer_id"])
    assert masked.schema == frame.schema
    assert masked["title"].null_count() == frame.height
    names = ["counterparty_name", "counterparty_account"]
    before = pl.concat([frame[name].rename("value") for name in names])
    after = pl.concat([masked[name].rename("value") for name in names])
    pairs = dict(zip(before, after, strict=True))
    assert len(set(pairs.values())) == len(pairs)
    assert [pairs[value] for value in before] == list(after)
    for value, pseudonym in pairs.items():
        assert (pseudonym == value) if not value else (len(pseudonym) == 32 and value != pseudonym)


@settings(deadline=None)
@given(name=st.text(min_size=1), one=st.binary(), other=st.binary())
def test_another_secret_gives_other_pseudonyms(name: str, one: bytes, other: bytes) -> None:
    pseudonyms = [Masking.of((), secret).pseudonym(name) for secret in (one, other)]
    assert (pseudonyms[0] == pseudonyms[1]) == (one == other)


def test_what_is_not_named_is_left_alone() -> None:
    frame = pl.DataFrame({"counterparty_name": ["ACME"], "title": ["FV 1"], "evidence": [["title names it"]]})
    assert Masking.of((), b"s")(frame).equals(frame)
    masked = Masking.of(["title"], b"s")(frame)
    assert masked.rows() == [("ACME", None, None)]


def test_a_table_without_rows_is_masked_too() -> None:
    empty = pl.DataFrame(schema=TRANSFERS.schema)
    assert Masking.of(MASKED, b"s")(empty).equals(empty)


@pytest.mark.parametrize("key", ["a secret", None])
@pytest.mark.parametrize("mask", ["none", "title", "counterparty_name,reference"])
def test_a_server_receives_what_it_was_passed(mask: str, key: str | None) -> None:
    settings = PredictionSettings(mask=mask, mask_key=key, queue=2**21)
    assert received(passed_on(settings, "/store")) == ("/store", settings)


@pytest.mark.parametrize(
    ("given", "masked"),
    [
        ("title", ("title",)),
        (" title , reference ", ("title", "reference")),
        ('["title", "reference"]', ("title", "reference")),
        ("none", ()),
        ("", PredictionSettings().masked),
        ("[]", PredictionSettings().masked),
        (" , ", PredictionSettings().masked),
    ],
)
def test_columns_are_named_with_commas_or_as_json(given: str, masked: tuple[str, ...]) -> None:
    assert PredictionSettings(mask=given).masked == masked


def test_a_variable_that_is_empty_masks_as_none_at_all_does() -> None:
    given = {f"{PREFIX}STORE": "/store"}
    assert received({**given, f"{PREFIX}MASK": ""}) == received(given) == ("/store", PredictionSettings())


def test_a_server_that_is_passed_nothing_keeps_nothing() -> None:
    assert received({f"{PREFIX}MASK": "title"}) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("MASK", "title,colour"), ("MASK", "-"), ("MASK", "none,title"), ("QUEUE", "much"), ("QUEUE", "1")],
)
def test_a_wrong_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(ServiceSettingsError, match=f"^{PREFIX}{name}: "):
        received({f"{PREFIX}STORE": "/store", f"{PREFIX}MASK_KEY": "s3cret", f"{PREFIX}{name}": value})
