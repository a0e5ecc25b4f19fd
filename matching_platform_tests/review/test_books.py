"""What books make of the tables."""

from itertools import combinations

from matching_platform_tests.review.bench import DAY, books, invoice, transfer

HUBS = "ABCDE"


def test_a_rate_through_two_currencies_is_always_the_same() -> None:
    """Each third currency is known through two others, which disagree: the first one by name counts."""
    paid = [("EUR", hub, 1) for hub in HUBS] * 2
    for first, second in combinations(HUBS, 2):
        paid += [(first, first + second, 1), (second, first + second, 2)]
    names = [str(number) for number in range(len(paid))]
    held = books(
        [transfer(name, 100 * rate, currency=to) for name, (to, _, rate) in zip(names, paid, strict=True)],
        [invoice(name, 100, currency=source) for name, (_, source, _) in zip(names, paid, strict=True)],
        tags=[(name, name, 100, DAY) for name in names],
    )
    assert held.main == "EUR"
    assert held.rates == dict.fromkeys(["EUR", *(source for _, source, _ in paid)], 1.0)
