"""What the store's tables say of an index: its newest manifest, the versions of its sources, the access labels."""

from dataclasses import dataclass

from rag_core.retrieval.access_labels import LabelReader
from rag_core.retrieval.visible import AccessMap
from rag_core.stages.publication import Manifest
from rag_core.tables.delta import newest_table, state_of
from rag_core.tables.log_reading import read_log
from rag_core.tables.partition_versions import PartitionVersions
from rag_core.tables.store import Store

_PUBLISHED = "published_index"


@dataclass(frozen=True, slots=True)
class TablesSay:
    """One look at the tables.

    Attributes:
        versions: Source -> version of what is indexed of it.
        access: Labels and who may see them.
    """

    versions: dict[str, str]
    access: AccessMap


class TableReader:
    """Reads the tables again and again; without news a look costs some milliseconds. Used by one thread at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._published_state: tuple[str, int] | None = None
        self._manifests: dict[str, Manifest] = {}
        self._versions = PartitionVersions(store)
        self._labels = LabelReader(store)

    def manifest_of(self, collection: str) -> Manifest | None:
        """Return the newest manifest of a collection, or None if it was never published."""
        with newest_table(self._store, _PUBLISHED) as table:
            state = state_of(table)
        if state != self._published_state:
            rows = read_log(self._store, _PUBLISHED, key="published_at", time="published_at")
            # In the order of time: the last one of each collection stays.
            self._manifests = {row["collection"]: Manifest(**row) for row in rows.to_pylist()}
            self._published_state = state
        return self._manifests.get(collection)

    def tables_say(self, collection: str) -> TablesSay:
        """Read versions and access labels of a collection."""
        return TablesSay(self._versions.of(collection), self._labels.read())
