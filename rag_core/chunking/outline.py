"""A document's sections, built from its blocks: which headings hold where. Strategies leave heading paths to it."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from rag_core.chunking.blocks import Block

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """The text from one heading to the next heading of any level.

    Attributes:
        start: First character of the heading; 0 for the text before the first heading.
        level: 1 to 6; 0 for the text before the first heading.
        path: Its own heading and those above it, outermost first.
        has_content: Whether anything but the heading is in it.
    """

    start: int
    level: int
    path: Path
    has_content: bool


class Outline:
    """The sections of one document, in order. The first is always the text before the first heading, perhaps empty.

    Attributes:
        sections: The sections.
        ends: Where each section's text ends.
        subtree_ends: Index one past the last subsection of each section.
    """

    def __init__(self, blocks: Sequence[Block], length: int) -> None:
        self.sections = _sections(blocks)
        self._starts = [section.start for section in self.sections]
        self.ends = [*self._starts[1:], length]
        self.subtree_ends = _subtree_ends([section.level for section in self.sections])

    def path(self, start: int, end: int) -> Path:
        """Return the headings shared by all sections of a span that hold more than their heading."""
        first = bisect_right(self._starts, start) - 1
        last = bisect_left(self._starts, end, lo=first + 1)
        touched = self.sections[first:last]
        if len(touched) > 1:
            touched = [section for section in touched if section.has_content] or touched[-1:]
        if len(touched) == 1:
            return touched[0].path
        return _common_prefix([section.path for section in touched])


def _common_prefix(paths: Sequence[Path]) -> Path:
    low, high = min(paths), max(paths)  # what the least and the greatest share, all share
    same = 0
    while same < len(low) and same < len(high) and low[same] == high[same]:
        same += 1
    return low[:same]


def _sections(blocks: Sequence[Block]) -> list[Section]:
    headings = [i for i, block in enumerate(blocks) if block.kind == "heading"]
    first = headings[0] if headings else len(blocks)
    sections = [Section(0, 0, (), first > 0)]
    stack: list[tuple[int, Path]] = [(0, ())]
    for i, following in zip(headings, [*headings, len(blocks)][1:], strict=True):
        heading = blocks[i]
        while stack[-1][0] >= heading.level:
            stack.pop()
        above = stack[-1][1]
        path = (*above, heading.title) if heading.title else above
        stack.append((heading.level, path))
        sections.append(Section(heading.start, heading.level, path, following > i + 1))
    return sections


def _subtree_ends(levels: Sequence[int]) -> list[int]:
    ends = [len(levels)] * len(levels)
    stack: list[int] = []
    for i, level in enumerate(levels):
        while stack and levels[stack[-1]] >= level:
            ends[stack.pop()] = i
        stack.append(i)
    return ends
