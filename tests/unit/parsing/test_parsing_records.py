"""Lines of JSON Lines files."""

import json
from datetime import UTC, datetime

import pytest

from rag_core.parsing.model import ParsedDocument
from rag_core.parsing.records import without_title
from tests.unit.parsing.parsing_helpers import parse_one


def record(value: object, **settings: object) -> ParsedDocument:
    return parse_one(json.dumps(value), "docs.jsonl#7", format_="jsonl_record", **settings)


def test_title_and_text() -> None:
    document = record({"_id": "7", "title": "Lift", "text": "Wings  lift."})
    assert (document.external_id, document.title, document.text) == ("7", "Lift", "# Lift\n\nWings  lift.")


@pytest.mark.parametrize(
    ("title", "text", "rest"),
    [
        ("a study of lift .", "a study of lift . the wing was made", "the wing was made"),
        ("Ducks", "Ducks\n\nThey swim.", "They swim."),
        ("DUCKS: a review", "Ducks - a Review. They swim.", "They swim."),
        ("ducks", "ducks", ""),
        ("wings /subsonic theory/ .", "wings /subsonic theory/ . this report", "this report"),
        ("Flutter", "Flutter of wings is dangerous.", "Flutter of wings is dangerous."),
        ("Duck", "Ducks. They swim.", "Ducks. They swim."),
        ("a long title here", "a long title", "a long title"),
        ("", "text", "text"),
    ],
)
def test_the_repeated_title_leaves_the_body(title: str, text: str, rest: str) -> None:
    assert without_title(text, title) == rest


def test_fields_are_named_by_the_settings() -> None:
    document = record(
        {"key": 12, "head": "T", "body": "B", "changed": "2024-02-03T04:05:06+02:00", "who": ["group:b", "group:a"]},
        id_field="key",
        title_field="head",
        text_field="body",
        modified_at_field="changed",
        principals_field="who",
    )
    assert (document.external_id, document.text) == ("12", "# T\n\nB")
    assert document.modified_at == datetime(2024, 2, 3, 2, 5, 6, tzinfo=UTC)
    assert document.principals == ("group:a", "group:b")


def test_nobody_named_means_the_default_and_a_malformed_list_is_refused() -> None:
    assert record({"text": "x", "who": []}, principals_field="who").principals is None
    refused = record({"text": "x", "who": {"a": 1}}, principals_field="who")
    assert (refused.status, "who may read it is unknown" in (refused.reason or "")) == ("rejected", True)


def test_neither_title_nor_text_is_empty_and_keeps_its_id() -> None:
    document = record({"_id": "471", "title": "", "text": ""})
    assert (document.status, document.external_id) == ("empty", "471")


@pytest.mark.parametrize("line", ['{"a": ', "[1]", '{"text": {"a": 1}}', '{"text": "x", "at": "yesterday"}'])
def test_bad_lines_are_rejected_with_a_reason(line: str) -> None:
    document = parse_one(line, "docs.jsonl#7", format_="jsonl_record", modified_at_field="at")
    assert document.status == "rejected"
    assert "Correct" in (document.reason or "")
