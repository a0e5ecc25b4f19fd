"""The artefact: weights, memory and calibration in one folder, which loads and matches without anything else."""

import json
import shutil
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from hashlib import sha256
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from matching_platform.ledger.months import next_month
from matching_platform.ledger.reading import Ledger
from matching_platform.ledger.schema import PROPOSALS, TABLES
from matching_platform.matching.arrays import Doubles, Flags, Floats, Ints
from matching_platform.matching.balances import Settlements, open_amounts
from matching_platform.matching.candidates import Finder, find, rank_within
from matching_platform.matching.confidence import CLUES, Confidence, clues
from matching_platform.matching.evidence import evidence, without_age
from matching_platform.matching.features import CONTEXT_FEATURES, PAIR_FEATURES, Lists, Reader, World
from matching_platform.matching.history import TRANSFERS_AT_ONCE, History, Month, settled
from matching_platform.matching.memory import Memory
from matching_platform.matching.rules import DAYS_BEFORE_ISSUE
from matching_platform.matching.scorer import Ensemble, ListScorer, best_rows, one_thread_each, score, shares
from matching_platform.matching.set_features import SET_FEATURES
from matching_platform.matching.settlement import Sets, allocate, is_hinted, propose, set_context

FORMAT: Final = 1
# Months that people tagged do not wait for each other; while one is in Python, another's arrays are worked on.
_MONTHS_AT_ONCE: Final = 3
# How many sets beside the proposed one are kept for a person to choose from.
RUNNERS_UP_KEPT: Final = 3
# The surest settlements of a batch are taken first; each close balances that the less sure ones then no longer see.
_ROUNDS: Final = (0.9, 0.0)

# What a file that is missing, cut or of another kind raises in the libraries that read it.
_UNREADABLE: Final = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    SafetensorError,
    pl.exceptions.PolarsError,
)

Progress = Callable[[str, float], None]

_ANSWERS: Final = pl.Schema(
    {"row": pl.Int64(), "confidence": pl.Float64(), "decision": pl.String(), "evidence": pl.List(pl.String())}
)
# `told_by_age`: the transfer pays this one invoice whole, and its title says nothing of which one it is;
# `sure`: it may be booked unattended.
_PARTS: Final = pl.Schema(
    {"row": pl.Int64(), "invoice": pl.Int64(), "amount": pl.Int64(), "told_by_age": pl.Boolean(), "sure": pl.Boolean()}
)
# A row per invoice of a set that was not proposed, and one with a null invoice for "nothing": `rank` from 1, the likeliest;
# `share` is what the model gives the set among all that it compared; amounts in minor units of the invoice's currency.
RUNNERS_UP: Final = pl.Schema(
    {
        "transfer_id": pl.String(),
        "rank": pl.Int64(),
        "share": pl.Float64(),
        "invoice_id": pl.String(),
        "amount": pl.Int64(),
    }
)
_OTHERS: Final = pl.Schema(
    {"row": pl.Int64(), "rank": pl.Int64(), "share": pl.Float64(), "invoice": pl.Int64(), "amount": pl.Int64()}
)


class ModelError(ValueError):
    """A folder that holds no usable model."""


@dataclass(frozen=True)
class Matched:
    """`proposals` (schema PROPOSALS), and `runners_up` (schema RUNNERS_UP), the likeliest other sets of each transfer."""

    proposals: pl.DataFrame
    runners_up: pl.DataFrame

    @classmethod
    def joined(cls, parts: list["Matched"]) -> "Matched":
        return cls(
            pl.concat([pl.DataFrame(schema=PROPOSALS), *(part.proposals for part in parts)]),
            pl.concat([pl.DataFrame(schema=RUNNERS_UP), *(part.runners_up for part in parts)]),
        )


@dataclass(frozen=True)
class Chosen:
    """The best set of each of T transfers and its rival, as rows int64[T] of `sets`, with `confidence` float[T] and
    allocations (transfer, pair row, amount) int64[A], amounts in minor units of the invoice's currency."""

    lists: Lists
    sets: Sets
    share: Floats  # of each of the sets among those of its transfer
    best: Ints
    rival: Ints
    confidence: Doubles
    allocations: tuple[Ints, Ints, Ints]


class Matcher:
    """Proposes settlements. Made by training or `load`; holds no state that matching changes."""

    def __init__(
        self,
        pairs: Ensemble,
        sets: Ensemble,
        memory: Memory,
        calibration: Confidence,
        auto_from: float,
        card: dict[str, Any],
    ) -> None:
        self.pairs, self.sets, self.memory = pairs.eval(), sets.eval(), memory
        self.calibration, self.auto_from, self.card = calibration, auto_from, card

    def propose(self, transfers: pl.DataFrame, invoices: pl.DataFrame) -> pl.DataFrame:
        """Proposals for one batch of validated `transfers` against `invoices`, whose `open_amount`, minor units, holds
        where the column is there and not null. Nothing else is known but what the model remembers."""
        if "open_amount" not in invoices.columns:
            invoices = invoices.with_columns(open_amount=pl.col("amount"))
        invoices = invoices.sort("issued_on", "invoice_id")
        paid = (invoices["amount"] - invoices["open_amount"].fill_null(invoices["amount"])).to_numpy()
        every = np.arange(len(invoices))
        history = Settlements.of(every, np.full(len(every), -1), paid)
        ordered = transfers.sort("booked_on", "transfer_id")
        proposals = self.settle(World.of(ordered, invoices, self.memory, history)).proposals
        place = transfers.select("transfer_id").with_row_index("place")
        return proposals.join(place, on="transfer_id").sort("place", maintain_order=True).drop("place")

    def warm_up(self) -> None:
        """Matches a made-up payment, so that the first real one does not wait for machine code."""
        day = date(2024, 1, 1)
        invoice: dict[str, Any] = {
            "number": "100001",
            "direction": "sale",
            "counterparty_id": "c",
            "counterparty_name": "C",
        }
        invoice |= {"issued_on": day, "due_on": day, "amount": 100, "currency": "EUR"}
        transfer: dict[str, Any] = {
            "transfer_id": "t",
            "booked_on": day,
            "amount": 200,
            "currency": "EUR",
            "direction": "in",
        }
        transfer |= {"counterparty_name": "C", "title": "100001"}
        self.propose(
            pl.DataFrame([transfer], schema=TABLES["transfers"].schema),
            pl.DataFrame([{**invoice, "invoice_id": name} for name in "ab"], schema=TABLES["invoices"].schema),
        )

    def match(
        self,
        ledger: Ledger,
        months: list[str] | None = None,
        progress: Progress | None = None,
        candidates: Finder = find,
    ) -> pl.DataFrame:
        """Proposals for the transfers booked in `months` (all without it), month by month.

        For each month only what was known then is seen: invoices issued so far, matches of transfers booked before it,
        and this matcher's own settlements earlier in the same month. After a month of which nobody has tagged anything,
        as at a company where the platform is new, what was booked unattended is known to the next ones.
        """
        return self._months(ledger, months, progress, candidates, 0).proposals

    def match_in_full(
        self,
        ledger: Ledger,
        months: list[str] | None = None,
        progress: Progress | None = None,
        candidates: Finder = find,
    ) -> Matched:
        """The same with the runners-up of each proposal."""
        return self._months(ledger, months, progress, candidates, RUNNERS_UP_KEPT)

    def _months(
        self, ledger: Ledger, months: list[str] | None, progress: Progress | None, candidates: Finder, others: int
    ) -> Matched:
        wanted = sorted(set(ledger.months() if months is None else months))
        history, memory = History.of(ledger), self.memory
        since = next_month(self.card["trained_until"]) if memory.is_of(ledger.invoices) else None
        parts: list[Matched] = []
        with one_thread_each(), ThreadPoolExecutor(_MONTHS_AT_ONCE) as pool:
            under_way: deque[tuple[str, Future[Matched]]] = deque()

            def finish(until: int) -> None:
                while len(under_way) > until:
                    month, matched = under_way.popleft()
                    parts.append(matched.result())
                    if progress:
                        progress(month, len(parts) / len(wanted))

            for month in wanted:
                known = history.month(month)
                memory = memory.and_also(Memory.of(settled(ledger, history.between(since, month))))
                since = max(since or month, month)
                under_way.append((month, pool.submit(self._match_month, known, memory, candidates, others)))
                if history.is_tagged(month):
                    finish(_MONTHS_AT_ONCE - 1)
                else:
                    finish(0)
                    history = history.and_also(_booked(parts[-1].proposals))
            finish(0)
        return Matched.joined(parts)

    def _match_month(self, known: Month, memory: Memory, candidates: Finder, others: int) -> Matched:
        """Portion by portion, so that memory bears a month of any size; each knows what the ones before have settled."""
        settled, columns = known.earlier, ["transfer_id", "invoice_id", "amount"]
        parts: list[Matched] = []
        for portion in known.portions(TRANSFERS_AT_ONCE):
            before = known.settlements(settled)
            world = World(portion.transfers, portion.lately, portion.invoices, memory, before, candidates)
            parts.append(self.settle(world, others=others))
            settled = pl.concat([settled.select(columns), parts[-1].proposals.select(columns)])
        return Matched.joined(parts)

    def settle(self, world: World, reader: Reader | None = None, others: int = 0) -> Matched:
        """What the transfers of `world` settle, with so many runners-up each; `reader` reads it where one is at hand.

        Rounds: the surest first, within what is open; what they closed is closed for the others.

        Taking the transfers strictly in turn costs one in a hundred of the right answers: a doubtful guess of the second
        day then holds the invoice that a certain payment of the tenth names.
        """
        reader, pending, taken = reader or Reader(world), np.arange(len(world.transfers)), world.settlements
        answers, settled = [pl.DataFrame(schema=_ANSWERS)], [pl.DataFrame(schema=_PARTS)]
        rest = [pl.DataFrame(schema=_OTHERS)]
        for bar in chain(_ROUNDS, repeat(0.0)):
            if not len(pending):
                break
            # At first each transfer sees the balances of its day; afterwards all that surer ones have claimed.
            later = len(settled) > 1
            now = np.full(len(pending), len(world.transfers)) if later else pending
            chosen = self._choose(reader.read(pending, now, taken))
            turn = np.argsort(-chosen.confidence, kind="stable") if later else np.arange(len(pending))
            accept = chosen.confidence >= bar
            accept &= _fits(chosen, turn, accept, world, taken)
            answers.append(self._answers(chosen, pending).filter(accept))
            settled.append(_parts(chosen, pending, accept, self.auto_from))
            if others:
                # Twice as many as wanted: some settle the same, since money that is spent leaves nothing for the rest.
                rest.append(_others(chosen, pending, accept, 2 * others))
            invoice, transfer, amount = (settled[-1][name].to_numpy() for name in ("invoice", "row", "amount"))
            taken = taken.and_also(invoice, transfer, amount)
            pending = pending[~accept]
        parts = oldest_first(pl.concat(settled), world)
        ids = world.transfers.select("transfer_id").with_row_index("row").cast({"row": pl.Int64})
        numbers = world.invoices.select("invoice_id").with_row_index("invoice").cast({"invoice": pl.Int64})
        rows = pl.concat(answers).join(ids, on="row", maintain_order="left")
        rows = rows.join(parts, on="row", how="left", maintain_order="left")
        rows = rows.with_columns(
            pl.when("moved").then(without_age(pl.col("evidence"))).otherwise("evidence").name.keep()
        )
        proposals = rows.join(numbers, on="invoice", how="left", maintain_order="left").select(list(PROPOSALS))
        return Matched(proposals, _runners_up(pl.concat(rest), others, parts, ids, numbers))

    def _choose(self, lists: Lists) -> Chosen:
        context = torch.from_numpy(lists.context)
        logit, nothing = score(self.pairs, torch.from_numpy(lists.pair), context, lists.pairs.transfer)
        sets = propose(lists, logit)
        set_logit, set_nothing = score(
            self.sets, torch.from_numpy(sets.features), torch.from_numpy(set_context(lists, nothing)), sets.transfer
        )
        if not (np.isfinite(set_logit).all() and np.isfinite(set_nothing).all()):
            raise ModelError("the model's weights give no finite scores; train it again, or roll back")
        share = shares(set_logit, set_nothing, sets.transfer)
        best, rival = best_rows(share, sets.transfer, len(lists.amount))
        confidence = self.calibration(clues(lists, sets, best, rival, share))
        allocations = allocate(lists, np.arange(len(best)), sets.mask[best])
        return Chosen(lists, sets, share, best, rival, confidence, allocations)

    def _answers(self, chosen: Chosen, rows: Ints) -> pl.DataFrame:
        """A row (of _ANSWERS) for each of the transfers `rows` int64[T]."""
        settles = np.zeros(len(rows), bool)
        settles[chosen.allocations[0]] = True
        decision = np.where(~settles, "none", np.where(chosen.confidence >= self.auto_from, "auto", "review"))
        frame = pl.DataFrame({"row": rows, "confidence": chosen.confidence, "decision": decision})
        return frame.with_columns(evidence=evidence(chosen.lists, chosen.sets, chosen.best, chosen.rival))

    def save(self, folder: Path, costs: dict[str, float] | None = None) -> None:
        """Writes the model into `folder`, which must not exist yet; it appears whole or not at all.

        `costs`, which no two trainings share, are kept in a file of their own and join the card on loading.
        """
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        state = {f"pairs.{name}": value for name, value in self.pairs.state_dict().items()}
        state |= {f"sets.{name}": value for name, value in self.sets.state_dict().items()}
        save_file({name: value.contiguous() for name, value in state.items()}, unfinished / "weights.safetensors")
        self.memory.counts.write_parquet(unfinished / "memory.parquet")
        self.memory.rates.write_parquet(unfinished / "rates.parquet")
        calibration = {**asdict(self.calibration), "auto_from": self.auto_from}
        (unfinished / "calibration.json").write_text(json.dumps(calibration, indent=2) + "\n")
        card = {
            **self.card,
            "version": _digest(unfinished),
            "format": FORMAT,
            "folds": len(self.pairs.scorers),
            "features": _fingerprint(),
        }
        (unfinished / "card.json").write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
        if costs:
            (unfinished / _COSTS).write_text(json.dumps(costs, indent=2) + "\n")
        unfinished.rename(folder)

    @classmethod
    def load(cls, folder: Path) -> "Matcher":
        """The model in `folder`; ModelError where a file is missing, broken or of another format."""
        try:
            card = json.loads((folder / "card.json").read_text())
            if card["format"] != FORMAT or card["features"] != _fingerprint():
                raise ModelError(f"{folder}: the model was made by another version of the platform; train it again")
            if card["version"] != _digest(folder):
                raise ModelError(f"{folder}: a file of the model is not as it was saved; take it from the store again")
            if (folder / _COSTS).exists():
                card |= json.loads((folder / _COSTS).read_text())
            calibration = json.loads((folder / "calibration.json").read_text())
            auto_from = calibration.pop("auto_from")
            calibrated = Confidence(**calibration)
            calibrated(np.zeros((1, len(CLUES))))
            state = load_file(folder / "weights.safetensors")
            hidden, folds = card["settings"]["hidden"], card["folds"]
            pairs = Ensemble([ListScorer(len(PAIR_FEATURES), len(CONTEXT_FEATURES), hidden) for _ in range(folds)])
            sets = Ensemble([ListScorer(len(SET_FEATURES), len(CONTEXT_FEATURES) + 1, hidden) for _ in range(folds)])
            for name, ensemble in (("pairs.", pairs), ("sets.", sets)):
                ensemble.load_state_dict({k.removeprefix(name): v for k, v in state.items() if k.startswith(name)})
            memory = Memory.checked(
                pl.read_parquet(folder / "memory.parquet"), pl.read_parquet(folder / "rates.parquet")
            )
        except ModelError:
            raise
        except _UNREADABLE as error:
            raise ModelError(f"{folder} holds no usable model: {error}") from error
        return cls(pairs, sets, memory, calibrated, auto_from, card)


def own_threshold(folder: Path) -> float:
    """From which confidence the model in `folder` books as it was trained, read alone; ModelError where it cannot be."""
    try:
        return float(json.loads((folder / "calibration.json").read_text())["auto_from"])
    except _UNREADABLE as error:
        raise ModelError(f"{folder} holds no usable model: {error}") from error


def _booked(proposals: pl.DataFrame) -> pl.DataFrame:
    """What is booked unattended, as matches."""
    return proposals.filter(pl.col("decision") == "auto").select("transfer_id", "invoice_id", "amount")


def _parts(chosen: Chosen, rows: Ints, accept: Flags, auto_from: float) -> pl.DataFrame:
    """What is settled (a row of _PARTS per invoice) of the transfers `rows` int64[T] where `accept` bool[T] holds."""
    owner, pair, amount = (part[accept[chosen.allocations[0]]] for part in chosen.allocations)
    lists = chosen.lists
    alone = np.bincount(owner, minlength=len(rows))[owner] == 1
    whole = (amount == lists.open[pair]) & (amount == lists.amount[owner])
    return pl.DataFrame(
        {
            "row": rows[owner],
            "invoice": lists.pairs.invoice[pair],
            "amount": amount,
            "told_by_age": alone & whole & ~is_hinted(lists)[pair],
            "sure": (chosen.confidence >= auto_from)[owner],
        }
    )


def _others(chosen: Chosen, rows: Ints, accept: Flags, count: int) -> pl.DataFrame:
    """The likeliest `count` sets (a row of _OTHERS per invoice) beside the best of the transfers `rows` int64[T] where
    `accept` bool[T] holds."""
    sets = chosen.sets
    rank = rank_within(sets.transfer, -chosen.share)
    kept = np.flatnonzero((rank > 0) & (rank <= count) & accept[sets.transfer])
    kept = kept[np.lexsort((rank[kept], sets.transfer[kept]))]
    owner, pair, amount = allocate(chosen.lists, sets.transfer[kept], sets.mask[kept])
    parts = pl.DataFrame({"set": owner, "invoice": chosen.lists.pairs.invoice[pair], "amount": amount})
    found = pl.DataFrame({"row": rows[sets.transfer[kept]], "rank": rank[kept], "share": chosen.share[kept]})
    found = found.with_row_index("set").cast({"set": pl.Int64, "share": pl.Float64})
    return found.join(parts, on="set", how="left", maintain_order="left_right").select(list(_OTHERS))


def _runners_up(
    others: pl.DataFrame, count: int, parts: pl.DataFrame, ids: pl.DataFrame, numbers: pl.DataFrame
) -> pl.DataFrame:
    """The first `count` of `others` (rows of _OTHERS) by id, in their order, without what settles the same as the
    proposal, `parts`, or as a likelier one."""
    if others.is_empty():
        return pl.DataFrame(schema=RUNNERS_UP)
    proposed = ids.select("row", rank=pl.lit(0, pl.Int64)).join(parts, on="row", how="left")
    columns = ["row", "rank", "invoice", "amount"]
    told = pl.struct("invoice", "amount").sort_by("invoice")
    sets = pl.concat([proposed.select(columns), others.select(columns)]).group_by("row", "rank").agg(told=told)
    new = sets.sort("row", "rank").filter(pl.struct("row", "told").is_first_distinct() & (pl.col("rank") > 0))
    new = new.select("row", "rank", place=pl.col("rank").rank("dense").over("row").cast(pl.Int64))
    new = new.filter(pl.col("place") <= count)
    found = others.join(new, on=["row", "rank"], maintain_order="left")
    found = found.join(ids, on="row", maintain_order="left").with_columns(rank="place")
    return found.join(numbers, on="invoice", how="left", maintain_order="left").select(list(RUNNERS_UP))


def oldest_first(parts: pl.DataFrame, world: World) -> pl.DataFrame:
    """`parts` (rows of _PARTS) with twins in order: of invoices of one counterparty and amount that only their age tells
    apart, the earlier payment settles the one that was due earlier; what is sure only changes places with what is sure.

    Returns row, amount, invoice and `moved`, whether it is another invoice than before.
    """
    twins = ["counterparty_id", "direction", "currency", "amount", "sure"]
    invoices = world.invoices.select("counterparty_id", "direction", "currency", "issued_on", "due_on")
    invoices = invoices.with_row_index("invoice").cast({"invoice": pl.Int64})
    booked = world.transfers.select("booked_on").with_row_index("row").cast({"row": pl.Int64})
    free = parts.filter("told_by_age").join(invoices, on="invoice").join(booked, on="row").sort("row")
    by_age = pl.col("invoice").sort_by("due_on", "issued_on", "invoice").over(twins)
    moved = free.select("row", "booked_on", *twins, settles=by_age)
    issued = invoices.select(settles="invoice", issued_on="issued_on")
    known = (pl.col("issued_on") <= pl.col("booked_on").dt.offset_by(f"{DAYS_BEFORE_ISSUE}d")).all().over(twins)
    moved = moved.join(issued, on="settles", maintain_order="left").filter(known).select("row", "settles")
    return parts.join(moved, on="row", how="left", maintain_order="left").select(
        "row",
        "amount",
        invoice=pl.coalesce("settles", "invoice"),
        moved=(pl.col("settles") != pl.col("invoice")).fill_null(value=False),
    )


def _fits(chosen: Chosen, turn: Ints, accept: Flags, world: World, taken: Settlements) -> Flags:
    """bool[T]: whether each transfer's allocations still fit when the accepted ones are taken in the order `turn`."""
    owner, pair, amount = chosen.allocations
    inside = accept[owner]
    owner, invoice, amount = owner[inside], chosen.lists.pairs.invoice[pair[inside]], amount[inside]
    total = world.invoices["amount"].to_numpy()
    already = taken.before(invoice, np.full(len(invoice), len(world.transfers)))
    place = np.empty(len(turn), np.int64)
    place[turn] = np.arange(len(turn))
    order = np.lexsort((place[owner], invoice))
    running = np.cumsum(np.abs(amount[order]))
    starts = np.r_[True, np.diff(invoice[order]) != 0] if len(order) else np.zeros(0, bool)
    before = np.maximum.accumulate(np.where(starts, running - np.abs(amount[order]), 0)) if len(order) else running
    over = (running - before) > np.abs(open_amounts(total[invoice[order]], already[order]))
    fits = np.ones(len(accept), bool)
    fits[owner[order[over]]] = False
    return fits


_COSTS: Final = "costs.json"
_CONTENT: Final = ("calibration.json", "memory.parquet", "rates.parquet", "weights.safetensors")


def _digest(folder: Path) -> str:
    """The model's version: a hash of all that decides its proposals."""
    return sha256(b"".join((folder / name).read_bytes() for name in _CONTENT)).hexdigest()[:16]


def _fingerprint() -> str:
    """Changes with the meaning of the numbers that the networks read."""
    return sha256(repr((PAIR_FEATURES, CONTEXT_FEATURES, SET_FEATURES)).encode()).hexdigest()[:16]
