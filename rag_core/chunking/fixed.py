"""The `fixed` strategy: windows of max_tokens, ended at a word where one ends nearby. The baseline of the others."""

from collections.abc import Iterable

from rag_core.chunking.layout import Layout
from rag_core.chunking.model import Span
from rag_core.chunking.prepared import Prepared


def fixed_spans(document: Prepared) -> Iterable[Span]:
    """Cut every max_tokens, whatever the text is."""
    return document.windows(Layout(), words_only=True).split(0, len(document.text))
