"""Who is billed and who pays."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.companies import references
from benchmarks.companies.places import COUNTRIES, RATES, WHOLE, Country
from benchmarks.companies.spec import Company, Habit, Payer, Segment, Shares

# How often a payer keeps to its favourite way of writing.
KEEPS = 0.82
SHIFT_DAYS = 45
_SUPPLIER_NUMBERS = (
    "{yy}{n:05}", "{n:06}", "A{n:05}", "{yyyy}-{n:04}", "{n}/{mm}{yy}", "SI-{n:06}", "{mm}{yy}-{n:03}", "{n}",
    "RG{yyyy}{n:04}", "{yy}.{mm}.{n:03}", "BILL{n:05}", "{n:04}/{yyyy}/B", "N{n:07}", "{yyyy}{mm}{n:02}", "T-{n}",
)  # fmt: skip


@dataclass(eq=False)
class Purse:
    """Whom the bank reports: a name in the forms it may take, and an account."""

    names: tuple[str, ...]
    account: str
    under: float = 0.0
    terms: Payer | None = None  # A card acquirer's.


@dataclass(eq=False)
class Hand:
    """A counterparty's way of paying for some time: its habit, its purses and its favourite ways of writing."""

    habit: Habit
    own: Purse
    other: Purse | None
    favourites: dict[str, Any]
    run_day: int


@dataclass(eq=False)
class Party:
    """A counterparty. `hands` are its ways of paying with the day of issue from which each holds."""

    serial: int
    segment: Segment
    country: Country
    currency: str
    name: str
    tax_id: str
    account: str | None
    rate: float
    terms: int
    typical: float
    recurring: bool
    numbering: str
    hands: list[tuple[int, Hand]] = field(default_factory=list)
    joined: int = 0

    @property
    def id(self) -> str:
        return f"{'D' if self.segment.side == 'sale' else 'K'}{self.serial:05}"

    def hand(self, day: int) -> Hand:
        return next(hand for since, hand in reversed(self.hands) if since <= day)


def pick(rng: np.random.Generator, shares: Shares) -> str:
    """One of the keys, in proportion to its weight."""
    keys, weights = list(shares), np.array(list(shares.values()), float)
    return keys[rng.choice(len(keys), p=weights / weights.sum())]


def one_of(rng: np.random.Generator, choices: Any) -> Any:
    """One of a sequence, all equally likely."""
    return choices[int(rng.integers(len(choices)))]


def amount_in(currency: str, euro: float) -> int:
    """Minor units of `currency` for an amount in euro; whole units where there are no coins below them."""
    minor = round(euro * RATES[currency] * 100)
    return max(100, round(minor / 100) * 100) if currency in WHOLE else max(100, minor)


def names_of(rng: np.random.Generator, country: Country, person: bool) -> tuple[str, tuple[str, ...]]:
    """A name as the ledger has it, and the forms in which banks report it."""
    words = country.words
    if person:
        parts = [one_of(rng, words["given"]), one_of(rng, words["family"])]
        if ":" in parts[0]:
            return _transliterated(parts[::-1], "", "")
        given, family = parts
        if rng.random() < 0.6:
            middle = one_of(rng, words["given"])
            given += f" {middle[0]}." if rng.random() < 0.5 else f" {middle}" if middle != given else ""
        if rng.random() < 0.25:
            second = one_of(rng, words["family"])
            family += f"-{second}" if second != family else ""
        return f"{given} {family}", (f"{given} {family}", f"{family} {given}")
    root, trade, legal = (one_of(rng, words[part]) for part in ("roots", "trades", "legal"))
    second = one_of(rng, words["roots"])
    if ":" in root:
        parts = [root, *([second] if second != root and rng.random() < 0.3 else []), trade]
        return _transliterated(parts, legal, {"JP": " K.K.", "KR": " CO LTD"}[country.code])
    if rng.random() < 0.25:  # Firms that carry their founder's name.
        root = one_of(rng, words["family"])
    if second != root and rng.random() < 0.35:
        root += f" {second}"
    name = f"{root} {trade}" if rng.random() < 0.5 else f"{root} {trade}".replace("-", " ")
    return f"{name} {legal}", (f"{name} {legal}", name, f"{name} {legal}")


def _transliterated(parts: list[str], legal: str, latin_legal: str) -> tuple[str, tuple[str, ...]]:
    native, heard, latin = ([form[place] for form in (part.split(":") for part in parts)] for place in range(3))
    joined = "".join(native)
    ledger = f"{legal}{joined}" if legal else " ".join(native)
    short = {"株式会社": "ｶ)", "有限会社": "ﾕ)"}.get(legal, "")
    return ledger, (f"{short}{''.join(heard)}", " ".join(latin) + latin_legal, f"{''.join(heard)}{short[::-1]}")


def make_parties(rng: np.random.Generator, company: Company, scale: float) -> list[Party]:
    """All counterparties of `company`, in the order of its segments."""
    shared = {
        kind: [
            Purse((payer.name,), references.account(rng, COUNTRIES[payer.country]), payer.under, payer)
            for payer in payers
        ]
        for kind, payers in company.payers.items()
    }
    parties: list[Party] = []
    taken: set[str] = set()
    for segment in company.segments.values():
        for _ in range(max(2, round(segment.parties * scale))):
            parties.append(_party(rng, company, segment, len(parties) + 1, shared, taken))
    return parties


def _new_name(rng: np.random.Generator, country: Country, person: bool, taken: set[str]) -> tuple[str, tuple[str, ...]]:
    """A name that nobody bears yet, as long as some are to be found."""
    for _ in range(30):
        name, shown = names_of(rng, country, person)
        if shown[0].upper() not in taken:
            break
    taken.add(shown[0].upper())
    return name, shown


def _party(
    rng: np.random.Generator,
    company: Company,
    segment: Segment,
    serial: int,
    shared: dict[str, list[Purse]],
    taken: set[str],
) -> Party:
    country = COUNTRIES[pick(rng, segment.countries)]
    person = rng.random() < segment.persons
    name, shown = _new_name(rng, country, person, taken)
    own = Purse(shown, references.account(rng, country))
    recurring = rng.random() < segment.recurring
    typical = one_of(rng, segment.prices) if segment.prices else segment.median * rng.lognormal(0, 0.7)
    party = Party(
        serial,
        segment,
        country,
        country.currency,
        name,
        "".join(str(digit) for digit in rng.integers(0, 10, 9)),
        own.account if rng.random() < segment.account_known else None,
        segment.rate * rng.lognormal(-0.18, 0.6),
        one_of(rng, segment.days),
        typical,
        recurring,
        one_of(rng, _SUPPLIER_NUMBERS),
    )
    last = company.months * 30
    if rng.random() < 0.25:
        party.joined = int(rng.integers(0, last * 2 // 3))
    party.hands.append((0, _hand(rng, segment.habit, party, own, shared)))
    if company.shift is not None and segment.later is not None:
        since = company.shift * 30 + int(rng.integers(0, SHIFT_DAYS))
        if rng.random() < 0.3:  # A new bank as well.
            own = Purse(own.names, references.account(rng, country))
        party.hands.append((since, _hand(rng, segment.later, party, own, shared)))
    return party


def _hand(rng: np.random.Generator, habit: Habit, party: Party, own: Purse, shared: dict[str, list[Purse]]) -> Hand:
    favourites = {
        "title": pick(rng, habit.titles),
        "form": pick(rng, habit.forms),
        "joiner": one_of(rng, habit.joiners),
        "cut": pick(rng, habit.cut),
        "said": int(rng.integers(100)),
        "name": int(rng.integers(len(own.names))),
    }
    return Hand(habit, own, _other_purse(rng, habit, party, shared), favourites, int(rng.integers(1, 29)))


def _other_purse(rng: np.random.Generator, habit: Habit, party: Party, shared: dict[str, list[Purse]]) -> Purse | None:
    """The purse from which somebody else pays; an owner or a relative has the family name where there is one."""
    if habit.payer == "self":
        return None
    if habit.payer in shared:
        return one_of(rng, shared[habit.payer])
    words, name, root = party.country.words, party.name, party.name.split()[0]
    names: tuple[str, ...]
    if habit.payer == "owner":
        families = [word for word in words["family"] if word in name.split("-")[0].split()]
        person = (one_of(rng, words["given"]), one_of(rng, families or words["family"]))
        names = (" ".join(person), " ".join(person[::-1]))
    elif habit.payer == "parent":
        names = (f"{root} {one_of(rng, ('Group', 'Holding', 'Beteiligungs', 'International'))}",)
    else:  # A successor: the business goes on under a new firm.
        names = (names_of(rng, party.country, person=False)[0],)
    return Purse(names, references.account(rng, party.country))
