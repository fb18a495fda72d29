"""Amounts of work on a partition, as they are planned, packed and shown."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Objects:
    """Objects of a partition: how many are new, changed (or to be parsed anew), gone, unchanged."""

    new: int = 0
    changed: int = 0
    deleted: int = 0
    unchanged: int = 0

    @property
    def to_parse(self) -> int:
        """Objects that are read."""
        return self.new + self.changed


@dataclass(frozen=True)
class IndexWork:
    """Work on a partition for one generation.

    Attributes:
        documents_to_cut: Documents whose chunks are missing or stale, those to be parsed included.
        documents_to_drop: Documents whose chunks go away.
        chunks_waiting: Chunks that need a row of `embeddings`.
        texts_to_embed: Texts that the model has no vector for; one that several partitions need counts for the first.
        texts_reused: Texts that wait for a vector which is in the cache; counted likewise.
        vectors_to_drop: Rows of `embeddings` whose chunk is gone or whose model is another.
        rows_to_write: Rows of the collection to be written.
        rows_to_delete: Rows of the collection to be deleted.
        documents: Documents that any of this is about; those to be parsed are not among them.
        expected_chunks: Chunks, texts and rows that are expected beside these, of `documents_to_cut`.
    """

    documents_to_cut: int = 0
    documents_to_drop: int = 0
    chunks_waiting: int = 0
    texts_to_embed: int = 0
    texts_reused: int = 0
    vectors_to_drop: int = 0
    rows_to_write: int = 0
    rows_to_delete: int = 0
    documents: int = 0
    expected_chunks: float = 0.0

    @property
    def is_none(self) -> bool:
        """Whether there is nothing to do."""
        return not any(asdict(self).values())

    @property
    def embeds(self) -> int:
        """Texts to embed, with those that are expected of documents to be cut."""
        return self.texts_to_embed + round(self.expected_chunks)

    @property
    def writes(self) -> int:
        """Rows to write, likewise."""
        return self.rows_to_write + round(self.expected_chunks)


def total(works: Iterable[IndexWork]) -> IndexWork:
    """Add the figures up."""
    listed = list(works)
    return IndexWork(**{one.name: sum(getattr(work, one.name) for work in listed) for one in fields(IndexWork)})
