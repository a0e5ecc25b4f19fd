"""E-mail over SMTP: never in the clear with a login, never slower than its time, and not sent twice to anybody."""

import hashlib
import logging
import smtplib
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import getaddresses
from typing import Any, Final, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator
from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

from matching_platform.monitoring.notify.message import Level, Message

ATTEMPTS: Final = 3
SECONDS: Final = 20.0  # for all attempts together

_COLOURS: Final[dict[Level, str]] = {"news": "#2563eb", "good": "#16a34a", "bad": "#dc2626"}

_log = logging.getLogger(__name__)


class Mail(BaseModel):
    """The mail server, and who writes to whom."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    server: str = Field(description="The mail server's name")
    port: int = Field(default=587, description="587 for starttls, 465 for tls, 25 for a relay")
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="How the conversation is encrypted; 'none' only for a relay without a login"
    )
    login: SecretStr | None = Field(default=None, description="USER:PASSWORD; without it, nobody logs in")
    sender: str = Field(description="The address that messages come from")
    recipients: str = Field(description="The addresses they go to, with commas between them")

    @field_validator("login")
    @classmethod
    def _can_be_used(cls, login: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if login is None:
            return None
        if ":" not in login.get_secret_value() or not login.get_secret_value().isascii():
            raise ValueError("a login is USER:PASSWORD, in ASCII")
        if info.data.get("security") == "none":
            raise ValueError("a login is never sent in the clear: set security to starttls or tls, or leave it out")
        return login

    @field_validator("sender", "recipients")
    @classmethod
    def _addresses(cls, given: str) -> str:
        found = addresses(given)
        wrong = [one for one in found if one.count("@") != 1 or not one.isprintable() or " " in one]
        if wrong or not found or "\n" in given or "\r" in given:
            raise ValueError("these are no mail addresses; write them as name@example.com, with commas between them")
        return given


def addresses(given: str) -> list[str]:
    """The bare addresses in a list such as 'Ann <ann@example.com>, bo@example.com'."""
    return [address for _, address in getaddresses([given])]


@dataclass(frozen=True)
class EmailNotifier:
    """Tells the recipients by e-mail, within some twenty seconds or not at all.

    Delivered is what at least one of them got. Whom the server refuses is logged, and nobody is sent it twice.
    """

    mail: Mail

    def notify(self, message: Message) -> bool:
        waiting, told, until = set(addresses(self.mail.recipients)), set[str](), time.monotonic() + SECONDS
        retrying = Retrying(
            stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(SECONDS / 2),
            wait=wait_random_exponential(multiplier=0.5, max=3),
            retry=retry_if_exception(_may_pass),
            reraise=True,
        )
        try:
            retrying(self._send, message, waiting, told, until)
        except OSError as error:  # The errors of smtplib and ssl are such.
            # The reply itself could repeat what was said, a login included.
            _log.error("The message '%s' was not mailed: %s", message.key, _why(error))
        return bool(told)

    def _send(self, message: Message, waiting: set[str], told: set[str], until: float) -> None:
        """Sends to those who are `waiting`, who are `told` afterwards, or wait on where they may be told in a moment."""
        smtp, asked = self._connected(until), sorted(waiting)
        try:
            refused = smtp.send_message(written(message, self.mail), addresses(self.mail.sender)[0], asked)
            with suppress(OSError):  # However it says goodbye, it has taken the message.
                smtp.quit()
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        finally:
            smtp.close()
        told.update(waiting - refused.keys())
        later = {address: reply for address, reply in refused.items() if _passes(reply[0])}
        for address in sorted(refused.keys() - later.keys()):
            _log.error("The server refuses %s the message '%s': %d", address, message.key, refused[address][0])
        waiting.intersection_update(later)
        if later:
            raise smtplib.SMTPRecipientsRefused(later)

    def _connected(self, until: float) -> smtplib.SMTP:
        mail, context = self.mail, ssl.create_default_context()
        if mail.security == "tls":
            smtp: smtplib.SMTP = _HurriedTls(until, mail.server, mail.port, context=context)
        else:
            smtp = _Hurried(until, mail.server, mail.port)
        try:
            if mail.security == "starttls":
                smtp.starttls(context=context)
            if mail.login:
                user, _, password = mail.login.get_secret_value().partition(":")
                smtp.login(user, password)
        except BaseException:
            smtp.close()
            raise
        return smtp


def written(message: Message, mail: Mail) -> EmailMessage:
    """The mail. Its id is made of the event's key: whoever gets it twice sees it once, and its story is one thread."""
    domain = addresses(mail.sender)[0].rpartition("@")[2]
    letter = EmailMessage()
    letter["Subject"], letter["From"], letter["To"] = message.subject, mail.sender, mail.recipients
    letter["Date"], letter["Message-ID"] = datetime.now(UTC), _id(message.key, domain)
    if message.story:
        letter["References"] = letter["In-Reply-To"] = _id(message.story, domain)
    letter["Auto-Submitted"] = "auto-generated"  # Nobody's absence is reported back.
    letter.set_content(message.plain, cte="quoted-printable")  # Which every server can take.
    page = _pages().get_template("mail.html").render(message=message, colour=_COLOURS[message.level])
    letter.add_alternative(page, subtype="html", cte="quoted-printable")
    return letter


class _Hurried(smtplib.SMTP):
    """A conversation that ends at `until`, by the monotonic clock, however slowly the server answers."""

    def __init__(self, until: float, server: str, port: int, **options: Any) -> None:
        self._until = until
        # The full name of this machine may take a name server many seconds.
        name = socket.gethostname()
        super().__init__(server, port, local_hostname=name, timeout=self._left(), **options)

    def getreply(self) -> tuple[int, bytes]:
        if self.sock:
            self.sock.settimeout(self._left())
        return super().getreply()

    def _left(self) -> float:
        return max(self._until - time.monotonic(), 0.01)


class _HurriedTls(_Hurried, smtplib.SMTP_SSL):
    """The same, encrypted from the first byte."""


def _pages() -> Environment:
    return Environment(
        loader=PackageLoader(__name__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _id(key: str, domain: str) -> str:
    return f"<{hashlib.sha256(key.encode()).hexdigest()[:32]}@{domain}>"


def _may_pass(error: BaseException) -> bool:
    """Whether the same may succeed in a moment. A login is tried once: too many wrong ones lock an account."""
    if isinstance(error, smtplib.SMTPResponseException):
        return _passes(error.smtp_code) and not isinstance(error, smtplib.SMTPAuthenticationError)
    # Besides replies, there are lines that break, and servers that cannot do, or prove, what is demanded of them.
    unable = isinstance(error, smtplib.SMTPException | ssl.SSLError)
    return isinstance(error, smtplib.SMTPServerDisconnected | smtplib.SMTPRecipientsRefused) or not unable


def _passes(code: int) -> bool:
    return 400 <= code < 500


def _why(error: BaseException) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return f"the server does not take it yet for {', '.join(sorted(error.recipients))}"
    told = f" {error.smtp_code}" if isinstance(error, smtplib.SMTPResponseException) else ""
    return f"{type(error).__name__}{told}"
