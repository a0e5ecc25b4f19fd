"""The API under schemathesis, by its own description: no error of ours, and what is answered is what is described."""

from pathlib import Path
from typing import Final

from matching_platform.access import Role
from matching_platform.desk.app import create_app
from matching_platform_tests.desk.companies import desk_company
from matching_platform_tests.desk.served import served
from matching_platform_tests.fuzzing import fuzz

# No description says that a decision fits what stands, or that a file is a statement.
SETTINGS: Final = """
[headers]
Authorization = "Bearer {token}"

[[operations]]
include-path-regex = "^/(decisions|imports)"
checks.positive_data_acceptance.enabled = false

# Nothing serves here; delivery/test_service.py asks the service itself.
[[operations]]
include-path-regex = "^/(match|model)"
checks.not_a_server_error.enabled = false
"""


def test_the_api_is_what_it_says(tmp_path: Path) -> None:
    app = create_app(desk_company(tmp_path / "company", transfers=30))
    token = app.state.access.issue_token("fuzzer", Role.BOOKER, "test")
    with served(app) as url:
        fuzz(f"{url}/api/openapi.json", tmp_path, SETTINGS.format(token=token))
