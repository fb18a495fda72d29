"""The `recursive` strategy: paragraphs, else sentences, lines and words; for text whose Markdown means nothing."""

from collections.abc import Iterable

from rag_core.chunking.layout import blank_line_layout
from rag_core.chunking.model import Span
from rag_core.chunking.prepared import Prepared


def recursive_spans(document: Prepared) -> Iterable[Span]:
    """Fill windows up to the last paragraph that fits, down to smaller units where a paragraph does not fit."""
    return document.windows(blank_line_layout(document.text)).split(0, len(document.text))
