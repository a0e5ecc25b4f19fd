"""The command line: what can be done on a folder of tables, on the models, and on the platform."""

import sys
from typing import NoReturn

import typer

from matching_platform.cli import access, desk, intake, models, platform, tables, thresholds, unattended
from matching_platform.cli.shared import UsageError, err
from matching_platform.ledger.validation import LedgerError

app = typer.Typer(
    help="Says which invoices each bank transfer pays, at a promised precision.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
# In the order in which they are listed.
for commands in (
    tables.commands,
    thresholds.commands,
    platform.commands,
    intake.commands,
    unattended.commands,
    desk.commands,
    access.commands,
):
    app.add_typer(commands)
app.add_typer(
    models.commands,
    name="models",
    help="The models of the store: which there are, which is champion, promote and roll back.",
)


def main() -> None:
    """Runs the command line; errors of input end with one line and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        sys.exit(1)
    except typer.TyperException as error:
        # Without a command, help was shown, and there is nothing more to say.
        told, context = error.format_message(), getattr(error, "ctx", None)
        _fail(f"{told} `{context.command_path} --help` tells what there is." if told and context else told)
    except _expected() as error:
        _fail(str(error))
    except _of_database() as error:
        _fail(f"the desk's database: {getattr(error, 'orig', error)}; see MATCHING_PLATFORM_DESK__DATABASE")
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _fail(told: str) -> NoReturn:
    if told:
        err.print(f"error: {' '.join(told.split())}", soft_wrap=True, style="red")
    sys.exit(2)


def _of_database() -> tuple[type[Exception], ...]:
    """What is wrong with the desk's database; looked up only when something was raised."""
    from sqlalchemy.exc import DBAPIError

    from matching_platform.database import DatabaseError

    return (DatabaseError, DBAPIError)


def _expected() -> tuple[type[Exception], ...]:
    """Errors that are the user's to mend; looked up only when one is raised."""
    from pydantic_settings import SettingsError

    from matching_platform.access import AccessError
    from matching_platform.delivery.images.image import ImageError
    from matching_platform.delivery.serving.place import RolloutError
    from matching_platform.desk.server import DeskError
    from matching_platform.environment import NotConfiguredError
    from matching_platform.intake.incoming import IntakeError
    from matching_platform.learning.settings import TrainingSettingsError
    from matching_platform.learning.split import SplitError
    from matching_platform.learning.tuning import StudyError
    from matching_platform.matching.matcher import ModelError
    from matching_platform.store.files import StoreError
    from matching_platform.warehouse.warehouse import WarehouseError

    ours = (
        AccessError,
        DeskError,
        ImageError,
        IntakeError,
        LedgerError,
        ModelError,
        NotConfiguredError,
        RolloutError,
        SplitError,
        StoreError,
        StudyError,
        TrainingSettingsError,
        UsageError,
        WarehouseError,
    )
    return (*ours, OSError, SettingsError)
