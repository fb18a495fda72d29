"""Objects made of inline data."""

from datetime import datetime

from rag_core.parsing.model import ParsedDocument
from rag_core.parsing.parse import ParseSettings, parse_object
from rag_core.sources.base import ObjectFormat, SourceObject


def an_object(
    key: str, data: bytes = b"", *, format_: ObjectFormat = "file", modified_at: datetime | None = None
) -> SourceObject:
    return SourceObject(
        source="docs",
        key=key,
        uri=f"file:///docs/{key}",
        fingerprint="f",
        size_bytes=len(data),
        modified_at=modified_at,
        format=format_,
    )


def parse(data: bytes | str, key: str, *, format_: ObjectFormat = "file", **settings: object) -> list[ParsedDocument]:
    raw = data.encode() if isinstance(data, str) else data
    return parse_object(raw, an_object(key, raw, format_=format_), ParseSettings.model_validate(settings))


def parse_one(data: bytes | str, key: str, *, format_: ObjectFormat = "file", **settings: object) -> ParsedDocument:
    (document,) = parse(data, key, format_=format_, **settings)
    return document
