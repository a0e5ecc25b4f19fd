"""What a request to the service and its answer say beside their bodies."""

from typing import Final

# Of an answer: the id under which the log keeps the request.
REQUEST_ID: Final = "x-matching-request"
# Of a request that is nobody's business: a copy for a challenger, or the probe of a rollout. Without it, somebody asks.
PURPOSE: Final = "x-matching-purpose"
ASKED: Final = "asked"
COPY: Final = "copy"
PROBE: Final = "probe"
PURPOSES: Final = (ASKED, COPY, PROBE)
