"""Counting rows of large tables again and again: from the Delta log, and of each file once where its rows matter.

Files of a table never change, so what was read of one stays true; only files that are new are looked into.
"""

from collections import Counter
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from rag_core.partitions import source_of
from rag_core.tables.delta import LANES, PARTITIONED, newest_table
from rag_core.tables.store import Store

_STATUS = "status"


@dataclass(frozen=True)
class _File:
    path: str
    rows: int
    source: str
    lane: str
    only_status: str


class RowCounts:
    """Rows of the stages' tables by source; of `documents` by status as well."""

    def __init__(self, store: Store) -> None:
        """Name the store; nothing is read yet."""
        self._store = store
        self._statuses: dict[str, Counter[str]] = {}

    def by_source(self, table: str, *, lane: str | None = None) -> dict[str, int]:
        """Count the rows of a table, or of one of its lanes, by source. No file is opened."""
        counts: Counter[str] = Counter()
        for file in self._files(table):
            if lane is None or file.lane == lane:
                counts[file.source] += file.rows
        return dict(counts)

    def by_status(self) -> dict[tuple[str, str], int]:
        """Count documents by (source, status)."""
        counts: Counter[tuple[str, str]] = Counter()
        known: dict[str, Counter[str]] = {}
        for file in self._files("documents"):
            statuses = self._statuses.get(file.path) or self._look_into(file)
            known[file.path] = statuses
            for status, rows in statuses.items():
                counts[file.source, status] += rows
        self._statuses = known
        return dict(counts)

    def _look_into(self, file: _File) -> Counter[str]:
        """Count the rows of a file by status; most files have one status, which the log tells."""
        if file.only_status:
            return Counter({file.only_status: file.rows})
        filesystem, root = self._store.filesystem()
        path = f"{root}/tables/documents/{file.path}"
        return Counter(pq.read_table(path, columns=[_STATUS], filesystem=filesystem)[_STATUS].to_pylist())

    def _files(self, table: str) -> list[_File]:
        with newest_table(self._store, table) as current:
            actions = pa.table(current.get_add_actions(flatten=True))
        columns = {name: actions[name].to_pylist() for name in actions.column_names}
        empty = [""] * actions.num_rows
        keys = columns.get("partition.partition_key", empty) if table in PARTITIONED else empty
        lanes = columns.get(f"partition.{LANES[table]}", empty) if table in LANES else empty
        lows, highs = columns.get(f"min.{_STATUS}", empty), columns.get(f"max.{_STATUS}", empty)
        return [
            _File(
                path=unquote(path),
                rows=int(rows),
                source=source_of(key),
                lane=lane,
                only_status=low if low and low == high else "",
            )
            for path, rows, key, lane, low, high in zip(
                columns.get("path", empty), columns.get("num_records", empty), keys, lanes, lows, highs, strict=True
            )
        ]
