"""How sure is the best set, and from where on it may be booked unattended at the promised precision."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matching_platform.matching.arrays import Doubles

_EDGE = 1e-6


@dataclass(frozen=True)
class Calibration:
    """Beta calibration (Kull et al., 2017), strictly increasing: log odds = a·ln p − b·ln(1−p) + c, with a, b > 0."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def __call__(self, share: npt.NDArray[np.floating]) -> Doubles:
        """Probability that the set is right, of the share float[N] that the network gave it."""
        p = np.clip(share.astype(np.float64), _EDGE, 1 - _EDGE)
        return 1 / (1 + np.exp(-(self.a * np.log(p) - self.b * np.log1p(-p) + self.c)))


def threshold(confidence: Doubles, right: npt.NDArray[np.bool_], promised: float) -> float:
    """The lowest confidence from which on the promised precision holds, by conformal risk control.

    `confidence` and `right` float/bool[N] are settlements the scorer has not learned from. Booking all that are at least
    as sure keeps the expected share of errors among them below 1 − `promised`, as far as later transfers are like these: the
    bound counts one more error than was seen (after Angelopoulos et al., Conformal Risk Control, 2024), but the threshold is
    chosen on the same settlements, and payers change their habits. Above 1 where no threshold can be promised.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked, wrong = confidence[order], np.cumsum(~right[order])
    booked = np.arange(1, len(order) + 1)
    last_of_tie = np.r_[ranked[1:] != ranked[:-1], True] if len(ranked) else np.zeros(0, bool)
    holds = ((wrong + 1) / (booked + 1) <= 1 - promised) & last_of_tie
    return float(ranked[np.flatnonzero(holds)[-1]]) if holds.any() else 1.1
