"""Passwords: which are taken, and how they are kept."""

import re
import secrets
import unicodedata
from functools import cache
from threading import BoundedSemaphore
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from matching_platform.access.users import PasswordError

SHORTEST: Final = 12
LONGEST: Final = 200
_DIFFERENT: Final = 5  # characters

# What the commonest passwords of that length come down to, letters alone.
_COMMON: Final = frozenset(
    """
    abc abcd abcdef abcdefgh abcdefghi abcdefghij abcdefghijkl admin administrator asdfghjkl asdfghjklqwerty changeit
    changeme changemenow computer correcthorsebatterystaple football haslo haslohaslo iloveyou iloveyouforever
    letmein letmeinletmein letmeinnow liverpool login loginlogin manchesterunited master matching matchingplatform
    mojehaslo monkey newpassword nopassword p pass passw passwd password passwordpassword passwort polska princess
    q qaz qazwsx qazwsxedc qazwsxedcrfv qqww qwer qwert qwerty qwertyqwerty qwertyui qwertyuiop qwertyuiopasdf
    qwertyuiopasdfghjkl qwertz qwertzuiop secret secretpassword starwars summer sunshine superman temp test testtest
    thisisapassword trustno user welcome welcomewelcome whatever winter zaq zaqwsx zaqxsw zxcvbnm
    """.split()
)

_DIGITS: Final = "0123456789" * 3

_HASHER: Final = PasswordHasher()
# A hash takes 64 MiB: a burst of logins waits for memory instead of taking all of it.
_HASHING: Final = BoundedSemaphore(4)


def check(password: str, name: str) -> None:
    """PasswordError where `password` is too weak for the user `name`, or too long to be hashed."""
    given = _normal(password)
    if not SHORTEST <= len(given) <= LONGEST:
        raise PasswordError("length", f"the password needs {SHORTEST} to {LONGEST} characters; choose another")
    letters, own = _letters(given), {_letters(name), _letters(name.partition("@")[0])}
    if letters and letters in own | {one * 2 for one in own}:
        raise PasswordError("name", "the password is the name; choose another")
    if len(set(given.casefold())) < _DIFFERENT or letters in _COMMON or _counts(given):
        raise PasswordError("common", "the password is one of the commonest; choose another")


def hashed(password: str) -> str:
    """`password` as it is kept, with argon2 and a salt of its own."""
    with _HASHING:
        return _HASHER.hash(_normal(password))


def verify(kept: str | None, password: str) -> bool:
    """Whether `kept` was made of `password`; where nothing is kept, False in the same time."""
    nobody = _nobody()
    given = _normal(password)
    try:
        with _HASHING:
            _HASHER.verify(kept or nobody, given if len(given) <= LONGEST else "")
    except (VerificationError, InvalidHashError):
        return False
    return kept is not None


def outdated(kept: str) -> bool:
    """Whether `kept` was made with weaker parameters than those of today."""
    return _HASHER.check_needs_rehash(kept)


def _counts(given: str) -> bool:
    return given in _DIGITS or given in _DIGITS[::-1]


@cache
def _nobody() -> str:
    return hashed(secrets.token_urlsafe())


def _normal(password: str) -> str:
    # Keyboards write the same letter in different ways.
    return unicodedata.normalize("NFKC", password)


def _letters(text: str) -> str:
    return re.sub(r"[\W\d_]", "", text.casefold())
