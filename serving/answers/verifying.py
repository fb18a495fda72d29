"""Verify each sentence that a language model wrote, before anybody sees it, and mend its citations."""

import re
from collections.abc import Sequence
from typing import Final

from rag_core.answering.extractive import NOT_FOUND
from rag_core.answering.sentences import plain_text
from rag_core.answering.support import best_unit, foreign_addresses, support
from rag_core.config_serving import LlmConfig
from serving.answers.cutting import MARKER
from serving.answers.material import Material
from serving.answers.model import Citation, CitedSentence
from serving.answers.prompt import Prompt
from serving.observability.metrics import Metrics

UNSUPPORTED: Final = "[unsupported]"

_DISCLOSED_WORDS: Final = 7  # in a row, of the rules; fewer are a coincidence
_LEAST_WORDS: Final = 4
_ENOUGH: Final = 0.8  # support by words from which nothing is embedded


def is_refusal(sentence: str) -> bool:
    """Whether the language model says, in the words it was given for it, that the passages do not answer."""
    return _spaced(MARKER.sub(" ", sentence)).lstrip("\"'*").casefold().startswith(NOT_FOUND.rstrip(".").casefold())


class Verifier:
    """Verifies the sentences of one answer."""

    def __init__(self, settings: LlmConfig, material: Material, prompt: Prompt, metrics: Metrics) -> None:
        self._settings = settings
        self._material = material
        self._rules = f" {' '.join(_words(prompt.rules))} "
        self._nonce = prompt.nonce
        self._metrics = metrics

    async def check(self, sentence: str) -> CitedSentence | None:
        """Verify a sentence.

        Markers of passages that do not exist are removed, and images become links. A sentence without a marker gets
        that of the passage that supports it best, if any does. What discloses the rules, or leads to an address that no
        passage holds, is dropped whatever the settings say: the first is nobody's business, the second may carry data
        away.

        Args:
            sentence: As it was written, with markers, line break before it included.

        Returns:
            The sentence as it may be given out, markers at its end; None if it is dropped, or says nothing.
        """
        claim = _spaced(MARKER.sub(" ", sentence)).replace("![", "[")  # a page might load an image, and tell who reads
        if not any(character.isalnum() for character in claim):
            return None
        if self._discloses(claim) or foreign_addresses(claim, self._material.evidence):
            self._metrics.sentences.labels("dropped").inc()
            return None
        with self._metrics.stage("verify"):
            cited, value = await self._supported_by(claim, self._numbers(sentence))
        supported = bool(cited) and value >= self._settings.min_support
        if not supported and self._settings.unsupported == "drop":
            self._metrics.sentences.labels("dropped").inc()
            return None
        self._metrics.sentences.labels("supported" if supported else "marked").inc()
        shown = [claim, "".join(f"[{number}]" for number in cited), "" if supported else UNSUPPORTED]
        text = ("\n" if sentence.lstrip(" \t").startswith("\n") else "") + " ".join(part for part in shown if part)
        return CitedSentence(text, cited, supported, round(value, 3))

    def citations(self, sentences: Sequence[CitedSentence]) -> tuple[Citation, ...]:
        """Return what the sentences cite, by number; spans are those of the text that supports them."""
        units: dict[int, list[tuple[int, int]]] = {}
        for sentence in sentences:
            claim = MARKER.sub(" ", sentence.text)
            for number in sentence.citations:
                spans = units.setdefault(number, [])
                unit = best_unit(claim, self._material.evidence[number - 1]) if sentence.supported else None
                if unit is not None:
                    spans.append((unit.start, unit.end))
        return tuple(self._material.citation(number, spans) for number, spans in sorted(units.items()))

    def _numbers(self, sentence: str) -> tuple[int, ...]:
        found = (int(number) for marker in MARKER.findall(sentence) for number in re.findall(r"\d+", marker))
        return tuple(dict.fromkeys(number for number in found if 1 <= number <= len(self._material.passages)))

    async def _supported_by(self, claim: str, numbers: tuple[int, ...]) -> tuple[tuple[int, ...], float]:
        """Return the passages to cite and their support; without markers the one that supports it, or none."""
        if numbers:
            return numbers, await self._support(claim, numbers)
        # Words choose the passages that are worth embedding: one that shares no word does not support it enough.
        alone = {number: self._by_words(claim, (number,)) for number in range(1, len(self._material.passages) + 1)}
        best = sorted(alone, key=lambda number: -alone[number])[:3]
        values = {number: await self._support(claim, (number,)) for number in best}
        number = max(values, key=lambda one: values[one])
        enough = values[number] >= self._settings.min_support
        return (number,) if enough else (), values[number]

    def _by_words(self, claim: str, numbers: tuple[int, ...], similarity: float | None = None) -> float:
        return support(claim, [self._material.evidence[number - 1] for number in numbers], similarity)

    async def _support(self, claim: str, numbers: tuple[int, ...]) -> float:
        value = self._by_words(claim, numbers)
        # Nothing is embedded where it cannot change the verdict.
        if value >= _ENOUGH or self._by_words(claim, numbers, 1.0) < self._settings.min_support:
            return value
        similar = await self._material.similarities(plain_text(claim), numbers)
        return value if similar is None else self._by_words(claim, numbers, max(similar.values()))

    def _discloses(self, claim: str) -> bool:
        """Whether a sentence repeats the rules: all of it, or several words of it in a row."""
        words = _words(claim)
        count = min(len(words), _DISCLOSED_WORDS)
        if self._nonce.casefold() in claim.casefold():
            return True
        if count < _LEAST_WORDS:
            return False
        return any(f" {' '.join(words[at : at + count])} " in self._rules for at in range(len(words) - count + 1))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _spaced(text: str) -> str:
    """Return a text on one line, without control characters, halves of characters and the gaps that markers left."""
    text = re.sub(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]", "", text)
    return re.sub(r"\s+([.,;:!?])(?=\s|$)", r"\1", " ".join(text.split()))
