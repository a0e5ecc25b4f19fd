"""Is the promise about unattended bookings kept? Asked again with every tag, and seldom answered wrongly however often.

What speaks against a promise is a bet against it, which pays fairly as long as it is kept: a mixture of likelihood ratios
over worse precisions. Whoever keeps the promise sees the bet grow beyond 1/α with a probability of α at most, ever, and
not at each look (Ville's inequality), so that nobody has to decide in advance when to look. The bet depends on the counts
alone: in which order the tags came does not matter. Source: Robbins, Statistical methods related to the law of the
iterated logarithm, 1970; Ramdas et al., Game-theoretic statistics and safe anytime-valid inference, 2023.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import betaincc, betaln
from scipy.stats import binomtest

from matching_platform.learning.promise import threshold
from matching_platform.matching.arrays import Doubles, Flags

# Of the models that only just keep their promise so many are ever accused, at most; better ones practically never.
FALSE_ALARMS: Final = 0.005
CONFIDENCE_LEVEL: Final = 0.95
_DOUBT: Final = 0.1

# Bets are placed on shares of errors that lie about this many times what is allowed above what is allowed.
_WORSE_BY: Final = 2.0
_EXACT: Final = 1e-290

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Verdict:
    """Whether a promise is kept by `judged` bookings of which `wrong` were wrong, and how much speaks against it."""

    wrong: int
    judged: int
    promised: float

    @property
    def broken(self) -> bool:
        return bool(evidence(self.wrong, self.judged, self.promised) >= -np.log(FALSE_ALARMS))

    @property
    def doubtful(self) -> bool:
        """Whether at one look, which is not repeated, so much is wrong as one in ten who keep the promise would have."""
        if not self.judged:
            return False
        return bool(binomtest(self.wrong, self.judged, 1 - self.promised, alternative="greater").pvalue < _DOUBT)

    @property
    def told(self) -> str:
        """The counts in words."""
        if not self.judged:
            return "no unattended booking could be judged yet"
        counted = f"{self.wrong} of {self.judged} unattended bookings that could be judged were wrong"
        return f"{counted}: {1 - self.wrong / self.judged:.2%} right, {self.promised:.2%} promised"


def evidence(wrong: int | Counts, judged: int | Counts, promised: float) -> Doubles:
    """How much speaks against the promise that at most 1 − `promised` of the bookings are wrong: the log of a bet.

    `wrong` of `judged`, counts or int64[N] of them. At most a share α of those who keep the promise ever see −log α. That
    holds as long as, whatever came before, each next booking that is judged is wrong with that probability at most.
    """
    allowed, right = 1 - promised, np.subtract(judged, wrong)
    typical = 1 / (_WORSE_BY * allowed)
    bets = _mass(1.0 + wrong, typical + right, allowed) - _mass(1.0, typical, allowed)
    return bets - (wrong * np.log(allowed) + right * np.log1p(-allowed))


def _mass(a: npt.ArrayLike, b: npt.ArrayLike, above: float) -> Doubles:
    """The log of a beta function's part that lies above a share; −∞ where it is too small for a float to be exact."""
    part = betaincc(a, b, above)
    with np.errstate(divide="ignore"):
        return np.asarray(betaln(a, b) + np.log(np.where(part > _EXACT, part, 0.0)))


def interval(count: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share (Clopper and Pearson, 1934); all is possible where nothing was counted."""
    if not of:
        return 0.0, 1.0
    found = binomtest(count, of).proportion_ci(CONFIDENCE_LEVEL, method="exact")
    return float(found.low), float(found.high)


def holds_from(confidence: Doubles, right: Flags, promised: float) -> float:
    """From which confidence on bookings bore the promise out, with the certainty that a training demands; above 1: none.

    `confidence` and `right` float/bool[N] are all bookings that could be judged. What the training itself had seen does not
    count beside them: it led to the threshold that failed.
    """
    return threshold(confidence, right, promised)
