"""The `markdown` strategy: chunks follow sections; tables and code stay whole where they fit.

A section with all its subsections is one chunk if it fits. Otherwise its own text and its subsections are taken apart;
small neighbours under the same parent share a chunk, never across the end of their parent. What is larger than a chunk
is cut by `windows`. A heading without text of its own stays with what follows it.
"""

from collections.abc import Iterable, Iterator

from rag_core.chunking.layout import markdown_layout
from rag_core.chunking.model import Span
from rag_core.chunking.prepared import Prepared, pack

Stretch = tuple[int, int]


def markdown_spans(document: Prepared) -> Iterable[Span]:
    """Cut along the headings."""
    windows = document.windows(markdown_layout(document.text, document.blocks, document.fits))
    for start, end in _stretches(document, 0, 0):
        yield from windows.split(start, end)


def _stretches(document: Prepared, section: int, start: int) -> Iterator[Stretch]:
    """Yield the stretches of a section with its subsections, in order; `start` may lie before it (empty headings)."""
    outline = document.outline
    last = outline.subtree_ends[section] - 1
    end = outline.ends[last]
    if document.fits(start, end):
        yield start, end
        return
    pending: list[Stretch] = []
    if outline.sections[section].has_content:
        pending.append((start, outline.ends[section]))
        start = outline.ends[section]
    child = section + 1
    while child <= last:
        if not outline.sections[child].has_content and outline.subtree_ends[child] == child + 1:
            child += 1  # a heading of nothing: with what follows
            continue
        child_end = outline.ends[outline.subtree_ends[child] - 1]
        if document.fits(start, child_end):
            pending.append((start, child_end))
        else:
            yield from pack(document, pending)
            pending = []
            yield from _stretches(document, child, start)
        start = child_end
        child = outline.subtree_ends[child]
    if start < end:
        pending.append((start, end))  # headings of nothing at the end
    yield from pack(document, pending)
