"""`proposals.parquet` holds what was written, whole or not at all."""

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from matching_platform.ledger.money import DECIMAL
from matching_platform.ledger.proposals import read_proposals, write_proposals
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
