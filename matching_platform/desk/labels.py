"""Words for what the program knows by name; marked here, translated where they are shown."""

from typing import Final

from matching_platform.desk.i18n import mark
from matching_platform.review.cases import Status
from matching_platform.review.decisions import Action

STATUSES: Final[dict[Status, str]] = {
    Status.WAITING: mark("waiting"),
    Status.LATER: mark("ask later"),
    Status.DECIDED: mark("decided"),
    Status.BOOKED: mark("booked unattended"),
    Status.TAGGED: mark("tagged elsewhere"),
}
# The tabs above a month's list.
TABS: Final[dict[str, str]] = {
    Status.WAITING: mark("Waiting"),
    Status.LATER: mark("Ask later"),
    Status.DECIDED: mark("Decided"),
    Status.BOOKED: mark("Booked unattended"),
    Status.TAGGED: mark("Tagged elsewhere"),
    "all": mark("All"),
}
ACTIONS: Final[dict[Action, str]] = {
    Action.ACCEPT: mark("accepted"),
    Action.CHANGE: mark("changed"),
    Action.NOTHING: mark("pays nothing"),
    Action.LATER: mark("ask later"),
    Action.WITHDRAW: mark("taken back"),
}
# What a toast says of a decision.
DONE: Final[dict[Action, str]] = {
    Action.ACCEPT: mark("Accepted: %(payer)s, %(amount)s"),
    Action.CHANGE: mark("Changed: %(payer)s, %(amount)s"),
    Action.NOTHING: mark("Pays nothing: %(payer)s, %(amount)s"),
    Action.LATER: mark("Asked again later: %(payer)s, %(amount)s"),
    Action.WITHDRAW: mark("Taken back: %(payer)s, %(amount)s"),
}
DIRECTIONS: Final[dict[str, str]] = {"in": mark("incoming"), "out": mark("outgoing")}
MARKS: Final[dict[str, str]] = {
    "number": mark("number of invoice %(number)s"),
    "reference": mark("reference of invoice %(number)s"),
    "name": mark("name of %(name)s"),
}
# What resembles a number or reference, and is not quite it.
LIKE: Final[dict[str, str]] = {
    "number": mark("resembles the number of invoice %(number)s"),
    "reference": mark("resembles the reference of invoice %(number)s"),
}
