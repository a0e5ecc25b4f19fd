"""The rows of a sheet, read by its mapping into a table of the contract."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, get_args

import polars as pl

from matching_platform.intake.incoming import SKIPPED, Incoming, IntakeError, incoming
from matching_platform.intake.mapping import ColumnMapping
from matching_platform.intake.sheets import ROW, Sheet, folding
from matching_platform.intake.synonyms import (
    AMOUNT_IN,
    AMOUNT_OUT,
    CORRECTIONS,
    CREDIT_NOTES,
    DIRECTIONS,
    KIND,
    OWN_ACCOUNT,
    PRO_FORMA,
    SIGNED,
)
from matching_platform.intake.values import Decimal, Order, UnreadableError, amounts, currencies, dates
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
_ZERO: Final = r"^-?0*(\.0*)?$"
# Digits of which a workbook keeps the first 15 where they are a number, and from which on what it wrote can be told.
_LONG: Final = r"^\d{18,}$"
_KEPT: Final = 15
_PUNCTUATION: Final = r"[^A-Z0-9]"
# Polish tax ids are written with and without the country.
_COUNTRY: Final = r"^PL(\d{10})$"


class UntoldError(IntakeError):
    """Nothing tells some columns of the contract: `columns`, each of which a header or a constant must be given for."""

    def __init__(self, source: str, columns: tuple[str, ...], problem: str, advice: str) -> None:
        super().__init__(source, problem, advice)
        self.columns = columns


def read_rows(sheet: Sheet, mapping: ColumnMapping) -> Incoming:
    """The rows of `sheet`; UntoldError where the mapping lacks columns, IntakeError where a cell cannot be read."""
    _check(sheet, mapping)
    body, skipped = _parted(sheet, mapping)
    cells = _Cells(sheet, body, mapping)
    made, reasons = {"invoices": _invoices, "transfers": _transfers}[mapping.table](cells)
    stays = reasons.is_null()
    if not stays.any():
        raise IntakeError(sheet.source, f"no row can be taken: {reasons[0]}", "export it again with other rows")
    places = body.filter(stays).select(pl.format("row {}", ROW)).to_series()
    skipped = pl.concat([skipped, _left_out(sheet, body.with_columns(reason=reasons))])
    notes = (*sheet.notes, *cells.notes)
    return incoming(sheet.source, sheet.format, mapping.table, made.filter(stays), notes, skipped, places)


class _Cells:
    """The cells of a sheet by the contract's columns, and what is to be noted of them."""

    def __init__(self, sheet: Sheet, body: pl.DataFrame, mapping: ColumnMapping) -> None:
        self.sheet, self.body, self.mapping = sheet, body, mapping
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
        texts = self.body.select(pl.when(joined != "").then(joined).alias(target)).to_series()
        if self.sheet.format == "Excel":
            self._check_digits(target, texts)
        return texts

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

    def currency(self, *targets: str) -> pl.Series:
        """Each row's currency: what its column says, or what stands beside its amount, else the constant."""
        said = self.text("currency").str.to_uppercase()
        beside = [self._read(target, currencies) for target in targets]
        own = pl.select(pl.coalesce(one.set(one.str.contains(" "), None) for one in beside)).to_series()
        column = "currency" in self.mapping.columns
        told = said.fill_null(own) if column else own.fill_null(said)
        for target, codes in zip(targets, beside, strict=True):
            both = pl.DataFrame({"codes": codes, "told": told})
            against = ~both.select(pl.col("codes").str.contains(pl.col("told"), literal=True)).to_series()
            at = first(against)
            if at is not None:
                problem = f"'{self.text(target)[at]}' is not in {told[at]}, which is said to be the currency of the row"
                headers = (target, "currency") if column else (target,)
                raise self.error(at, headers, problem, "correct one of them, or say in which currency it is")
        return told.alias("currency")

    def error(self, at: int | None, targets: tuple[str, ...], problem: str, advice: str) -> IntakeError:
        """What is wrong in the row `at` (from 0) in the columns for `targets`."""
        where = None if at is None else f"row {self.body[ROW][at]}"
        named = " and ".join(header for target in targets for header in self.mapping.columns.get(target, (target,)))
        return IntakeError(self.sheet.source, problem, advice, where=where, field=named)

    def _read(self, target: str, read: Callable[[pl.Series], pl.Series]) -> pl.Series:
        try:
            return read(self.text(target)).alias(target)
        except UnreadableError as error:
            raise self.error(error.at, (target,), error.problem, error.advice) from error

    def _check_digits(self, target: str, texts: pl.Series) -> None:
        """IntakeError where an account or another number was kept as a number, of which digits were lost."""
        long = texts.str.contains(_LONG).fill_null(False)
        lost = {text for text in texts.filter(long).unique() if _has_lost_digits(text)}
        at = first(texts.is_in(list(lost)))
        if at is not None:
            problem = f"'{texts[at]}' was kept as a number, and has lost all but the first {_KEPT} of its digits"
            raise self.error(at, (target,), problem, "format the column as text, and enter it again")


def first(bad: pl.Series) -> int | None:
    """The first row (from 0) in which `bad` holds."""
    found = bad.arg_true()
    return int(found[0]) if found.len() else None


def _has_lost_digits(text: str) -> bool:
    """Whether an integer is a floating-point number that was written with 15 digits."""
    return int(float(text)) == int(text) and float(f"{float(text):.{_KEPT}g}") == float(text)


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
    known = {column.name for column in TABLES[mapping.table].columns} | {KIND, AMOUNT_IN, AMOUNT_OUT, OWN_ACCOUNT}
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
    if _tells_currencies(sheet, mapping):
        told.add("currency")
    missing = tuple(choices[0] for choices in NEEDED[mapping.table] if not told & set(choices))
    if missing:
        raise UntoldError(
            sheet.source,
            missing,
            f"nothing tells {', '.join(missing)} of these {mapping.table}",
            f"map a column, or give a constant; the columns are {', '.join(sheet.headers)}",
        )


def _tells_currencies(sheet: Sheet, mapping: ColumnMapping) -> bool:
    """Whether a currency stands beside every amount."""
    headers = [header for target in _AMOUNTS for header in mapping.columns.get(target, ())]
    rows = sheet.frame.filter(_is_dated(mapping))
    cells = pl.concat([pl.Series(dtype=pl.String), *(rows[header].alias("") for header in headers)])
    told = cells.filter(cells.str.contains(r"\d").fill_null(False))
    try:
        return not told.is_empty() and bool((currencies(told).str.len_chars() == 3).fill_null(False).all())
    except UnreadableError:
        return True


def _parted(sheet: Sheet, mapping: ColumnMapping) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows with a date or an amount, and the others: totals, and lines that people write below a table."""
    told = {target: headers for target, headers in mapping.columns.items() if headers}
    paid = [header for target in _AMOUNTS for header in told.get(target, ())]
    both = _is_dated(mapping)
    has_amount = pl.any_horizontal(pl.col(paid).is_not_null()) if paid else pl.lit(True)
    lacking = (
        pl.when(~both & ~has_amount).then(pl.lit("has neither date nor amount")).when(~both).then(pl.lit("has no date"))
    )
    numbered = sheet.frame.with_columns(lacking.alias("reason"))
    body = numbered.filter(pl.col("reason").is_null()).drop("reason")
    if body.is_empty():
        raise IntakeError(sheet.source, "no row has a date", "map the column of the date")
    return body, _left_out(sheet, numbered)


def _is_dated(mapping: ColumnMapping) -> pl.Expr:
    """Whether something stands where the date should that may be one: totals have a word there."""
    headers = mapping.columns.get(_DATED[mapping.table], ())
    return pl.any_horizontal(pl.col(list(headers)).str.contains(r"\d").fill_null(False)) if headers else pl.lit(True)


def _left_out(sheet: Sheet, rows: pl.DataFrame) -> pl.DataFrame:
    """Those of the rows that have a reason (schema SKIPPED)."""
    text = pl.concat_str(list(sheet.headers), separator=" ", ignore_nulls=True).str.slice(0, _SHOWN)
    left = rows.filter(pl.col("reason").is_not_null())
    return left.select(pl.format("row {}", ROW).alias("where"), text.alias("text"), "reason").cast(SKIPPED)


def _invoices(cells: _Cells) -> tuple[pl.DataFrame, pl.Series]:
    """The invoices, and why some are left out."""
    issued, due = cells.date("issued_on"), cells.date("due_on")
    if due.has_nulls():
        cells.notes.append(f"{due.null_count()} rows name no due date: it is taken to be the date of issue")
    kinds = pl.Series(folding(cells.text(KIND).fill_null("").to_list()), dtype=pl.String)
    frame = pl.DataFrame(
        {
            **{name: cells.text(name) for name in ("invoice_id", "number", "counterparty_id", "counterparty_name")},
            **{name: cells.text(name) for name in ("counterparty_tax_id", "counterparty_account", "reference")},
            "direction": cells.choice("direction", DIRECTIONS["invoices"]),
            "issued_on": issued,
            "due_on": due.fill_null(issued) if due.null_count() < due.len() else issued,
            "amount": _invoiced(cells, kinds),
            "currency": cells.currency("amount"),
        }
    )
    reasons = pl.Series([None], dtype=pl.String).new_from_index(0, frame.height)
    reason = "it is a pro-forma invoice, which claims nothing"
    return identified(frame), reasons.set(kinds.str.contains(PRO_FORMA), reason)


def _invoiced(cells: _Cells, kinds: pl.Series) -> pl.Series:
    """The amounts of invoices. A credit note takes away, whatever its sign; a correction does unless signs tell more: where
    the column has both, one without a minus adds to what is to be paid."""
    amount = cells.amount("amount")
    credit, correction = kinds.is_in(list(CREDIT_NOTES)), kinds.is_in(list(CORRECTIONS))
    if amount.str.starts_with("-").any():
        raising = int((correction & ~amount.str.starts_with("-")).sum())
        if raising:
            note = f"{raising} of the corrections add to what is to be paid: they have no minus, as others have"
            cells.notes.append(note)
    else:
        credit = credit | correction
    return amount.zip_with(~credit, "-" + amount.str.strip_prefix("-"))


def identified(invoices: pl.DataFrame) -> pl.DataFrame:
    """Invoices with ids where they came without.

    A counterparty's is its tax id without punctuation, or made of its name. An invoice's is what tells it from all others:
    direction, year, the seller of a purchase, and the number; credit notes have numbers of their own.
    """
    names = invoices["counterparty_name"].unique().drop_nulls()
    made = dict(zip(names, digests(folding(names.to_list()), "name-"), strict=True))
    counterparty = pl.coalesce(
        "counterparty_id",
        plain_tax_id("counterparty_tax_id"),
        pl.col("counterparty_name").replace_strict(made, default=None),
    )
    credit = pl.when(pl.col("amount").str.starts_with("-")).then(pl.lit("credit"))
    seller = pl.when(pl.col("direction") == "purchase").then("counterparty_id")
    year = pl.col("issued_on").dt.year().cast(pl.String)
    own = pl.concat_str("direction", year, seller, credit, "number", separator=" ", ignore_nulls=True)
    number = pl.col("number").is_not_null()
    return invoices.with_columns(counterparty.alias("counterparty_id")).with_columns(
        pl.coalesce("invoice_id", pl.when(number).then(own)).alias("invoice_id")
    )


def plain_tax_id(column: str) -> pl.Expr:
    """A tax id in the one way of writing it by which parties are known: PL 526-000-12-46 is 5260001246. Null where it has
    no letter and no digit."""
    bare = pl.col(column).str.to_uppercase().str.replace_all(_PUNCTUATION, "").str.replace(_COUNTRY, "${1}")
    return pl.when(bare != "").then(bare)


def without_country(tax_id: str) -> str:
    """The same of a text in capitals without punctuation."""
    return re.sub(_COUNTRY, r"\1", tax_id)


def _transfers(cells: _Cells) -> tuple[pl.DataFrame, pl.Series]:
    """The transfers, and why some rows are none."""
    paid = (AMOUNT_IN, AMOUNT_OUT) if cells.told(AMOUNT_IN) or cells.told(AMOUNT_OUT) else ("amount",)
    signed = cells.amount("amount") if paid == ("amount",) else _signed(cells)
    direction = _directions(cells, signed, paid)
    frame = pl.DataFrame(
        {
            "transfer_id": cells.text("transfer_id"),
            "booked_on": cells.date("booked_on"),
            "amount": signed.str.strip_prefix("-"),
            "currency": cells.currency(*paid),
            "direction": direction,
            "counterparty_name": cells.text("counterparty_name").fill_null(""),
            "counterparty_account": cells.text("counterparty_account").str.replace_all(r"\s", ""),
            "title": cells.text("title").fill_null(""),
        }
    )
    reasons = pl.Series([None], dtype=pl.String).new_from_index(0, frame.height)
    reason = "its amount is zero"
    reasons = reasons.set(signed.str.contains(_ZERO).fill_null(False), reason)
    return _with_ids(frame, cells.text(OWN_ACCOUNT) if cells.told(OWN_ACCOUNT) else None), reasons


def _directions(cells: _Cells, signed: pl.Series, paid: tuple[str, ...]) -> pl.Series:
    """What a column or a constant says, with no sign against it, else the sign."""
    out = signed.str.starts_with("-").fill_null(False)
    constant = cells.mapping.constants.get("direction")
    if constant != SIGNED and cells.told("direction"):
        direction = cells.choice("direction", DIRECTIONS["transfers"])
        _check_signs(cells, out, direction, paid, constant)
        return direction
    if constant or out.any() or cells.told(AMOUNT_IN):
        return pl.select(pl.when(out).then(pl.lit("out")).otherwise(pl.lit("in"))).to_series()
    problem = "no amount has a sign, and nothing tells incoming transfers from outgoing ones"
    raise UntoldError(cells.sheet.source, ("direction",), problem, "map a column, or give a constant, 'in' or 'out'")


def _check_signs(
    cells: _Cells, out: pl.Series, direction: pl.Series, paid: tuple[str, ...], constant: str | None
) -> None:
    """IntakeError at the first minus that a constant would swallow, or that says otherwise than the mark beside it. Where
    all that went out, and nothing else, has one, it says the same as the mark."""
    if constant:
        at = first(out)
        problem = f"the amount is negative, and '{constant}' is said to be the direction of all rows"
        advice = "give the direction 'signed': negative amounts go out then"
    else:
        went = direction == "out"
        at = first(out & ~went) if not (went & ~out).any() else first(out)
        problem = "the amount is negative, against the mark of its direction or in another way than the other rows"
        advice = "write it without a sign, and the direction in which the money went"
    if at is not None:
        raise cells.error(at, paid, problem, advice)


def _signed(cells: _Cells) -> pl.Series:
    """Amounts that stand in two columns as one: what went out is negative."""
    came, went = cells.amount(AMOUNT_IN), cells.amount(AMOUNT_OUT)
    # Some exports write a zero where nothing went.
    filled_in, filled_out = (~one.str.contains(_ZERO).fill_null(True) for one in (came, went))
    at = first(filled_in & filled_out)
    if at is not None:
        problem = f"{came[at]} came in and {went[at]} went out in one row"
        raise cells.error(at, (AMOUNT_IN, AMOUNT_OUT), problem, "give each a row of its own")
    minus = went.str.starts_with("-").fill_null(False) & filled_out
    if minus.any() and (filled_out & ~minus).any():
        problem = "some of these amounts are negative, and others are not"
        raise cells.error(first(minus), (AMOUNT_OUT,), problem, "write what came back as an amount that came in")
    return ("-" + went.str.strip_prefix("-")).zip_with(filled_out, came.fill_null(went.str.strip_prefix("-")))


def _with_ids(transfers: pl.DataFrame, own_account: pl.Series | None) -> pl.DataFrame:
    """Transfers with ids where they came without, made of all that is known of them, and of which of several equal ones it
    is: a day that is exported twice has the same ids in both files."""
    if not transfers["transfer_id"].has_nulls():
        return transfers
    parts = transfers.drop("transfer_id").select(pl.all().cast(pl.String).fill_null(""))
    if own_account is not None:
        own = own_account.str.to_uppercase().str.replace_all(_PUNCTUATION, "").fill_null("")
        parts = parts.with_columns(own.alias(OWN_ACCOUNT))
    known = parts.columns
    which = parts.select(pl.int_range(pl.len()).over(known)).to_series()
    whole = parts.select(pl.concat_str(known, separator="\x1f")).to_series() + "\x1f" + which.cast(pl.String)
    made = transfers["booked_on"].cast(pl.String) + "-" + pl.Series(digests(whole.to_list()), dtype=pl.String)
    return transfers.with_columns(pl.col("transfer_id").fill_null(made))


def digests(texts: list[str], prefix: str = "") -> list[str]:
    """The first 16 digits of each text's SHA-256; Polars' own hashes change with its versions."""
    return [prefix + hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]
