"""Mail messages (RFC 5322) to Markdown; attachments become members, documents of their own."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from typing import Final

from rag_core.parsing.charset import decode
from rag_core.parsing.markdown import escape_lines, heading
from rag_core.parsing.model import Extract, Member, clean_line, clean_text
from rag_core.parsing.sniff import PGP_ARMOUR
from rag_core.parsing.web import html_extract

_SHOWN: Final = ("from", "to", "cc", "date")
_MAX_PARTS: Final = 1_000
_SIGNATURE_TYPES: Final = frozenset({"application/pgp-signature", "application/pkcs7-signature"})
_ENCRYPTED_TYPES: Final = frozenset({"multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"})
_EMPTY_BODY: Final = "The mail has neither a subject nor a body."
_ENCRYPTED: Final = "The mail's body is encrypted; only its sender and receiver can read it. Add a decrypted copy."


def _header(message: EmailMessage, name: str) -> str | None:
    """Read a header on one line; headers that the email package cannot parse are read raw."""
    try:
        value = message[name]
        return None if value is None else clean_line(str(value))
    except Exception:  # noqa: BLE001 - the header parser raises whatever a broken header makes it stumble over
        raw = next((v for k, v in message._headers if k.lower() == name), "")  # type: ignore[attr-defined]
        return clean_line(str(raw))


def _date(message: EmailMessage) -> datetime | None:
    try:
        moment = parsedate_to_datetime(_header(message, "date") or "")
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _payload(part: EmailMessage) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _text(part: EmailMessage) -> str:
    data = _payload(part)
    charset = part.get_param("charset")
    if isinstance(charset, str) and charset.lower() not in {"us-ascii", "ascii", "utf-8", "utf8", "unknown-8bit"}:
        try:
            return data.decode(charset)
        except (LookupError, ValueError):
            pass
    return decode(data) or ""


def _parts(message: EmailMessage) -> Iterator[EmailMessage]:
    """Walk leaves; a message inside the message counts as a leaf."""
    stack, seen = [message], 0
    while stack and seen < _MAX_PARTS:
        part = stack.pop()
        seen += 1
        children = part.get_payload()
        if part.is_multipart() and part.get_content_type() != "message/rfc822" and isinstance(children, list):
            stack.extend(child for child in reversed(children) if isinstance(child, EmailMessage))
        else:
            yield part


def _attached_message(part: EmailMessage) -> bytes:
    children = part.get_payload()
    if isinstance(children, list) and children and isinstance(children[0], EmailMessage):
        return children[0].as_bytes()
    return _payload(part)


def _member(part: EmailMessage, number: int) -> Member | None:
    kind = part.get_content_type()
    if kind in _SIGNATURE_TYPES:
        return None
    try:
        name = clean_line(part.get_filename())
    except (ValueError, LookupError, TypeError):
        name = None
    data = _attached_message(part) if kind == "message/rfc822" else _payload(part)
    if not data and name is None:
        return None
    suffix = {"message/rfc822": ".eml", "text/html": ".html", "text/plain": ".txt"}.get(kind, "")
    return Member(name=(name or f"attachment-{number}{suffix}").replace("/", "_"), data=data)


def _is_attachment(part: EmailMessage) -> bool:
    kind = part.get_content_type()
    if kind not in {"text/plain", "text/html"} or part.get_content_disposition() == "attachment":
        return True
    return part.get_content_disposition() == "inline" and part.get_filename() is not None


def _alternatives(message: EmailMessage) -> set[int]:
    """Find plain-text parts whose HTML twin says the same; HTML is preferred for its headings and tables."""
    redundant: set[int] = set()
    for part in message.walk():
        if part.get_content_type() == "multipart/alternative" and isinstance(part.get_payload(), list):
            leaves = [leaf for leaf in part.walk() if not leaf.is_multipart()]
            plain = [
                leaf for leaf in leaves if leaf.get_content_type() == "text/plain" and not _is_attachment_name(leaf)
            ]
            rich = [leaf for leaf in leaves if leaf.get_content_type() == "text/html"]
            if rich and plain:
                redundant.update(id(leaf) for leaf in (plain if _covers(rich[0], plain[0]) else rich))
    return redundant


def _is_attachment_name(part: EmailMessage) -> bool:
    return part.get_content_disposition() == "attachment"


def _covers(rich: EmailMessage, plain: EmailMessage) -> bool:
    words = set(re.findall(r"\w{4,}", _text(plain)))
    found = set(re.findall(r"\w{4,}", html_extract(_text(rich)).text))
    return len(words & found) >= 0.9 * len(words)


def _body(message: EmailMessage) -> tuple[list[str], list[Member], bool]:
    """Return the body's blocks, the members, and whether anything was encrypted."""
    blocks: list[str] = []
    members: list[Member] = []
    redundant = _alternatives(message)
    encrypted = any(part.get_content_type() in _ENCRYPTED_TYPES for part in message.walk())
    for number, part in enumerate(() if encrypted else _parts(message), 1):
        if id(part) in redundant:
            continue
        if _is_attachment(part):
            member = _member(part, number)
            if member is not None:
                members.append(member)
            continue
        text = _text(part)
        rich = part.get_content_type() == "text/html"
        text = html_extract(text).text if rich else escape_lines(clean_text(text))
        if PGP_ARMOUR.search(text):
            encrypted = True
            text = PGP_ARMOUR.sub("", text)
        blocks.append(text)
    return [block for block in blocks if block.strip()], members, encrypted


def mail_extract(data: bytes) -> Extract:
    """Extract subject (the title and first heading), sender, receivers, date and body; attachments as members.

    An encrypted body is left out, and with nothing else to read the mail is empty: its subject says nothing of what
    it holds.
    """
    message = message_from_bytes(data.lstrip(b"\r\n"), policy=policy.default)
    assert isinstance(message, EmailMessage)  # the default policy makes these
    subject = _header(message, "subject")
    blocks, members, encrypted = _body(message)
    if not blocks and encrypted:
        return Extract(title=subject, modified_at=_date(message), empty_reason=_ENCRYPTED, members=members)
    if not blocks and subject is None:
        return Extract(modified_at=_date(message), empty_reason=_EMPTY_BODY, members=members)
    shown = ((name, _header(message, name)) for name in _SHOWN)
    about = "\n".join(f"{name.capitalize()}: {value}" for name, value in shown if value)
    text = "\n\n".join([*heading(1, subject or ""), *filter(None, [about]), *blocks])
    return Extract(text=text, title=subject, modified_at=_date(message), members=members)
