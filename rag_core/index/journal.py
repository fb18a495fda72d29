"""Which partitions of a collection may differ from their ledger, because a run was cut off between the two.

A count alone would not tell: a run that wrote one chunk and deleted another, was killed before the ledger, and whose
document then went back to the old text leaves an orphan and a gap that cancel each other out.
"""

import json
from datetime import UTC, datetime

import pyarrow.fs as pafs

from rag_core.tables.store import Store


class SyncJournal:
    """One mark for each partition that is being written: `begin` before the first write, `end` after the ledger."""

    def __init__(self, store: Store, collection: str) -> None:
        """Name the journal of a collection; nothing is read or written yet."""
        self._store = store
        self._collection = collection

    def is_open(self, partition_key: str) -> bool:
        """Tell whether a sync of the partition began and its ledger was not written."""
        filesystem, path = self._mark(partition_key)
        found: bool = filesystem.get_file_info(path).type == pafs.FileType.File
        return found

    def begin(self, partition_key: str) -> None:
        """Mark the partition; done again without effect."""
        filesystem, path = self._mark(partition_key)
        filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        with filesystem.open_output_stream(path) as stream:
            stream.write(json.dumps({"began_at": datetime.now(UTC).isoformat()}).encode())

    def end(self, partition_key: str) -> None:
        """Take the mark away: the ledger now says what the collection holds. Done again without effect."""
        if self.is_open(partition_key):
            filesystem, path = self._mark(partition_key)
            filesystem.delete_file(path)

    def _mark(self, partition_key: str) -> tuple[pafs.FileSystem, str]:
        filesystem, root = self._store.filesystem()
        return filesystem, "/".join([root.rstrip("/"), "work", "index", self._collection, partition_key])
