"""`parse_object`: an object's bytes to documents. Pure; never raises on bad input; time and memory are bounded outside.

Which reader reads what is decided here; titles, language and the final status too.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote

from rag_core import ids
from rag_core.parsing import text_formats as texts
from rag_core.parsing.archive import ArchiveLimitError, Budget, MemberUnreadableError, zip_extract
from rag_core.parsing.charset import decode
from rag_core.parsing.language import detect_language
from rag_core.parsing.mail import mail_extract
from rag_core.parsing.markdown import first_heading
from rag_core.parsing.model import Extract, ParsedDocument, UnreadableError, clean_line, clean_text, join_pages
from rag_core.parsing.office import SPREADSHEETS, office_extract, spreadsheet_extract
from rag_core.parsing.pdf import pdf_extract
from rag_core.parsing.pptx import pptx_extract
from rag_core.parsing.records import read_record
from rag_core.parsing.settings import ParseSettings, parser_fingerprint
from rag_core.parsing.slack import slack_extract
from rag_core.parsing.sniff import BINARY, EMPTY, PDF, PGP_ARMOUR, PPTX, ZIP, code_language, sniff_binary, sniff_text
from rag_core.parsing.web import html_extract
from rag_core.sources.base import SourceObject

__all__ = ["ParseSettings", "parse_object", "parser_fingerprint", "too_large"]

logger = logging.getLogger(__name__)

_OFFICE: Final = frozenset(
    {
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "application/msword",
        "application/vnd.ms-powerpoint",
        "application/vnd.ms-outlook",
        "application/rtf",
        "application/epub+zip",
        "application/vnd.oasis.opendocument.text",
        "application/vnd.oasis.opendocument.presentation",
    }
)
_MAIL: Final = "message/rfc822"
_NO_TITLE: Final = re.compile(
    r"\W*|\S+\.(?:html?|docx?|pdf|pptx?|xlsx?|txt|indd|jpe?g|png|tiff?)|(?:microsoft word - .*)|"
    r"powerpoint presentation|"
    r"\(?(?:untitled|(?:table of )?contents|anonymous|unspecified|document\d*|presentation\d*|slide 1|title)\)?",
    re.I,
)
_WHITE_SPACE_ONLY: Final = "The file holds only white space."
_TABLES: Final = frozenset({*SPREADSHEETS, "text/csv", "text/tab-separated-values"})  # names and numbers, no prose
_UNTITLED: Final = frozenset(
    {*_TABLES, ZIP, "application/json", "application/x-ndjson"}
)  # headings inside are no titles
_PDF_TITLE_WITHIN: Final = 300  # characters; later "headings" of a PDF are seldom the title
_ZERO_BYTES: Final = "The file is empty: it has zero bytes."


@dataclass(frozen=True, slots=True)
class _Input:
    """A piece of data to be read: the object itself or a part of it."""

    data: bytes
    name: str
    uri: str
    modified_at: datetime | None
    member: str = ""
    external_id: str | None = None
    depth: int = 1
    in_archive: bool = False


def too_large(size: int, limit: int) -> str:
    """Say why an object or member was not read."""
    return f"Too large: {size:,} bytes, the limit is {limit:,}. Split it, or raise the source's max_bytes."


def parse_object(data: bytes, item: SourceObject, settings: ParseSettings) -> list[ParsedDocument]:
    """Parse one object.

    Args:
        data: The object's bytes.
        item: How it was listed; `format` says how the bytes are to be read.
        settings: Limits, and names of fields for records.

    Returns:
        At least one document, the object's own first, then its members in their order. What cannot be read or holds
        no text has that as its status, with a reason.
    """
    part = _Input(
        data=data,
        name=PurePosixPath(item.key).name,
        uri=item.uri,
        modified_at=item.modified_at,
        external_id=item.external_id,
    )
    if item.format == "jsonl_record":
        return [_guarded(part, "application/json", lambda: _record(part, settings))[0]]
    if item.format == "slack_day":
        return _guarded(
            part, "text/markdown", lambda: [_finish(part, "text/markdown", slack_extract(data), named=False)]
        )
    return _parse_file(part, settings, Budget(settings.archive))


def _parse_file(part: _Input, settings: ParseSettings, budget: Budget) -> list[ParsedDocument]:
    mime = BINARY
    if len(part.data) > settings.max_bytes:
        return [_rejected(part, mime, too_large(len(part.data), settings.max_bytes))]

    def read() -> list[ParsedDocument]:
        nonlocal mime
        mime, text = identify(part.data, part.name)
        if mime == EMPTY:
            return [_document(part, mime, status="empty", reason=_ZERO_BYTES, title=_stem(part))]
        extract = _extract(part, mime, text, settings, budget)
        document = _finish(part, mime, extract, named=True, written=text is not None)
        return [document, *_members(part, document, extract, settings, budget)]

    return _guarded(part, lambda: mime, read)


def identify(data: bytes, name: str) -> tuple[str, str | None]:
    """Tell the media type; for a text also give it decoded.

    Raises:
        UnreadableError: See `sniff_binary`.
    """
    mime = sniff_binary(data, name)
    if mime is not None:
        return mime, None
    text = decode(data)
    return (BINARY, None) if text is None else (sniff_text(text, name), text)


def _extract(part: _Input, mime: str, text: str | None, settings: ParseSettings, budget: Budget) -> Extract:  # noqa: PLR0911 - one reader each
    if text is not None:
        return mail_extract(part.data) if mime == _MAIL else _extract_text(text, mime, part.name)
    if mime == PDF:
        return pdf_extract(part.data)
    if mime == PPTX:
        return pptx_extract(part.data)
    if mime in SPREADSHEETS:
        return spreadsheet_extract(part.data, mime)
    if mime in _OFFICE:
        return office_extract(part.data, mime)
    if mime == ZIP:
        budget.depth(part.depth)
        return zip_extract(part.data, budget, lambda name, data: _archived(part, name, data, settings, budget))
    if mime.startswith("image/"):
        return Extract(empty_reason=f"The file is an image ({mime}) without a text layer. Run OCR on it.")
    raise UnreadableError(f"The type {mime} is not supported. Convert it to PDF, DOCX, HTML or text, or exclude it.")


def _extract_text(text: str, mime: str, name: str) -> Extract:
    readers: dict[str, Callable[[str], Extract]] = {
        "text/html": html_extract,
        "text/markdown": texts.markdown_extract,
        "application/json": texts.json_extract,
        "application/x-ndjson": texts.ndjson_extract,
        "application/xml": texts.xml_extract,
    }
    if mime in readers:
        return readers[mime](text)
    if mime in {"text/csv", "text/tab-separated-values"}:
        return texts.csv_extract(text, mime)
    if text.lstrip().startswith("-----BEGIN PGP MESSAGE-----"):
        raise UnreadableError("The file is encrypted with PGP. Add a decrypted copy.")
    language = code_language(name)
    return texts.code_extract(text, language) if language else Extract(text=PGP_ARMOUR.sub("", text))


def _archived(part: _Input, name: str, data: bytes, settings: ParseSettings, budget: Budget) -> str:
    """Read a member of an archive to Markdown; mails inside bring their attachments along."""
    inner = replace(part, data=data, name=PurePosixPath(name).name, member=name, depth=part.depth + 1, in_archive=True)
    documents = _parse_file(inner, settings, budget)
    if documents[0].status == "rejected":
        raise MemberUnreadableError(documents[0].reason or "")
    return "\n\n".join(document.text for document in documents if document.status == "ok")


def _members(
    part: _Input, parent: ParsedDocument, extract: Extract, settings: ParseSettings, budget: Budget
) -> list[ParsedDocument]:
    """Parse what an object carries, each part as a document of its own, down to the depth limit."""
    documents: list[ParsedDocument] = []
    taken: set[str] = set()
    for found in extract.members:
        name = _unique(found.name, taken)
        member = f"{part.member}/{name}" if part.member else name
        inner = replace(
            part,
            data=found.data,
            name=name,
            member=member,
            uri=f"{part.uri.partition('#')[0]}#{quote(member)}",
            external_id=None,
            modified_at=parent.modified_at,
            depth=part.depth + 1,
        )
        try:
            budget.depth(inner.depth - 1)
            budget.entries(1)
            budget.unpacked(len(found.data))
        except UnreadableError as error:
            documents.append(_rejected(inner, BINARY, str(error)))
            continue
        documents.extend(_parse_file(inner, settings, budget))
    return documents


def _unique(name: str, taken: set[str]) -> str:
    path, candidate, number = PurePosixPath(name), name, 1
    while candidate in taken:
        number += 1
        candidate = f"{path.stem}-{number}{path.suffix}"
    taken.add(candidate)
    return candidate


def _record(part: _Input, settings: ParseSettings) -> list[ParsedDocument]:
    record = read_record(part.data, settings)
    extract = Extract(
        text=record.text,
        title=record.title,
        modified_at=record.modified_at,
        empty_reason="The record has neither a title nor a text.",
    )
    document = _finish(part, "application/json", extract, named=False)
    return [replace(document, external_id=record.external_id or part.external_id, principals=record.principals)]


def _guarded(
    part: _Input, mime: str | Callable[[], str], read: Callable[[], list[ParsedDocument]]
) -> list[ParsedDocument]:
    """Run a reader; whatever it raises makes a rejected document, except running out of memory."""
    try:
        return read()
    except UnreadableError as error:
        if part.in_archive and isinstance(error, ArchiveLimitError):
            raise
        reason = str(error)
        mime = error.mime or mime
    except MemoryError:
        raise
    except Exception as error:  # formats can be broken in ways that no reader foresees
        logger.warning("parser failed on %s %s", part.uri, part.member, exc_info=True)
        detail = f"{type(error).__name__}: {clean_line(str(error)[:200])}"
        reason = f"The parser failed ({detail}). Report the file, or exclude it."
    return [_rejected(part, mime() if callable(mime) else mime, reason)]


def _document(part: _Input, mime: str, **fields: object) -> ParsedDocument:
    base = ParsedDocument(
        uri=part.uri,
        mime=mime,
        size_bytes=len(part.data),
        content_hash=ids.digest(part.data),
        member=part.member,
        external_id=part.external_id,
        modified_at=part.modified_at,
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def _rejected(part: _Input, mime: str, reason: str) -> ParsedDocument:
    return _document(part, mime, title=_stem(part), status="rejected", reason=clean_line(reason))


def _stem(part: _Input) -> str | None:
    return clean_line(PurePosixPath(part.name).stem) or clean_line(part.name)


def _finish(part: _Input, mime: str, extract: Extract, *, named: bool, written: bool = False) -> ParsedDocument:
    """Clean the text and fill in title, language and status."""
    text, page_starts = (clean_text(extract.text), None) if extract.pages is None else join_pages(extract.pages)
    title = clean_line(extract.title)
    if title is not None and _NO_TITLE.fullmatch(title):
        title = None
    if title is None and mime not in _UNTITLED:
        title = clean_line(first_heading(text, within=_PDF_TITLE_WITHIN if mime == PDF else 4000))
    title = title or (_stem(part) if named else None)
    modified_at = extract.modified_at or part.modified_at
    if not text:
        reason = extract.empty_reason or (_WHITE_SPACE_ONLY if written else "The document holds no text.")
        return _document(part, mime, title=title, modified_at=modified_at, status="empty", reason=reason)
    return _document(
        part,
        mime,
        title=title,
        modified_at=modified_at,
        text=text,
        page_starts=page_starts,
        language=extract.language if mime in _TABLES else detect_language(text, extract.language),
    )
