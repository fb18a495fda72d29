"""Declared tests and tables, as they are read from the files by `loading`."""

from dataclasses import dataclass
from typing import Final

from rag_core.quality import conditions
from rag_core.quality.columns import stand_in
from rag_core.quality.kinds import Covers, Declared, NotNull, Relationships

KEYS: Final = {
    "documents": "doc_id",
    "chunks": "chunk_id",
    "embeddings": "chunk_id",
    "index_partitions": "chunk_id",
    "retrieval_eval": "query_id",
}
"""Tables that tests are declared for, and the column that names a row among failing rows."""


@dataclass(frozen=True)
class DeclaredTest:
    """One test of a table.

    Attributes:
        table: The table.
        name: Unique in the table; also the name of the Dagster check.
        columns: Columns it is about; none for a test of the whole table.
        settings: Its kind and settings.
        place: File and line of its declaration.
    """

    table: str
    name: str
    columns: tuple[str, ...]
    settings: Declared
    place: str

    @property
    def kind(self) -> str:
        """The kind, as it is written in the files."""
        return self.settings.kind

    @property
    def blocking(self) -> bool:
        """Whether it blocks for any source."""
        return self.settings.blocking or any(other.get("blocking") for other in self.settings.sources.values())

    def of_source(self, source: str) -> Declared:
        """Return the settings that hold for a source."""
        changed = self.settings.sources.get(source)
        if not changed:
            return self.settings
        return type(self.settings).model_validate({**self.settings.model_dump(exclude_defaults=True), **changed})

    @property
    def parents(self) -> tuple[str, ...]:
        """Tables that the outcome depends on besides its own."""
        return (self.settings.parent[0],) if isinstance(self.settings, Relationships | Covers) else ()

    def frame_columns(self, settings: Declared) -> frozenset[str]:
        """Return the columns and measures that testing needs, `where` included."""
        needed = set(settings.reads(self.columns))
        if isinstance(settings, NotNull):
            needed = {stand_in(self.table, column) for column in needed}
        where = None if isinstance(settings, Covers) else settings.where  # a condition on the other table's rows
        for text in (where, getattr(settings, "that", None), getattr(settings, "share_of", None)):
            if text is not None:
                needed |= conditions.parse(text).columns
        return frozenset(needed)


@dataclass(frozen=True)
class DeclaredTable:
    """A table's description and tests.

    Attributes:
        name: The table.
        description: One row of it, as a sentence or two.
        columns: Column -> its description, in the order of the file.
        tests: In the order of the files.
    """

    name: str
    description: str
    columns: dict[str, str]
    tests: tuple[DeclaredTest, ...]

    def test(self, name: str) -> DeclaredTest:
        """Return the test of that name; KeyError if there is none."""
        return next(test for test in self.tests if test.name == name)
