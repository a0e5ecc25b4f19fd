"""Mail reaches who can be reached, once, and never shows a login; against a real SMTP server on this machine."""

import asyncio
import datetime
import email
import email.policy
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from matching_platform.monitoring.notify import EmailNotifier, Mail, Message, mail

# The server's own, about a constructor's argument that it still takes.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")

LOGIN = "robot:s3cret"
MESSAGE = Message(
    "model/m1/promoted/3",
    "Kestrel & Co <b> falls by 2 %\nfür alle",
    title="New champion: m1",
    level="good",
    figures={"Exact": "94.1%"},
    links={"Run": "https://dagster.example/runs/1?a=1&b=2"},
)


@dataclass
class Post:
    """A post office: what was delivered, to whom, and how it answers."""

    replies: dict[str, list[str]] = field(default_factory=dict)
    delays: dict[str, float] = field(default_factory=dict)
    letters: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, _: list[str]) -> str:
        self.asked.append(address)
        reply = await self._reply(address)
        if reply.startswith("2"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        reply = await self._reply("DATA")
        if reply.startswith("2"):
            letter = email.message_from_bytes(envelope.content, policy=email.policy.default)
            self.letters.append((envelope.rcpt_tos, letter))
        return reply

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        self.asked.append("AUTH")
        right = isinstance(data, LoginPassword) and f"{data.login.decode()}:{data.password.decode()}" == LOGIN
        return AuthResult(success=right, handled=False)

    async def _reply(self, what: str) -> str:
        await asyncio.sleep(self.delays.get(what, 0.0))
        replies = self.replies.get(what, ["250 OK"])
        return replies.pop(0) if len(replies) > 1 else replies[0]


@dataclass(frozen=True)
class Office:
    """A post office on this machine, and the certificate that clients may trust."""

    post: Post
    port: int

    def mail(self, **given: Any) -> Mail:
        usual = {"login": LOGIN, "sender": "Platform <platform@example.com>", "recipients": "Ann <ann@a.com>, bo@b.com"}
        return Mail(**{"server": "localhost", "port": self.port, **usual, **given})


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate that it signed itself, for `localhost`, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path_factory.mktemp("certificate") / "localhost.pem"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + private)
    return path


@pytest.fixture
def opened(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Office]]:
    """Opens post offices: with STARTTLS and a login, where nothing else is said."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with ExitStack() as stack:

        def open_office(security: str = "starttls") -> Office:
            post, context = Post(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            tls = {"starttls": {"tls_context": context, "require_starttls": True}, "tls": {"ssl_context": context}}
            guarded = {"auth_required": True, "authenticator": post.authenticate, "auth_require_tls": False}
            options = guarded | tls[security] if security in tls else {}
            controller = Controller(post, hostname="localhost", port=_free_port(), **options)
            controller.start()
            stack.callback(controller.stop)
            return Office(post, controller.port)

        yield open_office


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts as short as they can be."""
    monkeypatch.setattr(mail, "wait_random_exponential", lambda **_: lambda _state: 0.01)


@pytest.mark.parametrize("security", ["starttls", "tls", "none"])
def test_a_mail_arrives(opened: Callable[..., Office], caplog: pytest.LogCaptureFixture, security: str) -> None:
    caplog.set_level(logging.DEBUG)
    office = opened(security)
    given = {"security": security, "login": None if security == "none" else LOGIN}
    notifier = EmailNotifier(office.mail(**given))
    assert notifier.notify(MESSAGE)
    ((recipients, letter),) = office.post.letters
    assert recipients == ["ann@a.com", "bo@b.com"]
    assert letter["Subject"] == "New champion: m1"
    assert letter["From"] == "Platform <platform@example.com>"
    assert letter["To"] == "Ann <ann@a.com>, bo@b.com"
    plain, page = (letter.get_body((kind,)).get_content() for kind in ("plain", "html"))
    assert plain.splitlines() == [
        "New champion: m1",
        "",
        "Kestrel & Co <b> falls by 2 %",
        "für alle",
        "",
        "Exact: 94.1%",
        "",
        "Run: https://dagster.example/runs/1?a=1&b=2",
    ]
    assert "Kestrel &amp; Co &lt;b&gt; falls by 2 %\nfür alle" in page.replace("\r\n", "\n")
    assert 'href="https://dagster.example/runs/1?a=1&amp;b=2"' in page
    assert not {"s3cret", "robot"} & {*caplog.text.split(), *repr(notifier).replace("'", " ").split()}
    assert "s3cret" not in caplog.text + repr(notifier)


def test_a_mail_is_known_by_its_event_and_belongs_to_a_story() -> None:
    given = Mail(server="mail.example.com", sender="platform@example.com", recipients="ann@a.com")
    first, again, image = (
        mail.written(Message(key, text), given)
        for key, text in (("model/m1/trained", "one"), ("model/m1/trained", "two"), ("model/m1/image/9", "three"))
    )
    assert first["Message-ID"] == again["Message-ID"] != image["Message-ID"]
    assert first["Message-ID"].endswith("@example.com>")
    assert first["References"] == image["References"] == image["In-Reply-To"]
    assert mail.written(Message("alone", "one"), given)["References"] is None


def test_a_long_text_of_two_lines_makes_one_short_subject() -> None:
    given = Mail(server="mail.example.com", sender="platform@example.com", recipients="ann@a.com")
    assert mail.written(Message("key", "one\ntwo" + " three" * 99), given)["Subject"].startswith("one two three three")


@pytest.mark.parametrize(
    ("replies", "delivered", "got", "asked"),
    [
        # Greylisting: nobody is taken at first, or one is not.
        (
            {"ann@a.com": ["451 later", "250 OK"], "bo@b.com": ["451 later", "250 OK"]},
            True,
            [["ann@a.com", "bo@b.com"]],
            4,
        ),
        ({"bo@b.com": ["451 later", "250 OK"]}, True, [["ann@a.com"], ["bo@b.com"]], 3),
        # One who does not exist does not keep the other from being told, and is not asked for again.
        ({"bo@b.com": ["550 unknown"]}, True, [["ann@a.com"]], 2),
        ({"ann@a.com": ["450 later", "250 OK"], "bo@b.com": ["550 unknown"]}, True, [["ann@a.com"]], 3),
        ({"ann@a.com": ["550 unknown"], "bo@b.com": ["550 unknown"]}, False, [], 2),
        # One who has to wait for longer is not worth telling the other again.
        ({"bo@b.com": ["451 later"]}, True, [["ann@a.com"]], 2 + 2),
        ({"ann@a.com": ["451 later"], "bo@b.com": ["451 later"]}, False, [], 2 * mail.ATTEMPTS),
        ({"DATA": ["452 full", "250 OK"]}, True, [["ann@a.com", "bo@b.com"]], 4),
        ({"DATA": ["554 spam"]}, False, [], 2),
    ],
)
def test_what_the_server_replies(
    opened: Callable[..., Office],
    caplog: pytest.LogCaptureFixture,
    replies: dict[str, list[str]],
    delivered: bool,
    got: list[list[str]],
    asked: int,
) -> None:
    office = opened()
    office.post.replies = {what: given.copy() for what, given in replies.items()}
    assert EmailNotifier(office.mail()).notify(MESSAGE) is delivered
    assert [recipients for recipients, _ in office.post.letters] == got
    assert len([one for one in office.post.asked if "@" in one]) == asked
    everybody = {one for recipients in got for one in recipients} == {"ann@a.com", "bo@b.com"}
    assert (MESSAGE.key in caplog.text) is not everybody


def test_a_wrong_login_is_tried_once_and_not_shown(
    opened: Callable[..., Office], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="matching_platform")
    office = opened()
    notifier = EmailNotifier(office.mail(login="robot:wr0ng"))
    assert not notifier.notify(MESSAGE)
    attempts = office.post.asked.count("AUTH")
    assert "SMTPAuthenticationError 535" in caplog.text
    assert "wr0ng" not in caplog.text + repr(notifier)
    # The library tries the ways to log in that the server offers, each once.
    assert attempts <= 2, "a second conversation would be a second wrong login"


def test_a_login_never_travels_in_the_clear(opened: Callable[..., Office], caplog: pytest.LogCaptureFixture) -> None:
    office = opened("none")
    assert not EmailNotifier(office.mail()).notify(MESSAGE)
    assert "SMTPNotSupportedError" in caplog.text
    assert office.post.letters == []


def test_a_certificate_that_nobody_vouches_for_is_refused(
    opened: Callable[..., Office], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = opened()
    monkeypatch.delenv("SSL_CERT_FILE")
    assert not EmailNotifier(office.mail()).notify(MESSAGE)
    assert "SSLCertVerificationError" in caplog.text
    assert office.post.asked == []


def test_a_dead_server(caplog: pytest.LogCaptureFixture) -> None:
    notifier = EmailNotifier(Office(Post(), _free_port()).mail())
    assert not notifier.notify(MESSAGE)
    assert MESSAGE.key in caplog.text
    assert "ConnectionRefusedError" in caplog.text


def test_a_server_that_says_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "SECONDS", 0.4)
    with socket.create_server(("localhost", 0)) as silent:
        started = time.monotonic()
        assert not EmailNotifier(Office(Post(), silent.getsockname()[1]).mail()).notify(MESSAGE)
        assert time.monotonic() - started < 3
    assert MESSAGE.key in caplog.text


@pytest.mark.parametrize(("seconds", "delivered"), [(20.0, True), (0.5, False)])
def test_a_slow_server_has_its_time_and_no_more(
    opened: Callable[..., Office], monkeypatch: pytest.MonkeyPatch, seconds: float, delivered: bool
) -> None:
    monkeypatch.setattr(mail, "SECONDS", seconds)
    office = opened()
    office.post.delays = {"ann@a.com": 0.4, "bo@b.com": 0.4}
    started = time.monotonic()
    assert EmailNotifier(office.mail()).notify(MESSAGE) is delivered
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"login": "robot"}, "USER:PASSWORD"),
        ({"login": "robot:pässword"}, "ASCII"),
        ({"login": LOGIN, "security": "none"}, "in the clear"),
        ({"recipients": ""}, "no mail addresses"),
        ({"recipients": "ann@a.com, bo"}, "no mail addresses"),
        ({"sender": "platform@example.com\r\nBcc: eve@e.com"}, "no mail addresses"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, str], told: str) -> None:
    usual = {"server": "mail.example.com", "sender": "platform@example.com", "recipients": "ann@a.com"}
    with pytest.raises(ValidationError, match=told) as refused:
        Mail(**{**usual, **given})
    assert "robot" not in str(refused.value)


def _free_port() -> int:
    with socket.create_server(("localhost", 0)) as free:
        return int(free.getsockname()[1])
