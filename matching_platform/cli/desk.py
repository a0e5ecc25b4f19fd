"""The review desk."""

import typer

from matching_platform.cli.shared import open_platform, say

commands = typer.Typer()


@commands.command()
def desk() -> None:
    """Serve the review desk until it is stopped: pages for the people who book, and the API beside them.

    Where it listens is said by MATCHING_PLATFORM_DESK__HOST and MATCHING_PLATFORM_DESK__PORT.
    """
    from matching_platform.desk import server

    server.run(open_platform(), say)
