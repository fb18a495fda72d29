"""Cut a stream of text into sentences as they complete, each with the citation markers that belong to it."""

import re
from typing import Final

from rag_core.answering.sentences import ends_in_abbreviation

MARKER: Final = re.compile(r"\[\s*(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\s*\]")

_END: Final = re.compile(r"[.!?…]+[\"'”’)*_]*|[。！？]|\n")
_OPEN_MARKER: Final = re.compile(r"\[[\d\s,;]*$")
_ORDINAL: Final = re.compile(r"\s*(?:[-*+•]\s+)?\d{1,3}\.$")


class SentenceCutter:
    """Takes pieces of a text and gives out its sentences; how the text was cut into pieces makes no difference.

    Sentences end at a full stop or the like before white space, and at line ends. Markers behind the end belong to the
    sentence before them. All sentences joined are the text, character by character.
    """

    def __init__(self) -> None:
        self._rest = ""
        self._from = 0  # where the search for an end goes on

    def feed(self, piece: str) -> list[str]:
        """Add a piece, and return the sentences that are complete now."""
        self._rest += piece
        found: list[str] = []
        while (end := self._next_end()) is not None:
            found.append(self._rest[:end])
            self._rest, self._from = self._rest[end:], 0
        return found

    def finish(self) -> str:
        """Return what is left when the text is over: a last sentence, perhaps half of one, or nothing."""
        rest, self._rest, self._from = self._rest, "", 0
        return rest

    def _next_end(self) -> int | None:
        """Return where the first sentence ends; None if that cannot be told yet."""
        while match := _END.search(self._rest, self._from):
            if match.end() == len(self._rest):
                return None  # closing marks may follow
            end, marked = self._past_markers(match.end())
            if end is None:
                return None
            if marked or self._is_end(match):
                # A line break belongs to what begins on the new line, which is how a list stays one.
                return end if marked or match[0] != "\n" else match.start()
            self._from = match.end()
        return None

    def _past_markers(self, start: int) -> tuple[int | None, bool]:
        """Skip the markers behind a place; (None, _) if further text decides whether there are more."""
        end, marked = start, False
        while True:
            at = end + len(self._rest[end:]) - len(self._rest[end:].lstrip())
            if at == len(self._rest) or _OPEN_MARKER.match(self._rest, at):
                return None, marked
            marker = MARKER.match(self._rest, at)
            if marker is None:
                return end, marked
            end, marked = marker.end(), True

    def _is_end(self, match: re.Match[str]) -> bool:
        before, after = self._rest[: match.end()], self._rest[match.end() :]
        if match[0] in "\n。！？":
            return bool(before.strip())
        if not after[0].isspace():
            return False
        if "\n" in after[: len(after) - len(after.lstrip())]:
            return True
        plain = before.rstrip("\"'”’)*_")
        if plain.endswith(".") and (ends_in_abbreviation(plain) or _ORDINAL.fullmatch(plain)):
            return False
        return not after.lstrip()[:1].islower()
