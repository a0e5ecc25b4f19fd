"""On who may use the desk: users, tokens of programs, and the audit log."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from matching_platform.cli.shared import Actor, UsageError, open_access, open_platform, out, say

if TYPE_CHECKING:
    from datetime import datetime

    from matching_platform.environment import Platform

commands = typer.Typer()
users = typer.Typer(no_args_is_help=True)
tokens = typer.Typer(no_args_is_help=True)
commands.add_typer(users, name="users", help="Who may log in at the review desk, and what each may do.")
commands.add_typer(tokens, name="tokens", help="Tokens by which programs use the API of the review desk.")

Name = Annotated[str, typer.Argument(help="The user's name", show_default=False)]
TokenName = Annotated[str, typer.Argument(help="The program's name", show_default=False)]
RoleGiven = Annotated[
    str, typer.Option("--role", help="reader, booker or admin; each may do what the others before may")
]


@users.command("invite")
def invite(name: Name, role: RoleGiven, actor: Actor = None) -> None:
    """Add a user; prints the link by which he chooses his password, good once and for 24 hours."""
    from matching_platform.access.users import role_given

    platform = open_platform()
    _check_no_proxy(platform)
    _say_link(platform, name, open_access(platform).invite(name, role_given(role), _who(actor)))


@users.command("link")
def link(name: Name, actor: Actor = None) -> None:
    """A new link for a user who has lost his password, or let his link expire."""
    platform = open_platform()
    _check_no_proxy(platform)
    _say_link(platform, name, open_access(platform).renew(name, _who(actor)))


@users.command("list")
def list_users() -> None:
    """All users."""
    table = Table("name", "role", "state", "since (UTC)")
    for one in open_access(open_platform()).users():
        link = f"link until {_time(one.invited_until)}" if one.invited_until else ""
        password = "" if one.has_password else "no password"
        state = ", ".join(part for part in ("active" if one.active else "deactivated", password, link) if part)
        _add(table, one.name, one.role, state, _time(one.since))
    out.print(table)


@users.command("role")
def role(
    name: Name,
    role: Annotated[str, typer.Argument(help="reader, booker or admin", show_default=False)],
    actor: Actor = None,
) -> None:
    """Change what a user may do; he logs in anew."""
    from matching_platform.access.users import role_given

    open_access(open_platform()).set_role(name, role_given(role), _who(actor))
    say(f"{name} is {role} from now on.")


@users.command("deactivate")
def deactivate(name: Name, actor: Actor = None) -> None:
    """Keep a user out, at once; what he did stays in the audit log."""
    open_access(open_platform()).set_active(name, False, _who(actor))
    say(f"{name} is out, and cannot log in any more.")


@users.command("activate")
def activate(name: Name, actor: Actor = None) -> None:
    """Let a deactivated user log in again."""
    open_access(open_platform()).set_active(name, True, _who(actor))
    say(f"{name} can log in again.")


@tokens.command("issue")
def issue(
    name: TokenName,
    role: RoleGiven,
    days: Annotated[float | None, typer.Option(help="After how many days it ends; never by default")] = None,
    actor: Actor = None,
) -> None:
    """Make a token and print it, this once. With the first one, the API demands a token of everybody."""
    from matching_platform.access.users import role_given

    token = open_access(open_platform()).issue_token(name, role_given(role), _who(actor), days)
    say(token)


@tokens.command("list")
def list_tokens() -> None:
    """All tokens ever issued, without what makes them tokens."""
    access = open_access(open_platform())
    now = access.clock()
    table = Table("name", "role", "state", "issued (UTC)", "by", "ends", "last used")
    for one in access.tokens():
        state = "active" if one.active(now) else "revoked" if one.revoked else "expired"
        ends, used = _time(one.expires), _time(one.last_used)
        _add(table, one.name, one.role, state, _time(one.issued), one.issued_by, ends, used)
    out.print(table)


@tokens.command("revoke")
def revoke(name: TokenName, actor: Actor = None) -> None:
    """End a token; the next request with it is refused."""
    open_access(open_platform()).revoke_token(name, _who(actor))
    say(f"The token {name} is revoked.")


@commands.command("audit")
def audit(
    text: Annotated[str, typer.Argument(help="What a line must hold: a name, an action, an address")] = "",
    lines: Annotated[int, typer.Option(min=1, max=100_000, help="How many lines, the last ones")] = 50,
) -> None:
    """Who logged in, was refused, invited, decided or imported at the review desk; the last line last."""
    table = Table("", "UTC", "who", "what", "about", "from", box=None, padding=(0, 1, 0, 0))
    for one in reversed(open_access(open_platform()).audit(text, limit=lines)):
        who, where = one.actor or "unknown", one.address or "command line"
        _add(table, str(one.number), f"{one.at:%Y-%m-%d %H:%M:%S}", who, one.action, one.about, where)
    out.print(table)


def _who(actor: str | None) -> str:
    from matching_platform.store.record import whoami

    return actor or whoami()


def _check_no_proxy(platform: "Platform") -> None:
    if platform.settings.desk.proxy:
        raise UsageError(
            "people log in at the proxy, MATCHING_PLATFORM_DESK__PROXY; give them a group there that the desk knows"
        )


def _say_link(platform: "Platform", name: str, key: str) -> None:
    from matching_platform.access.listening import link_of

    say(f"With this link, {name} chooses a password; it is good once and for 24 hours:")
    say(link_of(platform.settings.desk, key))


def _add(table: Table, *cells: str) -> None:
    # Names of files and of those who act may hold what commands a terminal.
    table.add_row(*("".join(one if one.isprintable() else ascii(one)[1:-1] for one in cell) for cell in cells))


def _time(given: "datetime | None") -> str:
    return f"{given:%Y-%m-%d %H:%M}" if given else "–"
