"""What every route of the API needs: the review room, and a user with the role that it takes."""

from typing import Annotated, Final

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from matching_platform.access import User
from matching_platform.desk.review import Review
from matching_platform.desk.security import booker, reader

# It describes; who is let in is decided by `security`.
TOKEN: Final = HTTPBearer(auto_error=False, scheme_name="token", description="A token, made at the desk by its user")

READER: Final = [Security(TOKEN), Depends(reader)]
BOOKER: Final = [Security(TOKEN), Depends(booker)]

Booker = Annotated[User, Depends(booker)]


def _review(request: Request) -> Review:
    review: Review = request.app.state.review
    return review


Desk = Annotated[Review, Depends(_review)]
