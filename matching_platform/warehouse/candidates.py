"""The rules of matching as one expression: keys meet in the warehouse, and only pairs travel.

`matching.candidates.find` reads the same rules as a join of arrays; both find the same pairs.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from matching_platform.matching.arrays import Ints
from matching_platform.matching.balances import open_amounts
from matching_platform.matching.candidates import FAR, Keys, Pairs, Question
from matching_platform.matching.rules import DAYS_BEFORE_ISSUE, RULES, SLOTS

if TYPE_CHECKING:
    import ibis.expr.types as ir

# Numbers in place of names: a key space is compared for each of millions of keys.
_SPACES: Final = {
    name: number
    for number, name in enumerate(sorted({name for rule in RULES for name in (rule.transfer_key, rule.invoice_key)}))
}
TABLES: Final = ("rules", "transfer_keys", "transfers", "invoice_keys", "invoices")
_RULES_TABLE: Final = pa.table(
    {
        "rule": list(range(len(RULES))),
        "transfer_space": [_SPACES[rule.transfer_key] for rule in RULES],
        "invoice_space": [_SPACES[rule.invoice_key] for rule in RULES],
        "at_most": [rule.limit for rule in RULES],
        "worth": [rule.worth for rule in RULES],
        "closed_too": [rule.closed_too for rule in RULES],
        "same_currency": [rule.same_currency for rule in RULES],
    }
)


def tables(question: Question) -> dict[str, pa.Table]:
    """What a warehouse needs to know to answer, by TABLES; `invoices` has a row for each span of moments in which an invoice
    has the same balance."""
    t, i = question.transfers, question.invoices
    asked = t.asked
    moments = t.moment[asked]
    invoice, after, until, settled = i.settlements.spans(
        len(i.amount), int(moments.min(initial=0)), int(moments.max(initial=0))
    )
    transfers = {
        name: getattr(t, name)[asked]
        for name in ("booked", "amount", "currency", "incoming", "moment", "collects", "age", "dated")
    }
    return {
        "rules": _RULES_TABLE,
        "transfer_keys": _keys(t.keys, "transfer"),
        "transfers": pa.table(
            {
                "transfer": asked,
                **transfers,
                "dates_from": t.dates_from[asked],
                "dates_to": t.dates_to[asked],
            }
        ),
        "invoice_keys": _keys(i.keys, "invoice").drop_columns("weight"),
        "invoices": pa.table(
            {
                "invoice": invoice,
                "after": after,
                "until": until,
                "open": open_amounts(i.amount[invoice], settled),
                "issued": i.issued[invoice],
                "due": i.due[invoice],
                "invoice_currency": i.currency[invoice],
                "sale": i.sale[invoice],
            }
        ),
    }


def pairs(
    rules: "ir.Table", transfer_keys: "ir.Table", transfers: "ir.Table", invoice_keys: "ir.Table", invoices: "ir.Table"
) -> "ir.Table":
    """transfer, invoice, rule, weight: what each rule finds within its limit, at most SLOTS invoices for a transfer."""
    import ibis

    met = (
        transfer_keys.join(rules, "transfer_space")
        .join(invoice_keys, ["invoice_space", "key"])
        .group_by("rule", "transfer", "invoice")
        .agg(weight=ibis._.weight.max())
    )
    known = met.join(rules, "rule").join(transfers, "transfer")
    known = known.join(invoices, ["invoice", known.moment > invoices.after, known.moment <= invoices.until])
    allowed = known.filter(
        # As a sum: by an equality, a planner may join all transfers to all invoices first.
        known.incoming.cast("int64") + known.sale.cast("int64") != 1,
        known.issued <= known.booked + DAYS_BEFORE_ISSUE,
        known.closed_too | (known.open != 0),
        ~known.same_currency | (known.currency == known.invoice_currency),
    )
    late = ibis.ifelse(
        allowed.collects,
        (allowed.booked - allowed.issued - allowed.age).abs(),
        (allowed.booked - allowed.due).abs().cast("float64"),
    )
    off = allowed.collects & allowed.dated & ~allowed.issued.between(allowed.dates_from, allowed.dates_to)
    late = late + ibis.ifelse(off, FAR, 0.0)
    liked = allowed.mutate(
        strength=allowed.weight.abs(), preference=ibis.ifelse(allowed.open == allowed.amount, late - 2 * FAR, late)
    )
    place = ibis.row_number().over(
        group_by=["rule", "transfer"], order_by=[ibis.desc("strength"), "preference", "invoice"]
    )
    found = liked.mutate(place=place).filter(ibis._.place < ibis._.at_most)
    listed = found.group_by("transfer", "invoice").agg(worth=found.worth.sum(), preference=found.preference.min())
    slot = ibis.row_number().over(group_by="transfer", order_by=[ibis.desc("worth"), "preference", "invoice"])
    kept = listed.mutate(slot=slot).filter(ibis._.slot < SLOTS)
    return found.semi_join(kept, ["transfer", "invoice"]).select("transfer", "invoice", "rule", "weight")


def collected(batches: Iterable[pa.RecordBatch], question: Question) -> Pairs:
    """The pairs that arrive as batches with the columns of `pairs`, in any order."""
    columns: dict[str, list[Ints]] = {
        name: [np.zeros(0, np.int64)] for name in ("transfer", "invoice", "rule", "weight")
    }
    for batch in batches:
        for name, parts in columns.items():
            parts.append(batch.column(name).to_numpy(zero_copy_only=False))
    transfer, invoice, rule, weight = (np.concatenate(parts) for parts in columns.values())
    return Pairs.of(transfer * question.size + invoice, rule, weight.astype(np.float32), question.size)


def _keys(spaces: dict[str, Keys], row: str) -> pa.Table:
    """A row for each key that some rule asks for, in order: the same keys make the same table."""
    used = {name: keys for name, keys in spaces.items() if name in _SPACES}
    joined = Keys.joined(list(used.values()))
    space = np.repeat([_SPACES[name] for name in used], [len(keys.row) for keys in used.values()])
    weight = joined.weight.astype(np.int64)
    order = np.lexsort((weight, joined.key, joined.row, space))
    columns = {row: joined.row, f"{row}_space": space, "key": joined.key, "weight": weight}
    return pa.table({name: values[order] for name, values in columns.items()})
