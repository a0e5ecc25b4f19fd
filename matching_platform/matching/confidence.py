"""How sure is the best set."""

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
