"""What a chunk is, and how its embedded text is put together. Strategies make chunks; `rows` writes them as Arrow."""

from dataclasses import dataclass
from typing import Final, NamedTuple

# Milvus holds at most 65,535 bytes in a text field: 16,000 characters of four bytes fit. Below that, text of very few
# tokens (blank-padded tables, encoded data, which WordPiece reads as one unknown word) is bounded by its characters.
_MAX_CHARS: Final = 16_000
_CHARS_PER_TOKEN: Final = 32


def embedded_text(context: str, text: str) -> str:
    """Return the text that the model reads for a chunk: its context, when it has one, on the lines before it."""
    return f"{context}\n{text}" if context else text


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of chunks, in tokens without special tokens."""

    max_tokens: int
    overlap_tokens: int = 0

    @property
    def max_chars(self) -> int:
        """Most characters of a chunk with its context."""
        return min(_MAX_CHARS, _CHARS_PER_TOKEN * self.max_tokens)


class Span(NamedTuple):
    """A stretch of a document's text that becomes a chunk.

    Attributes:
        start: First character, inclusive.
        end: Last character, exclusive. A span ends in no blank space, and starts with none but a line's indentation.
        context: The header of the split table that the span continues, else empty.
        token_count: Tokens of context and text encoded alone, special tokens excluded.
    """

    start: int
    end: int
    context: str
    token_count: int


class Chunk(NamedTuple):
    """One chunk of a document.

    Attributes:
        ordinal: Position in the document, from 0.
        char_start: First character in the document's text, inclusive.
        char_end: Last character, exclusive.
        text: Exactly the document's text from char_start to char_end.
        context: Header and delimiter row, without padding, of the split table that the text continues, else empty.
        heading_path: Headings that hold for the whole chunk, outermost first.
        token_count: Tokens of `embedded_text`, special tokens excluded.
    """

    ordinal: int
    char_start: int
    char_end: int
    text: str
    context: str
    heading_path: tuple[str, ...]
    token_count: int

    @property
    def embedded_text(self) -> str:
        """The text that the model reads."""
        return embedded_text(self.context, self.text)
