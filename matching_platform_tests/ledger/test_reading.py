"""A folder of the three tables, as Parquet or CSV, gives one ledger or one error."""

from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from matching_platform.ledger.reading import Ledger, read_file, read_ledger, table_path
from matching_platform.ledger.validation import LedgerError

NAMES = ("invoices", "transfers", "matches")


def written(folder: Path, sample: dict[str, pl.DataFrame], format: Literal["csv", "parquet"], **changes: Any) -> Path:  # noqa: A002
    for name in NAMES:
        frame = changes.get(name, sample[name])
        path = folder / f"{name}.{format}"
        frame.write_csv(path) if format == "csv" else frame.write_parquet(path)
    return folder


@pytest.mark.parametrize("format", ["csv", "parquet"])
@pytest.mark.parametrize("folder", ["plain", "May [draft] *?"])
def test_both_formats_read_alike(
    tmp_path: Path,
    sample: dict[str, pl.DataFrame],
    small_ledger: Ledger,
    folder: str,
    format: Literal["csv", "parquet"],  # noqa: A002
) -> None:
    (tmp_path / folder).mkdir()
    read = read_ledger(written(tmp_path / folder, sample, format))
    for name in NAMES:
        assert_frame_equal(getattr(read, name), getattr(small_ledger, name))


def test_parquet_may_carry_floats(tmp_path: Path, sample: dict[str, pl.DataFrame], small_ledger: Ledger) -> None:
    floats = {name: sample[name].with_columns(pl.col("amount").cast(pl.Float64)) for name in NAMES}
    read = read_ledger(written(tmp_path, floats, "parquet"))
    assert_frame_equal(read.invoices, small_ledger.invoices)


def test_parquet_goes_before_csv(tmp_path: Path) -> None:
    for name in ("invoices.csv", "invoices.parquet", "transfers.csv"):
        (tmp_path / name).touch()
    assert table_path(tmp_path, "invoices") == tmp_path / "invoices.parquet"
    assert table_path(tmp_path, "transfers") == tmp_path / "transfers.csv"
    assert table_path(tmp_path, "matches") is None


def test_months_are_those_of_transfers(small_ledger: Ledger) -> None:
    months = small_ledger.months()
    assert months == sorted(set(months))
    assert months == sorted({day.isoformat()[:7] for day in small_ledger.transfers["booked_on"]})


def test_tables_without_rows_are_a_ledger(tmp_path: Path, sample: dict[str, pl.DataFrame]) -> None:
    empty = {name: sample[name].head(0) for name in NAMES}
    for format in ("csv", "parquet"):  # noqa: A001
        (tmp_path / format).mkdir()
        assert read_ledger(written(tmp_path / format, empty, format)).months() == []


def test_a_csv_error_names_file_row_and_column(tmp_path: Path, sample: dict[str, pl.DataFrame]) -> None:
    amounts = sample["transfers"]["amount"].cast(pl.String).to_list()
    faulty = sample["transfers"].with_columns(amount=pl.Series([*amounts[:2], "12,5", *amounts[3:]]))
    with pytest.raises(LedgerError) as error:
        read_ledger(written(tmp_path, sample, "csv", transfers=faulty))
    path = tmp_path / "transfers.csv"
    assert str(error.value) == (
        f"{path}: row 3, column amount: '12,5' is not an amount with at most two decimal places"
    )


def test_a_match_to_nobody_names_the_file(tmp_path: Path, sample: dict[str, pl.DataFrame]) -> None:
    first = sample["matches"].filter(pl.col("invoice_id").is_not_null()).head(1)
    with pytest.raises(LedgerError) as error:
        read_ledger(written(tmp_path, sample, "parquet", matches=first.with_columns(invoice_id=pl.lit("ghost"))))
    assert str(error.value) == (
        f"{tmp_path / 'matches.parquet'}: row 1, column invoice_id: 'ghost' there is no such invoice"
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_absent_table_is_named(tmp_path: Path, sample: dict[str, pl.DataFrame], name: str) -> None:
    (written(tmp_path, sample, "csv") / f"{name}.csv").unlink()
    with pytest.raises(LedgerError) as error:
        read_ledger(tmp_path)
    assert str(error.value) == f"{tmp_path}: holds neither {name}.parquet nor {name}.csv"


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="nowhere: is not a folder"):
        read_ledger(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("invoices.parquet", b""),
        ("invoices.parquet", b"PAR1 cut short"),
        ("invoices.csv", b""),
        ("invoices.csv", b"\xff\xfe\x00"),
        ("invoices.csv", b'invoice_id,number\n"a,b\n'),
        ("invoices.csv", b"invoice_id,number\na,b,c,d\n"),
    ],
)
def test_an_unreadable_file_is_one_line(tmp_path: Path, file: str, content: bytes) -> None:
    path = tmp_path / file
    path.write_bytes(content)
    with pytest.raises(LedgerError) as error:
        read_file(path, "invoices")
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1


def test_a_panic_inside_polars_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def panics(*_: object, **__: object) -> None:
        raise pl.exceptions.PanicException("index out of bounds\nin Rust")

    monkeypatch.setattr(pl, "read_parquet", panics)
    with pytest.raises(LedgerError) as error:
        read_file(tmp_path / "invoices.parquet", "invoices")
    assert str(error.value) == f"{tmp_path}/invoices.parquet: cannot be read (index out of bounds)"
