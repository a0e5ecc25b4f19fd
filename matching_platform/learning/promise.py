"""From which confidence on the promised precision holds, judged by tags of which a few are wrong themselves."""

from typing import Final

import numpy as np
from scipy.stats import beta

from matching_platform.matching.arrays import Doubles, Flags, Floats

_TRUST: Final = 0.9  # how sure it has to be that the promise holds, for settlements like those judged
_STEPS: Final = 200  # shares of what could be booked, from a half of it on
_NEVER: Final = 1.1

# A tag is doubted only where the scorer, which has not learned from it, is that sure of another set and that sure that
# the tagged one is wrong.
_SURE: Final = 0.99
_HARDLY: Final = 0.002


def threshold(confidence: Doubles, right: Flags, promised: float) -> float:
    """The lowest confidence from which on the promised precision holds; above 1 where it can be promised from nowhere.

    `confidence` and `right` float/bool[N] are settlements the scorer has not learned from. More and more is booked, from the
    surer half on, as long as the share of errors lies below 1 − `promised` with 90 % certainty (Clopper and Pearson, 1934);
    the first failure ends it, so that trying many thresholds costs no certainty (fixed-sequence testing: Angelopoulos et
    al., Learn then Test, 2021). It holds for later settlements as far as they are like these.
    """
    if not len(confidence):
        return _NEVER
    order = np.argsort(-confidence, kind="stable")
    ranked, wrong = confidence[order], np.cumsum(~right[order])
    steps = np.unique(np.linspace(len(ranked) / 2, len(ranked), _STEPS).astype(np.int64)).clip(1)
    # Whoever is as sure as the last one is booked with him.
    booked = np.searchsorted(-ranked, -ranked[steps - 1], "right")
    errors = beta.ppf(_TRUST, wrong[booked - 1] + 1, np.maximum(booked - wrong[booked - 1], 1e-9))
    holds = np.logical_and.accumulate(errors <= 1 - promised)
    return float(ranked[booked[holds][-1] - 1]) if holds.any() else _NEVER


def doubted(share: Floats, tagged_share: Floats, unpaid_otherwise: Flags) -> Flags:
    """bool[N]: tags that are not to be believed, so that nobody is judged by them.

    `share` float[N] is what the scorer gives the set it prefers to the tagged one, `tagged_share` float[N] what it gives
    that one, and `unpaid_otherwise` bool[N] whether nobody else ever paid any of the invoices that it would add. What this
    transfer paid by all signs, and nobody else did, was most likely tagged wrongly (after Northcutt et al., Confident
    Learning, 2021).
    """
    return (share >= _SURE) & (tagged_share <= _HARDLY) & unpaid_otherwise
