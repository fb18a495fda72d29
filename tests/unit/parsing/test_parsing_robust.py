"""Whatever the bytes, `parse_object` answers with at least one well-formed document."""

import io
import json
import zipfile

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_core.parsing.model import ParsedDocument
from rag_core.parsing.parse import ParseSettings, parse_object
from rag_core.sources.base import ObjectFormat
from tests.unit.parsing.parsing_helpers import an_object

MAGIC = [
    b"",
    b"%PDF-1.4\n",
    b"PK\x03\x04",
    b"<html>",
    b"{\\rtf1",
    b"From: a\nTo: b\nSubject: c\nMIME-Version: 1.0\n",
    b"<?xml",
]
NAMES = ["a", "a.pdf", "a.csv", "a.json", "a.md", "a.html", "a.eml", "a.docx", "a.xlsx", "a.pptx", "a.xml", "a.py"]


def check(documents: list[ParsedDocument]) -> None:
    assert documents
    for document in documents:
        assert document.status in {"ok", "empty", "rejected"}
        assert (document.reason is None) == (document.status == "ok")
        assert bool(document.text) == (document.status == "ok")
        pa.array([document.text, document.title, document.uri, document.reason, document.member, document.external_id])
        starts = document.page_starts or []
        assert starts == sorted(starts)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(MAGIC), st.binary(max_size=300), st.sampled_from(NAMES))
def test_arbitrary_bytes(magic: bytes, data: bytes, name: str) -> None:
    check(parse_object(magic + data, an_object(name), ParseSettings()))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.sampled_from(NAMES))
def test_arbitrary_text(text: str, name: str) -> None:
    check(parse_object(text.encode("utf-8", "surrogatepass"), an_object(name), ParseSettings()))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["title", "text", "_id", "ts"]), inner),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(JSON, JSON, st.sampled_from(["file", "jsonl_record", "slack_day"]))
def test_arbitrary_json(value: object, other: object, format_: ObjectFormat) -> None:
    shaped = {
        "channel": {"name": "c"},
        "users": {},
        "date": "d",
        "messages": [value, other],
        "title": value,
        "text": other,
    }
    for data in (value, shaped):
        raw = json.dumps(data).encode()
        check(parse_object(raw, an_object("a.json", format_=format_), ParseSettings()))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_damaged_archives(position: int, noise: bytes) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("ppt/presentation.xml", "<p><sldIdLst/></p>" * 9)
        archive.writestr("notes.txt", "words")
    data = bytearray(buffer.getvalue())
    start = position % len(data)
    data[start : start + len(noise)] = noise
    check(parse_object(bytes(data), an_object("a.pptx"), ParseSettings()))
