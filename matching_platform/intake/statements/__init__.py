"""Bank statements: MT940, MT942, camt.052, camt.053 and camt.054 become rows of `transfers`."""

from matching_platform.intake.statements.reading import (
    NUMBERED,
    as_there,
    booking_of,
    other_forms,
    read_statement,
    read_statements,
)

__all__ = ["NUMBERED", "as_there", "booking_of", "other_forms", "read_statement", "read_statements"]
