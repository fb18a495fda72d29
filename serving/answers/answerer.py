"""Answer a question from passages: by a language model, verified sentence by sentence, else by quoted sentences."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Literal

import numpy as np

from rag_core.answering.extractive import NOT_FOUND, Answer, concluded
from rag_core.config_serving import ServingConfig
from rag_core.retrieval.served import ServedIndex
from serving.answers.cutting import SentenceCutter
from serving.answers.llm import Llm, Usage
from serving.answers.llm_errors import LlmError
from serving.answers.material import Material
from serving.answers.model import AnswerResult, CitedSentence, Turn
from serving.answers.prompt import make_prompt
from serving.answers.verifying import Verifier, is_refusal
from serving.observability.metrics import Metrics
from serving.retrieval.query import Passage

Embed = Callable[[ServedIndex, Sequence[str], Literal["query", "passage"]], Awaitable[np.ndarray]]
Event = CitedSentence | AnswerResult

_QUOTING = "rag-extractive"


class Answerer:
    """Made once, used by all requests of an event loop.

    Args:
        settings: Of the service; without `llm.base_url` answers are quoted sentences.
        metrics: Told of stages, sentences and tokens.
        embed: Embeds texts by the model of an index.
    """

    def __init__(self, settings: ServingConfig, metrics: Metrics, embed: Embed) -> None:
        self._settings = settings.llm
        self._metrics = metrics
        self._embed = embed
        self._llm = Llm(settings.llm, metrics) if settings.llm.base_url else None

    @property
    def model_names(self) -> list[str]:
        """Names of who answers: the quoting of sentences, and the language model where there is one."""
        return [_QUOTING, *([f"rag-{self._settings.model}"] if self._llm else [])]

    async def close(self) -> None:
        """Close the connections."""
        if self._llm is not None:
            await self._llm.close()

    async def stream(
        self,
        question: str,
        passages: Sequence[Passage],
        *,
        index: ServedIndex,
        history: Sequence[Turn] = (),
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Give out the sentences of the answer as they are verified, and at last the answer, which has them all.

        Whatever the language model does, there is an answer: sentences that were given out are kept, and if there are
        none, sentences are quoted. Closing the generator ends the request to the language model.

        Args:
            question: As it was asked.
            passages: Best first; numbered from 1 in this order.
            index: That they are from.
            history: Earlier messages, oldest first.
            max_tokens: Bound of the answer, within the configured one.
            temperature: None: as configured.
        """
        material = Material(question, passages, partial(self._embed, index))
        await material.read(for_llm=self._llm is not None)
        quoted = concluded(material.draft, await material.draft_vectors())
        degraded = ""
        if quoted.found and self._llm is not None:
            prompt = make_prompt(question, passages, history)
            verifier = Verifier(self._settings, material, prompt, self._metrics)
            writing = _Writing(verifier)
            request = partial(self._llm.write, prompt.messages, max_tokens=max_tokens, temperature=temperature)
            async with aclosing(self._generated(writing, request)) as sentences:
                async for sentence in sentences:
                    yield sentence
            if writing.given or writing.declined:
                yield self._result(writing, verifier)
                return
            degraded = writing.failure or "unsupported"
        result = _quotations(material, quoted, degraded)
        for sentence in result.sentences:
            yield sentence
        yield result

    async def _generated(
        self, writing: "_Writing", request: Callable[[Usage], AsyncGenerator[str, None]]
    ) -> AsyncGenerator[CitedSentence, None]:
        cutter, began = SentenceCutter(), perf_counter()
        try:
            async with aclosing(request(writing.usage)) as pieces:
                async for piece in pieces:
                    for sentence in cutter.feed(piece):
                        for shown in await writing.take(sentence):
                            yield shown
                    if writing.declined:
                        break
            if not writing.usage.is_cut:  # else the last sentence is half of one
                for shown in await writing.take(cutter.finish()):
                    yield shown
        except LlmError as error:
            writing.failure = error.reason
        finally:
            self._metrics.stage_seconds.labels("llm").observe(perf_counter() - began)
        if writing.declined and not writing.given:
            refusal = _refusal()
            writing.sentences.append(refusal)
            yield refusal

    def _result(self, writing: "_Writing", verifier: Verifier) -> AnswerResult:
        sentences = tuple(writing.sentences)
        return AnswerResult(
            text=_joined(sentences),
            sentences=sentences,
            citations=verifier.citations(sentences),
            kind="generated" if writing.given else "not_found",
            degraded=writing.failure,
            model=self._settings.model,
            prompt_tokens=writing.usage.prompt_tokens,
            completion_tokens=writing.usage.completion_tokens,
        )


class _Writing:
    """An answer as the language model writes it: its sentences are held back until one of them is supported."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._held: list[CitedSentence] = []
        self.sentences: list[CitedSentence] = []
        self.usage = Usage()
        self.given = False
        self.declined = False
        self.failure = ""

    async def take(self, sentence: str) -> list[CitedSentence]:
        """Verify the next sentence, and return what may be given out now."""
        if self.declined:
            return []
        if is_refusal(sentence):  # after supported sentences it says nothing that they do not refute
            self.declined = not self.given
            return []
        checked = await self._verifier.check(sentence)
        if checked is None:
            return []
        self._held.append(checked)
        if not checked.supported and not self.given:
            return []
        self.given, ready, self._held = True, self._held, []
        if not self.sentences:
            ready[0] = replace(ready[0], text=ready[0].text.lstrip())
        self.sentences += ready
        return ready


def _quotations(material: Material, quoted: Answer, degraded: str) -> AnswerResult:
    """Turn quoted sentences into an answer whose numbers are those of the passages."""
    if not quoted.found:
        refusal = _refusal()
        return AnswerResult(NOT_FOUND, (refusal,), (), "not_found", degraded)
    by_chunk = {hit.chunk_id: number for number, hit in reversed([*enumerate(material.hits, start=1)])}
    numbers = {citation.number: by_chunk[citation.chunk_id] for citation in quoted.citations}
    sentences, spans = [], dict[int, list[tuple[int, int]]]()
    for sentence in quoted.sentences:
        number = numbers[sentence.citation]
        sentences.append(CitedSentence(f"{sentence.plain} [{number}]", (number,), supported=True, support=1.0))
        start = material.hits[number - 1].char_start
        spans.setdefault(number, []).append((sentence.span[0] - start, sentence.span[1] - start))
    citations = tuple(material.citation(number, units) for number, units in sorted(spans.items()))
    return AnswerResult(_joined(sentences), tuple(sentences), citations, "extractive", degraded)


def _refusal() -> CitedSentence:
    return CitedSentence(NOT_FOUND, (), supported=True, support=1.0)


def _joined(sentences: Sequence[CitedSentence]) -> str:
    return " ".join(sentence.text for sentence in sentences).strip()
