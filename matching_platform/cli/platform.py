"""On the platform as it is set up: the demo, loading raw tables, the doctor, the service on this machine."""

import os

import typer
from rich.console import Console
from rich.table import Table

from matching_platform.cli.shared import Data, open_platform, out, say, tell_beyond
from matching_platform.ledger.reading import read_ledger
from matching_platform.ledger.schema import RAW_TABLES

commands = typer.Typer()


@commands.command()
def demo() -> None:
    """Run the whole platform on a sample company, and say what came of it; a second run does only what is left."""
    from matching_platform import demo as sample

    if not sample.run(Console()):
        raise typer.Exit(1)


@commands.command()
def load(data: Data) -> None:
    """Check a folder of tables and load it into the warehouse; months that are there already are replaced."""
    from matching_platform.environment import Platform
    from matching_platform.environment import load as settings

    chosen = settings()
    ledger, platform = read_ledger(data), Platform(chosen)
    platform.warehouse.load_folder(data)
    booked = ledger.matches.join(ledger.transfers.select("transfer_id", "booked_on"), on="transfer_id")
    dates = (ledger.invoices["issued_on"], ledger.transfers["booked_on"], booked["booked_on"])
    table = Table("table", "rows", "months", "first", "last", title=f"loaded into {platform.raw_tables}")
    for name, days in zip(RAW_TABLES, dates, strict=True):
        months = days.dt.strftime("%Y-%m").unique().sort().to_list()
        table.add_row(name, f"{len(days):,}", str(len(months)), *(months[:1] or "–"), *(months[-1:] or "–"))
    out.print(table)
    tell_beyond(ledger.months(), chosen)
    say("Next: `make dev` starts Dagster; where it runs, its sensor finds the new months by itself.")


@commands.command()
def doctor() -> None:
    """Look whether everything that the platform needs is there, and say what to do where it is not."""
    import dagster as dg

    from matching_platform.doctor import Finding, examine, sensors
    from matching_platform.environment import Platform
    from matching_platform.environment import load as settings

    def tell(finding: Finding) -> bool:
        mark, style = ("ok", "green") if finding.fine else ("no", "bold red")
        say((f"{mark}  ", style), f"{finding.subject}: {finding.seen}")
        if finding.advice:
            say(("    → ", "dim"), finding.advice)
        return finding.fine

    platform = Platform(settings())
    say(f"The environment '{platform.settings.environment}':")
    well = [tell(finding) for finding in examine(platform)]
    if os.environ.get("DAGSTER_HOME"):
        from matching_platform.definitions import defs

        with dg.DagsterInstance.get() as instance:
            well += [tell(finding) for finding in sensors(instance, defs.get_repository_def())]
    problems = well.count(False)
    say("Everything is there." if not problems else f"{problems} of {len(well)} need something done.")
    if problems:
        raise typer.Exit(1)


@commands.command()
def serve() -> None:
    """Start the service that was rolled out last, where it does not run, and say where it answers."""
    deployed = open_platform().here().resume()
    say(f"Model {deployed.model} answers at {deployed.url}; `matching-platform stop` ends it.")


@commands.command()
def stop() -> None:
    """Stop the service and the desk on this machine, after the requests in flight."""
    from matching_platform.desk import server
    from matching_platform.environment import PRODUCTION, STAGING

    platform = open_platform()
    stopped = {"desk": server.stop(platform)}
    stopped |= {f"service of {place}": platform.here(place).stop() for place in (PRODUCTION, STAGING)}
    ended = [name for name, ran in stopped.items() if ran]
    if ended:
        say(f"Stopped: {', '.join(ended)}. `matching-platform serve` and `matching-platform desk` start them again.")
    else:
        say("Nothing runs here in the background; what runs in a terminal ends there, with Ctrl-C.")
