"""`proposals.parquet` holds what was written, whole or not at all."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from matching_platform.ledger.money import DECIMAL, to_decimal
from matching_platform.ledger.proposals import read_costs, read_proposals, write_proposals
from matching_platform.ledger.schema import PROPOSALS
from matching_platform.ledger.validation import LedgerError

FRAME = pl.DataFrame(
    [("t1", "i1", 1230, 0.99, "auto", ["for", "against: ż"]), ("t2", None, None, 0.5, "none", [])],
    schema=PROPOSALS,
    orient="row",
)


@pytest.mark.parametrize("frame", [FRAME, FRAME.head(0)])
def test_what_is_written_is_read(tmp_path: Path, frame: pl.DataFrame) -> None:
    path = tmp_path / "new folder" / "proposals.parquet"
    write_proposals(frame, path)
    assert pl.read_parquet_schema(path)["amount"] == DECIMAL
    assert_frame_equal(read_proposals(path), frame)
    assert [file.name for file in path.parent.iterdir()] == ["proposals.parquet"]


@pytest.mark.parametrize("costs", [{}, {"training_seconds": 51.5, "transfers_per_second": 1200.0}])
def test_the_file_tells_what_it_cost(tmp_path: Path, costs: dict[str, float]) -> None:
    write_proposals(FRAME, tmp_path / "p.parquet", costs)
    assert read_costs(tmp_path / "p.parquet") == costs


@pytest.mark.parametrize("name", ["p.parquet", "p.csv"])
def test_proposals_from_elsewhere_tell_no_costs(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows = FRAME.drop("evidence")
    rows.write_csv(path) if name.endswith("csv") else rows.write_parquet(path)
    assert read_costs(path) == {}


def test_a_killed_write_leaves_the_file_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "proposals.parquet"
    write_proposals(FRAME, path)

    def killed(self: pl.DataFrame, file: Path, **_: object) -> None:
        Path(file).write_bytes(b"PAR1 half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pl.DataFrame, "write_parquet", killed)
        with pytest.raises(KeyboardInterrupt):
            write_proposals(FRAME.head(1), path)
    assert_frame_equal(read_proposals(path), FRAME)
    write_proposals(FRAME.head(1), path)
    assert_frame_equal(read_proposals(path), FRAME.head(1))


@pytest.mark.parametrize("column", PROPOSALS)
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    path = tmp_path / "p.parquet"
    FRAME.drop(column).write_parquet(path)
    with pytest.raises(LedgerError) as error:
        read_proposals(path)
    assert str(error.value) == f"{path}: column {column}: the column is missing"


@pytest.mark.parametrize("content", [None, b"", b"no parquet"])
def test_an_unreadable_file_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "p.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LedgerError) as error:
        read_proposals(path)
    assert str(error.value).startswith(f"{path}: cannot be read")
    assert len(str(error.value).splitlines()) == 1


def put(column: str, *values: Any, dtype: Any = None) -> pl.DataFrame:
    """The two sound rows with other values in `column`."""
    return FRAME.with_columns(to_decimal("amount")).with_columns(pl.Series(column, values, dtype=dtype, strict=False))


FAULTS = [
    (put("transfer_id", "t1", None), "row 2, column transfer_id: is missing"),
    (put("transfer_id", b"1", b"2"), "column transfer_id: has the type Binary, which is no text"),
    (put("amount", "1.20", "much"), "row 2, column amount: 'much' is not an amount with at most two decimal places"),
    (put("amount", True, False), "column amount: has the type Boolean, which is no amount"),
    (put("confidence", 0.5, 1.5), "row 2, column confidence: '1.5' is not a number from 0 to 1"),
    (put("confidence", -0.1, 0.5), "row 1, column confidence: '-0.1' is not a number from 0 to 1"),
    (put("confidence", 0.5, float("nan")), "row 2, column confidence: 'NaN' is not a number from 0 to 1"),
    (put("confidence", 0.5, float("inf")), "row 2, column confidence: 'inf' is not a number from 0 to 1"),
    (put("confidence", 0.5, None), "row 2, column confidence: is missing"),
    (put("confidence", "high", "low"), "column confidence: has the type String, which is no number"),
    (put("decision", "auto", "book"), "row 2, column decision: 'book' is not 'auto' or 'none' or 'review'"),
    (put("decision", "auto", None), "row 2, column decision: is missing"),
    (put("evidence", "for", "against"), "column evidence: has the type String, which is no list of texts"),
    (put("evidence", [1], [2]), "column evidence: has the type List(Int64), which is no list of texts"),
    (put("evidence", ["for"], None), "row 2, column evidence: is missing"),
    (put("evidence", ["for"], ["a", None]), "row 2, column evidence: 'a' holds a statement that is missing"),
    (
        pl.concat([put("amount", 1, 2), put("amount", 3, 4)]),
        "row 3, column invoice_id: 'i1' is proposed more than once",
    ),
    (pl.concat([put("amount", 1, 2).tail(1)] * 2), "row 2, column invoice_id: is proposed more than once"),
]


@pytest.mark.parametrize(("frame", "problem"), FAULTS, ids=[problem for _, problem in FAULTS])
def test_what_is_no_proposal_names_file_row_and_column(tmp_path: Path, frame: pl.DataFrame, problem: str) -> None:
    path = tmp_path / "p.parquet"
    frame.write_parquet(path)
    with pytest.raises(LedgerError) as error:
        read_proposals(path)
    assert str(error.value).startswith(f"{path}: {problem}")
    assert len(str(error.value).splitlines()) == 1
