"""The training loop, top to bottom: pairs first, then sets, each cross-fitted, then calibration on what no fold has seen."""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from matching_platform.learning.examples import Examples, examples_of
from matching_platform.learning.promise import calibrate, doubted, threshold
from matching_platform.ledger.reading import Ledger
from matching_platform.matching.arrays import Flags, Floats, Ints
from matching_platform.matching.confidence import Confidence, clues
from matching_platform.matching.features import CONTEXT_FEATURES, PAIR_FEATURES
from matching_platform.matching.history import credible, settled
from matching_platform.matching.matcher import Matcher
from matching_platform.matching.memory import Memory
from matching_platform.matching.scorer import (
    Ensemble,
    ListScorer,
    Ragged,
    best_rows,
    device,
    one_thread_each,
    score,
    shares,
    with_nothing,
)
from matching_platform.matching.set_features import SET_FEATURES
from matching_platform.matching.settlement import Sets, allocate, propose, set_context

Progress = Callable[[str, float], None]

# A few hundred transfers in batches of 256 made too few steps to learn from.
_STEPS_AN_EPOCH: Final = 24
_SMALLEST_BATCH: Final = 16


class TooLittleError(ValueError):
    """There is too little to learn from; the message says what there is and what it takes."""


@dataclass(frozen=True)
class TrainingSettings:
    """What a training can be told; two trainings with equal settings and data give equal models on one machine."""

    promised_precision: float = 0.995  # of what is booked unattended
    folds: int = 3  # cross-fitting: each transfer is judged by a scorer that has not learned from it
    hidden: int = 64  # width of the networks; wider ones learned tags by heart on a few thousand transfers
    pair_epochs: int = 12
    set_epochs: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    batch_transfers: int = 256  # at most; fewer where an epoch would have less than 24 steps
    seed: int = 7


def train(
    examples: Sequence[pl.DataFrame],
    ledger: Ledger,
    until: str,
    settings: TrainingSettings | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> Matcher:
    """A matcher that learned from `examples`, labelled pairs of months up to `until`, and remembers `ledger`'s matches.

    Neither may hold a transfer of the frozen test or a later month; this is the caller's to see to. With `checkpoint`, a
    folder, finished scorers are kept there and an interrupted training goes on from them. TooLittleError where there
    is nothing to learn from.
    """
    settings = settings or TrainingSettings()
    tell: Progress = progress or (lambda _step, _share: None)
    data = examples_of(list(examples))
    tagged = int((~data.elsewhere).sum())
    if tagged < settings.folds * 10 or not data.label.any():
        raise TooLittleError(
            f"{tagged} tagged transfers up to {until} are too few to learn from; "
            f"at least {settings.folds * 10}, some of them paying invoices, are needed"
        )
    fold = _folds(data, settings)
    folder = checkpoint and _checkpoint_of(checkpoint, examples, settings)
    pairs, logit, nothing = _cross_fit(_pair_task(data), fold, settings, settings.pair_epochs, "pairs", folder, tell)
    sets = propose(data.lists, logit)
    task = _set_task(data, sets, nothing)
    choices, set_logit, set_nothing = _cross_fit(task, fold, settings, settings.set_epochs, "sets", folder, tell)
    tags = credible(ledger)
    share = shares(set_logit, set_nothing, sets.transfer)
    best, _ = best_rows(share, sets.transfer, len(fold))
    believed = _believed(data, sets, best, share, task.target, tags, ledger)
    calibration, cut, figures = _calibrated(data, sets, task.target, share, fold, believed, settings)
    memory = Memory.of(settled(ledger, tags))
    card = {
        "trained_until": until,
        "promised_precision": settings.promised_precision,
        "transfers": tagged,
        "candidates_per_transfer": round(len(data.label) / len(data.paying), 1),
        "settings": asdict(settings),
        "figures": figures,
    }
    return Matcher(Ensemble(pairs), Ensemble(choices), memory, calibration, cut, card)


def _folds(data: Examples, settings: TrainingSettings) -> Ints:
    """The fold of each transfer: whole months, every third one, so that each is judged as one that nobody has seen; where
    there are too few months, transfers by chance."""
    months, place = np.unique(data.month, return_inverse=True)
    if len(months) >= 2 * settings.folds:
        return place % settings.folds
    return data.transfer_id.hash(seed=settings.seed).to_numpy() % settings.folds


@dataclass(frozen=True)
class _Task:
    """Rows to score: `target` float32[N] of rows, `nothing` float32[T]; `listwise` for one right row per transfer."""

    rows: Tensor
    context: Tensor
    owner: Ints
    target: npt.NDArray[np.float32]
    nothing: npt.NDArray[np.float32]
    use: Flags  # transfers whose truth is among the rows
    weight: Floats  # of transfers
    listwise: bool


def _pair_task(data: Examples) -> _Task:
    return _Task(
        torch.tensor(data.lists.pair),
        torch.tensor(data.lists.context),
        data.lists.pairs.transfer,
        data.label.astype(np.float32),
        (~data.paying).astype(np.float32),
        np.ones(len(data.paying), bool),
        data.weight,
        listwise=False,
    )


def _set_task(data: Examples, sets: Sets, nothing: Floats) -> _Task:
    at = data.lists.pairs.transfer
    slot = np.arange(len(at)) - np.searchsorted(at, at)
    truth = np.zeros(len(data.paying), np.int64)
    np.add.at(truth, at[data.label], np.int64(1) << slot[data.label])
    right = (sets.mask == truth[sets.transfer]) & data.complete[sets.transfer]
    use = np.bincount(sets.transfer[right], minlength=len(data.paying)) > 0
    return _Task(
        torch.from_numpy(sets.features),
        torch.from_numpy(set_context(data.lists, nothing)),
        sets.transfer,
        right.astype(np.float32),
        (~data.paying).astype(np.float32),
        use,
        data.weight,
        listwise=True,
    )


def _cross_fit(
    task: _Task, fold: Ints, settings: TrainingSettings, epochs: int, name: str, folder: Path | None, tell: Progress
) -> tuple[list[ListScorer], Floats, Floats]:
    """One scorer a fold, and the logits of all rows and transfers, each from the scorer that did not see it."""
    scorers = [_new_scorer(task, settings, held_out) for held_out in range(settings.folds)]
    done = dict.fromkeys(range(settings.folds), 0.0)

    def fit(held_out: int) -> None:
        path = folder and folder / f"{name}-{held_out}.safetensors"
        if path and path.exists():
            scorers[held_out].load_state_dict(load_file(path))
            return

        def report(share: float) -> None:
            done[held_out] = share
            tell(name, sum(done.values()) / settings.folds)

        learn_from = np.flatnonzero((fold != held_out) & task.use)
        _fit(scorers[held_out], task, learn_from, settings, epochs, report)
        if path:
            _keep(scorers[held_out], path)

    with one_thread_each(), ThreadPoolExecutor(1 if device().type == "cuda" else os.cpu_count()) as pool:
        list(pool.map(fit, range(settings.folds)))
    tell(name, 1.0)
    logit, nothing = np.zeros(len(task.owner), np.float32), np.zeros(len(fold), np.float32)
    for held_out, scorer in enumerate(scorers):
        rows, transfers = fold[task.owner] == held_out, fold == held_out
        row_logit, transfer_logit = score(scorer, task.rows, task.context, task.owner)
        logit[rows], nothing[transfers] = row_logit[rows], transfer_logit[transfers]
    return [scorer.cpu() for scorer in scorers], logit, nothing


def _new_scorer(task: _Task, settings: TrainingSettings, held_out: int) -> ListScorer:
    torch.manual_seed(settings.seed * 1000 + held_out)
    scorer = ListScorer(task.rows.shape[1], task.context.shape[1], settings.hidden)
    scorer.rows.fit(task.rows)
    scorer.context.fit(task.context)
    return scorer.to(device())


def _fit(
    scorer: ListScorer,
    task: _Task,
    transfers: Ints,
    settings: TrainingSettings,
    epochs: int,
    tell: Callable[[float], None],
) -> None:
    generator = np.random.default_rng(settings.seed)
    first = np.searchsorted(task.owner, np.arange(len(task.nothing)))
    count = np.searchsorted(task.owner, np.arange(len(task.nothing)), "right") - first
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    size = min(settings.batch_transfers, max(_SMALLEST_BATCH, len(transfers) // _STEPS_AN_EPOCH))
    steps = epochs * -(-len(transfers) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps)
    target, nothing = torch.from_numpy(task.target), torch.from_numpy(task.nothing)
    # One on average, so that corrections bend what is learned and not how fast.
    weight = torch.from_numpy(task.weight / task.weight[transfers].mean())
    scorer.train()
    for epoch in range(epochs):
        shuffled = generator.permutation(transfers)
        for start in range(0, len(shuffled), size):
            batch = shuffled[start : start + size]
            many = count[batch]
            owner = np.repeat(np.arange(len(batch)), many)
            rows = np.repeat(first[batch], many) + np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
            ragged = Ragged(torch.from_numpy(owner).to(device()), len(batch))
            logit, logit_nothing = scorer(task.rows[rows].to(device()), task.context[batch].to(device()), ragged)
            truth, paid, counts = (one.to(device()) for one in (target[rows], nothing[batch], weight[batch]))
            loss = _loss(task, logit, logit_nothing, truth, paid, counts, ragged)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(scorer.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        tell((epoch + 1) / epochs)
    scorer.eval()


def _loss(
    task: _Task, logit: Tensor, logit_nothing: Tensor, target: Tensor, nothing: Tensor, weight: Tensor, ragged: Ragged
) -> Tensor:
    """Pairs: is each a member, and is it nothing. Sets: the log share of the right one among all of its transfer.

    A transfer counts by its `weight`.
    """
    if not task.listwise:
        entropy, of_row = functional.binary_cross_entropy_with_logits, weight[ragged.owner]
        members = entropy(logit, target, of_row, reduction="sum") / ragged.count
        return members + entropy(logit_nothing, nothing, weight)
    chosen = ragged.log_softmax(with_nothing(logit, logit_nothing, ragged)) * target
    return -(chosen * weight[ragged.owner]).sum() / ragged.count


def _believed(
    data: Examples, sets: Sets, best: Ints, share: Floats, right: Floats, tags: pl.DataFrame, ledger: Ledger
) -> Flags:
    """bool[T]: whether the tags of each transfer can be what the scorers are judged by."""
    tagged_share = np.bincount(sets.transfer, share * right, len(best)).astype(np.float32)
    row, pair, amount = allocate(data.lists, np.arange(len(best)), sets.mask[best])
    added = ~data.label[pair]
    room = _left(data.invoice_id.gather(pair[added]), tags, ledger)
    adds = np.bincount(row[added], minlength=len(best)) > 0
    paid = np.bincount(row[added][np.abs(amount[added]) > room], minlength=len(best)) > 0
    return ~doubted(share[best], tagged_share, adds & ~paid)


def _left(invoice_id: pl.Series, tags: pl.DataFrame, ledger: Ledger) -> Ints:
    """int64[N]: what all tags leave open of each invoice, minor units, whatever its sign."""
    paid = tags.group_by("invoice_id").agg(paid=pl.col("amount").sum())
    worth = ledger.invoices.select("invoice_id", worth="amount")
    known = pl.DataFrame({"invoice_id": invoice_id}).join(worth, on="invoice_id", how="left", maintain_order="left")
    known = known.join(paid, on="invoice_id", how="left", maintain_order="left").fill_null(0)
    return known.select((pl.col("worth") - pl.col("paid")).abs()).to_series().to_numpy()


def _calibrated(
    data: Examples, sets: Sets, right: Floats, share: Floats, fold: Ints, believed: Flags, settings: TrainingSettings
) -> tuple[Confidence, float, dict[str, float]]:
    best, rival = best_rows(share, sets.transfer, len(fold))
    own = ~data.elsewhere & believed
    # Unweighted: a confidence and the promise are about the transfers that come, of which few would be corrected.
    seen, hit, fold, paying = (
        clues(data.lists, sets, best, rival, share)[own],
        right[best][own] > 0,
        fold[own],
        data.paying[own],
    )
    confidence = np.zeros(len(hit))
    for held_out in np.unique(fold):
        others = fold != held_out
        confidence[~others] = calibrate(seen[others], hit[others])(seen[~others])
    books = sets.mask[best][own] != 0
    cut = threshold(confidence[books], hit[books], settings.promised_precision)
    booked = books & (confidence >= cut)
    considered = np.bincount(sets.transfer, weights=right, minlength=len(best)) > 0
    figures = {
        "cross_fitted_exact": float(hit.mean()),
        "cross_fitted_exact_paying": float(hit[paying].mean()),
        "cross_fitted_auto_share": float((booked & paying).sum() / max(1, paying.sum())),
        "doubted_tags": float((~believed[~data.elsewhere]).mean()),
        "true_set_among_candidates": float(data.complete[own].mean()),
        "true_set_considered": float(considered[own].mean()),
    }
    return calibrate(seen, hit), cut, {name: round(value, 4) for name, value in figures.items()}


def _checkpoint_of(folder: Path, examples: Sequence[pl.DataFrame], settings: TrainingSettings) -> Path:
    """The folder of this very training: other examples or settings never find its scorers."""
    labels = [int(frame.hash_rows(seed=0).sum()) for frame in examples]
    told = [labels, asdict(settings), PAIR_FEATURES, CONTEXT_FEATURES, SET_FEATURES, torch.__version__]
    path = folder / sha256(json.dumps(told).encode()).hexdigest()[:16]
    path.mkdir(parents=True, exist_ok=True)
    return path


def _keep(scorer: ListScorer, path: Path) -> None:
    unfinished = path.with_suffix(".unfinished")
    save_file({name: value.contiguous().cpu() for name, value in scorer.state_dict().items()}, unfinished)
    unfinished.replace(path)
