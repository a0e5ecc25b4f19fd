"""The rows of a sheet, read by its mapping into a table of the contract."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, get_args

import polars as pl

from matching_platform.intake.incoming import SKIPPED, Incoming, IntakeError, incoming
from matching_platform.intake.mapping import ColumnMapping
from matching_platform.intake.sheets import ROW, Sheet, folding
from matching_platform.intake.synonyms import AMOUNT_IN, AMOUNT_OUT, CREDIT_NOTES, DIRECTIONS, KIND, SIGNED
from matching_platform.intake.values import Decimal, Order, UnreadableError, amounts, dates
from matching_platform.ledger.schema import TABLES

# Without one of each of these nothing can be made of a sheet.
NEEDED: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "invoices": (
        ("number",),
        ("counterparty_name", "counterparty_tax_id", "counterparty_id"),
        ("issued_on",),
        ("amount",),
        ("currency",),
        ("direction",),
    ),
    "transfers": (("booked_on",), ("amount", AMOUNT_IN, AMOUNT_OUT), ("currency",)),
}
_DATED: Final = {"invoices": "issued_on", "transfers": "booked_on"}
_LEFT_OPEN: Final = {"decimal": get_args(Decimal)[1:], "dates": get_args(Order)[1:]}
_AMOUNTS: Final = ("amount", AMOUNT_IN, AMOUNT_OUT)
_SAMPLE: Final = 5_000  # rows that tell what is left open
_SHOWN: Final = 120  # characters of a row that was left out


class UntoldError(IntakeError):
    """Nothing tells some columns of the contract: `columns`, each of which a header or a constant must be given for."""

    def __init__(self, source: str, columns: tuple[str, ...], problem: str, advice: str) -> None:
        super().__init__(source, problem, advice)
        self.columns = columns


def read_rows(sheet: Sheet, mapping: ColumnMapping) -> Incoming:
    """The rows of `sheet`; UntoldError where the mapping lacks columns, IntakeError where a cell cannot be read."""
    _check(sheet, mapping)
    body, skipped = _parted(sheet, mapping)
    cells = _Cells(sheet.source, body, mapping)
    made = {"invoices": _invoices, "transfers": _transfers}[mapping.table](cells)
    places = body.select(pl.format("row {}", ROW)).to_series()
    return incoming(sheet.source, sheet.format, mapping.table, made, (*sheet.notes, *cells.notes), skipped, places)


class _Cells:
    """The cells of a sheet by the contract's columns, and what is to be noted of them."""

    def __init__(self, source: str, body: pl.DataFrame, mapping: ColumnMapping) -> None:
        self.source, self.body, self.mapping = source, body, mapping
        self.notes: list[str] = []

    def told(self, target: str) -> bool:
        return target in self.mapping.columns or target in self.mapping.constants

    def text(self, target: str) -> pl.Series:
        """The cells of a column, joined where it has several headers; null where nothing tells it."""
        headers = self.mapping.columns.get(target, ())
        if not headers:
            constant = self.mapping.constants.get(target)
            return pl.Series(target, [constant], dtype=pl.String).new_from_index(0, self.body.height)
        joined = pl.concat_str(list(headers), separator=" ", ignore_nulls=True)
        return self.body.select(pl.when(joined != "").then(joined).alias(target)).to_series()

    def amount(self, target: str) -> pl.Series:
        return self._read(target, lambda texts: amounts(texts, self.mapping.decimal))

    def date(self, target: str) -> pl.Series:
        return self._read(target, lambda texts: dates(texts, self.mapping.dates))

    def choice(self, target: str, meanings: dict[str, str]) -> pl.Series:
        """What the words of a column mean; one that means nothing here is kept, to be refused by its name."""
        texts = self.text(target)
        known = texts.drop_nulls().unique().to_list()
        means = {text: meanings.get(word, text) for text, word in zip(known, folding(known), strict=True)}
        return texts.replace_strict(means, default=None, return_dtype=pl.String) if means else texts

    def _read(self, target: str, read: Callable[[pl.Series], pl.Series]) -> pl.Series:
        texts = self.text(target)
        try:
            return read(texts).alias(target)
        except UnreadableError as error:
            where = None if error.at is None else f"row {self.body[ROW][error.at]}"
            named = " and ".join(self.mapping.columns.get(target, (target,)))
            raise IntakeError(self.source, error.problem, error.advice, where=where, field=named) from error


def settled(sheet: Sheet, mapping: ColumnMapping) -> ColumnMapping:
    """The mapping with the decimal sign and the order of dates that this sheet tells: another one may leave them open."""
    sample = replace(sheet, frame=sheet.frame.head(_SAMPLE))
    for name, values in _LEFT_OPEN.items():
        options: list[dict[str, Any]] = [{name: value} for value in values if not getattr(mapping, name)]
        changed = [mapping.changed({}, {}, **option) for option in options]
        same = [one for one in changed if _reads_as(sample, one, mapping)]
        mapping = same[0] if len(same) == 1 else mapping
    return mapping


def _reads_as(sheet: Sheet, one: ColumnMapping, other: ColumnMapping) -> bool:
    try:
        return read_rows(sheet, one).frame.equals(read_rows(sheet, other).frame)
    except IntakeError:
        return False


def _check(sheet: Sheet, mapping: ColumnMapping) -> None:
    known = {column.name for column in TABLES[mapping.table].columns} | {KIND, AMOUNT_IN, AMOUNT_OUT}
    for target in (*mapping.columns, *mapping.constants):
        if target not in known:
            raise IntakeError(
                sheet.source, f"{mapping.table} have no column '{target}'", f"there are {', '.join(sorted(known))}"
            )
    for target, headers in mapping.columns.items():
        for header in headers:
            if header not in sheet.headers:
                problem = f"no column is called '{header}', which should be {target}"
                raise IntakeError(sheet.source, problem, f"there are {', '.join(sheet.headers)}")
    told = {*(target for target, headers in mapping.columns.items() if headers), *mapping.constants}
    missing = tuple(choices[0] for choices in NEEDED[mapping.table] if not told & set(choices))
    if missing:
        raise UntoldError(
            sheet.source,
            missing,
            f"nothing tells {', '.join(missing)} of these {mapping.table}",
            f"map a column, or give a constant; the columns are {', '.join(sheet.headers)}",
        )


def _parted(sheet: Sheet, mapping: ColumnMapping) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows with a date or an amount, and the others: totals, and lines that people write below a table."""
    told = {target: headers for target, headers in mapping.columns.items() if headers}
    dated = told.get(_DATED[mapping.table], ())
    paid = [header for target in _AMOUNTS for header in told.get(target, ())]
    both = pl.any_horizontal(pl.col(list(dated)).is_not_null()) if dated else pl.lit(True)
    has_amount = pl.any_horizontal(pl.col(paid).is_not_null()) if paid else pl.lit(True)
    lacking = (
        pl.when(~both & ~has_amount).then(pl.lit("has neither date nor amount")).when(~both).then(pl.lit("has no date"))
    )
    numbered = sheet.frame.with_columns(lacking.alias("reason"))
    left = numbered.filter(pl.col("reason").is_not_null())
    text = pl.concat_str(list(sheet.headers), separator=" ", ignore_nulls=True).str.slice(0, _SHOWN)
    skipped = left.select(pl.format("row {}", ROW).alias("where"), text.alias("text"), "reason").cast(SKIPPED)
    body = numbered.filter(pl.col("reason").is_null()).drop("reason")
    if body.is_empty():
        raise IntakeError(sheet.source, "no row has a date", "map the column of the date")
    return body, skipped


def _invoices(cells: _Cells) -> pl.DataFrame:
    issued, due = cells.date("issued_on"), cells.date("due_on")
    if due.has_nulls():
        cells.notes.append(f"{due.null_count()} rows name no due date: it is taken to be the date of issue")
    amount = cells.amount("amount")
    kinds = cells.text(KIND)
    credit = pl.Series(folding(kinds.fill_null("").to_list())).is_in(list(CREDIT_NOTES))
    # A credit note may come with either sign.
    amount = amount.zip_with(~credit, "-" + amount.str.strip_prefix("-"))
    frame = pl.DataFrame(
        {
            **{name: cells.text(name) for name in ("invoice_id", "number", "counterparty_id", "counterparty_name")},
            **{name: cells.text(name) for name in ("counterparty_tax_id", "counterparty_account", "reference")},
            "direction": cells.choice("direction", DIRECTIONS["invoices"]),
            "issued_on": issued,
            "due_on": due.fill_null(issued) if due.null_count() < due.len() else issued,
            "amount": amount,
            "currency": cells.text("currency").str.to_uppercase(),
        }
    )
    return identified(frame)


def identified(invoices: pl.DataFrame) -> pl.DataFrame:
    """Invoices with ids where they came without.

    A counterparty's is its tax id, or made of its name. An invoice's is what tells it from all others: direction, year, the
    seller of a purchase, and the number; credit notes have numbers of their own.
    """
    names = invoices["counterparty_name"].unique().drop_nulls()
    made = dict(zip(names, digests(folding(names.to_list()), "name-"), strict=True))
    counterparty = pl.coalesce(
        "counterparty_id", "counterparty_tax_id", pl.col("counterparty_name").replace_strict(made, default=None)
    )
    credit = pl.when(pl.col("amount").str.starts_with("-")).then(pl.lit("credit"))
    seller = pl.when(pl.col("direction") == "purchase").then("counterparty_id")
    year = pl.col("issued_on").dt.year().cast(pl.String)
    own = pl.concat_str("direction", year, seller, credit, "number", separator=" ", ignore_nulls=True)
    number = pl.col("number").is_not_null()
    return invoices.with_columns(counterparty.alias("counterparty_id")).with_columns(
        pl.coalesce("invoice_id", pl.when(number).then(own)).alias("invoice_id")
    )


def _transfers(cells: _Cells) -> pl.DataFrame:
    signed = _signed(cells)
    out = signed.str.starts_with("-")
    told = cells.told("direction")
    if told and cells.mapping.constants.get("direction") != SIGNED:
        direction = cells.choice("direction", DIRECTIONS["transfers"])
    elif told or out.any() or cells.told(AMOUNT_IN):
        direction = pl.select(pl.when(out).then(pl.lit("out")).otherwise(pl.lit("in"))).to_series()
    else:
        problem = "no amount has a sign, and nothing tells incoming transfers from outgoing ones"
        raise UntoldError(cells.source, ("direction",), problem, "map a column, or give a constant, 'in' or 'out'")
    frame = pl.DataFrame(
        {
            "transfer_id": cells.text("transfer_id"),
            "booked_on": cells.date("booked_on"),
            "amount": signed.str.strip_prefix("-"),
            "currency": cells.text("currency").str.to_uppercase(),
            "direction": direction,
            "counterparty_name": cells.text("counterparty_name").fill_null(""),
            "counterparty_account": cells.text("counterparty_account").str.replace_all(r"\s", ""),
            "title": cells.text("title").fill_null(""),
        }
    )
    return _with_ids(frame)


def _signed(cells: _Cells) -> pl.Series:
    """Amounts in one column as they are; of two columns, what went out is negative."""
    if not (cells.told(AMOUNT_IN) or cells.told(AMOUNT_OUT)):
        return cells.amount("amount")
    came, went = cells.amount(AMOUNT_IN), cells.amount(AMOUNT_OUT).str.strip_prefix("-")
    # Some exports write a zero where nothing went.
    went = went.set(went.str.contains(r"^0*(\.0*)?$").fill_null(False), None)
    return ("-" + went).fill_null(came)


def _with_ids(transfers: pl.DataFrame) -> pl.DataFrame:
    """Transfers with ids where they came without, made of all that is known of them, and of which of several equal ones it
    is: a day that is exported twice has the same ids in both files."""
    if not transfers["transfer_id"].has_nulls():
        return transfers
    known = [name for name in transfers.columns if name != "transfer_id"]
    parts = transfers.select(pl.col(known).cast(pl.String).fill_null(""))
    which = parts.select(pl.int_range(pl.len()).over(known)).to_series()
    whole = parts.select(pl.concat_str(known, separator="\x1f")).to_series() + "\x1f" + which.cast(pl.String)
    made = transfers["booked_on"].cast(pl.String) + "-" + pl.Series(digests(whole.to_list()), dtype=pl.String)
    return transfers.with_columns(pl.col("transfer_id").fill_null(made))


def digests(texts: list[str], prefix: str = "") -> list[str]:
    """The first 16 digits of each text's SHA-256; Polars' own hashes change with its versions."""
    return [prefix + hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]
