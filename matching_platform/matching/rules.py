"""Which pairs are looked at, as data: a rule is a name, two key spaces and a limit.

The list has two readings: `candidates.find` joins arrays, `warehouse.candidates` is one expression for a warehouse.
"""

from dataclasses import dataclass
from typing import Final

# Slots per transfer, after the likeliest; the longest list of open invoices that people still pay in one transfer.
SLOTS: Final = 60
# A payer may know an invoice some days before the date printed on it.
DAYS_BEFORE_ISSUE: Final = 7


@dataclass(frozen=True)
class Rule:
    """Pairs whose keys are equal: `transfer_key` and `invoice_key` name key spaces, `limit` the most pairs per transfer.

    `worth` decides which pairs stay where a list is too long for its slots. `closed_too`: what a title names may have been
    settled before; `same_currency`: amounts of another one say nothing.
    """

    name: str
    transfer_key: str
    invoice_key: str
    limit: int
    worth: int
    closed_too: bool = False
    same_currency: bool = False


RULES: Final = (
    Rule("number", "digits", "number", 30, worth=12, closed_too=True),
    Rule("reference", "digits", "reference", 30, worth=12, closed_too=True),
    Rule("number without zeros", "digits without zeros", "number without zeros", 30, worth=12, closed_too=True),
    Rule("number, a digit missing", "digits, one missing", "less one", 10, worth=5, closed_too=True),
    Rule("number, a digit too many", "digits less one", "number or reference", 10, worth=5, closed_too=True),
    Rule("number, a digit wrong", "digits less one", "less one", 10, worth=5, closed_too=True),
    Rule("counterparty", "payer", "counterparty", 60, worth=6),
    Rule("counterparty of a number named", "named", "counterparty", 60, worth=3),
    Rule("payout of a collector", "collected", "mark", 60, worth=5, same_currency=True),
    Rule("counterparty named in the title", "written name", "counterparty", 40, worth=3),
    Rule("amount", "amount", "open amount", 8, worth=8),
    Rule("share of the amount", "whole", "open amount", 8, worth=7),
    Rule("sum of a run", "run", "run", 32, worth=8),
)
RULE_INDEX: Final = {rule.name: index for index, rule in enumerate(RULES)}
# These read a number as it stands; a typo of one number is often another number.
SPELLED_OUT: Final = ("number", "reference", "number without zeros")
READ_FROM_TITLE: Final = tuple(index for index, rule in enumerate(RULES) if rule.closed_too)
