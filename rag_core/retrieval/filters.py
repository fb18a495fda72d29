"""What a search is restricted to, and how that is said in Milvus's filter language.

Values are written as escaped literals, because Milvus Lite has no filter templates; a value can never become syntax.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from rag_core.errors import PermanentError
from rag_core.index.schema import any_of

_OPEN = {")": "(", "]": "["}


@dataclass(frozen=True, slots=True)
class SearchFilters:
    """Restrictions, all of which must hold. None means unrestricted; an empty sequence admits nothing.

    Attributes:
        sources: Names of sources.
        mimes: Media types.
        languages: ISO 639-1 codes.
        modified_after: Inclusive, aware. Rows of unknown time do not pass.
        modified_before: Exclusive, aware. Rows of unknown time do not pass.
        access_labels: Labels that the caller may see.
        doc_ids: Documents.
        partition_keys: Dagster partitions.
        expression: A further condition in Milvus's filter language, put in parentheses.
    """

    sources: Sequence[str] | None = None
    mimes: Sequence[str] | None = None
    languages: Sequence[str] | None = None
    modified_after: datetime | None = None
    modified_before: datetime | None = None
    access_labels: Sequence[str] | None = None
    doc_ids: Sequence[str] | None = None
    partition_keys: Sequence[str] | None = None
    expression: str | None = None

    @property
    def admits_nothing(self) -> bool:
        """Whether some restriction is empty, so that there is nothing to ask."""
        restrictions = [values for _, values in self._lists()] + [self.partition_keys]
        return any(values is not None and not values for values in restrictions)

    def to_expression(self) -> str:
        """Write the restrictions, except for the partitions, as one condition; empty if there is none.

        Raises:
            PermanentError: `expression` has unbalanced parentheses or quotes, with which it could undo the others.
            ValueError: A time without a zone.
        """
        parts = [any_of(field, values) for field, values in self._lists() if values is not None]
        if self.modified_after is not None:
            parts.append(f"modified_at >= {max(_epoch_ms(self.modified_after), 1)}")
        if self.modified_before is not None:
            parts.append(f"modified_at > 0 and modified_at < {_epoch_ms(self.modified_before)}")
        if self.expression is not None and self.expression.strip():
            parts.append(f"({_balanced(self.expression.strip())})")
        return " and ".join(parts)

    def _lists(self) -> Iterator[tuple[str, Sequence[str] | None]]:
        yield "source", self.sources
        yield "mime", self.mimes
        yield "language", self.languages
        yield "access_label", self.access_labels
        yield "doc_id", self.doc_ids


def _epoch_ms(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    return int(moment.timestamp() * 1000)


def _balanced(expression: str) -> str:
    opened: list[str] = []
    characters = iter(expression)
    for character in characters:
        if character in "\"'":
            _skip_string(characters, character, expression)
        elif character in _OPEN.values():
            opened.append(character)
        elif character in _OPEN and (not opened or opened.pop() != _OPEN[character]):
            raise PermanentError(f"filter expression {expression!r}: {character!r} closes nothing")
    if opened:
        raise PermanentError(f"filter expression {expression!r}: {opened[-1]!r} is not closed")
    return expression


def _skip_string(characters: Iterator[str], quote: str, expression: str) -> None:
    for character in characters:
        if character == "\\":
            next(characters, None)
        elif character == quote:
            return
    raise PermanentError(f"filter expression {expression!r}: a string is not closed")
