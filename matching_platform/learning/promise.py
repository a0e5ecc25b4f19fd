"""How sure a settlement is, and from which confidence on the promised precision holds; judged by tags of which a few are
wrong themselves."""

from typing import Final

import numpy as np
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression

from matching_platform.matching.arrays import Doubles, Flags, Floats, Ints
from matching_platform.matching.confidence import CLUES, Confidence

_LOOSENESS: Final = 1.0  # inverse strength of the penalty on the weights of standardized clues
_RISK: Final = 0.1  # that the promise does not hold for settlements like those judged
# Shares of what could be booked at which sequences of tests begin; they divide the risk. Of few, a wrong tag or two among
# the surest must not forbid everything: on eight small companies (0.75, 0.4) books where (0.5, 0.25) often books nothing.
_STARTS: Final = (0.75, 0.4)
_STEPS: Final = 200
_NEVER: Final = 1.1

# A tag is doubted only where the scorer, which has not learned from it, is that sure of another set and that sure that
# the tagged one is wrong.
_SURE: Final = 0.99
_HARDLY: Final = 0.002


def calibrate(clues: Doubles, right: Flags) -> Confidence:
    """How clues [N, len(CLUES)] of settlements the scorer has not learned from tell whether these are `right` bool[N]."""
    if right.all() or not right.any():
        return Confidence()
    scale = clues.std(axis=0)
    told = scale > 0
    fitted = LogisticRegression(C=_LOOSENESS, max_iter=1000).fit(clues[:, told] / scale[told], right)
    weights = dict(zip(np.array(CLUES)[told].tolist(), (fitted.coef_[0] / scale[told]).tolist(), strict=True))
    return Confidence(float(fitted.intercept_[0]), weights)


def threshold(confidence: Doubles, right: Flags, promised: float, risk: float = _RISK) -> float:
    """The lowest confidence from which on the promised precision holds; above 1 where it can be promised from nowhere.

    `confidence` and `right` float/bool[N] are settlements the scorer has not learned from. More and more is booked, as long
    as the share of errors lies below 1 − `promised` with a certainty of 1 − `risk` (Clopper and Pearson, 1934); the first
    failure ends it, so that trying many thresholds costs no certainty (fixed-sequence testing: Angelopoulos et al., Learn
    then Test, 2021). It holds for later settlements as far as they are like these.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked, wrong = confidence[order], np.cumsum((~right[order]).astype(np.int64))
    each = risk / len(_STARTS)
    cuts = [_sequence(ranked, wrong, promised, int(len(ranked) * start), each) for start in _STARTS if len(ranked)]
    return min(cuts, default=_NEVER)


def _sequence(ranked: Doubles, wrong: Ints, promised: float, start: int, risk: float) -> float:
    steps = np.unique(np.linspace(start, len(ranked), _STEPS).astype(np.int64)).clip(1)
    # Whoever is as sure as the last one is booked with him.
    booked = np.searchsorted(-ranked, -ranked[steps - 1], "right")
    errors = wrong[booked - 1]
    most = beta.ppf(1 - risk, errors + 1, np.maximum(booked - errors, 1e-9))
    holds = np.logical_and.accumulate(most <= 1 - promised)
    return float(ranked[booked[holds][-1] - 1]) if holds.any() else _NEVER


def doubted(share: Floats, tagged_share: Floats, left_open: Flags) -> Flags:
    """bool[N]: tags that are not to be believed, so that nobody is judged by them.

    `share` float[N] is what the scorer gives the set it prefers to the tagged one, `tagged_share` float[N] what it gives
    that one, and `left_open` bool[N] whether all tags together leave open what it would pay. What this transfer paid by
    all signs, and nobody else did, was most likely tagged wrongly (after Northcutt et al., Confident Learning, 2021).
    """
    return (share >= _SURE) & (tagged_share <= _HARDLY) & left_open
