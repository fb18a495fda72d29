"""The content-addressed vector cache: one vector per model fingerprint and text hash, in the Delta table `vectors`.

It is also the checkpoint of the embedding worker: a slice of work is done when its append is committed. Two workers may
append the same vector; readers take either, because both come from the same model and text.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset as pads
from deltalake import ColumnProperties, CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from rag_core import schemas
from rag_core.embedding.key_index import KeyArray, KeyIndex, as_keys
from rag_core.errors import PermanentError, StoreError, TransientError
from rag_core.tables.dataset import dataset_of
from rag_core.tables.handles import open_table
from rag_core.tables.landing import append_once
from rag_core.tables.store import Store
from rag_core.tables.store_errors import errors_about

TABLE: Final = "vectors"
LOOKUP_ROWS: Final = 8_192  # what callers pass to `lookup` at once: 12 MiB of 384-dimensional vectors
ROW_GROUP_ROWS: Final = 4_096
_COMPACT_FROM_FILES: Final = 24  # files in one shard at which a compaction pays
_COMMIT_TRIES: Final = 8
_LOG: Final = logging.getLogger(__name__)
_T = TypeVar("_T")
Hashes: TypeAlias = "pa.Array | pa.ChunkedArray | Sequence[str]"

# Vectors are near-random bits: compression and dictionaries cost time and save nothing.
_WRITER: Final = WriterProperties(
    max_row_group_size=ROW_GROUP_ROWS,
    compression="UNCOMPRESSED",
    default_column_properties=ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE"),
)


class VectorCache:
    """The vector cache of a store; cheap to make, creates its table at the first append. Not thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._table: DeltaTable | None = None
        self._indexes: dict[str, tuple[int, KeyIndex]] = {}

    def missing(self, fingerprint: str, text_hashes: Hashes) -> list[str]:
        """Return the hashes that have no vector, each once, in the order given.

        Raises:
            TransientError: The store cannot be reached.
            ValueError: A hash is not 32 characters long.
        """
        keys = _keys(text_hashes)
        absent = keys[~self._index(fingerprint).contains(keys)]
        _, first = np.unique(absent, return_index=True)
        return _as_strings(absent[np.sort(first)])

    def lookup(self, fingerprint: str, text_hashes: Hashes) -> tuple[list[str], np.ndarray]:
        """Read the vectors of the hashes that have one.

        Pass at most `LOOKUP_ROWS` hashes at once, which bounds memory, and sort them where there are many slices: a
        shard is one leading digit, so a sorted slice reads a few files instead of all.

        Returns:
            The hashes found, each once, in the order given; and (n, dim) float32, a row for each. dim is 0 if n is 0.

        Raises:
            PermanentError: Vectors of different dimensions are stored under this fingerprint.
            TransientError: The store cannot be reached.
            ValueError: A hash is not 32 characters long.
        """
        keys = _keys(text_hashes)
        _, first = np.unique(keys, return_index=True)
        keys = keys[np.sort(first)]
        index = self._index(fingerprint)
        found = index.locate(keys)
        if not len(found.asked):
            return [], np.empty((0, 0), np.float32)
        blocks = []
        for number in np.unique(found.fragment):
            rows = found.row[found.fragment == number]
            blocks.append(_guarded(self._store, partial(_read_rows, index.fragments[number], rows)))
        if len({block.shape[1] for block in blocks}) > 1:
            raise PermanentError(
                f"vectors of several dimensions under fingerprint {fingerprint} in {self._store.table_uri(TABLE)}; "
                "delete the rows of this fingerprint and run again"
            )
        order = np.argsort(found.asked)
        return _as_strings(keys[found.asked[order]]), np.concatenate(blocks)[order]

    def append(
        self,
        fingerprint: str,
        text_hashes: Hashes,
        vectors: np.ndarray,
        *,
        commit_metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Store vectors in one atomic commit.

        Args:
            fingerprint: Of the model.
            text_hashes: n hashes, without repeats.
            vectors: (n, dim) float32, finite, unit rows.
            commit_metadata: Put into the commit's metadata, such as the run id.

        Returns:
            The table's version after the commit; the version before it when n is 0 (-1 without a table).

        Raises:
            TransientError: The store cannot be reached, or other writers won every time.
            ValueError: Counts differ, or a vector is not finite.
        """
        keys = _keys(text_hashes)
        if vectors.ndim != 2 or len(keys) != len(vectors):
            raise ValueError(f"{len(keys)} hashes but vectors of shape {vectors.shape}")
        if not np.isfinite(vectors).all():
            raise ValueError("vectors must be finite")
        if not len(keys):
            return self._version()
        data = _rows(fingerprint, keys, vectors)
        metadata: dict[str, Any] = {"rag.model_fingerprint": fingerprint, **(commit_metadata or {})}
        _guarded(
            self._store,
            lambda: append_once(self._store, TABLE, self._open(), partial(self._write, data), metadata),
        )
        return self._version()

    def compact(self, *, force: bool = False) -> int:
        """Merge small files where a shard has many; safe beside appends, and beside readers until a vacuum.

        Returns:
            How many files were replaced.

        Raises:
            TransientError: The store cannot be reached.
        """
        table = self._open()
        if table is None:
            return 0
        files = len(table.file_uris())
        shards = len(table.partitions())
        if not shards or (not force and files < _COMPACT_FROM_FILES * shards):
            return 0
        done = self._commit(lambda: table.optimize.compact(writer_properties=_WRITER, max_concurrent_tasks=2))
        removed = int(done["numFilesRemoved"])
        _LOG.info("vector cache: %d files became %d", removed, int(done["numFilesAdded"]))
        return removed

    def _write(self, data: pa.Table, properties: CommitProperties) -> None:
        write_deltalake(
            self._table or self._store.table_uri(TABLE),
            data,
            mode="append",
            partition_by=["model_fingerprint", "shard"],
            storage_options=self._store.storage_options or None,
            writer_properties=_WRITER,
            commit_properties=properties,
        )

    def _commit(self, action: Callable[[], _T]) -> _T:
        for attempt in range(_COMMIT_TRIES):
            try:
                return _guarded(self._store, action)
            except TransientError as error:
                if not isinstance(error.__cause__, CommitFailedError) or attempt == _COMMIT_TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def _version(self) -> int:
        table = self._open()
        return int(table.version()) if table else -1

    def _open(self) -> DeltaTable | None:
        """Return the table at its newest version, or None before the first append."""

        def load() -> DeltaTable | None:
            try:
                if self._table is None:
                    self._table = open_table(self._store, TABLE)
                else:
                    self._table.update_incremental()
            except TableNotFoundError:
                self._table = None
            return self._table

        return _guarded(self._store, load)

    def _index(self, fingerprint: str) -> KeyIndex:
        table = self._open()
        if table is None:
            return KeyIndex()
        version, index = self._indexes.get(fingerprint, (-1, KeyIndex()))
        if version != table.version():
            _guarded(self._store, lambda: index.refresh(_fragments(self._store, table, fingerprint)))
            self._indexes[fingerprint] = (table.version(), index)
        return index


def _guarded(store: Store, action: Callable[[], _T]) -> _T:
    try:
        with errors_about(store, "vector cache"):
            return action()
    except StoreError:
        raise
    except (OSError, DeltaError) as error:
        raise TransientError(f"vector cache {store.table_uri(TABLE)}: {error}; the run can be repeated") from error


def _fragments(store: Store, table: DeltaTable, fingerprint: str) -> list[pads.ParquetFileFragment]:
    dataset = dataset_of(store, TABLE, table, [("model_fingerprint", "=", fingerprint)])
    return list(dataset.get_fragments())


def _rows(fingerprint: str, keys: KeyArray, vectors: np.ndarray) -> pa.Table:
    order = np.argsort(keys)
    count, dim = vectors.shape
    hashes = pa.array(_as_strings(keys[order]), pa.string())
    flat = pa.array(np.ascontiguousarray(vectors[order], dtype=np.float32).reshape(-1))
    columns = [
        pa.repeat(pa.scalar(fingerprint), count),
        pa.compute.utf8_slice_codeunits(hashes, 0, 1),
        hashes,
        pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * dim), flat),
    ]
    return pa.table(columns, schema=schemas.VECTORS)


def _read_rows(fragment: pads.ParquetFileFragment, rows: np.ndarray) -> np.ndarray:
    """Read the vectors of ascending rows, decoding only the row groups that hold them."""
    sizes = np.array([group.num_rows for group in fragment.row_groups])
    starts = np.cumsum(sizes) - sizes
    group_of_row = np.searchsorted(starts, rows, side="right") - 1
    blocks = []
    for group in np.unique(group_of_row):
        part = fragment.subset(row_group_ids=[int(group)]).to_table(columns=["vector"], use_threads=False)
        column = part.column(0).combine_chunks()
        matrix = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
        blocks.append(matrix[rows[group_of_row == group] - starts[group]])
    return np.concatenate(blocks).astype(np.float32, copy=False)


def _keys(text_hashes: Hashes) -> KeyArray:
    return as_keys(text_hashes if isinstance(text_hashes, pa.Array | pa.ChunkedArray) else list(text_hashes))


def _as_strings(keys: KeyArray) -> list[str]:
    return [key.decode() for key in keys.tolist()]
