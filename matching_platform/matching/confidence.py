"""How sure is the best set: a calibrated probability, from what the settlement knows of it and of its rival."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from matching_platform.matching.arrays import Doubles, Floats, Ints
from matching_platform.matching.features import Lists
from matching_platform.matching.set_features import SET_FEATURES
from matching_platform.matching.settlement import Sets

_EDGE: Final = 1e-6
# What of the best set tells more than its share does: whether the money is explained, what the title leaves unexplained,
# and how many others would have done.
_OF_THE_SET: Final = (
    "nothing",
    "single",
    "sum equals amount",
    "sum within rounding",
    "amount below sum",
    "amount above sum",
    "an agreed share",
    "usual share",
    "named members",
    "named left out",
    "members not named",
    "inside range left out",
    "weakest member",
    "likelihood below best",
    "twins left out",
    "older twins left out",
    "equal sums",
    "equal sums of this size",
    "credit notes",
    "counterparties",
    "contiguous by number",
    "issued after booking",
    "days from usual, most",
    "payer known",
    "payer less known than others",
)
CLUES: Final = ("log share", "log rest", "margin", "candidates", *_OF_THE_SET)


def clues(lists: Lists, sets: Sets, best: Ints, rival: Ints, share: Floats) -> Doubles:
    """float64[T, len(CLUES)] of the sets in rows `best` int64[T], given `share` float32[S] of all sets of each transfer."""
    mine, other = (np.clip(share[row].astype(np.float64), _EDGE, 1 - _EDGE) for row in (best, rival))
    margin = np.where(best == rival, -np.log(_EDGE), np.log(mine) - np.log(other))
    count = np.bincount(lists.pairs.transfer, minlength=len(best))
    of_the_set = sets.features[best][:, [SET_FEATURES.index(name) for name in _OF_THE_SET]]
    return np.column_stack([np.log(mine), -np.log1p(-mine), margin, np.log1p(count), of_the_set])


@dataclass(frozen=True)
class Confidence:
    """Logistic calibration: log odds that the set is right = `bias` + Σ weight · clue; clues without a weight count none."""

    bias: float = 0.0
    weights: dict[str, float] = field(default_factory=lambda: {"log share": 1.0, "log rest": 1.0})

    def __call__(self, clues: Doubles) -> Doubles:
        """Probability float64[N] that each set is right, of its clues [N, len(CLUES)]."""
        unknown = self.weights.keys() - set(CLUES)
        if unknown:
            raise ValueError(f"there are no clues {sorted(unknown)}")
        odds = self.bias + clues @ np.array([self.weights.get(name, 0.0) for name in CLUES])
        return 1 / (1 + np.exp(-np.clip(odds, -30, 30)))
