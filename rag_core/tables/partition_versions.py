"""Versions of what is indexed, source by source: what a cached result is valid for.

The version of a partition is a digest of the files that the ledger (`index_partitions`) has of it: every change of it
is a commit that adds or removes a file, and a file's name is never used twice. So processes that share nothing but the
store give the same versions, and a change of one source leaves those of the others alone.
"""

from collections import defaultdict

import pyarrow as pa

from rag_core import ids
from rag_core.partitions import source_of
from rag_core.tables.delta import LANES, newest_table, state_of
from rag_core.tables.store import Store


class PartitionVersions:
    """Versions of the partitions of a table with lanes; a look without news costs about a millisecond.

    Not for use by several threads at once.
    """

    def __init__(self, store: Store, table: str = "index_partitions") -> None:
        self._lane_column = f"partition.{LANES[table]}"
        self._store, self._table = store, table
        self._state: tuple[str, int] | None = None
        self._lanes: dict[str, dict[str, str]] = {}

    def of(self, lane: str) -> dict[str, str]:
        """Return the version of each source that has partitions in a lane, as `source_versions` does."""
        with newest_table(self._store, self._table) as table:
            state = state_of(table)
            if state != self._state:
                self._lanes = _versions(pa.table(table.get_add_actions(flatten=True)), self._lane_column)
                self._state = state
        return dict(self._lanes.get(lane, {}))


def source_versions(store: Store, table: str, lane: str) -> dict[str, str]:
    """Return the version of each source that has partitions in a lane, as of now.

    Args:
        store: Holds the table.
        table: Its name; it is partitioned and has lanes.
        lane: The lane, such as a collection of `index_partitions`.

    Returns:
        Source -> digest. It is another after every change of any partition of the source in this lane; a compaction,
        which changes no row, may change it too.
    """
    return PartitionVersions(store, table).of(lane)


def _versions(actions: pa.Table, lane_column: str) -> dict[str, dict[str, str]]:
    if lane_column not in actions.column_names:
        return {}  # a table without files
    files: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    columns = (actions[name].to_pylist() for name in (lane_column, "partition.partition_key", "path"))
    for lane, key, path in zip(*columns, strict=True):
        files[lane][source_of(key)].append(path)
    # A path begins with its partition: the sorted paths of a source say which partition has which files.
    return {
        lane: {source: ids.digest(*sorted(paths)) for source, paths in by_source.items()}
        for lane, by_source in files.items()
    }
