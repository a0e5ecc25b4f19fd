"""Who is told. A channel that fails is reported, and never takes down what had something to say."""

from matching_platform.monitoring.notify.channels import FOLDER, OncePerEvent, Several, Sparing, once_per_event
from matching_platform.monitoring.notify.mail import EmailNotifier, Mail
from matching_platform.monitoring.notify.message import Level, LogNotifier, Message, Notifier
from matching_platform.monitoring.notify.slack import ATTEMPTS, SlackNotifier

__all__ = [
    "ATTEMPTS",
    "FOLDER",
    "EmailNotifier",
    "Level",
    "LogNotifier",
    "Mail",
    "Message",
    "Notifier",
    "OncePerEvent",
    "Several",
    "SlackNotifier",
    "Sparing",
    "once_per_event",
]
