"""When a document's absence was seen, from the history of the `documents` table, and what it was called before."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

import pyarrow.compute as pc
from deltalake.exceptions import DeltaError

from rag_core.partitions import source_of
from rag_core.tables.delta import TableSlice, ensure_table, in_set, partition_values
from rag_core.tables.store import Store

GONE: Final = "gone"
SOURCE_REMOVED: Final = "source_removed"

_COMMITS: Final = 32  # of the history that are looked at
_VERSIONS: Final = 8  # of them that are read, for one partition


@dataclass(frozen=True, slots=True)
class Absence:
    """What is known of a document that is not there any more; uri is empty if it cannot be told."""

    seen_at: datetime
    uri: str = ""
    external_id: str | None = None


def removal_reasons(store: Store, partition_key: str, doc_ids: Iterable[str]) -> dict[str, str]:
    """Tell which documents were removed, and what became of each.

    All partitions of the source are read, since a document may have moved to another one with the number of buckets.

    Returns:
        doc_id -> `gone`, `empty` or `rejected`, for those of which no row has status ok.
    """
    wanted = sorted(doc_ids)
    if not wanted:
        return {}
    source = source_of(partition_key)
    keys = [key for key in partition_values(store, "documents", "partition_key") if source_of(key) == source]
    rows = TableSlice.newest(store, "documents", keys).read(["doc_id", "status"], in_set("doc_id", wanted))
    statuses: dict[str, set[str]] = {doc_id: set() for doc_id in wanted}
    for doc_id, status in zip(rows["doc_id"].to_pylist(), rows["status"].to_pylist(), strict=True):
        statuses[doc_id].add(status)
    return {doc_id: min(found, default=GONE) for doc_id, found in statuses.items() if "ok" not in found}


class AbsenceFinder:
    """Looks documents up in the history of `documents` as it is at the first look."""

    def __init__(self, store: Store) -> None:
        """Name the store; nothing is read yet."""
        self._store = store

    def find(self, partition_key: str, doc_ids: Iterable[str]) -> dict[str, Absence]:
        """Find the commit that took each document away.

        Only commits that replaced or removed rows of the partition are looked at, the newest first, and not many. For
        a document that none of them took away, the newest of them counts as when its absence was seen.

        Args:
            partition_key: Where the documents were.
            doc_ids: Documents without an ok row in the partition.

        Returns:
            One entry for each document.
        """
        missing = set(doc_ids)
        found: dict[str, Absence] = {}
        commits = list(self._removals(partition_key))
        for commit in commits[:_VERSIONS]:
            if not missing:
                break
            before = self._named(partition_key, commit["version"] - 1, missing)
            found |= {doc_id: Absence(_time(commit), *names) for doc_id, names in before.items()}
            missing.difference_update(before)
        newest = _time((commits or self._history)[0])
        return found | {doc_id: Absence(newest) for doc_id in missing}

    @cached_property
    def _history(self) -> list[dict[str, Any]]:
        return list(ensure_table(self._store, "documents").history(_COMMITS))

    def _removals(self, partition_key: str) -> Iterator[dict[str, Any]]:
        for commit in self._history:
            predicate = commit.get("operationParameters", {}).get("predicate", "")
            is_replacing = f"'{partition_key}'" in predicate or commit["operation"] == "RESTORE"
            if is_replacing and commit["version"] > 0:
                yield commit

    def _named(self, partition_key: str, version: int, doc_ids: set[str]) -> Mapping[str, tuple[str, str | None]]:
        """Return uri and external_id of those documents that a version has as ok."""
        documents = TableSlice(self._store, "documents", (partition_key,), version)
        where = (pc.field("status") == "ok") & in_set("doc_id", sorted(doc_ids))
        try:
            rows = documents.read(["doc_id", "uri", "external_id"], where)
        except (DeltaError, OSError):  # so old that its log or its files were cleaned up
            return {}
        names = zip(rows["uri"].to_pylist(), rows["external_id"].to_pylist(), strict=True)
        return dict(zip(rows["doc_id"].to_pylist(), names, strict=True))


def _time(commit: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(commit["timestamp"] / 1000, UTC)
