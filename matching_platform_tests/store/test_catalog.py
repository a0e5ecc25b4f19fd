import math

import pytest

from matching_platform.store.catalog import Catalog
from matching_platform.store.versions import Store, UnknownVersionError, Version


def test_the_last_version_said_is_current(store: Store) -> None:
    catalog = Catalog(store)
    first, second = (store.put_bytes("transfers", "x", data) for data in (b"1", b"2"))
    assert catalog.get("transfers", "2024-03") is None
    catalog.set("transfers", "2024-03", first, {"rows": 1})
    said = catalog.set("transfers", "2024-03", second, {"rows": 2})
    catalog.set("transfers", "2024-01", first, {})
    catalog.set("invoices", "2024-02", first, {})
    assert catalog.get("transfers", "2024-03") == said
    assert (said.version, said.metadata) == (second, {"rows": 2})
    assert [current.version for current in catalog.history("transfers", "2024-03")] == [first, second]
    assert catalog.months("transfers") == ["2024-01", "2024-03"]
    assert catalog.months("matches") == []


def test_saying_the_same_again_adds_nothing(store: Store) -> None:
    catalog = Catalog(store)
    version = store.put_bytes("transfers", "x", b"1")
    metadata = {"months": ("2024-01", "2024-02"), "ece": math.nan}
    said = catalog.set("transfers", "2024-03", version, metadata)
    assert catalog.set("transfers", "2024-03", version, metadata) == said
    assert catalog.history("transfers", "2024-03") == [said]
    catalog.set("transfers", "2024-03", version, {})
    assert len(catalog.history("transfers", "2024-03")) == 2


def test_a_version_that_is_not_stored_cannot_be_current(store: Store) -> None:
    with pytest.raises(UnknownVersionError, match="no version transfers/0000000000000000 to become transfers of 2024"):
        Catalog(store).set("transfers", "2024-03", Version("transfers", "0" * 64), {})


@pytest.mark.parametrize("month", ["2024-13", "2024", "../2024-01"])
def test_months_are_months(store: Store, month: str) -> None:
    with pytest.raises(ValueError, match="is not a month"):
        Catalog(store).get("transfers", month)
