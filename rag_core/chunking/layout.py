"""Where a text may and may not be cut: good cuts, blocks to keep whole, tables whose header is repeated.

Plain data over the blocks, made once per document; `windows` reads it by bisection.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from rag_core.chunking.blocks import Block

_BLANK_LINE: Final = re.compile(r"\n[^\S\n]*\n")


@dataclass(frozen=True, slots=True)
class Spans:
    """Ordered spans that do not overlap, found by position."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def add(self, start: int, end: int) -> None:
        """Append a span behind the others."""
        self.starts.append(start)
        self.ends.append(end)

    def at(self, position: int) -> int:
        """Return the index of the span with start <= position < end, or -1."""
        i = bisect_right(self.starts, position) - 1
        return i if i >= 0 and position < self.ends[i] else -1


@dataclass(frozen=True, slots=True)
class Layout:
    """What `windows` knows of a text's structure; without any, it cuts at sentences, lines and words.

    Attributes:
        cuts: Positions between blocks, ascending; the best places to cut. None follows a heading.
        whole: Blocks never cut, because they fit into a chunk.
        lined: Blocks that do not fit and are cut between lines: code and tables.
        tables: Tables that do not fit.
        bodies: Where the first body row of each of `tables` starts.
    """

    cuts: list[int] = field(default_factory=list)
    whole: Spans = field(default_factory=Spans)
    lined: Spans = field(default_factory=Spans)
    tables: Spans = field(default_factory=Spans)
    bodies: list[int] = field(default_factory=list)


def blank_line_layout(text: str) -> Layout:
    """Return a layout that knows paragraphs only."""
    return Layout(cuts=[match.end() for match in _BLANK_LINE.finditer(text)])


def markdown_layout(text: str, blocks: Sequence[Block], fits: Callable[[int, int], bool]) -> Layout:
    """Return the layout of Markdown blocks; `fits` tells whether a span is small enough for one chunk."""
    layout = Layout()
    for block in blocks:
        kind, start, end = block.kind, block.start, block.end
        if kind in ("table", "code"):
            if fits(start, end):
                layout.whole.add(start, end)
            else:
                layout.lined.add(start, end)
                if kind == "table":
                    layout.tables.add(start, end)
                    layout.bodies.append(block.body)
                else:
                    layout.cuts.extend(match.end() for match in _BLANK_LINE.finditer(text, start, end))
        if kind != "heading" and (not layout.cuts or end > layout.cuts[-1]):
            layout.cuts.append(end)
    return layout
