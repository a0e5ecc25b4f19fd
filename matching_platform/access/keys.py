"""Keys that are shown once: random, and kept as a hash alone."""

import secrets
from hashlib import sha256
from typing import Final

TOKEN_PREFIX: Final = "mp_"  # by it, tokens that leaked are found in code and logs
_BYTES: Final = 32


def new_key() -> str:
    """256 random bits, fit for an address and a cookie."""
    return secrets.token_urlsafe(_BYTES)


def digest(key: str) -> str:
    """What is kept of a key. It has no salt: nobody guesses 256 bits."""
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
