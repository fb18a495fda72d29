"""The `semantic` strategy: cuts where the meaning of adjacent sentences differs most, as their embeddings tell.

Distances above a percentile of the document's own are boundaries; small stretches join a neighbour, large ones are cut
at sentences. Source: the percentile breakpoint method of G. Kamradt, "5 Levels of Text Splitting", level 4.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from rag_core.chunking.layout import blank_line_layout
from rag_core.chunking.model import Span
from rag_core.chunking.prepared import Prepared, pack
from rag_core.chunking.windows import SENTENCE_END

EmbedSentences = Callable[[list[str]], npt.NDArray[np.float32]]

_UNIT_END: Final = re.compile(rf"\n[^\S\n]*\n|{SENTENCE_END.pattern}")


@dataclass(frozen=True)
class SemanticSpans:
    """The strategy with its embedder.

    Attributes:
        embed: From n sentences to (n, dim) vectors of any length.
        percentile: 0 to 100; the share of adjacent pairs that stay together.
    """

    embed: EmbedSentences
    percentile: float

    def __call__(self, document: Prepared) -> Iterable[Span]:
        """Cut one document; its sentences are embedded in one call."""
        text = document.text
        edges = [0, *(match.end() for match in _UNIT_END.finditer(text)), len(text)]
        sentences = [(a, b) for a, b in pairwise(edges) if text[a:b].strip()]
        windows = document.windows(blank_line_layout(text))
        for start, end in pack(document, self._segments(text, sentences)):
            yield from windows.split(start, end)

    def _segments(self, text: str, sentences: list[tuple[int, int]]) -> Iterable[tuple[int, int]]:
        if len(sentences) < 2:
            return [(0, len(text))]
        distances = adjacent_distances(self.embed([text[a:b].strip() for a, b in sentences]))
        threshold = np.percentile(distances, self.percentile)
        cuts = [sentences[i + 1][0] for i in np.flatnonzero(distances > threshold).tolist()]
        return zip([0, *cuts], [*cuts, len(text)], strict=True)


def adjacent_distances(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return (n - 1,) cosine distances, 0 to 2, between each row of (n, dim) vectors and the next."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return np.asarray(1.0 - np.einsum("ij,ij->i", unit[:-1], unit[1:]), dtype=np.float32)
