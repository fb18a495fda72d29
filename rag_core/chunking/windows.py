"""Cuts a stretch of text into spans of at most so many tokens, each at the best place within reach.

One pass, left to right: each window costs a few bisections and a scan of its own text. Best places, in order: between
blocks; at a line of code or of a table, or at a sentence or list item of prose; at a line; at a word; at a token.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from rag_core.chunking.layout import Layout
from rag_core.chunking.model import Limits, Span, embedded_text
from rag_core.chunking.tokens import TokenCounter, Tokenization

# One set of characters in front, which the engine skips to: eight times faster than alternatives that each start so.
SENTENCE_END: Final = re.compile(
    r"[.!?…。！？｡\n](?:"
    # Not after an initial nor a number of an outline, not before a lower case letter; [1] is a footnote's mark.
    r"(?<=[.!?…])(?<!\b[A-Z].)(?<!\d\.\d.)(?<!\.\d\d.)(?<!\s\d.)(?<!\s\d\d.)"
    r"(?:[\"')\]»”’*_]|\[\d{1,3}\])*\s+(?=[^\sa-z])"
    r"|(?<=[。！？｡])[」』）”’\"]*\s*"
    r"|(?<=\n)(?=[^\S\n]*(?:[-*+•]|\d{1,9}[.)])[^\S\n]))"  # a list item begins
)
_BLANK_LINES: Final = re.compile(r"(?:[^\S\n]*\n)*")
_WORD_START: Final = re.compile(r"\s+(?=\S)")
_LINE_INDENT: Final = re.compile(r"[^\S\n]*")
_PADDING: Final = re.compile(r"(-)-+|([ \t])[ \t]+")
_BLANKS: Final = " \n\t\u3000\xa0"
_LOOK_AROUND: Final = 16  # the end mark and quotes before a sentence's start, the list mark behind it


class Windows:
    """Cuts spans out of one tokenised text."""

    def __init__(
        self, tokens: Tokenization, counter: TokenCounter, limits: Limits, layout: Layout, *, words_only: bool = False
    ) -> None:
        """Prepare a text; with `words_only`, windows are filled and cut at words, whatever the text is."""
        self._text = tokens.text
        self._tokens = tokens
        self._counter = counter
        self._limits = limits
        self._layout = layout
        self._words_only = words_only
        self._headers: dict[int, tuple[str, int]] = {}  # of tables, by index

    def split(self, start: int, end: int) -> Iterator[Span]:
        """Cut the text from start to end into spans, in order, that cover all of it but blank space.

        Each span ends behind the one before: one that its overlap fills gives the overlap up.
        """
        previous = -1  # first character that the last span was the first to hold
        fresh = start  # first character that no span holds yet
        while (fresh := self._skip_blank(fresh, end)) < end:
            header = context, _ = self._context(fresh)
            begin = fresh
            if previous >= 0 and not context and self._layout.whole.at(fresh) < 0:
                begin = self._overlap_start(fresh, previous + 1)
            span, cut = self._window(begin, fresh, end, header)
            if span is None and begin < fresh:
                span, cut = self._window(fresh, fresh, end, header)
            if span is not None:
                yield span
                previous = fresh
            fresh = cut

    def _window(self, begin: int, fresh: int, end: int, header: tuple[str, int]) -> tuple[Span | None, int]:
        """Return the span from `begin` and its cut; None where it would hold nothing new."""
        context, context_tokens = header
        cut = self._cut(begin, fresh, end, self._limits.max_tokens - context_tokens, len(context))
        if begin == fresh:
            cut = max(cut, fresh + 1)  # one character may have more tokens than a chunk holds
        return self._held(begin, fresh, cut, context, context_tokens)

    def _skip_blank(self, position: int, end: int) -> int:
        """Skip blank lines, and blanks inside a line; a line's own indentation stays."""
        match = _BLANK_LINES.match(self._text, position, end)
        position = match.end() if match else position
        if position == 0 or self._text[position - 1] == "\n":
            return position
        indent = _LINE_INDENT.match(self._text, position, end)
        return indent.end() if indent else position

    def _context(self, position: int) -> tuple[str, int]:
        """Return the header of the split table whose rows continue here, and its tokens; "" and 0 elsewhere."""
        table = self._layout.tables.at(position)
        if table < 0 or position <= self._layout.bodies[table]:
            return "", 0
        if table not in self._headers:
            self._headers[table] = self._header(self._layout.tables.starts[table], self._layout.bodies[table])
        return self._headers[table]

    def _header(self, start: int, body: int) -> tuple[str, int]:
        """Return a table's header without padding, unless it would leave less than half a chunk for rows."""
        if body - start > self._limits.max_chars:
            return "", 0
        # BERT makes a token of every dash: a padded delimiter row may cost more than the header itself.
        header = "\n".join(_PADDING.sub(r"\1\2", line.strip()) for line in self._text[start:body].strip().split("\n"))
        tokens = self._counter.count(header)
        if tokens > self._limits.max_tokens // 2 or len(header) > self._limits.max_chars // 2:
            return "", 0
        return header, tokens

    def _overlap_start(self, fresh: int, earliest: int) -> int:
        """Return where the repeated end of the span before starts: at a sentence, else at a word."""
        if not self._limits.overlap_tokens:
            return fresh
        reach = self._tokens.position(max(self._tokens.index(fresh) - self._limits.overlap_tokens, 0))
        reach = max(reach, earliest, fresh - self._limits.max_chars // 2)
        if not self._words_only:
            for match in SENTENCE_END.finditer(self._text, max(reach - _LOOK_AROUND, 0), fresh):
                if reach <= match.end() < fresh:
                    return match.end()
        word = _WORD_START.search(self._text, max(reach - 1, 0), fresh)
        if word:
            return word.end()
        return reach if self._tokens.additive(reach) and not self._text[reach].isspace() else fresh

    def _cut(self, begin: int, fresh: int, end: int, budget: int, context_chars: int) -> int:
        """Return where the span from `begin` ends: after `fresh`, its first new character, if the tokens allow it."""
        tokens = self._tokens
        first, left = tokens.index(begin), tokens.count(begin, end)
        most = begin + self._limits.max_chars - context_chars
        if left <= budget and end <= most:
            return end
        ceiling = min(tokens.position(first + budget), most, end)
        if self._words_only:
            return self._word_cut(ceiling - (ceiling - fresh) // 8, ceiling)
        new = tokens.index(fresh)
        least = tokens.position(new + (first + budget - new) // 4)
        floor = max(min(least, fresh + (ceiling - fresh) // 2), fresh + 1)
        if budget < left <= budget * 3 // 2:  # two spans of like size rather than a full one and a rest
            half = left // 2
            low = max(floor, tokens.position(first + max(left - budget, half - budget // 4)))
            high = min(ceiling, tokens.position(first + half + budget // 8))
            if low < high and self._layout.whole.at(high) < 0:
                cut = self._structural_cut(fresh, low, high)
                if cut > fresh:
                    return cut
        cut = self._structural_cut(fresh, floor, ceiling)
        return cut if cut > fresh else self._word_cut(floor, ceiling)

    def _structural_cut(self, fresh: int, floor: int, ceiling: int) -> int:
        """Return the last of the best cuts from floor to ceiling, or -1; before floor only to keep a block whole."""
        layout = self._layout
        i = bisect_right(layout.cuts, ceiling) - 1
        if i >= 0 and layout.cuts[i] >= floor:
            return layout.cuts[i]
        block = layout.whole.at(ceiling)
        if block >= 0 and fresh < layout.whole.starts[block] < ceiling:
            return layout.whole.starts[block]
        line = self._text.rfind("\n", floor - 1, ceiling) + 1
        table = layout.tables.at(ceiling)
        if table >= 0 and fresh < layout.tables.starts[table] and line <= layout.bodies[table]:
            return layout.tables.starts[table]  # not between a table's header and its first row
        if layout.lined.at(ceiling) < 0:
            sentence = -1
            around = max(floor - _LOOK_AROUND, fresh), ceiling + _LOOK_AROUND
            for match in SENTENCE_END.finditer(self._text, *around):
                if match.end() <= ceiling:
                    sentence = match.end()
            if sentence >= floor:
                return sentence
        return line or -1

    def _word_cut(self, floor: int, ceiling: int) -> int:
        """Return the last word start from floor to ceiling, or ceiling."""
        text = self._text
        if ceiling < len(text) and text[ceiling].isspace():
            return ceiling
        last = max(text.rfind(blank, floor - 1, ceiling) for blank in _BLANKS)
        return last + 1 if last >= 0 else ceiling

    def _held(self, begin: int, fresh: int, cut: int, context: str, context_tokens: int) -> tuple[Span | None, int]:
        """Return the span without blank ends, short enough to hold the limit when encoded alone, and its cut.

        None where nothing from `fresh` on remains of it but blanks.
        """
        while True:
            last = begin + len(self._text[begin:cut].rstrip())
            if last <= fresh:
                return None, cut
            count = self._count(begin, last, context, context_tokens)
            excess = count - self._limits.max_tokens
            if excess <= 0 or (cut == fresh + 1 and begin == fresh):
                return Span(begin, last, context, count), cut
            if cut == fresh + 1:
                return None, cut
            target = self._tokens.position(max(self._tokens.index(cut) - excess, 0))
            if not fresh < target < cut:
                target = fresh + (cut - fresh) // 2
            cut = self._word_cut(max(fresh + 1, target - (target - fresh) // 4), target)

    def _count(self, start: int, end: int, context: str, context_tokens: int) -> int:
        """Count the tokens of a span, with its context, encoded alone."""
        tokens = self._tokens
        if not (tokens.additive(start) and tokens.additive(end)):
            return self._counter.count(embedded_text(context, self._text[start:end]))
        return tokens.count(start, end) + context_tokens
