"""Remittance texts: how payers write invoice numbers, what they write around them, and what the bank leaves of it."""

from collections.abc import Mapping
from string import Formatter
from typing import Final

import numpy as np
import polars as pl

from matching_platform.sample.draws import chance, choose, digits, weighted, words_for
from matching_platform.sample.words import COUNTRIES

TYPO_SHARE: Final = 0.03
# How often a payer names what he pays, by his `naming` habit.
NAMED: Final = {"named": 0.94, "seldom": 0.25}
# How often a payer keeps to his own form of a number.
OWN_FORM: Final = 0.85

_NOT_WORD: Final = r"[^\p{L}\p{N}]+"
_DATE_CODES: Final = {"yyyy": "%Y", "yy": "%y", "mm": "%m"}
_FOLDED: Final = {"ł": "l", "Ł": "L", "ß": "ss", "ø": "o", "Ø": "O"}

# A way of writing is what becomes of `number` and of its running part.
_WRITINGS: Final[Mapping[str, pl.Expr]] = {
    "printed": pl.col("number"),
    "squeezed": pl.col("number").str.replace_all(_NOT_WORD, ""),
    "dashed": pl.col("number").str.replace_all(_NOT_WORD, "-"),
    "dotted": pl.col("number").str.replace_all(_NOT_WORD, "."),
    "short": pl.when(pl.col("place") == 0).then("number").otherwise("running"),
    "bare": pl.col("running"),
    "stripped": pl.col("running").str.strip_chars_start("0"),
}


def number_invoices(invoices: pl.DataFrame) -> pl.DataFrame:
    """`invoices` with `number` and `running`, the running part of it as printed.

    Wants `issuer`, `form`, `prefix`, `jump` (how many numbers the issuer has used since) and `issued_on`, in the order
    of issue. A running number starts again with the period that the form names.
    """
    monthly = pl.col("form").str.contains("{mm}", literal=True)
    yearly = pl.col("form").str.contains("{yy", literal=True)
    month, year = (pl.col("issued_on").dt.strftime(code) for code in ("%Y%m", "%Y"))
    period = pl.when(monthly).then(month).when(yearly).then(year).otherwise(pl.lit(""))
    counted = invoices.with_columns(count=pl.col("jump").cum_sum().over("issuer", "form", period))
    forms = sorted(counted["form"].unique())
    return (
        counted.with_columns(running=choose("form", {form: _running(form) for form in forms}))
        .with_columns(number=pl.col("prefix") + choose("form", {form: _filled(form) for form in forms}))
        .drop("count")
    )


def write_titles(rng: np.random.Generator, payments: pl.DataFrame, lines: pl.DataFrame) -> pl.Series:
    """The title of each payment, as the bank reports it.

    `lines`: a row a payment and invoice, by `key` in the order of `payments`, with `number` and `running`.
    `payments`: the payer's habits and name, `language`, `machine_reference` where the payer uses it, `part`, `amount`,
    and `unbroken` where it pays all of the partner's invoices between its first and its last.
    """
    count = len(payments)
    listed = _written(rng, payments, lines)
    spoken = {
        column: words_for(
            rng, payments["language"], {code: getattr(country, field) for code, country in COUNTRIES.items()}
        )
        for column, field in {"prefix": "invoice", "vague": "vague"}.items()
    }
    for column in ("part", "thanks"):
        table = {code: getattr(country, column) for code, country in COUNTRIES.items()}
        spoken[f"{column}_word"] = payments["language"].replace_strict(table)
    named = pl.col("naming").replace_strict(NAMED, return_dtype=pl.Float64) > pl.col("u")
    frame = payments.with_columns(**spoken).with_columns(
        listed=listed,
        u=rng.random(count),
        grouped=chance(rng, count, 0.3),
        tail=weighted(rng, count, {"": 0.8, "thanks": 0.08, "date": 0.07, "name": 0.05}),
        empty=weighted(rng, count, {"vague": 0.75, "month": 0.1, "name": 0.15}),
        tells_part=chance(rng, count, 0.6),
        digits=digits(rng, count, 10),
    )
    return (
        frame.with_columns(title=pl.when(named).then(_named()).otherwise(_unnamed()))
        .with_columns(title=_framed())
        .select(_cut(_cased()).alias("title"))
        .to_series()
    )


def fold(text: pl.Expr) -> pl.Expr:
    """`text` without diacritics, as many banks report it."""
    return text.str.replace_many(_FOLDED).str.normalize("NFKD").str.replace_all(r"\p{M}", "")


def rf_reference(number: pl.Expr) -> pl.Expr:
    """ISO 11649 creditor reference of a number of at most twelve digits, with valid check digits."""
    check = 98 - (number * 1_000_000 + 271_500) % 97
    return pl.concat_str(pl.lit("RF"), check.cast(pl.String).str.zfill(2), number.cast(pl.String))


def _filled(form: str) -> pl.Expr:
    pieces = []
    for literal, field, _, _ in Formatter().parse(form):
        pieces.append(pl.lit(literal))
        if field:
            pieces.append(pl.col("running") if field == "n" else pl.col("issued_on").dt.strftime(_DATE_CODES[field]))
    return pl.concat_str(pieces)


def _running(form: str) -> pl.Expr:
    width = next(spec for _, field, spec, _ in Formatter().parse(form) if field == "n")
    return pl.col("count").cast(pl.String).str.zfill(int(width or 1))


def _written(rng: np.random.Generator, payments: pl.DataFrame, lines: pl.DataFrame) -> pl.Series:
    """The numbers of each payment as its payer writes them: a list, or a range."""
    count = len(lines)
    drawn = lines.with_columns(
        place=pl.int_range(pl.len()).over("key"),
        writing=pl.when(chance(rng, count, OWN_FORM))
        .then("writing")
        .otherwise(weighted(rng, count, {"printed": 0.5, "squeezed": 0.3, "dashed": 0.2})),
    )
    text = drawn.select(choose("writing", _WRITINGS)).to_series()
    text = text.zip_with(pl.Series(rng.random(count) > TYPO_SHARE), _mistyped(rng, text))
    joiners = payments["language"].replace_strict({code: country.joiner for code, country in COUNTRIES.items()})
    lists = drawn.select("key", text=text).group_by("key", maintain_order=True).agg("text")
    spans = payments["language"].replace_strict({code: country.span for code, country in COUNTRIES.items()})
    return (
        payments.select("unbroken", "separator", joiner=joiners, span=spans, text=lists["text"])
        .select(
            pl.when(pl.col("unbroken") & (pl.col("separator") == "span"))
            .then(_between("span", pl.col("text").list.first(), pl.col("text").list.last()))
            .otherwise(
                pl.col("text").list.join(
                    pl.when(pl.col("separator") == "joiner")
                    .then("joiner")
                    .otherwise(pl.col("separator").replace("span", ", "))
                )
            )
        )
        .to_series()
    )


def _between(span: str, first: pl.Expr, last: pl.Expr) -> pl.Expr:
    words = pl.col(span).str.split("{}")
    return pl.concat_str(words.list.get(0), first, words.list.get(1), last, words.list.get(2))


def _mistyped(rng: np.random.Generator, text: pl.Series) -> pl.Series:
    """Each text with one slip: a digit replaced, dropped, doubled or swapped with its neighbour, or O for 0."""
    count = len(text)
    frame = pl.DataFrame(
        {
            "text": text,
            "slip": weighted(rng, count, {"replaced": 0.3, "dropped": 0.2, "doubled": 0.15, "swapped": 0.25, "O": 0.1}),
            "digit": pl.Series(rng.integers(10, size=count)).cast(pl.String),
            "at": rng.random(count),
        }
    ).with_columns(at=(pl.col("at") * pl.col("text").str.len_chars()).cast(pl.Int64))
    at, whole = pl.col("at"), pl.col("text")
    before, here, after = whole.str.slice(0, at), whole.str.slice(at, 1), whole.str.slice(at + 1)
    slips = {
        "replaced": before + pl.col("digit") + after,
        "dropped": before + after,
        "doubled": before + here + here + after,
        "swapped": before + after.str.slice(0, 1) + here + after.str.slice(1),
        "O": whole.str.replace("0", "O", literal=True),
    }
    return frame.select(choose("slip", slips)).to_series()


def _named() -> pl.Expr:
    machine = pl.col("machine_reference")
    machine = pl.when("grouped").then(machine.str.replace_all(r"(.{4})", "$1 ").str.strip_chars()).otherwise(machine)
    part = pl.when((pl.col("part") > 0) & pl.col("tells_part")).then(
        pl.concat_str(pl.lit(" "), "part_word", pl.lit(" "), pl.col("part"))
    )
    tails = {
        "thanks": " " + pl.col("thanks_word"),
        "date": " " + pl.col("first_issued_on").dt.strftime("%d.%m.%Y"),
        "name": " " + pl.col("counterparty_name"),
    }
    tail = choose("tail", tails).fill_null("")
    listed = pl.concat_str("prefix", pl.lit(" "), "listed", part.fill_null(""), tail)
    return pl.coalesce(machine, listed).str.strip_chars()


def _unnamed() -> pl.Expr:
    month = pl.col("first_issued_on").dt.strftime("%m/%Y")
    return choose("empty", {"name": pl.col("counterparty_name"), "month": month, "vague": pl.col("vague")})


def _framed() -> pl.Expr:
    """The title within the frame of its payment scheme: SEPA's structured text, Polish split payment, or none."""
    vat = pl.col("amount") * 23 // 123
    vat = pl.concat_str(vat // 100, pl.lit(","), (vat % 100).cast(pl.String).str.zfill(2))
    split = pl.concat_str(
        pl.lit("/VAT/"),
        vat,
        pl.lit("/IDC/"),
        "counterparty_tax_id",
        pl.lit("/INV/"),
        pl.col("title").str.slice(0, 35),
        pl.lit("/TXT/"),
    )
    sepa = pl.concat_str(pl.lit("EREF+"), "digits", pl.lit(" SVWZ+"), "title")
    is_split = (pl.col("style") == "split") & (pl.col("language") == "PL") & pl.col("counterparty_tax_id").is_not_null()
    is_sepa = (pl.col("style") == "sepa") & (pl.col("currency") == "EUR")
    return pl.when(is_split).then(split).when(is_sepa).then(sepa).otherwise("title")


def _cased() -> pl.Expr:
    title = pl.col("title")
    cases = {"upper": fold(title).str.to_uppercase(), "lower": title.str.to_lowercase(), "as is": title}
    return choose("case", cases)


def _cut(title: pl.Expr) -> pl.Expr:
    return title.str.slice(0, pl.col("cut").cast(pl.Int64)).str.strip_chars()
