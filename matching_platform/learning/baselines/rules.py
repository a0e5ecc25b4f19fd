"""What accounting software does: number and amount, else account and amount, else the number for a part payment.

It is the least that a model must beat.
"""

from typing import Final

import polars as pl

from matching_platform.ledger.months import month_of, next_month
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import PROPOSALS
from matching_platform.matching.text import account_key, folded

_SHORTEST_NUMBER: Final = 4  # letters and digits; a shorter one stands in any title
_ROUNDING: Final = 5  # minor units, for each invoice: what an amount may be off and an invoice still counts as paid
_HISTORY: Final = 12  # months before the first one asked for, on which the rules' confidence is counted
_PRIOR_WEIGHT: Final = 20.0  # transfers that the prior below counts for
_PROMISED: Final = 0.995

# The rules in the order in which they are tried: the share of times each is taken to be right before any history is
# seen, and what it says for itself.
_RULES: Final = pl.DataFrame(
    [
        ("number and amount", 0.98, ["an open invoice's number is in the title", "its open amount is the transfer's"]),
        ("numbers and sum", 0.97, ["numbers of open invoices are in the title", "their sum is the transfer's amount"]),
        ("account and amount", 0.80, ["the account is the counterparty's", "an open amount of his is the transfer's"]),
        (
            "number alone",
            0.50,
            ["the number of just one open invoice is in the title", "what is open is another amount"],
        ),
        ("nothing", 0.30, ["no number with its amount and no account with an amount was found"]),
    ],
    schema={"rule": pl.String, "prior": pl.Float64, "evidence": pl.List(pl.String)},
    orient="row",
).with_row_index("rank")
_NOTHING: Final = _RULES.height - 1
# What of a transfer and of an open invoice a pair of them carries.
_TRANSFER: Final = ("transfer_id", "booked_on", "direction", "currency")
_INVOICE: Final = ("invoice_id", "issued_on", "pays", "invoice_currency", "open_amount")
_DIRECTIONS: Final = {"sale": "in", "purchase": "out"}
_CLAIMS: Final = pl.Schema({"transfer_id": pl.String, "invoice_id": pl.String, "amount": pl.Int64, "rank": pl.UInt32})


def match(ledger: Ledger, months: list[str] | None = None) -> pl.DataFrame:
    """Proposals (schema PROPOSALS, minor units) of the rules for the transfers of `months`, all where not given.

    Each month knows the matches of transfers booked before it, and what the rules settled themselves where there is no
    match. Among invoices that fit equally the oldest is taken; among transfers that want one invoice the earliest.
    An amount may be off by five minor units an invoice. Confidence is the share of times that the rule was right in the
    months walked so far, from a year before the first, with a prior that counts for twenty transfers.
    """
    booked = ledger.months()
    months = booked if months is None else [month for month in booked if month in months]
    if not months:
        return pl.DataFrame(schema=PROPOSALS)
    walked = [month for month in booked if next_month(months[0], -_HISTORY) <= month < months[0]] + months
    transfers = ledger.transfers.with_columns(month=month_of("booked_on"))
    tags = ledger.matches.join(transfers.select("transfer_id", "month"), on="transfer_id")
    own, record = pl.DataFrame(schema=_CLAIMS), _RULES.select("rank", right=pl.lit(0.0), tried=pl.lit(0.0))
    proposals = []
    for month in walked:
        known = tags.filter(pl.col("month") < month)
        untagged = own.join(known, on="transfer_id", how="anti")
        settled = pl.concat([known.select("invoice_id", "amount"), untagged.select("invoice_id", "amount")])
        batch = transfers.filter(pl.col("month") == month)
        claims = _settle(batch, _open(ledger.invoices, settled, batch), _learned_accounts(ledger, known))
        if month in months:
            proposals.append(_proposed(batch, claims, record))
        own = pl.concat([own, claims])
        record = _counted(record, claims, tags.filter(pl.col("month") == month))
    return pl.concat(proposals)


def _open(invoices: pl.DataFrame, settled: pl.DataFrame, batch: pl.DataFrame) -> pl.DataFrame:
    """Invoices issued by the end of the batch and not settled yet, with `open_amount`."""
    paid = settled.drop_nulls("invoice_id").group_by("invoice_id").agg(paid=pl.col("amount").sum())
    issued = invoices.filter(pl.col("issued_on") <= batch["booked_on"].max())
    balances = issued.join(paid, on="invoice_id", how="left").with_columns(
        open_amount=pl.col("amount") - pl.col("paid").fill_null(0),
        pays=pl.col("direction").replace_strict(_DIRECTIONS, return_dtype=pl.String),
        invoice_currency="currency",
    )
    same_side = pl.col("open_amount").sign() == pl.col("amount").sign()
    return balances.filter(same_side & (pl.col("open_amount").abs() > _ROUNDING))


def _learned_accounts(ledger: Ledger, known: pl.DataFrame) -> pl.DataFrame:
    """account, counterparty_id: from the transfers of known matches."""
    whose = known.join(ledger.invoices, on="invoice_id").join(ledger.transfers, on="transfer_id", suffix="_transfer")
    return whose.select("counterparty_id", account=account_key(pl.col("counterparty_account_transfer")))


def _settle(batch: pl.DataFrame, invoices: pl.DataFrame, learned: pl.DataFrame) -> pl.DataFrame:
    """What each transfer settles, in rounds: the earliest that wants an invoice has it, the others look again."""
    order = batch.sort("booked_on", "transfer_id").select("transfer_id", "amount").with_row_index("turn")
    pairs = pl.concat([_mentions(batch, invoices), _same_account(batch, invoices, learned)])
    pairs = pairs.join(order, on="transfer_id").sort("turn", "issued_on", "invoice_id")
    settled = [pl.DataFrame(schema=_CLAIMS)]
    while (wanted := _wanted(pairs)).height:
        earliest = wanted.with_columns(first=pl.col("turn") == pl.col("turn").min().over("invoice_id"))
        won = earliest.filter(pl.col("first").all().over("transfer_id")).select(list(_CLAIMS))
        settled.append(won)
        paid = won.group_by("invoice_id").agg(paid=pl.col("amount").sum())
        left = pairs.join(won, on="transfer_id", how="anti").join(paid, on="invoice_id", how="left")
        left = left.with_columns(open_amount=pl.col("open_amount") - pl.col("paid").fill_null(0)).drop("paid")
        pairs = left.filter(pl.col("open_amount").abs() > _ROUNDING)
    return pl.concat(settled)


def _wanted(pairs: pl.DataFrame) -> pl.DataFrame:
    """Each transfer's claim by the first rule that finds something; `pairs` come oldest invoice first."""
    mentioned, at_account = pairs.filter("mentioned"), pairs.filter(~pl.col("mentioned"))
    named = pl.len().over("transfer_id")
    short = (pl.col("amount") - pl.col("open_amount")).abs()
    short_together = (pl.col("amount") - pl.col("open_amount").sum().over("transfer_id")).abs()
    by_rule = [
        _first(mentioned.filter(short <= _ROUNDING)),
        mentioned.filter((named > 1) & (short_together <= _ROUNDING * named)),
        _first(at_account.filter(short == 0)),
        mentioned.filter((named == 1) & (pl.col("open_amount") > 0)),
    ]
    claims = pl.concat(claim.with_columns(rank=pl.lit(rank, pl.UInt32)) for rank, claim in enumerate(by_rule))
    return claims.filter(pl.col("rank") == pl.col("rank").min().over("transfer_id")).with_columns(
        amount=pl.min_horizontal("open_amount", "amount")
    )


def _first(pairs: pl.DataFrame) -> pl.DataFrame:
    return pairs.unique("transfer_id", keep="first", maintain_order=True)


def _mentions(batch: pl.DataFrame, invoices: pl.DataFrame) -> pl.DataFrame:
    """Pairs whose invoice's number or reference stands in the title, separators ignored."""
    keys = pl.concat(
        [invoices.select(*_INVOICE, key=_squeezed(pl.col(name).fill_null(""))) for name in ("number", "reference")]
    ).filter(pl.col("key").str.len_chars() >= _SHORTEST_NUMBER)
    held = _squeezed(pl.col("title")).str.extract_many(pl.lit(keys["key"].unique()).implode(), overlapping=True)
    titles = batch.select(*_TRANSFER, key=held).explode("key").unique()
    return _fitting(titles.join(keys, on="key")).with_columns(mentioned=pl.lit(value=True))


def _same_account(batch: pl.DataFrame, invoices: pl.DataFrame, learned: pl.DataFrame) -> pl.DataFrame:
    """Pairs with the transfer's whole amount open at the counterparty whose account it is."""
    stated = invoices.select("counterparty_id", account=account_key(pl.col("counterparty_account")))
    whose = pl.concat([stated, learned]).drop_nulls().unique()
    payers = batch.select(*_TRANSFER, open_amount="amount", account=account_key(pl.col("counterparty_account")))
    owed = payers.join(whose, on="account").join(
        invoices.select(*_INVOICE, "counterparty_id"), on=["counterparty_id", "open_amount"]
    )
    return _fitting(owed).with_columns(mentioned=pl.lit(value=False))


def _fitting(pairs: pl.DataFrame) -> pl.DataFrame:
    fits = (
        (pl.col("direction") == pl.col("pays"))
        & (pl.col("currency") == pl.col("invoice_currency"))
        & (pl.col("issued_on") <= pl.col("booked_on"))
    )
    return pairs.filter(fits).select("transfer_id", "invoice_id", "issued_on", "open_amount").unique()


def _squeezed(text: pl.Expr) -> pl.Expr:
    return folded(text).str.replace_all(r"[^\p{L}\p{N}]", "")


def _proposed(batch: pl.DataFrame, claims: pl.DataFrame, record: pl.DataFrame) -> pl.DataFrame:
    """Proposals for the whole batch, in its order; what nothing was claimed for settles nothing."""
    right = (pl.col("right") + _PRIOR_WEIGHT * pl.col("prior")) / (pl.col("tried") + _PRIOR_WEIGHT)
    rules = _RULES.join(record, on="rank").with_columns(confidence=right)
    decision = (
        pl.when(pl.col("invoice_id").is_null())
        .then(pl.lit("none"))
        .when(pl.col("confidence") >= _PROMISED)
        .then(pl.lit("auto"))
        .otherwise(pl.lit("review"))
    )
    answers = batch.select("transfer_id").join(claims, on="transfer_id", how="left", maintain_order="left")
    ranked = answers.with_columns(pl.col("rank").fill_null(_NOTHING)).join(rules, on="rank", maintain_order="left")
    return ranked.with_columns(decision=decision).select(list(PROPOSALS))


def _counted(record: pl.DataFrame, claims: pl.DataFrame, tags: pl.DataFrame) -> pl.DataFrame:
    """`record` with the batch's tagged transfers added: how often each rule was tried, how often its set was right."""

    def sets(frame: pl.DataFrame, name: str) -> pl.DataFrame:
        return frame.group_by("transfer_id").agg(pl.col("invoice_id").drop_nulls().unique().sort().alias(name))

    ranks = claims.select("transfer_id", "rank").unique()
    judged = (
        sets(tags, "true")
        .join(sets(claims, "claimed"), on="transfer_id", how="left")
        .join(ranks, on="transfer_id", how="left")
        .with_columns(pl.col("claimed").fill_null([]), pl.col("rank").fill_null(_NOTHING))
    )
    counts = judged.group_by("rank").agg(
        right=(pl.col("true") == pl.col("claimed")).sum().cast(pl.Float64), tried=pl.len().cast(pl.Float64)
    )
    return pl.concat([record, counts]).group_by("rank").agg(pl.col("right", "tried").sum()).sort("rank")
