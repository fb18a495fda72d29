"""Deleting rows outside a sync, which deletes and verifies by itself."""

from collections.abc import Sequence
from typing import Final

from rag_core.errors import TransientError
from rag_core.index.client import IndexClient, slices

_IDS_PER_DELETE: Final = 1_000


def delete_rows(client: IndexClient, collection: str, partition_key: str, chunk_ids: Sequence[str]) -> None:
    """Delete rows of a partition and look that they are gone; ids that do not exist are no error.

    Raises:
        TransientError: One of them is still there.
    """
    if not chunk_ids:
        return
    with client.write_lock():
        for some in slices(chunk_ids, _IDS_PER_DELETE):
            client.delete(collection, partition_key, some)
        # A server limits how often a collection is flushed, and applies deletes without it.
        if client.capabilities.kind == "lite":
            client.flush(collection)
    if left := client.fetch(collection, partition_key, chunk_ids, ()):
        raise TransientError(f"{collection}/{partition_key}: {len(left)} rows are found after their deletion")
