"""Questions as they are searched for, and results as caches keep them."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.retrieval.filters import SearchFilters
from rag_core.retrieval.search import Hit
from serving.retrieval import codec
from serving.retrieval.query import Found, Passage, Query, normalised

texts = st.text(st.characters(codec="utf-8"), max_size=30)
hits = st.builds(
    Hit,
    chunk_id=texts, doc_id=texts, external_id=st.none() | texts, uri=texts, title=st.none() | texts,
    heading_path=st.lists(texts, max_size=3).map(tuple), page=st.none() | st.integers(1, 9),
    char_start=st.integers(0, 99), char_end=st.integers(0, 99), ordinal=st.integers(0, 9),
    score=st.floats(allow_nan=False, allow_infinity=False), text=texts, source=texts, mime=texts,
    language=st.none() | texts, modified_at_ms=st.none() | st.integers(0, 2**42),
)  # fmt: skip
passages = st.builds(
    Passage,
    hit=hits, text=texts, span=st.tuples(st.integers(0, 99), st.integers(0, 99)), tokens=st.integers(0, 99),
    explain=st.dictionaries(texts, st.integers(0, 9), max_size=2),
)  # fmt: skip


@pytest.mark.slow
@given(st.builds(Found, passages=st.lists(passages, max_size=3).map(tuple), collection=texts, version=texts))
def test_a_result_comes_back_from_the_cache_as_it_was(found: Found) -> None:
    assert codec.from_bytes(codec.to_bytes(found)) == replace(found, cached=True)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"passages": 1}', b'{"passages": [{}]}', b'{"passages": []}'])
def test_what_cannot_be_read_is_said_to_be_so(data: bytes) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        codec.from_bytes(data)


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once == once.strip()


def test_white_space_and_control_characters() -> None:
    assert normalised("\u3000 who\x00 is\t\n it\x7f? ") == "who is it?"


def test_the_key_knows_all_that_the_result_depends_on() -> None:
    query = Query("Where is it?", filters=SearchFilters(sources=["b", "a"], access_labels=("x",)))
    assert query.key == Query("where is IT?", filters=SearchFilters(sources=["a", "b"], access_labels=("x",))).key
    others = [
        replace(query, text="Where was it?"),
        replace(query, mode="dense"),
        replace(query, top_k=11),
        replace(query, rerank=True),
        replace(query, neighbours=1),
        replace(query, passage_tokens=9),
        replace(query, explain=True),
        query.with_labels(("y",)),
        query.with_labels(None),
        query.with_labels(()),
        replace(query, filters=replace(query.filters, sources=["a"])),
        replace(query, filters=replace(query.filters, sources=None)),
        replace(query, filters=replace(query.filters, languages=["en"])),
        replace(query, filters=replace(query.filters, modified_after=datetime(2026, 1, 1, tzinfo=UTC))),
        replace(query, filters=replace(query.filters, modified_before=datetime(2026, 1, 1, tzinfo=UTC))),
    ]
    assert len({query.key, *(other.key for other in others)}) == len(others) + 1
