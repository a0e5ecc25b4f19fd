"""The networks: one reads a transfer's list of candidates, one its list of candidate sets; both know "nothing"."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional


class Standardized(nn.Module):
    """Columns with zero mean and unit variance over the training rows; clipped, since a new company may lie far off."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, rows: Tensor) -> None:
        self.mean.copy_(rows.mean(0))
        deviation = rows.std(0)
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def forward(self, rows: Tensor) -> Tensor:
        return ((rows - self.mean) / self.scale).clamp(-6, 6)


@dataclass(frozen=True)
class Ragged:
    """N rows that belong to T transfers, sorted by transfer: `owner` int64[N]; every transfer has at least none."""

    owner: Tensor
    count: int

    def maximum(self, values: Tensor) -> Tensor:
        """[T, F] greatest of each transfer's rows, 0 where it has none."""
        out = values.new_zeros(self.count, values.shape[1])
        index = self.owner[:, None].expand_as(values)
        return out.scatter_reduce(0, index, values, "amax", include_self=False)

    def mean(self, values: Tensor) -> Tensor:
        """[T, F] mean of each transfer's rows, 0 where it has none."""
        out = values.new_zeros(self.count, values.shape[1]).index_add(0, self.owner, values)
        size = values.new_zeros(self.count).index_add(0, self.owner, values.new_ones(len(values)))
        return out / size.clamp(min=1)[:, None]

    def log_softmax(self, logits: Tensor) -> Tensor:
        """[N] log of the share of each row among those of its transfer."""
        top = logits.new_full((self.count,), -1e9).scatter_reduce(0, self.owner, logits.detach(), "amax")
        shifted = logits - top[self.owner]
        total = logits.new_zeros(self.count).index_add(0, self.owner, shifted.exp())
        return shifted - total.clamp(min=1e-30).log()[self.owner]


class ListScorer(nn.Module):
    """Scores rows of a list in the light of the whole list: a row network, pooled over the list, and a second one.

    `forward(rows [N, F], context [T, G], ragged)` gives logits [N] of the rows and [T] of "nothing".
    """

    def __init__(self, row_width: int, context_width: int, hidden: int) -> None:
        super().__init__()
        self.rows, self.context = Standardized(row_width), Standardized(context_width)
        self.read = nn.Sequential(
            nn.Linear(row_width + context_width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()
        )
        self.judge = nn.Sequential(nn.Linear(3 * hidden, hidden), nn.GELU(), nn.Linear(hidden, 1))
        self.nothing = nn.Sequential(nn.Linear(2 * hidden + context_width, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def forward(self, rows: Tensor, context: Tensor, ragged: Ragged) -> tuple[Tensor, Tensor]:
        standard = self.context(context)
        read = _spread(self.read, self.rows(rows), standard, ragged)
        pooled = torch.cat([ragged.maximum(read), ragged.mean(read)], 1)
        logits = _spread(self.judge, read, pooled, ragged)[:, 0]
        return logits, self.nothing(torch.cat([pooled, standard], 1))[:, 0]


def _spread(layers: nn.Sequential, rows: Tensor, of_transfer: Tensor, ragged: Ragged) -> Tensor:
    """`layers` of each row beside its transfer's numbers; the first one reads these once a transfer, not once a row."""
    first = layers[0]
    assert isinstance(first, nn.Linear)
    own, shared = first.weight.split([rows.shape[1], of_transfer.shape[1]], 1)
    mixed = functional.linear(rows, own) + functional.linear(of_transfer, shared, first.bias)[ragged.owner]
    return layers[1:](mixed)


class Ensemble(nn.Module):
    """The mean logits of several scorers that learned from different parts of the data."""

    def __init__(self, scorers: list[ListScorer]) -> None:
        super().__init__()
        self.scorers = nn.ModuleList(scorers)

    def forward(self, rows: Tensor, context: Tensor, ragged: Ragged) -> tuple[Tensor, Tensor]:
        logits, nothing = zip(*(scorer(rows, context, ragged) for scorer in self.scorers), strict=True)
        return torch.stack(logits).mean(0), torch.stack(nothing).mean(0)


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Networks as narrow as these gain nothing from many threads, and lose much where others share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def score(
    scorer: nn.Module, rows: Tensor, context: Tensor, owner: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Logits float32[N] of rows and float32[T] of "nothing", as arrays, on the device there is."""
    ragged = Ragged(torch.from_numpy(owner).to(device()), len(context))
    logit, nothing = scorer.to(device())(rows.to(device()), context.to(device()), ragged)
    return logit.cpu().numpy(), nothing.cpu().numpy()


def with_nothing(logit: Tensor, nothing: Tensor, ragged: Ragged) -> Tensor:
    """Set logits [N] with the logit of "nothing" added to each transfer's first row, which is the empty set."""
    first = torch.ones_like(ragged.owner, dtype=torch.bool)
    first[1:] = ragged.owner[1:] != ragged.owner[:-1]
    return logit + torch.where(first, nothing[ragged.owner], torch.zeros_like(logit))


def shares(
    logit: npt.NDArray[np.float32], nothing: npt.NDArray[np.float32], owner: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """float32[S]: the softmax of each set among those of its transfer."""
    ragged = Ragged(torch.from_numpy(owner), len(nothing))
    sets = with_nothing(torch.from_numpy(logit), torch.from_numpy(nothing), ragged)
    return np.asarray(ragged.log_softmax(sets).exp().numpy())


def best_rows(
    share: npt.NDArray[np.float32], owner: npt.NDArray[np.int64], count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of each of `count` transfers' sets the row of the best int64[T] and of the runner-up (the best again where it is
    alone), by their `share` float32[S]."""
    order = np.lexsort((-share, owner))
    first = np.searchsorted(owner[order], np.arange(count))
    second = np.minimum(first + 1, len(order) - 1)
    second = np.where(owner[order[second]] == np.arange(count), second, first)
    return order[first], order[second]
