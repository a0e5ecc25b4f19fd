"""What describes a company: tables of segments, habits and payers. A company is data; the machinery reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

Shares = Mapping[str, float]  # Choices and their weights, or events and their probabilities.

# The first of these is paid when the bill falls due, the others some days after one another.
PARTS: Final[dict[str, tuple[float, ...]]] = {
    "30/70": (0.3, 0.7),
    "50/50": (0.5, 0.5),
    "thirds": (1 / 3, 1 / 3, 1 / 3),
    "quarters": (0.25, 0.25, 0.25, 0.25),
    "tenth first": (0.1, 0.9),
    "80/20": (0.8, 0.2),
    "stuck at half": (0.5,),
}
# A share of the money that is due and does not arrive, though the invoice counts as settled.
WITHHELD: Final = {
    "skonto2": 0.02,
    "skonto3": 0.03,
    "tds2": 0.02,
    "tds10": 0.10,
    "tds2 before tax": 0.02 / 1.18,
    "tds10 before tax": 0.10 / 1.18,
}
# No transfer falls short of what it settles by more than this share; above that, by one bank fee.
MOST_WITHHELD: Final = max(WITHHELD.values())


@dataclass(frozen=True)
class Habit:
    """How a payer pays and what it writes.

    `rhythm`: each (one bill, one transfer), weekly, monthly, closing (all of last month at once), account (round sums
    that cover the oldest), payout (a card acquirer's settlement) or claims (an insurer's weekly run).
    `titles` are names of `titles.TITLES`, `forms` of `titles.FORMS`; a payer keeps to its favourites most of the time.
    `deducts`: how often what of `WITHHELD`, or fee, rounded, over, is taken off or added; `denies`: how often an insurer
    pays only some share of a claim. `payer` is self, owner, parent, successor or a key of the company's `payers`.
    """

    rhythm: str = "each"
    late: tuple[float, float] = (2, 5)
    most: int = 20
    titles: Shares = field(default_factory=lambda: {"number": 1.0})
    forms: Shares = field(default_factory=lambda: {"printed": 0.7, "squeezed": 0.2, "running": 0.1})
    joiners: tuple[str, ...] = (", ", " ", "+", " / ", ";")
    cut: Shares = field(default_factory=lambda: {"140": 1.0})
    typos: float = 0.02
    glued: float = 0.0
    stale: float = 0.0  # How often the title is a copy of the last one, and names the bill before.
    parts: Shares = field(default_factory=dict)
    deducts: Shares = field(default_factory=dict)
    always: str | None = None  # One of `WITHHELD` that every payment of this payer bears.
    denies: float = 0.0
    exchanged: float = 0.0
    payer: str = "self"
    payer_share: float = 1.0


@dataclass(frozen=True)
class Segment:
    """Counterparties alike: how many at scale one, what they are billed a month and for how much, how they pay."""

    parties: int
    rate: float
    countries: Shares
    habit: Habit
    later: Habit | None = None  # From the company's `shift` on, where habits change.
    side: str = "sale"
    median: float = 400.0  # In euro, whatever the currency.
    sigma: float = 0.9
    prices: tuple[float, ...] = ()  # In the counterparty's currency: amounts are small multiples of these, and extras.
    recurring: float = 0.0
    persons: float = 0.0
    credits: float = 0.03
    unpaid: float = 0.02
    days: tuple[int, ...] = (14, 30)
    reference: str = "none"  # One of `references.KINDS`, `country` for the country's own, or none.
    references: float = 1.0
    account_known: float = 0.5


@dataclass(frozen=True)
class Payer:
    """Somebody who pays for several counterparties.

    `keeps` is what an acquirer keeps of a sale, at least and at most, and `fixed` what it takes besides, in hundredths;
    it pays out every `every` days, `lag` days after the last sale. The machine references of what it pays begin with its
    `mark`.
    """

    name: str
    country: str
    mark: str = ""
    under: float = 0.0  # How often the transfer shows the counterparty's own name all the same.
    keeps: tuple[float, float] = (0.0, 0.0)
    fixed: int = 0
    every: int = 1
    lag: int = 2


@dataclass(frozen=True)
class Company:
    """A company to be judged on. `numbers` is how it numbers its sales, by first month (counted from zero)."""

    home: str
    ourselves: str
    start: str
    numbers: Mapping[int, str]
    first_number: int
    credit_number: str
    segments: Mapping[str, Segment]
    payers: Mapping[str, tuple[Payer, ...]] = field(default_factory=dict)
    nothing: Mapping[str, float] = field(default_factory=dict)  # Transfers a month at scale one, by `nothing.OTHERS`.
    old_number: str = "{n}/{yy}"
    months: int = 18
    shift: int | None = None  # The month (counted from zero) from which habits change, over some six weeks.
    account_shown: float = 0.93
    upper: float = 0.8
    duplicates: float = 0.008
