"""How many unattended bookings were right, as far as anybody has judged them."""

import polars as pl

from matching_platform.environment import Platform
from matching_platform.monitoring.promise import interval
from matching_platform.review.cases import Precision
from matching_platform.review.standing import Standing
from matching_platform.store.versions import Version


class Judged:
    """What realised quality found of unattended bookings, by month. Safe for threads, of which one calls `look`."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        # transfer_id and exact; replaced as a whole, as it is counted meanwhile.
        self._found: dict[str, tuple[Version, pl.DataFrame]] = {}

    def look(self) -> None:
        """Reads what is new."""
        for month, current in self._platform.catalog.latest("realised_quality").items():
            if month not in self._found or self._found[month][0] != current.version:
                path = self._platform.store.fetch(current.version) / "bookings.parquet"
                judged = pl.read_parquet(path).select("transfer_id", "exact").drop_nulls()
                self._found = {**self._found, month: (current.version, judged)}

    def precision(self, standing: Standing, month: str) -> Precision | None:
        """Of all unattended bookings up to the month's end; what people decide at the desk counts at once."""
        held = {
            transfer: exact
            for name, (_, judged) in self._found.items()
            if name <= month
            for transfer, exact in judged.iter_rows()
        }
        ids = standing.books.transfers["transfer_id"]
        for transfer in standing.decided_on_booked():
            if f"{standing.books.transfers['booked_on'][transfer]:%Y-%m}" <= month:
                held[ids[transfer]] = set(standing.settles(transfer)) == set(standing.booked.at(transfer))
        if not held:
            return None
        right = sum(held.values())
        return Precision(right, len(held), *interval(right, len(held)))
