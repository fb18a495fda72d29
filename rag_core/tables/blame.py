"""Which run wrote a row of the ledger: the commit log knows, as long as it reaches back (30 days).

The file that holds a row does not tell: a later run that replaces another document's rows rewrites the file, and every
row in it. The row's own `indexed_at` does. A run stamps its rows, then commits them together with a transaction for
each of its partitions, by which a commit of another run in between would have been a conflict. So the first commit to
the row's partition after that time is the one that wrote it.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from cachetools import LRUCache

from rag_core.tables.delta import TableSlice, in_set
from rag_core.tables.store import Store

_TABLE = "index_partitions"
_KEPT = 20_000
# Commits do not follow one another exactly by their time stamps: they are taken before a commit waits for its turn.
_OUT_OF_ORDER = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class _Commit:
    at: datetime | None
    run_id: str | None
    partitions: frozenset[str]


_UNKNOWN = _Commit(None, None, frozenset())


class LedgerBlame:
    """Looks runs up, and remembers commits, which never change. Not for several threads at once."""

    def __init__(self, store: Store) -> None:
        filesystem, root = store.filesystem()
        self._log = pafs.SubTreeFileSystem(f"{root}/tables/{_TABLE}/_delta_log", filesystem)
        self._store = store
        self._commits: LRUCache[int, _Commit] = LRUCache(_KEPT)
        self._version = -1
        self._runs: LRUCache[tuple[str, str], str | None] = LRUCache(_KEPT)  # as of that version of the ledger

    def runs_of(self, collection: str, chunk_ids: Collection[str]) -> dict[str, str | None]:
        """Return the run that wrote each chunk's row.

        Args:
            collection: The lane.
            chunk_ids: Of chunks.

        Returns:
            Chunk id -> Dagster run, or None where that is not known: there is no such row (any more), or the log does
            not reach back so far.
        """
        if not chunk_ids:
            return {}
        ledger = TableSlice.newest(self._store, _TABLE, lane=collection)
        if ledger.version != self._version:
            self._version = ledger.version
            self._runs.clear()
        known = {one: self._runs[collection, one] for one in chunk_ids if (collection, one) in self._runs}
        missing = sorted(set(chunk_ids).difference(known))
        found = self._look_up(ledger, collection, missing) if missing else {}
        self._runs.update({(collection, one): run for one, run in found.items()})
        return known | found

    def _look_up(self, ledger: TableSlice, collection: str, chunk_ids: Sequence[str]) -> dict[str, str | None]:
        runs: dict[str, str | None] = dict.fromkeys(chunk_ids)
        rows = ledger.read(["chunk_id", "partition_key", "indexed_at"], in_set("chunk_id", chunk_ids))
        versions = self._versions(ledger.version)
        for row in rows.to_pylist():
            at = row["indexed_at"].replace(microsecond=row["indexed_at"].microsecond // 1000 * 1000)
            runs[row["chunk_id"]] = self._writer(versions, f"{collection}/{row['partition_key']}", at)
        return runs

    def _versions(self, newest: int) -> range:
        """Return the versions whose commits are still in the log."""
        names = (info.base_name for info in self._log.get_file_info(pafs.FileSelector("", allow_not_found=True)))
        listed = [int(name[:20]) for name in names if name.endswith(".json") and name[:20].isdigit()]
        return range(min(listed, default=newest + 1), newest + 1)

    def _writer(self, versions: range, partition: str, at: datetime) -> str | None:
        first = self._first_after(versions, at - _OUT_OF_ORDER)
        if first == versions.start and first > 0:
            return None  # the commit may be one of those that were cleaned up
        for version in versions[first - versions.start :]:
            commit = self._commit(version)
            if commit.at is not None and commit.at >= at and partition in commit.partitions:
                return commit.run_id
        return None

    def _first_after(self, versions: range, at: datetime) -> int:
        """Find the first commit that is not before a time, by bisection: a log may have many thousands."""
        low, high = versions.start, versions.stop
        while low < high:
            middle = (low + high) // 2
            found = self._commit(middle).at
            if found is not None and found < at:
                low = middle + 1
            else:
                high = middle
        return low

    def _commit(self, version: int) -> _Commit:
        commit = self._commits.get(version)
        if commit is None:
            commit = self._commits[version] = self._read(version)
        return commit

    def _read(self, version: int) -> _Commit:
        try:
            with self._log.open_input_stream(f"{version:020d}.json") as stream:
                actions = [json.loads(line) for line in stream.read().splitlines() if line.strip()]
        except FileNotFoundError:  # cleaned up since the log was listed
            return _UNKNOWN
        info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
        at = info.get("timestamp")
        return _Commit(
            at=None if at is None else pa.scalar(at, pa.timestamp("ms", tz="UTC")).as_py(),
            run_id=info.get("run_id") or None,
            partitions=frozenset(action["txn"]["appId"] for action in actions if "txn" in action),
        )
