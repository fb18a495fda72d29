"""What is read of a ranking: no text twice, whole stretches of documents, within a budget."""

from hypothesis import given
from hypothesis import strategies as st

from rag_core.retrieval.passages import Stretch, distinct, estimated_tokens, wanted_around, widened, within_budget
from rag_core.retrieval.search import Hit

WORDS = st.sampled_from(["valve", "pump", "opens", "at", "noon", "gauge"])


def hit(text: str, *, doc: str = "d", ordinal: int = 0, start: int = 0) -> Hit:
    return Hit(
        chunk_id=f"{doc}{ordinal}", doc_id=doc, external_id=None, uri="u", title=None, heading_path=(), page=None,
        char_start=start, char_end=start + len(text), ordinal=ordinal, score=1.0, text=text, source="s", mime="m",
        language=None, modified_at_ms=None,
    )  # fmt: skip


def similarity(a: str, b: str) -> float:
    one, other = set(a.casefold().split()), set(b.casefold().split())
    return len(one & other) / len(one | other) if one | other else 1.0


@given(st.lists(st.lists(WORDS, max_size=6).map(" ".join), max_size=12), st.floats(0.3, 1.0), st.integers(1, 12))
def test_no_two_are_alike_and_none_is_left_out_without_need(texts: list[str], threshold: float, most: int) -> None:
    hits = [hit(text, ordinal=number) for number, text in enumerate(texts)]
    kept = distinct(hits, similarity=threshold, most=most)
    assert len(kept) <= most
    assert kept == [one for one in hits if one in kept], "the order stays"
    for at, one in enumerate(kept):
        assert all(similarity(one.text, other.text) < threshold for other in kept[:at])
    if len(kept) < most:
        for one in hits:
            assert one in kept or any(similarity(one.text, other.text) >= threshold for other in kept)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, list[Hit]]:
    """A text and its chunks: neighbours overlap, touch, or have white space between them."""
    sentences = draw(st.lists(st.lists(WORDS, min_size=1, max_size=4).map(" ".join), min_size=2, max_size=8))
    gaps = draw(st.lists(st.sampled_from([" ", "\n", "\n\n"]), min_size=len(sentences), max_size=len(sentences)))
    text, chunks = "", []
    for number, (sentence, gap) in enumerate(zip(sentences, gaps, strict=True)):
        back = draw(st.integers(0, 3)) if chunks else 0
        start = max(chunks[-1].char_start + 1 if chunks else 0, len(text) - back) if back else len(text)
        text += sentence
        chunks.append(hit(text[start:], ordinal=number, start=start))
        text += gap
    return text, chunks


@given(documents(), st.integers(0, 3), st.data())
def test_a_widened_passage_is_what_stands_in_the_document(
    document: tuple[str, list[Hit]], neighbours: int, data: st.DataObject
) -> None:
    text, chunks = document
    hits = data.draw(st.lists(st.sampled_from(chunks), min_size=1, max_size=4, unique_by=lambda one: one.ordinal))
    around = {(one.doc_id, one.ordinal): one for one in chunks}
    stretches = widened(hits, around, neighbours)
    assert len(stretches) == len(hits)
    for one, stretch in zip(hits, stretches, strict=True):
        start, end = stretch.span
        assert stretch.text.split() == text[start:end].split()
        assert start <= one.char_start
        assert end >= one.char_end
    if not neighbours:
        assert [stretch.span for stretch in stretches] == [(one.char_start, one.char_end) for one in hits]


def test_what_lies_between_belongs_to_another_section_is_not_bridged() -> None:
    first, far = hit("valve"), hit("pump", ordinal=1, start=50)
    assert widened([first], {("d", 1): far}, 1) == [Stretch("valve", (0, 5))]
    assert list(wanted_around([far], 2)) == [("d", 0, 3)]


@given(st.lists(st.text(max_size=80), max_size=10), st.integers(1, 60))
def test_the_budget_holds_and_the_best_is_always_there(texts: list[str], tokens: int) -> None:
    stretches = [Stretch(text, (0, len(text))) for text in texts]
    fit = within_budget(stretches, tokens)
    assert fit >= min(1, len(texts))
    assert fit <= 1 or sum(estimated_tokens(one.text) for one in stretches[:fit]) <= tokens
    assert within_budget(stretches, None) == len(texts)
