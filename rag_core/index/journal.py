"""Which partitions of a collection may differ from their ledger, because a run was cut off between the two.

A count alone would not tell: a run that wrote one chunk and deleted another, was killed before the ledger, and whose
document then went back to the old text leaves an orphan and a gap that cancel each other out.
"""

import json
from datetime import UTC, datetime

from rag_core.tables.files import read_file, remove_file, write_file
from rag_core.tables.store import Store


class SyncJournal:
    """One mark for each partition that is being written: `begin` before the first write, `end` after the ledger."""

    def __init__(self, store: Store, collection: str) -> None:
        """Name the journal of a collection; nothing is read or written yet."""
        self._store = store
        self._collection = collection

    def is_open(self, partition_key: str) -> bool:
        """Tell whether a sync of the partition began and its ledger was not written."""
        return read_file(self._store, self._mark(partition_key)) is not None

    def begin(self, partition_key: str) -> None:
        """Mark the partition; done again without effect."""
        content = json.dumps({"began_at": datetime.now(UTC).isoformat()})
        write_file(self._store, self._mark(partition_key), content.encode())

    def end(self, partition_key: str) -> None:
        """Take the mark away: the ledger now says what the collection holds. Done again without effect."""
        remove_file(self._store, self._mark(partition_key))

    def _mark(self, partition_key: str) -> str:
        return f"work/index/{self._collection}/{partition_key}"
