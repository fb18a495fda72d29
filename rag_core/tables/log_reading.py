"""Reading tables that only grow, again and again: what was read once is kept in memory, only new files are opened.

Rows can be written twice, where a process ended between an append and its note of it; each key is given once.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from rag_core.tables.dataset import dataset_of
from rag_core.tables.delta import SCHEMAS, ensure_table
from rag_core.tables.store import Store

_CHUNKS_AT_MOST = 64
_TABLES_KEPT = 8  # a process works on one store; tests on many


@dataclass(frozen=True)
class _Kept:
    version: int
    files: frozenset[str]
    rows: pa.Table


_kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
_lock = threading.Lock()  # sensors of one process run at the same time


def read_log(store: Store, table: str, *, key: str, time: str) -> pa.Table:
    """Return the rows of a table, each key once, in order of time.

    Args:
        store: Holds the table; it is created if it does not exist.
        table: Its name.
        key: Column that identifies a row; of several rows with equal keys one is given.
        time: Column to sort by; ties keep no order.

    Returns:
        All columns, of the newest version. It costs time only if there is a newer version than at the last call, and
        then for the files that are new; memory holds the whole table once.
    """
    current = ensure_table(store, table)
    place = (store.table_uri(table), str(current.metadata().id))  # a table that was made anew has another id
    with _lock:
        kept = _kept.get(place)
        if kept is None or kept.version != current.version():
            # Dagster's sensors would else read months of rows every few seconds
            kept = _kept[place] = _read(store, current, table, kept, key, time)
        _kept.move_to_end(place)
        while len(_kept) > _TABLES_KEPT:
            _kept.popitem(last=False)
    return kept.rows


def _read(store: Store, current: DeltaTable, table: str, kept: _Kept | None, key: str, time: str) -> _Kept:
    dataset = dataset_of(store, table, current)
    fragments = {fragment.path: fragment for fragment in dataset.get_fragments()}
    known = kept.files if kept is not None and kept.files <= fragments.keys() else frozenset()
    schema = SCHEMAS[table]
    parts: list[pa.Table] = []
    for path, fragment in fragments.items():
        if path not in known:
            # not in threads, each of which takes memory of its own
            batches = fragment.to_batches(schema=dataset.schema, columns=schema.names, use_threads=False)
            parts.append(pa.Table.from_batches(batches, dataset.schema).select(schema.names).cast(schema))
    new = pa.concat_tables([schema.empty_table(), *parts])
    parts.clear()
    rows = _joined(kept.rows, new, key, time) if kept is not None and known else _ordered(new, key, time)
    return _Kept(int(current.version()), frozenset(fragments), rows)


def _joined(old: pa.Table, new: pa.Table, key: str, time: str) -> pa.Table:
    """Put new rows behind the old ones where they belong there, as they nearly always do: nothing is copied then."""
    repeated = old[key].filter(pc.is_in(old[key], new[key].combine_chunks()))
    new = _ordered(new.filter(pc.invert(pc.is_in(new[key], repeated.combine_chunks()))), key, time)
    if not new.num_rows:
        return old
    is_later = not old.num_rows or new[time][0].as_py() >= old[time][-1].as_py()
    rows = pa.concat_tables([old, new])
    if not is_later:
        return _ordered(rows, key, time)
    return rows.combine_chunks() if rows[key].num_chunks > _CHUNKS_AT_MOST else rows


def _ordered(rows: pa.Table, key: str, time: str) -> pa.Table:
    ordered = _once(rows.sort_by(time), key).combine_chunks()
    pa.default_memory_pool().release_unused()  # what decoding took is several times what is kept
    return ordered


def _once(rows: pa.Table, key: str) -> pa.Table:
    """Keep the first row of each key."""
    if pc.count_distinct(rows[key]).as_py() == rows.num_rows:
        return rows
    numbered = pa.table({key: rows[key], "row": np.arange(rows.num_rows)})
    first = numbered.group_by(key).aggregate([("row", "min")])["row_min"]
    return rows.take(first.take(pc.sort_indices(first)))
