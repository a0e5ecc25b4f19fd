"""Who may use a route of the API, and how its description says so."""

from typing import Final

from fastapi import Depends, Security
from fastapi.security import HTTPBearer

from matching_platform.desk.security import booker, reader

# It describes; who is let in is decided by `security`.
TOKEN: Final = HTTPBearer(auto_error=False, scheme_name="token", description="A token, made at the desk by its user")

READER: Final = [Security(TOKEN), Depends(reader)]
BOOKER: Final = [Security(TOKEN), Depends(booker)]
