"""The review desk."""

import typer

from matching_platform.cli.shared import open_platform, say

commands = typer.Typer()


@commands.command()
def desk() -> None:
    """Serve the review desk until it is stopped: pages for the people who book, and the API beside them."""
    from matching_platform.desk import server

    platform = open_platform()
    say(f"The review desk is at {server.address(platform)}; Ctrl-C ends it.")
    server.run(platform)
