"""The desk for programs: `/api`, its OpenAPI description, probes and metrics."""

from typing import Any, Final

from fastapi import FastAPI
from starlette.datastructures import State

from matching_platform.desk.api import bookings, decisions, errors, imports, matching, probes, transfers
from matching_platform.desk.api.gauges import Gauges
from matching_platform.desk.api.metrics import Measured, Metrics
from matching_platform.ledger import openapi

PREFIX: Final = "/api"
_BODY_BYTES: Final = 4 * 2**20
_ABOUT: Final = (
    "Transfers and what is proposed for them, decisions, bookings and imports. Amounts are text with two places, dates "
    "are YYYY-MM-DD, times are UTC. A token, made at the desk, goes into the header Authorization: Bearer TOKEN."
)


def install(app: FastAPI) -> None:
    """Adds all of it to the desk, whose `state` has `platform`, `review`, `intake` and `access`."""
    app.state.metrics = Metrics(Gauges(app.state))
    app.add_middleware(Measured, metrics=app.state.metrics)
    app.include_router(probes.router)
    app.mount(PREFIX, create_api(app.state))


def create_api(state: State) -> FastAPI:
    """The API, an application of its own: its errors are JSON, its description holds no pages."""
    api = _Api(
        title="Review desk",
        version="1",
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        max_body_size=_BODY_BYTES,
        servers=[{"url": PREFIX}],
        root_path_in_servers=False,
    )
    api.state = state
    errors.handle(api)
    for router in (transfers.router, decisions.router, bookings.router, imports.router, matching.router):
        api.include_router(router)
    return api


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        described = super().openapi()
        components = described["components"]
        components["schemas"] = {**openapi.schemas(), **components["schemas"]}
        return described
