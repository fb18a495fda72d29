"""The passages of one answer: as what is quoted, as evidence, and as vectors that are made once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from rag_core import ids
from rag_core.answering.extractive import Draft, draft_of, embedded_text
from rag_core.answering.sentences import Unit
from rag_core.answering.support import Evidence, evidence_of
from serving.answers.model import Citation
from serving.retrieval.query import Passage

EmbedTexts = Callable[[Sequence[str], Literal["query", "passage"]], Awaitable[np.ndarray]]
"""(n, dim) vectors of unit length, by the model of the index that the passages are from."""

_LOGGER = logging.getLogger("rag.serving.answers")
_QUOTE_CHARS = 1_200  # a longer stretch between two quoted sentences is not quoted with them


@dataclass(frozen=True, slots=True)
class QuotedHit:
    """A passage as `rag_core.answering.extractive` takes hits: neighbours included, so that offsets are its own."""

    chunk_id: str
    doc_id: str
    uri: str
    title: str | None
    text: str
    page: int | None
    heading_path: tuple[str, ...]
    char_start: int
    score: float

    @classmethod
    def of(cls, passage: Passage) -> "QuotedHit":
        """Make it of a passage."""
        hit = passage.hit
        return cls(
            chunk_id=hit.chunk_id,
            doc_id=hit.doc_id,
            uri=hit.uri,
            title=hit.title,
            text=passage.text,
            page=hit.page,
            heading_path=hit.heading_path,
            char_start=passage.span[0],
            score=hit.score,
        )


class Material:
    """Passages, numbered from 1, and what is known of them."""

    def __init__(self, question: str, passages: Sequence[Passage], embed: EmbedTexts) -> None:
        self.passages = tuple(passages)
        self._question = question
        self._embed = embed
        self._vectors: dict[str, np.ndarray] = {}
        self._embeds = True

    @cached_property
    def hits(self) -> list[QuotedHit]:
        """The passages, as they are quoted."""
        return [QuotedHit.of(passage) for passage in self.passages]

    @cached_property
    def draft(self) -> Draft:
        """The sentences that may be quoted."""
        return draft_of(self._question, self.hits)

    @cached_property
    def evidence(self) -> list[Evidence]:
        """The passages, as sentences are compared with them."""
        return [evidence_of(hit.text, context=" ".join([hit.title or "", *hit.heading_path])) for hit in self.hits]

    async def read(self, *, for_llm: bool) -> None:
        """Split the passages, in a thread: a long passage takes milliseconds."""

        def split() -> None:
            _ = self.draft
            if for_llm:
                _ = self.evidence

        await asyncio.to_thread(split)

    async def draft_vectors(self) -> np.ndarray | None:
        """Embed what `draft.texts` lists; None if that fails, or if there is nothing to quote."""
        if not self.draft.candidates:
            return None
        question, *texts = self.draft.texts
        # Two requests, since a question may have another prefix; at once, since they wait in one queue.
        asked, found = await asyncio.gather(self._made([question], "query"), self.vectors(texts))
        return None if asked is None or found is None else np.concatenate([asked, found])

    async def similarities(self, claim: str, numbers: Sequence[int]) -> dict[int, float] | None:
        """Return, by number of the passage, the highest cosine of a claim and a sentence there; None if it fails."""
        texts = {
            number: [embedded_text(self.hits[number - 1], unit) for unit in self._units(number)] for number in numbers
        }
        vectors = await self.vectors([claim, *(text for some in texts.values() for text in some)])
        if vectors is None:
            return None
        mine = vectors[0]
        return {
            number: max((float(self._vectors[text] @ mine) for text in some), default=0.0)
            for number, some in texts.items()
        }

    async def vectors(self, texts: Sequence[str]) -> np.ndarray | None:
        """Embed texts as passages, each once for all that is asked of this object; None if that fails."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if missing:
            made = await self._made(missing, "passage")
            if made is None:
                return None
            self._vectors.update(zip(missing, made, strict=True))
        return np.array([self._vectors[text] for text in texts])

    async def _made(self, texts: Sequence[str], kind: Literal["query", "passage"]) -> np.ndarray | None:
        if not self._embeds:
            return None
        try:
            return await self._embed(texts, kind)
        except Exception as error:  # noqa: BLE001 -- whatever ails the model, words decide in its place
            self._embeds = False
            _LOGGER.warning("nothing can be embedded, so words alone decide on an answer: %s", type(error).__name__)
            return None

    def _units(self, number: int) -> tuple[Unit, ...]:
        return self.evidence[number - 1].units

    def citation(self, number: int, units: Sequence[tuple[int, int]]) -> Citation:
        """Cite a passage.

        Args:
            number: Of the passage.
            units: Spans in the passage's text that support the answer; none: all of it.
        """
        passage, hit = self.passages[number - 1], self.hits[number - 1]
        start, end = (min(a for a, _ in units), max(b for _, b in units)) if units else (0, len(passage.text))
        if units and end - start > _QUOTE_CHARS:
            start, end = units[0]
        return Citation(
            number=number,
            chunk_id=hit.chunk_id,
            doc_id=hit.doc_id,
            uri=hit.uri,
            title=hit.title,
            source=passage.hit.source,
            page=hit.page,
            heading_path=hit.heading_path,
            span=(hit.char_start + start, hit.char_start + end),
            quote=passage.text[start:end],
            text_hash=ids.text_hash(passage.hit.text),
        )
