"""What the tests of this room share."""

import socket
from dataclasses import dataclass
from typing import Final

import polars as pl

VERSION: Final = "test-1"


@dataclass(frozen=True)
class Batch:
    """Transfers of one month and the invoices they may pay, validated."""

    transfers: pl.DataFrame
    invoices: pl.DataFrame


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
