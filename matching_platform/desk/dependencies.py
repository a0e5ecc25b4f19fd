"""What answers a request: the review room, the files that come in, and the user who asks."""

from typing import Annotated, cast

from fastapi import Depends, Request

from matching_platform.access import User
from matching_platform.desk.review import Review
from matching_platform.desk.security import booker, reader
from matching_platform.intake.taking import Intake


def _review(request: Request) -> Review:
    return cast(Review, request.app.state.review)


def _intake(request: Request) -> Intake:
    return cast(Intake, request.app.state.intake)


Reviewing = Annotated[Review, Depends(_review)]
Intaking = Annotated[Intake, Depends(_intake)]
Reader = Annotated[User, Depends(reader)]
Booker = Annotated[User, Depends(booker)]
