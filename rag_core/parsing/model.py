"""What a parser returns: the public `ParsedDocument` and the `Extract` that each format reader hands to `parse`.

Text is cleaned here and nowhere else, so that offsets of pages are taken from the text as it is stored.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from rag_core.errors import PermanentError

Status = Literal["ok", "empty", "rejected"]

_LINE_ENDS: Final = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Control characters, lone surrogates, non-characters and marks that are never seen but would split words in searches
# (zero-width space, word joiner, soft hyphen, byte order mark).
_UNWANTED: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff\ufffe\uffff\ud800-\udfff]")
_TRAILING_BLANKS: Final = re.compile(r"[ \t]+$", re.MULTILINE)
_MANY_BLANK_LINES: Final = re.compile(r"\n{4,}")
PAGE_SEPARATOR: Final = "\n\n"


class UnreadableError(PermanentError):
    """The bytes cannot be read as a document; the message is a sentence for a person and becomes the row's reason.

    `mime` is what the bytes were taken for, where that is known.
    """

    def __init__(self, message: str, mime: str | None = None) -> None:
        super().__init__(message)
        self.mime = mime


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """One document out of an object.

    Attributes:
        member: Part inside the object (a mail's attachment); empty for the object itself.
        external_id: The source's own id, where it has one.
        uri: Where a person finds it.
        title: From metadata, else the first heading, else the file's name; None for a record without one.
        mime: Media type, told from the content.
        language: ISO 639-1 code, None where it cannot be told.
        text: Markdown, clean (see `clean_text`); empty unless status is ok.
        page_starts: Character offset in `text` where page 1, 2, ... starts; None where the format has no pages.
        modified_at: UTC, aware; None where nobody knows.
        size_bytes: Size of the object or member.
        content_hash: Digest of the raw bytes.
        principals: Who may read it; None: the source's default.
        status: ok, empty (opened, holds no text) or rejected (could not be read).
        reason: Why it is empty or rejected and what to do; None when ok.
    """

    uri: str
    mime: str
    size_bytes: int
    content_hash: str
    member: str = ""
    external_id: str | None = None
    title: str | None = None
    language: str | None = None
    text: str = ""
    page_starts: list[int] | None = None
    modified_at: datetime | None = None
    principals: tuple[str, ...] | None = None
    status: Status = "ok"
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A part inside an object that is a document of its own."""

    name: str
    data: bytes


@dataclass(slots=True)
class Extract:
    """What a format reader found, not yet cleaned.

    Attributes:
        text: Markdown; ignored where `pages` is given.
        pages: Markdown of each page, for formats that have pages.
        title: From metadata.
        language: ISO 639-1, as declared by the document; used where detection is unsure.
        modified_at: UTC, aware.
        empty_reason: Why there is no text, where the reader knows better than "no text".
        members: Parts that become documents of their own.
    """

    text: str = ""
    pages: list[str] | None = None
    title: str | None = None
    language: str | None = None
    modified_at: datetime | None = None
    empty_reason: str | None = None
    members: list[Member] = field(default_factory=list)


def clean_text(text: str) -> str:
    r"""Remove what cannot be stored or seen: controls, surrogates, zero-width marks; line ends become \n.

    The result has no trailing blanks on lines, no blank lines at either end and encodes as UTF-8. Idempotent.
    """
    text = _UNWANTED.sub("", _LINE_ENDS.sub("\n", text))
    return _MANY_BLANK_LINES.sub("\n\n\n", _TRAILING_BLANKS.sub("", text)).strip("\n \t")


def clean_line(text: str | None) -> str | None:
    """Clean a title or name to one line; None where nothing is left."""
    folded = " ".join(_UNWANTED.sub("", text or "").split())
    return folded or None


def join_pages(pages: Sequence[str]) -> tuple[str, list[int]]:
    """Clean and join pages; return the text and the offset at which each page starts in it.

    An empty page starts where the next page with text does, or at the end of the text.
    """
    parts: list[str] = []
    starts: list[int] = []
    position = 0
    for page in pages:
        cleaned = clean_text(page)
        separator = len(PAGE_SEPARATOR) if parts and cleaned else 0
        starts.append(position + separator if cleaned else -1)
        if cleaned:
            parts.append(cleaned)
            position += separator + len(cleaned)
    following = position
    for index in range(len(starts) - 1, -1, -1):
        if starts[index] < 0:
            starts[index] = following
        following = starts[index]
    return PAGE_SEPARATOR.join(parts), starts
