"""Machine references and account numbers that pass the checks of those who made them."""

from collections.abc import Callable
from typing import Final

import numpy as np

from benchmarks.companies.places import Country


def iban(country: str, rest: str) -> str:
    """The IBAN of `rest`, the account part after the check digits."""
    number = "".join(str(int(sign, 36)) for sign in f"{rest}{country}00")
    return f"{country}{98 - int(number) % 97:02}{rest}"


def account(rng: np.random.Generator, country: Country) -> str:
    """An account number as the country writes it."""
    signs = {"9": "0123456789", "A": "ABCDEFGHKLMNPRSTUVWX"}
    drawn = (signs[sign][rng.integers(len(signs[sign]))] if sign in signs else sign for sign in country.account)
    rest = "".join(drawn)
    return iban(country.code, rest) if country.iban else rest


def luhn(digits: str) -> str:
    """`digits` and their check digit, modulus 10."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value // 10 + value % 10
    return digits + str(-total % 10)


def _kid(customer: int, serial: int) -> str:
    return luhn(f"{customer:05}{serial:07}")


def _customer_kid(customer: int, _serial: int) -> str:
    return luhn(f"{customer * 7_919 % 10**8:08}")


def _ocr(customer: int, serial: int) -> str:
    body = f"{serial:06}{customer:04}"
    return luhn(body + str((len(body) + 2) % 10))


def _fik(customer: int, serial: int) -> str:
    return luhn(f"{customer:06}{serial:08}")


def _viite(customer: int, serial: int) -> str:
    body = f"{customer}{serial:06}".lstrip("0")
    total = sum(int(digit) * (7, 3, 1)[place % 3] for place, digit in enumerate(reversed(body)))
    return body + str(-total % 10)


def _rf(customer: int, serial: int) -> str:
    body = _viite(customer, serial)
    return f"RF{98 - int(f'{body}271500') % 97:02}{body}"


def _ogm(customer: int, serial: int) -> str:
    body = f"{customer % 1000:03}{serial:07}"
    return f"{body}{int(body) % 97 or 97:02}"


def _payment_id(customer: int, serial: int) -> str:
    value, signs = (customer * 1_000_003 + serial * 7_919) % 36**8, ""
    while len(signs) < 8:
        value, sign = divmod(value, 36)
        signs += "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[sign]
    return f"{signs}{serial % 10_000:04}"


def _claim(customer: int, serial: int) -> str:
    return f"{customer % 900 + 100}{serial:06}"


# Kind of reference → its text for a customer's number and the bill's serial number.
KINDS: Final[dict[str, Callable[[int, int], str]]] = {
    "kid": _kid,
    "customer kid": _customer_kid,  # The same on every bill of a customer.
    "ocr": _ocr,
    "fik": _fik,
    "viite": _viite,
    "rf": _rf,
    "ogm": _ogm,
    "payment id": _payment_id,
    "claim": _claim,
}
