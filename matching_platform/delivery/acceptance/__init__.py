"""The second blessing: does it serve?"""

from matching_platform.delivery.acceptance.examination import CHECKS, SENTENCES, examine
from matching_platform.delivery.acceptance.limits import Limits
from matching_platform.delivery.acceptance.record import KIND, Acceptance, obstacles, read, write

__all__ = [
    "CHECKS",
    "KIND",
    "SENTENCES",
    "Acceptance",
    "Limits",
    "examine",
    "obstacles",
    "read",
    "write",
]
