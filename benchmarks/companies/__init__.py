"""Companies nobody has developed on, to judge by how well matching does where it has never been.

Their world shares neither words nor mechanisms with `matching_platform.sample`. No person or firm in them exists.
"""

from benchmarks.companies.catalogue import COMPANIES
from benchmarks.companies.ledger import generate, write

__all__ = ["COMPANIES", "generate", "write"]
