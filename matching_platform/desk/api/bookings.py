"""Bookings for finance systems, in the order of their numbers: as JSON piece by piece, or all of them as CSV."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, Final

import polars as pl
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from matching_platform.desk.api.access import READER
from matching_platform.desk.api.errors import responses
from matching_platform.desk.api.shapes import MONTH, Bookings, Number
from matching_platform.desk.dependencies import Reviewing
from matching_platform.desk.outbox import booking_rows
from matching_platform.desk.review import Review
from matching_platform.ledger.money import to_decimal
from matching_platform.review.bookings import Booking

router = APIRouter(tags=["bookings"], dependencies=READER, responses=responses(400, 401, 403, 503))

After = Annotated[Number, Query(description="The number of the last one that you have")]

# How a cell begins that a spreadsheet would run as a formula.
_FORMULA: Final = r"^[=+\-@\t\r\n]"
_PIECE: Final = 5000  # bookings


@router.get("/bookings", response_model=Bookings)
def bookings(review: Reviewing, after: After = 0, limit: Annotated[int, Query(ge=1, le=10_000)] = 1000) -> Any:
    """Bookings with a number above `after`; the same question again gives the same ones."""
    found = review.bookings(after, limit + 1)
    taken = found[:limit]
    return {"bookings": taken, "last": taken[-1].number if taken else after, "more": len(found) > limit}


@router.get(
    "/bookings.csv",
    response_class=StreamingResponse,
    responses={200: {"description": "RFC 4180, UTF-8", "content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def bookings_as_csv(
    review: Reviewing,
    after: After = 0,
    month: Annotated[str | None, Query(pattern=MONTH, description="Only of transfers of this month")] = None,
) -> StreamingResponse:
    """All bookings with a number above `after`; of `signed_amount` a sum is what is booked. A text that a spreadsheet would
    take for a formula begins with `'`."""
    pieces = _pieces(review, after)
    # The first piece is read before the answer begins, so that a database that does not answer is told by a status.
    first = next(pieces)
    chosen = ([one for one in piece if _is_of(one, month)] for piece in chain([first], pieces))
    lines = (as_csv(bookings, review.named(bookings)) for bookings in chosen)
    name = f"bookings-{month or 'all'}.csv"
    return StreamingResponse(
        chain([as_csv([], review.named([]), header=True)], lines),
        media_type="text/csv; charset=utf-8; header=present",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def as_csv(bookings: Sequence[Booking], named: pl.DataFrame, *, header: bool = False) -> str:
    """Lines of CSV (RFC 4180), with what `Review.named` says of the bookings, and amounts of which a sum is what is booked.
    Amounts stay numbers; a text that would be a formula in a spreadsheet gets a `'`."""
    signed = pl.when(pl.col("entry") == "reverse").then(-pl.col("amount")).otherwise("amount")
    frame = booking_rows(bookings).with_columns(signed_amount=signed).hstack(named)
    texts = pl.selectors.string()
    safe = pl.when(texts.str.contains(_FORMULA)).then("'" + texts).otherwise(texts)
    shown = frame.with_columns(safe.name.keep(), to_decimal("amount"), to_decimal("signed_amount"))
    return shown.write_csv(
        include_header=header, line_terminator="\r\n", datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ", date_format="%Y-%m-%d"
    )


def _pieces(review: Review, after: int) -> Iterator[Sequence[Booking]]:
    """One piece at least, which may be empty."""
    while True:
        piece = review.bookings(after, _PIECE)
        yield piece
        if len(piece) < _PIECE:
            return
        after = piece[-1].number


def _is_of(booking: Booking, month: str | None) -> bool:
    return month is None or f"{booking.booked_on:%Y-%m}" == month
