"""The markdown strategy: sections, tables, code, prose."""

from itertools import pairwise

import pytest

from rag_core.chunking.chunker import make_chunker
from rag_core.chunking.model import Chunk
from rag_core.config import ChunkingConfig

SENTENCE = "The quick brown fox jumps over the lazy dog. "  # ten tokens


def split(text: str, max_tokens: int = 100, overlap_tokens: int = 0) -> list[Chunk]:
    return make_chunker(ChunkingConfig(max_tokens=max_tokens, overlap_tokens=overlap_tokens)).split(text)


def section(heading: str, sentences: int) -> str:
    return f"{heading}\n\n{SENTENCE * sentences}\n\n"


def test_a_small_document_is_one_chunk() -> None:
    (chunk,) = split("# Title\n\nSome words.\n\n## Part\n\nMore words.\n")
    assert chunk.heading_path == ("Title",)


def test_sections_are_chunks_with_their_heading_and_path() -> None:
    text = "# Title\n\n" + section("## One", 7) + section("## Two", 6)
    first, second = split(text)
    assert first.text.startswith("# Title\n\n## One\n\nThe quick")
    assert second.text.startswith("## Two\n\nThe quick")
    assert (first.heading_path, second.heading_path) == (("Title", "One"), ("Title", "Two"))


def test_small_siblings_share_a_chunk_and_never_cross_their_parent() -> None:
    parts = [section(f"### Item {i}", 1) for i in range(10)]
    text = "# A\n\n" + "".join(parts) + "# B\n\n" + "".join(parts)
    chunks = split(text, max_tokens=80)
    assert {chunk.heading_path[0] for chunk in chunks} == {"A", "B"}
    assert all(chunk.token_count >= 24 for chunk in chunks)
    assert sum(chunk.text.startswith("# B") for chunk in chunks) == 1
    assert not any("# B" in chunk.text[1:] for chunk in chunks if chunk.heading_path[0] == "A")


def test_large_siblings_stay_apart_though_both_would_fit() -> None:
    chunks = split(section("# A", 4) + section("# B", 4) + section("# C", 4))
    assert [chunk.heading_path for chunk in chunks] == [("A",), ("B",), ("C",)]


def test_setext_headings_and_marks_inside_fences() -> None:
    text = f"Title\n=====\n\n{SENTENCE * 8}\n\n```sh\n# comment\n```\n\nPart\n----\n\n{SENTENCE * 8}\n"
    first, second = split(text, max_tokens=110)
    assert "# comment" in first.text
    assert (first.heading_path, second.heading_path) == (("Title",), ("Title", "Part"))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_table_that_is_split_repeats_its_header(newline: str) -> None:
    rows = [f"| row {i} | a value of some words {i} |" for i in range(40)]
    header = "| name | value |\n|-|:-|"
    padded = ["| name   | value   |", "|--------|:--------|"]
    text = newline.join(["# Data", "", "An introduction.", "", *padded, *rows, "", "The end of it all.", ""])
    first, *others = split(text)
    assert first.text.startswith("# Data")
    assert "| row 0 |" in first.text
    assert first.context == ""
    assert [chunk.context for chunk in others] == [header] * len(others)
    assert all(chunk.text.startswith("| row ") for chunk in others)
    held = [line for chunk in [first, *others] for line in chunk.text.splitlines()]
    assert [line for line in held if line.startswith("| row")] == rows
    assert others[0].embedded_text == f"{header}\n{others[0].text}"


@pytest.mark.slow
def test_a_table_and_code_that_fit_are_whole() -> None:
    table = "| a | b |\n|---|---|\n" + "| one | two |\n" * 6
    code = "```python\n" + "call(argument)\n\n" * 10 + "```\n"
    indented = "    first line\n\n" + "    other line\n" * 8
    for block in (table, code, indented):
        for sentences in range(1, 10):
            chunks = split(f"# T\n\n{SENTENCE * sentences}\n\n{block}\n{SENTENCE * 9}\n", max_tokens=100)
            assert sum(block.strip() in chunk.text for chunk in chunks) == 1, (block, sentences)


def test_code_that_does_not_fit_is_cut_between_lines() -> None:
    lines = [f"result_{i} = call(argument, {i})  # why. Not a sentence" for i in range(40)]
    chunks = split("```python\n" + "\n".join(lines) + "\n```\n")
    assert len(chunks) > 3
    assert [line for chunk in chunks for line in chunk.text.splitlines()] == ["```python", *lines, "```"]


def test_prose_is_cut_between_sentences_and_the_last_chunks_are_of_like_size() -> None:
    chunks = split("Dr. J. Smith wrote it. " + SENTENCE * 11)
    assert all(chunk.text.endswith(".") for chunk in chunks)
    assert len(chunks) == 2
    assert min(chunk.token_count for chunk in chunks) > 40


def test_text_without_spaces_is_cut_between_sentences_then_anywhere() -> None:
    chunks = split("日本語の文章は空白なしで書かれます。" * 30)
    assert all(chunk.text.endswith("。") for chunk in chunks)
    assert max(chunk.token_count for chunk in split("漢字" * 300)) == 100


def test_windows_line_ends() -> None:
    text = ("# Title\n\n" + section("## One", 8) + section("## Two", 8)).replace("\n", "\r\n")
    assert [chunk.heading_path for chunk in split(text)] == [("Title", "One"), ("Title", "Two")]


def test_overlap_repeats_whole_sentences_inside_a_section_only() -> None:
    text = section("# A", 25) + section("# B", 4)
    chunks = split(text, overlap_tokens=25)
    of_a = [chunk for chunk in chunks if chunk.heading_path == ("A",)]
    for one, two in pairwise(of_a):
        assert text[two.char_start : one.char_end].strip() == (SENTENCE * 2).strip()
    assert chunks[-1].heading_path == ("B",)
    assert chunks[-1].char_start >= chunks[-2].char_end


def test_chunks_behind_an_insertion_keep_their_text() -> None:
    sections = [section(f"## Part {i}", 5 + i % 4) for i in range(8)]
    before = split("# Title\n\nIntroduction.\n\n" + "".join(sections))
    after = split("# Title\n\nIntroduction, now a longer one.\n\n" + section("## New", 6) + "".join(sections))
    kept = {chunk.text for chunk in before} & {chunk.text for chunk in after}
    assert len(kept) >= len(before) - 1


def test_a_heading_of_nothing_goes_with_what_follows() -> None:
    chunks = split("# One\n\n# Two\n\n" + section("# Three", 20))
    assert chunks[0].text.startswith("# One\n\n# Two\n\n# Three\n\nThe quick")
    assert chunks[0].heading_path == ("Three",)
