"""What the tests of this room share."""

import socket
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from matching_platform.ledger.wire import to_rows

VERSION: Final = "test-1"


@dataclass(frozen=True)
class Batch:
    """Transfers of one month and the invoices they may pay, validated."""

    transfers: pl.DataFrame
    invoices: pl.DataFrame

    @property
    def request(self) -> dict[str, list[dict[str, Any]]]:
        """The same as rows, as the service takes them."""
        return {"transfers": to_rows(self.transfers), "invoices": to_rows(self.invoices)}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
