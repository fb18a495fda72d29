"""Markdown, code, JSON, delimited tables; titles and cleaning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.parsing.language import detect_language
from rag_core.parsing.model import clean_text, join_pages
from tests.unit.parsing.parsing_helpers import parse_one


def test_front_matter_gives_the_title_and_leaves_the_text() -> None:
    document = parse_one('---\ntitle: "One on ones"\nlayout: x\n---\n\n# Other\n\nBody *kept* as is.\n', "a.md")
    assert (document.title, document.text) == ("One on ones", "# Other\n\nBody *kept* as is.")


@pytest.mark.parametrize(
    ("text", "name", "title"),
    [
        ("intro\n\n## The `real` *title* of snake_case ##\n", "a.md", "The real title of snake_case"),
        ("no heading", "my notes.txt", "my notes"),
    ],
)
def test_titles(text: str, name: str, title: str) -> None:
    assert parse_one(text, name).title == title


def test_code_is_fenced_so_that_comments_are_no_headings() -> None:
    assert parse_one("# setup\nx = '```'\n```\n", "a.py").text == "````python\n# setup\nx = '```'\n```\n````"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimited_tables(delimiter: str) -> None:
    rows = [["Name", "Place"], ['Ann "A"', "Ulm"], ["Bob", ""], ["", ""]]
    text = "\r\n".join(delimiter.join(row) for row in rows)
    document = parse_one(text, "a.csv")
    assert document.text == '| Name | Place |\n| --- | --- |\n| Ann "A" | Ulm |\n| Bob |  |'


def test_cells_with_line_ends_and_bars_stay_in_their_row() -> None:
    assert parse_one('a,b\n"x\ny|z",2\n', "a.csv").text == "| a | b |\n| --- | --- |\n| x y\\|z | 2 |"


def test_one_absurdly_wide_row_does_not_widen_all() -> None:
    text = "a,b\n" * 1000 + "," * 50_000 + "z\n"
    assert len(parse_one(text, "a.csv").text) < 2 * len(text)


def test_json_is_readable_and_broken_json_is_text() -> None:
    text = '[{"name": "Ann", "tags": ["x", "y"], "at": {"city": "Ulm"}, "ok": true, "no": null}, {"name": "Bob"}]'
    expected = "- name: Ann\n- tags:\n  - x\n  - y\n- at:\n  - city: Ulm\n- ok: true\n- no: null\n\n- name: Bob"
    assert parse_one(text, "a.json").text == expected
    assert parse_one('{"name": "Ann", "ma', "a.json").text == '{"name": "Ann", "ma'
    assert parse_one('{"a": 1}\nnot json\n{"a": 2}', "a.ndjson").text == "- a: 1\n\nnot json\n\n- a: 2"


def test_json_nested_too_deeply_is_text() -> None:
    assert parse_one("[" * 100_000, "a.json").status == "ok"


def test_xml_entities_are_not_resolved() -> None:
    entity = '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    text = f'<?xml version="1.0"?>{entity}<r><title>T</title><p>a &x; b</p></r>'
    document = parse_one(text, "a.xml")
    assert document.title == "T"
    assert "root:" not in document.text


@given(st.text())
def test_clean_text_is_idempotent_and_encodable(text: str) -> None:
    cleaned = clean_text(text)
    cleaned.encode()
    assert clean_text(cleaned) == cleaned
    assert not set(cleaned) & set("\x00\x07\r\x0b\u200b\ufeff\ud800")


@given(st.lists(st.text(alphabet="ab \r\n\x00\x0c¶\ud800😀", max_size=12), max_size=8))
def test_page_starts_point_at_the_pages(pages: list[str]) -> None:
    text, starts = join_pages(pages)
    cleaned = [clean_text(page) for page in pages]
    assert len(starts) == len(pages)
    assert starts == sorted(starts)
    for page, start in zip(cleaned, starts, strict=True):
        assert text[start : start + len(page)] == page
        assert 0 <= start <= len(text)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The quick brown fox jumps over the lazy dog and runs away from the hunters.", "en"),
        ("Der schnelle braune Fuchs springt über den faulen Hund und läuft vor den Jägern davon.", "de"),
        ("Debian package management の基礎を説明します。apt install を使ってください。", "ja"),
        ("OK", None),
        ("12345 67890 " * 20, None),
    ],
)
def test_language(text: str, language: str | None) -> None:
    assert detect_language(text) == language
