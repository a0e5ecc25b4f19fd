"""Matching for programs: the contract's request and answer, passed on to the matching service."""

from typing import Annotated, Final

import httpx
from fastapi import APIRouter, Depends, Request, Response

from matching_platform.desk.api.access import BOOKER, READER
from matching_platform.desk.api.errors import NotAnsweringError, responses
from matching_platform.environment import Platform
from matching_platform.ledger.openapi import reference

router = APIRouter(tags=["matching"], responses=responses(401, 403, 503))

# The service's own limits: the size of a request, and how long it may take.
BODY_BYTES: Final = 64 * 2**20
_ANSWER_SECONDS: Final = 130.0
_CONNECT_SECONDS: Final = 5.0


def _service(request: Request) -> str:
    """The URL of the matching service."""
    platform: Platform = request.app.state.platform
    given = platform.settings
    return given.production if given.serving == "kubernetes" and given.production else platform.here().url


Service = Annotated[str, Depends(_service)]


@router.post(
    "/match",
    dependencies=BOOKER,
    max_body_size=BODY_BYTES,
    response_class=Response,
    responses={
        200: {"description": "A row per transfer and invoice", "content": reference("Proposals")},
        **responses(400, 413),
    },
    openapi_extra={"requestBody": {"required": True, "content": reference("Matching")}},
)
async def match(request: Request, service: Service) -> Response:
    """Proposals for transfers, by the model that serves. Nothing is decided or booked by that."""
    return await _passed_on(service, "POST", "/match", await request.body())


@router.get(
    "/model",
    dependencies=READER,
    response_class=Response,
    responses={200: {"description": "The model's card", "content": reference("Model")}},
)
async def model(service: Service) -> Response:
    """The model that serves: its version, until when it learned, its figures."""
    return await _passed_on(service, "GET", "/model")


async def _passed_on(service: str, method: str, path: str, body: bytes = b"") -> Response:
    timeout = httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
    try:
        async with httpx.AsyncClient(timeout=timeout, trust_env=False) as client:
            answer = await client.request(method, f"{service}{path}", content=body)
    except httpx.HTTPError as error:
        raise NotAnsweringError("the matching service does not answer; try again, or deploy a model first") from error
    if answer.status_code >= 500:
        raise NotAnsweringError("the matching service cannot answer now; try again, or look at its log")
    return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))
