"""An answer, its sentences and its citations."""

from dataclasses import dataclass
from typing import Literal

AnswerKind = Literal["generated", "extractive", "not_found"]


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier message of a conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class CitedSentence:
    """A sentence of an answer, given out as soon as it was verified.

    Attributes:
        text: As it is shown, with its markers such as [1], and the mark of an unsupported one. Begins with a line
            break where the sentence begins on a line of its own, such as an item of a list.
        citations: Numbers of the passages that it cites.
        supported: Whether these say it. "The documents found do not answer this question." is the service's own, and
            supported without citations.
        support: 0 to 1.
    """

    text: str
    citations: tuple[int, ...]
    supported: bool
    support: float


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage that is cited.

    Attributes:
        number: As in the markers, from 1.
        chunk_id: The chunk.
        doc_id: Its document.
        uri: Where a person finds the document.
        title: Of the document, where it has one.
        source: Name of the source.
        page: From 1, where the format has pages.
        heading_path: Headings above the chunk, outermost first.
        span: What supports the sentences: first character in the document's text, inclusive, and last, exclusive.
        quote: The text of the span.
        text_hash: `rag_core.ids.text_hash` of the chunk's text when it was cited.
    """

    number: int
    chunk_id: str
    doc_id: str
    uri: str
    title: str | None
    source: str
    page: int | None
    heading_path: tuple[str, ...]
    span: tuple[int, int]
    quote: str
    text_hash: str


@dataclass(frozen=True, slots=True)
class AnswerResult:
    """A whole answer.

    Attributes:
        text: All sentences with their markers, a space between them.
        sentences: In order.
        citations: By number; only what is cited.
        kind: generated (by a language model), extractive (quoted sentences), not_found (the documents do not say).
        degraded: Why no language model wrote it although one is configured: timeout, unavailable, rate_limited,
            refused, garbage, broken_off, budget, or unsupported (the passages supported nothing that it wrote). Of a
            generated answer: why it ends early, timeout or broken_off. Empty otherwise.
        model: The language model; empty if none wrote it.
        prompt_tokens: That it read.
        completion_tokens: That it wrote.
    """

    text: str
    sentences: tuple[CitedSentence, ...]
    citations: tuple[Citation, ...]
    kind: AnswerKind
    degraded: str = ""
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
