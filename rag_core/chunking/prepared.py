"""A document made ready to be cut: tokens, blocks and outline, each made once. A strategy is a function of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rag_core.chunking.blocks import Block, scan
from rag_core.chunking.layout import Layout
from rag_core.chunking.model import Limits, Span
from rag_core.chunking.outline import Outline
from rag_core.chunking.tokens import TokenCounter, Tokenization
from rag_core.chunking.windows import Windows


@dataclass(frozen=True, slots=True)
class Prepared:
    """A text with all that strategies look at."""

    tokens: Tokenization
    counter: TokenCounter
    limits: Limits
    blocks: list[Block]
    outline: Outline

    @property
    def text(self) -> str:
        """The document's text."""
        return self.tokens.text

    def fits(self, start: int, end: int) -> bool:
        """Whether a span, in place, is small enough for one chunk."""
        return end - start <= self.limits.max_chars and self.tokens.count(start, end) <= self.limits.max_tokens

    def windows(self, layout: Layout, *, words_only: bool = False) -> Windows:
        """Return a cutter of this text."""
        return Windows(self.tokens, self.counter, self.limits, layout, words_only=words_only)


Strategy = Callable[[Prepared], Iterable[Span]]


def prepare(text: str, counter: TokenCounter, limits: Limits) -> Prepared:
    """Tokenise and scan a text."""
    blocks = scan(text)
    return Prepared(counter.tokenize(text), counter, limits, blocks, Outline(blocks, len(text)))


def pack(document: Prepared, stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join neighbouring stretches of text that are too small to stand alone.

    A stretch below a quarter of a chunk joins its neighbour where both fit; two larger ones stay apart. So a chunk
    keeps to one topic, fragments do not become chunks, and a change moves boundaries only up to the next large stretch.
    """
    small = document.limits.max_tokens // 4
    packed: list[tuple[int, int]] = []
    count = 0  # tokens of the last of `packed`
    for start, end in stretches:
        added = document.tokens.count(start, end)
        if packed and min(count, added) < small and document.fits(packed[-1][0], end):
            packed[-1] = (packed[-1][0], end)
            count += added
        else:
            packed.append((start, end))
            count = added
    return packed
