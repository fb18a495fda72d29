"""Channels against real servers: HTTP that fails at first, SMTP with STARTTLS and a login."""

import json
import logging
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from rag_core.alerts.book import AlertBook
from rag_core.alerts.channels import EmailChannel, LogChannel, WebhookChannel, configured_channels
from rag_core.alerts.model import Alert, DeliveryError, Message, messages_of
from rag_core.config_freshness import AlertsConfig, EmailConfig, WebhookConfig
from rag_core.tables.store import Store
from tests.alert_support import NOW, finding

SECRET = "T0K3N-of-the-webhook"


class Hook(ThreadingHTTPServer):
    """A webhook: answers the statuses in turn, the last one for ever, and keeps what it accepted."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.statuses = list(statuses)
        self.headers: dict[str, str] = {}
        self.requests = 0
        self.accepted: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/{SECRET}?key={SECRET}"


class _Answer(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests += 1
        statuses = self.server.statuses
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        if status == 200:
            self.server.accepted.append(body)
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        said = b"" if status == 200 else f"no such hook {self.path}".encode()
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def hook(*statuses: int) -> Iterator[Hook]:
    with Hook(*statuses) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def webhook(url: str, **values: Any) -> WebhookChannel:
    return WebhookChannel(WebhookConfig(url=SecretStr(url), **values))


def a_message() -> Message:
    one = finding(severity="critical", link="http://127.0.0.1:3000/runs/1")
    return messages_of(
        [Alert(one.key, one.kind, "critical", "firing", NOW, NOW, one.title, one.body, one.link)]
    )[0]  # fmt: skip


def test_a_webhook_that_fails_at_first_is_told_in_order_and_once(tmp_path: Path) -> None:
    book = AlertBook(Store(str(tmp_path)), repeat_s=3_600)
    with hook(503, 500, 200) as server:
        channels = [LogChannel(), webhook(server.url)]
        now = NOW
        book.update([finding()], now)
        for seconds in (0, 60, 121, 200, 300):
            now = NOW + timedelta(seconds=seconds)
            if seconds:
                book.update([], now)
            book.deliver(channels, now)
        assert server.requests == 4
        assert [body["state"] for body in server.accepted] == ["firing", "resolved"]
        assert server.accepted[0]["body"].endswith("docs/operations.md#failed_run")
    assert not book.outbox


def test_slack_is_sent_text_and_blocks() -> None:
    with hook(200) as server:
        assert webhook(server.url, format="slack").deliver(a_message()) == "HTTP 200 from 127.0.0.1"
        assert set(server.accepted[0]) == {"text", "blocks"}


@pytest.mark.parametrize(
    ("status", "message_only"), [(302, False), (400, True), (404, False), (413, True), (429, False), (503, False)]
)
def test_a_status_says_whether_it_is_about_the_message(status: int, message_only: bool) -> None:
    with hook(status) as server:
        server.headers = {"Retry-After": "77", "Location": f"{server.url}/other"}
        with pytest.raises(DeliveryError, match=f"HTTP {status}") as failed:
            webhook(server.url).deliver(a_message())
        assert server.requests == 1, "redirects are not followed"
    assert (failed.value.message_only, failed.value.retry_after_s) == (message_only, 77.0)
    assert SECRET not in str(failed.value)


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:9/{SECRET}",
        f"http://nowhere.invalid/{SECRET}",
        f"ftp://127.0.0.1/{SECRET}",
        f"http://[::1/{SECRET}",
        f"http://127.0.0.1:99999/{SECRET}",
        f"http://user:{SECRET}@127.0.0.1:9/x",
        SECRET,
    ],
)
def test_no_error_and_no_log_holds_the_address(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(DeliveryError, match="webhook at ") as failed:
        webhook(url, timeout_s=2).deliver(a_message())
    assert SECRET not in str(failed.value)
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__
    assert SECRET not in caplog.text


def test_a_delivery_is_logged_without_the_address(caplog: pytest.LogCaptureFixture) -> None:
    with hook(200) as server, caplog.at_level(logging.DEBUG):
        webhook(server.url).deliver(a_message())
    assert SECRET not in caplog.text


def test_a_server_that_does_not_answer_is_given_up() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(DeliveryError, match="ReadTimeout"):
            webhook(f"http://127.0.0.1:{port}/", timeout_s=0.2).deliver(a_message())


class Inbox:
    """Handler of the SMTP server: keeps mails, refuses some recipients."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.answer = "250 OK"

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802
        if address.startswith("nobody"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        if self.answer.startswith("250"):
            self.mails.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
            self.recipients.append(envelope.rcpt_tos)
        return self.answer


def logins(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=(data.login, data.password) == (b"rag", b"right"), handled=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of its own for 127.0.0.1, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


class AnyPort(Controller):
    """The controller, on a free port: it looks that the server is up by connecting to the port that it was given."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@contextmanager
def smtp_server(inbox: Inbox, **options: Any) -> Iterator[int]:
    controller = AnyPort(inbox, hostname="127.0.0.1", port=0, **options)
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


def email(port: int, **values: Any) -> EmailChannel:
    given = {"security": "none", "to": ("team@example.org",), "sender": "Rag <rag@example.org>", **values}
    return EmailChannel(EmailConfig(host="localhost", port=port, timeout_s=5, **given))


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


def test_a_mail_is_sent_by_starttls_after_a_login(
    certificate: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox()
    options = {"tls_context": tls, "require_starttls": True, "auth_required": True, "authenticator": logins}
    with smtp_server(inbox, **options) as port:
        secured = {"security": "starttls", "user": "rag", "password": SecretStr("right")}
        with pytest.raises(DeliveryError, match="CERTIFICATE_VERIFY_FAILED"):
            email(port, **secured).deliver(a_message())
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with pytest.raises(DeliveryError, match="535") as failed:
            email(port, **{**secured, "password": SecretStr("wr0ng-password")}).deliver(a_message())
        assert "wr0ng-password" not in str(failed.value)
        said = email(port, **secured, to=("team@example.org", "nobody@example.org")).deliver(a_message())
    assert said == "sent to team@example.org by localhost"
    assert inbox.recipients == [["team@example.org"]]
    assert inbox.mails[0]["Subject"] == "CRITICAL: failed_run/build_index is wrong"
    assert "docs/operations.md#failed_run" in inbox.mails[0].get_content()
    assert "http://127.0.0.1:3000/runs/1" in inbox.mails[0].get_content()


def test_a_mail_is_sent_by_tls(certificate: Path, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with smtp_server(inbox, ssl_context=tls) as port:
        email(port, security="tls").deliver(a_message())
    assert len(inbox.mails) == 1


def test_what_a_mail_server_refuses_is_told_apart() -> None:
    inbox = Inbox()
    with smtp_server(inbox) as port:
        for answer, message_only in (("554 looks like spam", True), ("451 try later", False)):
            inbox.answer = answer
            with pytest.raises(DeliveryError, match=answer) as failed:
                email(port).deliver(a_message())
            assert failed.value.message_only == message_only
        with pytest.raises(DeliveryError, match="550"):
            email(port, to=("nobody@example.org",)).deliver(a_message())
    with pytest.raises(DeliveryError, match=f"localhost:{port}: ConnectionRefusedError"):
        email(port).deliver(a_message())


def test_channels_are_those_with_an_address(caplog: pytest.LogCaptureFixture) -> None:
    assert [one.name for one in configured_channels(AlertsConfig())] == ["log"]
    config = AlertsConfig(
        webhook=WebhookConfig(url=SecretStr("http://x.example")),
        email=EmailConfig(host="localhost", to=("a@b.example",)),
    )
    assert [one.name for one in configured_channels(config)] == ["log", "webhook", "email"]
    with caplog.at_level(logging.WARNING):
        LogChannel().deliver(a_message())
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "docs/operations.md#failed_run\nhttp://127.0.0.1:3000/runs/1" in caplog.text
