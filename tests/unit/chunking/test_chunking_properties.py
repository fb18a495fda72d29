"""What holds for every strategy, every tokenizer and any text."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from rag_core.chunking.chunker import Chunker, make_chunker
from rag_core.config import ChunkingConfig

STRATEGIES = ["markdown", "recursive", "fixed", "semantic"]
EXAMPLES = int(os.environ.get("HYPOTHESIS_MAX_EXAMPLES", "40"))  # for each strategy and tokenizer
TABLE = "| a | b |\n|---|---|\n" + "| cell one | cell two |\n" * 3

PARTS = st.sampled_from(
    [
        "# Heading", "## Other heading", "Title\n=====", "### Empty", "A short line.",
        "The quick brown fox jumps over the lazy dog. It barks! Does it? Yes, e.g. today.",
        "word " * 60, "One sentence of a paragraph. " * 12, "- item one\n- item two\n  more\n- item three",
        "```python\n# not a heading\nprint('x')\n\nprint('y')\n```", "```\n" + "line of code;\n" * 30 + "```",
        "    indented\n    code", TABLE,
        "| a | b |\n|---|---|\n" + "| a cell of some words | another cell |\n" * 20,
        "日本語の文章は空白なしで書かれます。" * 8, "漢字" * 40, "カタカナノナガイコトバ" * 12,
        "x" * 700, "supercalifragilistic" * 9, "[SEP] [MASK]", "... --- ...", "\t\t\n   \n", "\x1c",
        "a\u00a0b\u3000c", "\u200b" * 3, "e\u0301" * 40, "\U0001f642\U0001f469\u200d\U0001f469" * 20,
    ]
)  # fmt: skip
TEXTS = st.tuples(
    st.lists(PARTS | st.text(max_size=20), max_size=7), st.sampled_from(["\n\n", "\n", "\r\n\r\n", " "])
).map(lambda parts: parts[1].join(parts[0]))


def embed(sentences: list[str]) -> np.ndarray:
    """Stand for a model: vectors that depend on the words only."""
    vectors = np.zeros((len(sentences), 16), dtype=np.float32)
    for row, sentence in enumerate(sentences):
        for word in sentence.split():
            vectors[row, sum(word.encode()) % 16] += 1
    return vectors


def chunker(path: Path, strategy: str, max_tokens: int, overlap: int = 0) -> Chunker:
    config = ChunkingConfig(strategy=strategy, max_tokens=max_tokens, overlap_tokens=overlap, semantic_percentile=70)
    return make_chunker(config, path, embed_sentences=embed if strategy == "semantic" else None)


@pytest.fixture(scope="module")
def plain(tokenizer_paths: dict[str, Path]) -> dict[str, Tokenizer]:
    loaded = {kind: Tokenizer.from_file(str(path)) for kind, path in tokenizer_paths.items()}
    for tokenizer in loaded.values():
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return loaded


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "bpe", "unigram"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@given(text=TEXTS, max_tokens=st.sampled_from([16, 40, 254]), overlap=st.sampled_from([0, 0, 8]))
@example(text=TABLE + " " + "漢字" * 40, max_tokens=16, overlap=8)  # the overlap left room for the indentation only
@example(text="word " * 30 + "\n" + " " * 10 + "漢字" * 40, max_tokens=16, overlap=8)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_chunks_are_spans_that_cover_the_text_and_hold_the_limit(
    tokenizer_paths: dict[str, Path], plain: dict[str, Tokenizer], kind: str, strategy: str, text: str,
    max_tokens: int, overlap: int,
) -> None:  # fmt: skip
    chunks = chunker(tokenizer_paths[kind], strategy, max_tokens, overlap).split(text)
    position = before = 0
    for ordinal, chunk in enumerate(chunks):
        assert chunk.ordinal == ordinal
        assert chunk.text == text[chunk.char_start : chunk.char_end]
        assert chunk.text.strip()
        alone = len(plain[kind].encode(chunk.embedded_text, add_special_tokens=False))
        assert chunk.token_count == alone <= max_tokens
        if overlap:
            assert before <= chunk.char_start < chunk.char_end
            assert chunk.char_end > position
        else:
            assert chunk.char_start >= position
        assert not text[position : chunk.char_start].strip()
        before, position = chunk.char_start, chunk.char_end
    assert not text[position:].strip()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_text_gives_the_same_chunks_whatever_came_before(
    tokenizer_paths: dict[str, Path], strategy: str
) -> None:
    text = "# A\n\n" + "The quick brown fox. It jumps over 12 lazy dogs! " * 40
    used = chunker(tokenizer_paths["bert"], strategy, 64)
    used.split("Other words, quick ones. " * 30)
    fresh = chunker(tokenizer_paths["bert"], strategy, 64)
    assert used.split(text) == fresh.split(text)
    assert used.fingerprint == fresh.fingerprint


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("text", ["", " ", "\n\n \t\r\n"])
def test_blank_texts_have_no_chunks(tokenizer_paths: dict[str, Path], strategy: str, text: str) -> None:
    assert chunker(tokenizer_paths["bert"], strategy, 64).split(text) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_huge_word_is_bounded_by_characters(tokenizer_paths: dict[str, Path], strategy: str) -> None:
    text = "before " + "q" * 10_000 + " after"
    chunks = chunker(tokenizer_paths["bert"], strategy, 64).split(text)
    assert max(len(chunk.text) for chunk in chunks) <= 32 * 64
    assert "".join(chunk.text for chunk in chunks).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("overlap", [0, 8])
def test_a_character_of_more_tokens_than_a_chunk_is_a_chunk(
    tokenizer_paths: dict[str, Path], tmp_path: Path, strategy: str, overlap: int
) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_paths["bpe"]))
    tokenizer.normalizer = normalizers.NFKC()  # writes the ligature out: 18 characters
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = "before \ufdfa\ufdfa after"
    chunks = chunker(tmp_path / "tokenizer.json", strategy, 16, overlap).split(text)
    assert [chunk.text for chunk in chunks if chunk.token_count > 16] == ["\ufdfa", "\ufdfa"]
    assert "".join(chunk.text for chunk in chunks).replace(" ", "") == text.replace(" ", "")
