"""Which rows of other tables belong to a lane, and the model of its vectors; known for the generations in use."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rag_core.config import RagConfig
from rag_core.errors import PermanentError
from rag_core.tables.delta import LANES, lanes_of
from rag_core.tables.store import Store

if TYPE_CHECKING:
    from rag_core.generation import Generation

_ATTRIBUTES: Final[Mapping[str, str]] = {
    "chunks": "chunk_lane",
    "embeddings": "embedding_lane",
    "index_partitions": "collection",
}


class Lanes:
    """Looks the generation of a lane up, once it is asked for: that needs the model's files."""

    def __init__(self, store: Store, config: RagConfig) -> None:
        self._store = store
        self._config = config
        self._generations: tuple[Generation, ...] | None = None

    def generation(self, table: str, lane: str | None) -> "Generation | None":
        """Return a generation in use that has this lane; None if none has, or the table has no lanes."""
        attribute = _ATTRIBUTES.get(table)
        if attribute is None or lane is None:
            return None
        return next((one for one in self._in_use() if getattr(one, attribute) == lane), None)

    def of_parent(self, parent: str, table: str, lane: str | None) -> str | None:
        """Return the lane of another table that belongs to a lane of this one; None: all its lanes count."""
        generation = self.generation(table, lane)
        if generation is None or parent not in LANES:
            return None
        return str(getattr(generation, _ATTRIBUTES[parent]))

    def tested(self, table: str) -> Sequence[str | None]:
        """Return the lanes of a table whose rows follow the documents, of those that hold rows.

        Not those that are kept for a rollback only: they take no changes, so they agree with nothing any more.
        """
        if table not in LANES:
            return (None,)
        held, attribute = lanes_of(self._store, table), _ATTRIBUTES.get(table)
        in_use = self._in_use() if attribute else ()
        followed = {getattr(one, attribute) for one in in_use if attribute}
        return [lane for lane in held if lane in followed] if in_use else held

    def _in_use(self) -> "tuple[Generation, ...]":
        if self._generations is None:
            from rag_core.stages.publication import generations

            try:
                self._generations = tuple(generations(self._store, self._config).active)
            except PermanentError as error:  # the model is not on this machine: lanes are then compared as a whole
                logging.getLogger(__name__).info("lanes cannot be told apart: %s", error)
                self._generations = ()
        return self._generations
