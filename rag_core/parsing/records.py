"""One JSON record with text and metadata fields: a line of a JSON Lines file."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rag_core.parsing.markdown import heading
from rag_core.parsing.model import UnreadableError, clean_line, clean_text
from rag_core.parsing.settings import ParseSettings

_WORD: Final = re.compile(r"\w+")
_SEPARATORS: Final = " \t\n.:;,/-–—"


@dataclass(frozen=True, slots=True)
class Record:
    """What a record says of itself; text is Markdown with the title as its heading, empty where there is neither."""

    external_id: str | None
    title: str | None
    text: str
    modified_at: datetime | None
    principals: tuple[str, ...] | None


def without_title(text: str, title: str) -> str:
    """Drop the title from the start of a text, when all its words stand there and end at a word's end.

    Case, punctuation and white space do not count. A title that only happens to begin the first sentence ("Flutter"
    before "Flutter of wings is ...") is kept there: only what a full stop, a line end or the text's end closes goes.
    """
    wanted = [word.lower() for word in _WORD.findall(title)]
    end = 0
    for word, match in zip(wanted, _WORD.finditer(text), strict=False):
        if match[0].lower() != word:
            return text
        end = match.end()
    if not wanted or len(_WORD.findall(text[:end])) != len(wanted):
        return text
    rest = text[end:]
    closing = re.match(r"[\s)\]/\"'”’]*(?:[.:!?]|\n|$)", rest)
    return rest.lstrip(_SEPARATORS + ")]\"'”’!?") if closing else text


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"The line is not valid JSON ({error}). Correct the line.") from error
    if not isinstance(value, dict):
        raise UnreadableError(f"The line is a JSON {type(value).__name__}, not an object. Correct the line.")
    return value


def _string(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise UnreadableError(f"Field {name!r} is a {type(value).__name__}, expected a string. Correct the record.")


def _time(record: dict[str, Any], name: str | None) -> datetime | None:
    value = record.get(name) if name else None
    if value is None or value == "":
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None:
        raise UnreadableError(f"Field {name!r} is {value!r}, expected an ISO 8601 time. Correct the record.")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _principals(record: dict[str, Any], name: str | None) -> tuple[str, ...] | None:
    """Read who may see the record; nobody named means the source's default, a malformed list is refused."""
    value = record.get(name) if name else None
    if value is None:
        return None
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UnreadableError(f"Field {name!r} is not a list of strings, so who may read it is unknown. Correct it.")
    return tuple(sorted({name for item in value if (name := clean_line(item))})) or None


def read_record(data: bytes, settings: ParseSettings) -> Record:
    """Read one line.

    Raises:
        UnreadableError: Not a JSON object, or a field has the wrong type.
    """
    record = _object(data)
    title = clean_line(_string(record, settings.title_field))
    body = clean_text(_string(record, settings.text_field))
    if title:
        body = without_title(body, title)
    text = "\n\n".join([*heading(1, title or ""), *([body] if body else [])])
    return Record(
        external_id=clean_line(_string(record, settings.id_field)),
        title=title,
        text=text,
        modified_at=_time(record, settings.modified_at_field),
        principals=_principals(record, settings.principals_field),
    )
