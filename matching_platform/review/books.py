"""What the platform knows of transfers and invoices, as arrays that answer at once; made anew when any of it changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from matching_platform.ledger.money import to_decimal
from matching_platform.ledger.months import first_day, month_of, next_month
from matching_platform.ledger.schema import PROPOSALS, TABLES
from matching_platform.matching.arrays import Doubles, Flags, Ints
from matching_platform.matching.text import account_key, folded, name_key
from matching_platform.review.parts import Parts
from matching_platform.review.rates import main_currency, rates

# `advance`: whether the model had not learned from the month.
PROPOSED: Final = pl.Schema({**PROPOSALS, "model": pl.String(), "advance": pl.Boolean()})
DECISIONS: Final = ("auto", "review", "none")
AUTO: Final = DECISIONS.index("auto")
# As people write it.
_AMOUNT: Final = to_decimal("amount").cast(pl.String)

Texts = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Proposals:
    """What is proposed for each of T transfers, where `listed`: `decision` int8[T] into DECISIONS, `evidence` and `model`
    by transfer, and `key` uint64[T], equal for what is alike."""

    listed: Flags
    decision: npt.NDArray[np.int8]
    confidence: Doubles
    parts: Parts
    evidence: pl.Series
    model: pl.Series
    advance: Flags
    key: npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Books:
    """`transfers` in order of booking and `invoices`, of T and N rows, as in the contract, amounts in minor units.

    `tags` are those of finance, of the transfers that are `tagged`, with the day of the last one. `rates` are units of the
    `main` currency for one of another.
    """

    transfers: pl.DataFrame
    invoices: pl.DataFrame
    tags: Parts
    tagged: Flags
    tagged_on: Ints  # days since 1970
    proposals: Proposals
    main: str
    rates: Mapping[str, float]
    transfer_at: Mapping[str, int] = field(repr=False)
    invoice_at: Mapping[str, int] = field(repr=False)

    @classmethod
    def of(
        cls, transfers: pl.DataFrame, invoices: pl.DataFrame, matches: pl.DataFrame, proposed: pl.DataFrame
    ) -> "Books":
        """The three tables, validated, and proposals in the schema PROPOSED; what names no row of them is left out."""
        transfers = transfers.select(list(TABLES["transfers"].schema)).sort("booked_on", "transfer_id")
        invoices = invoices.select(list(TABLES["invoices"].schema)).sort("issued_on", "invoice_id")
        tags = _placed(matches, transfers, invoices)
        last = tags.group_by("transfer").agg(pl.col("tagged_on").max()).sort("transfer")
        tagged, tagged_on = np.zeros(len(transfers), bool), np.zeros(len(transfers), np.int64)
        tagged[last["transfer"].to_numpy()] = True
        tagged_on[last["transfer"].to_numpy()] = last["tagged_on"].to_physical().to_numpy()
        parts = Parts.of(len(transfers), tags.drop_nulls("invoice"))
        main = main_currency(transfers)
        return cls(
            transfers,
            invoices,
            parts,
            tagged,
            tagged_on,
            _proposals(proposed, transfers, invoices),
            main,
            rates(main, transfers, invoices, parts),
            {name: row for row, name in enumerate(transfers["transfer_id"])},
            {name: row for row, name in enumerate(invoices["invoice_id"])},
        )

    @classmethod
    def empty(cls) -> "Books":
        transfers, invoices, matches = (
            pl.DataFrame(schema=TABLES[name].schema) for name in ("transfers", "invoices", "matches")
        )
        return cls.of(transfers, invoices, matches, pl.DataFrame(schema=PROPOSED))

    def months(self) -> list[str]:
        """The months of which something is proposed."""
        return self.months_of(self.proposals.listed)

    def months_of(self, transfers: Flags) -> list[str]:
        """The months of some transfers bool[T], the first one first."""
        chosen = self.transfers.filter(pl.Series(transfers))
        return chosen.select(month_of("booked_on").unique()).to_series().sort().to_list()

    def month(self, month: str) -> slice:
        """The rows of a month's transfers."""
        ends = [day_number(day) for day in (first_day(month), first_day(next_month(month)))]
        return slice(*(int(end) for end in np.searchsorted(self.booked_on, ends)))

    def who(self, transfer: int, invoice: int) -> str:
        """Whom a proposal is about: the counterparty of its first invoice, and the payer where it has none (-1)."""
        if invoice >= 0:
            return str(self.invoices["counterparty_id"][invoice])
        name = self.transfers["counterparty_name"].slice(transfer, 1).to_frame()
        return name.select(name_key(folded(pl.col("counterparty_name")))).item() or ""

    def rates_to(self, currency: str) -> dict[str, float]:
        """Units of `currency` for one of each other; empty where no rate of it is known."""
        one = self.rates.get(currency)
        return {} if one is None else {name: rate / one for name, rate in self.rates.items()}

    def tagged_day(self, transfer: int) -> int:
        """On which day finance tagged a transfer, in days since 1970."""
        return int(self.tagged_on[transfer])

    @cached_property
    def booked_on(self) -> Ints:
        """Days since 1970."""
        return self.transfers["booked_on"].to_physical().to_numpy().astype(np.int64)

    @cached_property
    def brought(self) -> Ints:
        return self.transfers["amount"].to_numpy()

    @cached_property
    def money(self) -> Ints:
        """int64[T]: what each transfer brought, in the main currency."""
        rates = self.transfers["currency"].replace_strict(self.rates, default=1.0, return_dtype=pl.Float64)
        return np.rint(self.brought * rates.to_numpy()).astype(np.int64)

    @cached_property
    def incoming(self) -> Flags:
        return (self.transfers["direction"] == "in").to_numpy()

    @cached_property
    def currency(self) -> Texts:
        return self.transfers["currency"].to_numpy()

    @cached_property
    def worth(self) -> Ints:
        return self.invoices["amount"].to_numpy()

    @cached_property
    def due(self) -> Ints:
        """Days since 1970."""
        return self.invoices["due_on"].to_physical().to_numpy().astype(np.int64)

    @cached_property
    def sale(self) -> Flags:
        return (self.invoices["direction"] == "sale").to_numpy()

    @cached_property
    def invoice_currency(self) -> Texts:
        return self.invoices["currency"].to_numpy()

    @cached_property
    def party(self) -> Ints:
        """int64[N]: equal for invoices of one counterparty."""
        return self.invoices["counterparty_id"].rank("dense").cast(pl.Int64).fill_null(0).to_numpy()

    @cached_property
    def payer(self) -> tuple[Ints, Ints]:
        """Two int64[T]: equal for transfers of one account, and of one name; 0 where there is none."""
        names = self.transfers.select(
            account_key(pl.col("counterparty_account")).rank("dense").cast(pl.Int64).fill_null(0).alias("account"),
            name=name_key(folded(pl.col("counterparty_name"))).rank("dense").cast(pl.Int64).fill_null(0),
        )
        return names["account"].to_numpy(), names["name"].to_numpy()

    @cached_property
    def named(self) -> tuple[Ints, Ints]:
        """The parties (see `party`) of invoices that say an account, or bear a name, of a payer: two int64[K], the
        transfers' row and the party."""
        rows = self.transfers.with_row_index("transfer").select(
            pl.col("transfer").cast(pl.Int64),
            account=account_key(pl.col("counterparty_account")),
            name=name_key(folded(pl.col("counterparty_name"))),
        )
        parties = self.invoices.select(
            account=account_key(pl.col("counterparty_account")),
            name=name_key(folded(pl.col("counterparty_name"))),
            party=pl.Series(self.party),
        )
        found = [
            rows.drop_nulls(key).filter(pl.col(key) != "").join(parties.select(key, "party").unique(), on=key)
            for key in ("account", "name")
        ]
        pairs = pl.concat([one.select("transfer", "party") for one in found]).unique().sort("transfer", "party")
        return pairs["transfer"].to_numpy(), pairs["party"].to_numpy()

    @cached_property
    def transfer_text(self) -> pl.Series:
        """What is searched of a transfer: id, payer, title, amount, and names and numbers of the proposed invoices."""
        parts = self.proposals.parts
        shown = self.invoices.select(text=pl.concat_str("counterparty_name", "number", separator=" "))["text"]
        proposed = (
            pl.DataFrame({"transfer": parts.transfer, "text": shown.gather(parts.invoice)})
            .group_by("transfer")
            .agg(pl.col("text").str.join(" "))
        )
        rows = self.transfers.with_row_index("transfer").cast({"transfer": pl.Int64})
        rows = rows.join(proposed, on="transfer", how="left", maintain_order="left")
        columns = ["transfer_id", "counterparty_name", "title", _AMOUNT, pl.col("text").fill_null("")]
        return rows.select(folded(pl.concat_str(columns, separator="\n")))["transfer_id"]

    @cached_property
    def invoice_text(self) -> pl.Series:
        """What is searched of an invoice: number, name, reference and amount."""
        columns = ["number", "counterparty_name", pl.col("reference").fill_null(""), _AMOUNT, "invoice_id"]
        return self.invoices.select(folded(pl.concat_str(columns, separator="\n")))["number"]


def day_number(day: date) -> int:
    """Days since 1970, as the arrays have them."""
    return (day - date(1970, 1, 1)).days


def sought(text: str) -> str:
    """What a person typed, as the searched texts have it: without diacritics, and an amount without its separators."""
    folded_text: str = pl.select(folded(pl.lit(text.strip()))).item()
    bare = folded_text.replace("\u00a0", "").replace("\u202f", "").replace(" ", "").replace("'", "")
    for thousands, decimals in ((",", "."), (".", ",")):
        head, point, tail = bare.rpartition(decimals)
        whole = head.replace(thousands, "")
        if point and len(tail) == 2 and tail.isdecimal() and whole.lstrip("-").isdecimal():
            return f"{whole}.{tail}"
    return folded_text


def keys_of(rows: pl.DataFrame) -> pl.Series:
    """uint64: equal for proposals of the same decision for the same `who` that rest on the same `evidence`, numbers aside.

    `rows`: who, decision, evidence.
    """
    said = pl.col("evidence").list.eval(pl.element().str.replace_all(r"\d+", "#")).list.join("\n")
    return rows.select(pl.concat_str("who", "decision", said, separator="\n").hash(seed=0))["who"]


def _placed(rows: pl.DataFrame, transfers: pl.DataFrame, invoices: pl.DataFrame) -> pl.DataFrame:
    """Rows with the places of their transfers and invoices, `transfer` and `invoice`; those that have none are left out."""
    transfer = transfers.select("transfer_id").with_row_index("transfer")
    invoice = invoices.select("invoice_id").with_row_index("invoice")
    placed = rows.join(transfer, on="transfer_id", maintain_order="left").join(
        invoice, on="invoice_id", how="left", maintain_order="left"
    )
    unknown = pl.col("invoice_id").is_not_null() & pl.col("invoice").is_null()
    return placed.filter(~unknown.any().over("transfer_id"))


def _proposals(proposed: pl.DataFrame, transfers: pl.DataFrame, invoices: pl.DataFrame) -> Proposals:
    rows = _placed(proposed, transfers, invoices)
    name = name_key(folded(pl.col("counterparty_name")))
    by_transfer = rows.group_by("transfer").agg(
        pl.col("decision", "confidence", "evidence", "model", "advance").first(), pl.col("invoice").first()
    )
    party = invoices.select("counterparty_id").with_row_index("invoice")
    every = (
        transfers.select(payer=name)
        .with_row_index("transfer")
        .join(by_transfer, on="transfer", how="left", maintain_order="left")
        .join(party, on="invoice", how="left", maintain_order="left")
        .with_columns(who=pl.coalesce("counterparty_id", "payer"))
        # What a model says of what it has learned is no promise.
        .with_columns(
            decision=pl.when((pl.col("decision") == "auto") & ~pl.col("advance"))
            .then(pl.lit("review"))
            .otherwise("decision")
        )
    )
    decision = every["decision"].replace_strict({name: row for row, name in enumerate(DECISIONS)}, default=-1)
    return Proposals(
        every["decision"].is_not_null().to_numpy(),
        decision.cast(pl.Int8).to_numpy(),
        every["confidence"].fill_null(0.0).to_numpy(),
        Parts.of(len(transfers), rows.drop_nulls("invoice")),
        every["evidence"].fill_null([]),
        every["model"].fill_null(""),
        every["advance"].fill_null(value=False).to_numpy(),
        keys_of(
            every.with_columns(pl.col("who", "decision").fill_null(""), pl.col("evidence").fill_null([]))
        ).to_numpy(),
    )


def frames(parts: Sequence[pl.DataFrame], schema: pl.Schema) -> pl.DataFrame:
    """All months of a table as one."""
    return pl.concat([pl.DataFrame(schema=schema), *(part.select(list(schema)) for part in parts)])
