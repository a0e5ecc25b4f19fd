"""`python -m matching_platform.matching.precompile` leaves machine code of the matching in NUMBA_CACHE_DIR, of any model."""

from matching_platform.matching.confidence import Confidence
from matching_platform.matching.features import CONTEXT_FEATURES, PAIR_FEATURES
from matching_platform.matching.matcher import Matcher
from matching_platform.matching.memory import Memory
from matching_platform.matching.scorer import Ensemble, ListScorer
from matching_platform.matching.set_features import SET_FEATURES


def untrained() -> Matcher:
    """A matcher that knows nothing; it runs through the same code as one that does."""
    pairs = ListScorer(len(PAIR_FEATURES), len(CONTEXT_FEATURES), hidden=8)
    sets = ListScorer(len(SET_FEATURES), len(CONTEXT_FEATURES) + 1, hidden=8)
    return Matcher(Ensemble([pairs]), Ensemble([sets]), Memory.empty(), Confidence(), auto_from=1.0, card={})


if __name__ == "__main__":
    untrained().warm_up()
