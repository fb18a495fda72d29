"""Token positions: the fast way equals the tokenizer's own, and spans cut at additive places count alike alone."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rag_core.chunking import wordpiece
from rag_core.chunking.tokens import TokenCounter, default_tokenizer_path
from rag_core.errors import ConfigError

SAMPLES = [
    "Hello, world!",
    "naïve café — “quoted” … don't re-enter",
    "日本語の文章。漢字、かな。カナ 한국어 문장",
    "a\u200bb\u00a0c\x1cd\x00e\ufffdf",
    "e\u0301 字\u3099か\u3099 \u0344",
    "x" * 101 + " " + "y" * 250 + " tail",
    "|---|:-:|\n| **b** | `c` |",
    "İstanbul ẞ ﬁ ① 豈 𠀀 🙂👩‍👩‍👧",
    "see [CLS] and [MASK], [mask] too",
    "",
    " \n\t ",
]
COUNTER = TokenCounter()
PLAIN = Tokenizer.from_file(str(default_tokenizer_path()))
PLAIN.no_truncation()
PLAIN.no_padding()


def reference_starts(text: str) -> list[int]:
    return [start for start, _ in PLAIN.encode(text, add_special_tokens=False).offsets]


def pieces() -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(SAMPLES) | st.text(max_size=12), max_size=8).map(" ".join)


@pytest.mark.parametrize("text", SAMPLES)
def test_starts_equal_the_tokenizers_own_offsets(text: str) -> None:
    assert COUNTER.tokenize(text).starts.tolist() == reference_starts(text)


@given(text=st.text(max_size=80) | pieces())
@settings(max_examples=200, deadline=None)
def test_starts_equal_the_tokenizers_own_offsets_for_any_text(text: str) -> None:
    assert COUNTER.tokenize(text).starts.tolist() == reference_starts(text)


@pytest.mark.slow
@given(text=pieces(), data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_span_between_additive_places_counts_the_same_alone(text: str, data: st.DataObject) -> None:
    tokens = COUNTER.tokenize(text)
    places = [i for i in range(len(text) + 1) if tokens.additive(i)]
    start, end = sorted((data.draw(st.sampled_from(places)), data.draw(st.sampled_from(places))))
    assert tokens.count(start, end) == COUNTER.count(text[start:end]) == len(reference_starts(text[start:end]))


def test_a_text_longer_than_a_segment_is_tokenised_like_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(SAMPLES[:8]) * 4
    whole = COUNTER.tokenize(text).starts.tolist()
    monkeypatch.setattr(wordpiece, "_SEGMENT_CHARS", 20)
    assert TokenCounter().tokenize(text).starts.tolist() == whole == reference_starts(text)


def test_the_word_cache_is_emptied_when_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordpiece, "_MAX_CACHED_WORDS", 3)
    counter = TokenCounter()
    for text in ("one two three four", "five six", "one seven", "unaffable one"):
        assert counter.tokenize(text).starts.tolist() == reference_starts(text)
    assert len(counter._words._ids) < 6


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_other_tokenizers_give_ascending_positions_in_the_original_text(
    tokenizer_paths: dict[str, Path], kind: str
) -> None:
    text = "The ﬁrst chunk.\n\nDie Größe der Blöcke: 日本語。 " * 400
    tokens = TokenCounter(tokenizer_paths[kind]).tokenize(text)
    assert tokens.starts.dtype == np.int32
    assert (np.diff(tokens.starts) >= 0).all()
    assert 0 <= tokens.starts[0] <= tokens.starts[-1] < len(text)
    assert not tokens.additive(text.index(" "))
    assert abs(len(tokens.starts) - TokenCounter(tokenizer_paths[kind]).count(text)) < len(text) // 500


def test_truncation_and_padding_of_the_file_are_off() -> None:
    assert COUNTER.count("word " * 1000) == 1000
    assert COUNTER.count("word") == 1


@pytest.mark.parametrize("content", [None, "not json", "{}"])
def test_a_bad_tokenizer_file_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=str(path)):
        TokenCounter(path)
