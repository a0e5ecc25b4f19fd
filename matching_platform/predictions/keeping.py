"""What binds a server to a store: the log of what it answers, and what people say that it may book."""

import math
import os
import time
from dataclasses import dataclass
from typing import Final

import polars as pl

from matching_platform.matching.decisions import decided, why
from matching_platform.predictions.log import PredictionLog
from matching_platform.predictions.masking import Masking
from matching_platform.predictions.metrics import ServiceMetrics
from matching_platform.predictions.settings import FOLDER, PredictionSettings
from matching_platform.store.files import Files
from matching_platform.store.unattended import Unattended
from matching_platform.store.versions import Store
from matching_platform.store.watch import Watch

_SECRET_BYTES: Final = 32
# A server that begins waits so long for what it may book; until that is known, it books nothing.
_PATIENCE_SECONDS: Final = 3.0


@dataclass(frozen=True)
class Keeping:
    """The log of a server, and its watch over the record of what may be booked unattended."""

    log: PredictionLog
    watch: Watch

    @classmethod
    def start(cls, store: str, settings: PredictionSettings) -> "Keeping":
        """Begins both in the store at this root."""
        secret = settings.mask_key.get_secret_value().encode() if settings.mask_key else os.urandom(_SECRET_BYTES)
        # A root of its own: in a container, this folder alone may be written.
        log = PredictionLog(Files(f"{store}/{FOLDER}"), Masking.of(settings.masked, secret), settings.queue)
        keeping = cls(log, Watch(Unattended(Store(store))))
        keeping.log.start()
        keeping.watch.start()
        until = time.monotonic() + _PATIENCE_SECONDS
        while math.isinf(keeping.watch.age()) and time.monotonic() < until:
            time.sleep(0.01)
        return keeping

    def booked_from(self, model: str, own: float) -> float:
        """From which confidence `model` may book unattended now; `own` is its threshold as it was trained."""
        return self.watch.permission().auto_from(model, own)

    def decided(self, proposals: pl.DataFrame, model: str, own: float) -> tuple[pl.DataFrame, float]:
        """Proposals of `model` with decisions as they may be made now, and from which confidence on it books."""
        permission = self.watch.permission()
        auto_from, frozen = permission.auto_from(model, own), permission.frozen
        return decided(proposals, own, auto_from, why(auto_from, frozen.signed if frozen else "")), auto_from

    def tell(self, metrics: ServiceMetrics) -> None:
        """Brings what both have to say up to date."""
        metrics.logged(self.log.figures())
        metrics.permitted(frozen=self.watch.permission().frozen is not None, age=self.watch.age())

    def close(self) -> None:
        self.watch.stop()
        self.log.close()
