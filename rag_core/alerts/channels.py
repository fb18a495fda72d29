"""Ways to somebody: the log, a webhook, e-mail. What they write is made in `rag_core.alerts.formats`."""

import logging
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx

from rag_core.alerts.formats import email_message, json_payload, slack_payload
from rag_core.alerts.model import Channel, DeliveryError, Message
from rag_core.config_freshness import AlertsConfig, EmailConfig, WebhookConfig

_LOG = logging.getLogger("rag_core.alerts")

_SAID_CHARS: Final = 200  # of what a server answers
# Statuses that are about the channel: what would help this message would help every other one.
_OF_THE_CHANNEL: Final = frozenset({401, 403, 404, 405, 407, 408, 410, 425, 429})


def configured_channels(config: AlertsConfig) -> list[Channel]:
    """Return the channels of a configuration: the log, and those that have an address."""
    channels: list[Channel] = [LogChannel()]
    if config.webhook.url is not None and config.webhook.url.get_secret_value():
        channels.append(WebhookChannel(config.webhook))
    if config.email.host:
        channels.append(EmailChannel(config.email))
    return channels


@dataclass(frozen=True)
class LogChannel:
    """Python's logging, logger `rag_core.alerts`: critical ones as errors, all others as warnings.

    An end is a warning as well: the usual level shows nothing below, and an end that is not seen is none.
    """

    name: str = "log"

    def deliver(self, message: Message) -> str:
        """Log a message."""
        critical = message.severity == "critical" and message.state != "resolved"
        link = f"\n{message.link}" if message.link else ""
        _LOG.log(logging.ERROR if critical else logging.WARNING, "%s\n%s%s", message.headline, message.body, link)
        return "logged"


@dataclass(frozen=True)
class WebhookChannel:
    """HTTP POST of JSON. The address is a secret: it is in no message of an error and in no log."""

    config: WebhookConfig
    name: str = "webhook"

    def deliver(self, message: Message) -> str:
        """Post a message; any status from 200 to 299 means that it was taken. Redirects are not followed.

        Raises:
            DeliveryError: Names the server and the status, or what kept it from answering.
        """
        url = self.config.url.get_secret_value() if self.config.url else ""
        host = _host(url)
        payload = slack_payload(message) if self.config.format == "slack" else json_payload(message)
        try:
            with _unlogged(url):
                response = httpx.post(url, json=payload, timeout=self.config.timeout_s)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            # The text of some of these errors holds the address, and so would the chain of exceptions.
            raise DeliveryError(f"webhook at {host}: {_without_address(_plain(error), url)}") from None
        if response.is_success:
            return f"HTTP {response.status_code} from {host}"
        said = _without_address(" ".join(response.text.split()), url)[:_SAID_CHARS]
        raise DeliveryError(
            f"webhook at {host}: HTTP {response.status_code}" + (f", {said}" if said else ""),
            message_only=400 <= response.status_code < 500 and response.status_code not in _OF_THE_CHANNEL,
            retry_after_s=_retry_after(response),
        )


@dataclass(frozen=True)
class EmailChannel:
    """SMTP. One mail to all recipients; mails about one alert make a thread."""

    config: EmailConfig
    name: str = "email"

    def deliver(self, message: Message) -> str:
        """Send a mail; it is delivered when the server took it for one recipient at least.

        Raises:
            DeliveryError: Names the server and what it answered.
        """
        server = f"SMTP server {self.config.host}:{self.config.port}"
        try:
            with _connected(self.config) as smtp:
                refused = smtp.send_message(email_message(message, self.config.sender, self.config.to))
        except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError) as error:
            raise DeliveryError(f"{server}: {_plain(error)}", message_only=_is_permanent(error)) from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise DeliveryError(f"{server}: {_plain(error)}") from None
        taken = [address for address in self.config.to if address not in refused]
        if refused:
            _LOG.warning("%s takes no alerts for %s", server, ", ".join(sorted(refused)))
        return f"sent to {', '.join(taken)} by {self.config.host}"


@contextmanager
def _connected(config: EmailConfig) -> Iterator[smtplib.SMTP]:
    """Open a connection, secured and logged in as configured."""
    context = ssl.create_default_context()
    host = config.host or ""
    smtp = (
        smtplib.SMTP_SSL(host, config.port, timeout=config.timeout_s, context=context)
        if config.security == "tls"
        else smtplib.SMTP(host, config.port, timeout=config.timeout_s)
    )
    with smtp:
        if config.security == "starttls":
            smtp.starttls(context=context)
        if config.user:
            smtp.login(config.user, config.password.get_secret_value() if config.password else "")
        yield smtp


def _is_permanent(error: smtplib.SMTPRecipientsRefused | smtplib.SMTPDataError) -> bool:
    """Tell whether the server refuses this mail for good (5xx), not for now (4xx)."""
    if isinstance(error, smtplib.SMTPDataError):
        return error.smtp_code >= 500
    return all(code >= 500 for code, _ in error.recipients.values())


def _plain(error: Exception) -> str:
    """Say what went wrong, on one line."""
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        return f"{error.smtp_code} {said}"[:_SAID_CHARS]
    return " ".join(f"{type(error).__name__}: {error}".split())[:_SAID_CHARS].removesuffix(":")


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "an address without a host"
    except ValueError:
        return "an address that is none"


def _without_address(text: str, url: str) -> str:
    """Remove the address and its parts from a text; some servers repeat the path in what they answer."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return text.replace(url, "...")
    secrets = [url, parts.path, parts.query, *(part for part in parts.path.split("/") if len(part) >= 6)]
    for secret in secrets:
        if len(secret) > 1:
            text = text.replace(secret, "...")
    return text


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds that a server asks to be left alone, an hour at most; 0 if it names none."""
    try:
        return min(max(float(response.headers.get("retry-after", "0")), 0.0), 3_600.0)
    except ValueError:  # a date: our own pauses will do
        return 0.0


class _Hides(logging.Filter):
    def __init__(self, secret: str) -> None:
        super().__init__()
        self._secret = secret

    def filter(self, record: logging.LogRecord) -> bool:
        return self._secret not in record.getMessage()


@contextmanager
def _unlogged(secret: str) -> Iterator[None]:
    """Keep httpx, which logs the address of every request, from logging this one."""
    hides = _Hides(secret)
    logger = logging.getLogger("httpx")
    logger.addFilter(hides)
    try:
        yield
    finally:
        logger.removeFilter(hides)
