"""The review desk as one application: pages for people, and the API for programs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from matching_platform.access import Access
from matching_platform.desk import api, errors
from matching_platform.desk.held import Held
from matching_platform.desk.pages import (
    admin,
    alike,
    booked,
    case,
    change,
    decisions,
    imports,
    login,
    preferences,
    queue,
    start,
)
from matching_platform.desk.rendering import STATIC, prepare
from matching_platform.desk.review import Review
from matching_platform.desk.security import protect
from matching_platform.environment import Platform
from matching_platform.intake.taking import Intake

# Of a form; an import takes more.
_BODY_BYTES: Final = 2 * 2**20
# The page of a transfer comes last: its address may go on with anything.
_PAGES: Final = (queue, alike, change, case, booked, decisions, imports, start, preferences)


def create_app(platform: Platform) -> FastAPI:
    """The desk over a platform: its warehouse, store and database."""
    review = Review(platform)

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        # Whoever is answered first does not wait for his templates.
        prepare()
        review.start()
        yield
        review.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, max_body_size=_BODY_BYTES, lifespan=running)
    app.state.platform, app.state.review = platform, review
    app.state.intake = Intake(platform.store, platform.warehouse)
    app.state.held = Held()
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    errors.handle(app)
    login.install(app)
    for page in (*_PAGES, admin):
        app.include_router(page.router)
    api.install(app)
    protect(app, Access(platform.database, platform.settings.desk), platform.settings.desk)
    return app
