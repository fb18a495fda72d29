"""Reading Delta tables: versions, streams of columns, and what changed them. Writing is in `rag_core.tables.change`."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from rag_core import schemas
from rag_core.errors import PermanentError
from rag_core.tables import handles
from rag_core.tables.dataset import dataset_of
from rag_core.tables.handles import open_table
from rag_core.tables.store import Store
from rag_core.tables.store_errors import errors_about

SCHEMAS: dict[str, pa.Schema] = {
    "documents": schemas.DOCUMENTS,
    "chunks": schemas.CHUNKS,
    "embeddings": schemas.EMBEDDINGS,
    "index_partitions": schemas.INDEX_PARTITIONS,
    "published_index": schemas.PUBLISHED_INDEX,
    "term_statistics": schemas.TERM_STATISTICS,
    "retrieval_eval": schemas.RETRIEVAL_EVAL,
    "quality_results": schemas.QUALITY_RESULTS,
    "quality_failures": schemas.QUALITY_FAILURES,
    "verdicts": schemas.VERDICTS,
    "deletions": schemas.DELETIONS,
    "source_changes": schemas.SOURCE_CHANGES,
    "passes": schemas.PASSES,
    "alerts": schemas.ALERTS,
    "answers": schemas.ANSWERS,
    "feedback": schemas.FEEDBACK,
    "asked": schemas.ASKED,
}
"""Every stored asset's table and its schema; the vector cache is a table of `rag_core.embedding.cache`."""

LANES: Mapping[str, str] = {
    "chunks": "lane",
    "embeddings": "lane",
    "index_partitions": "collection",
    "term_statistics": "lane",
}
"""The lane column of each table that has one: rows of two lanes are two sets of rows with keys of their own."""

PARTITIONED: frozenset[str] = frozenset({"documents", "chunks", "embeddings", "index_partitions"})

# Change data is not written: stages diff by content hash. Tombstones are kept for a week, so that a reader of an older
# version (a long backfill, a rollback) still finds its files.
_CONFIGURATION = {
    "delta.logRetentionDuration": "interval 30 days",
    "delta.deletedFileRetentionDuration": "interval 7 days",
    "delta.checkpointInterval": "50",
}


def ensure_table(store: Store, name: str) -> DeltaTable:
    """Open a table at its newest version, creating it empty if it does not exist yet."""
    uri = store.table_uri(name)
    try:
        table = open_table(store, name)
    except TableNotFoundError:
        with errors_about(store, f"table {name}"):
            return DeltaTable.create(
                uri,
                schema=SCHEMAS[name],
                mode="ignore",
                partition_by=list(partition_columns(name)) or None,
                configuration=_CONFIGURATION,
                storage_options=store.storage_options or None,
            )
    if missing := set(SCHEMAS[name].names).difference(field.name for field in table.schema().fields):
        raise PermanentError(
            f"table {name} at {uri} was written by an earlier version: it has no column {', '.join(sorted(missing))}; "
            f"move the folder `tables` of the store away (vectors are kept beside it and are reused), then: rag run"
        )
    return table


@contextmanager
def newest_table(store: Store, name: str) -> Iterator[DeltaTable]:
    """Give a table at its newest version, created empty if it does not exist yet; a look without news costs little.

    It is the process's own one: not to be used after the block, nor written to.

    Raises:
        PermanentError: An earlier version of the program wrote it, without columns that are needed now.
    """
    with handles.HANDLES.newest(store, name, lambda: ensure_table(store, name)) as table:
        yield table


@contextmanager
def writable_table(store: Store, name: str) -> Iterator[DeltaTable]:
    """Give a table as `newest_table` does, to be written to in the block."""
    with handles.HANDLES.writing(store, name, lambda: ensure_table(store, name)) as table:
        yield table


def newest_version(store: Store, name: str) -> int:
    """Return the newest version of a table, which is created empty if it does not exist yet."""
    with newest_table(store, name) as table:
        return int(table.version())


def state_of(table: DeltaTable) -> tuple[str, int]:
    """Return what tells one state of a table from every other: the table's own id and the version."""
    return str(table.metadata().id), int(table.version())


def partition_columns(name: str) -> tuple[str, ...]:
    """Return the Delta partition columns of a table, the lane first."""
    lane = (LANES[name],) if name in LANES else ()
    return (*lane, "partition_key") if name in PARTITIONED else lane


def row_schema(name: str) -> pa.Schema:
    """Return a table's schema without its lane: what is written into one lane."""
    return pa.schema([field for field in SCHEMAS[name] if field.name != LANES.get(name)])


@dataclass(frozen=True)
class TableSlice:
    """Some partitions of a table at one version: what a stage reads, and what its lineage names.

    Attributes:
        store: Where the table is.
        table: Its name.
        partition_keys: The partitions; None means all.
        version: Delta version, fixed when the slice was made: later commits are not seen.
        lane: The lane; None means all lanes, or a table without lanes.
    """

    store: Store
    table: str
    partition_keys: tuple[str, ...] | None
    version: int
    lane: str | None = None

    @classmethod
    def newest(
        cls, store: Store, table: str, partition_keys: Sequence[str] | None = None, *, lane: str | None = None
    ) -> "TableSlice":
        """Make a slice of the table's newest version; a table that does not exist yet is created empty."""
        keys = None if partition_keys is None else tuple(partition_keys)
        return cls(store, table, keys, newest_version(store, table), lane)

    @property
    def schema(self) -> pa.Schema:
        """The declared schema."""
        return SCHEMAS[self.table]

    def of(self, *partition_keys: str) -> "TableSlice":
        """Narrow the slice to these partitions."""
        return replace(self, partition_keys=partition_keys)

    def in_lane(self, lane: str) -> "TableSlice":
        """Narrow the slice to a lane."""
        return replace(self, lane=lane)

    def open(self) -> DeltaTable:
        """Open the table at the slice's version."""
        return open_table(self.store, self.table, self.version)

    def dataset(self) -> pads.Dataset:
        """Open the files that hold the slice, and no others.

        Arrow is told the statistics of all columns of each file, which takes up to a millisecond a file: of a table
        with a thousand partitions, a slice of one would else be read in a second.
        """
        predicate: list[tuple[str, str, object]] = []
        if self.partition_keys is not None and self.table in PARTITIONED:
            predicate.append(("partition_key", "in", list(self.partition_keys)))
        if self.lane is not None:
            predicate.append((LANES[self.table], "=", self.lane))
        with handles.HANDLES.at(self.store, self.table, self.version) as table:
            return dataset_of(self.store, self.table, table, predicate)

    def _filter(self, where: pc.Expression | None) -> pc.Expression | None:
        conditions = [] if where is None else [where]
        if self.partition_keys is not None:
            conditions.insert(0, in_set("partition_key", self.partition_keys))
        if self.lane is not None:
            conditions.insert(0, pc.field(LANES[self.table]) == self.lane)
        return reduce(operator.and_, conditions) if conditions else None

    def head(self, rows: int, columns: Sequence[str], where: pc.Expression | None = None) -> pa.Table:
        """Read the first rows that are found, row group by row group.

        Use this and not the beginning of `batches`: a scan that is given up half-way leaves Arrow's threads behind, and
        they end the process with an abort.
        """
        dataset, condition = self.dataset(), self._filter(where)
        found = pa.schema([self.schema.field(name) for name in columns]).empty_table()
        with errors_about(self.store, f"table {self.table}"):
            for fragment in dataset.get_fragments(condition):
                for group in fragment.split_by_row_group(condition, schema=dataset.schema):
                    part = group.to_table(dataset.schema, columns=list(columns), filter=condition)
                    found = pa.concat_tables([found, part.cast(found.schema)])
                    if found.num_rows >= rows:
                        return found.slice(0, rows)
        return found

    def heads(self, rows: int, columns: Sequence[str]) -> dict[str, pa.Table]:
        """Read the first rows of each partition of the slice in one pass; of a partition without rows an empty table.

        Returns:
            Partition key -> up to `rows` rows, in no particular order.
        """
        dataset, condition = self.dataset(), self._filter(None)
        empty = pa.schema([self.schema.field(name) for name in columns]).empty_table()
        found = dict.fromkeys(self.partition_keys or (), empty)
        with errors_about(self.store, f"table {self.table}"):
            for fragment in dataset.get_fragments(condition):
                key = pads.get_partition_keys(fragment.partition_expression).get("partition_key", "")
                for group in fragment.split_by_row_group(condition, schema=dataset.schema):
                    have = found.get(key, empty)
                    if have.num_rows >= rows:
                        break
                    part = group.to_table(dataset.schema, columns=list(columns), filter=condition).cast(empty.schema)
                    found[key] = pa.concat_tables([have, part.slice(0, rows - have.num_rows)])
        return found

    def batches(
        self, columns: Sequence[str] | None = None, where: pc.Expression | None = None, *, batch_rows: int = 8_192
    ) -> Iterator[pa.RecordBatch]:
        """Stream rows in no particular order, `batch_rows` at most at a time; memory does not grow with the table."""
        names = list(columns) if columns is not None else self.schema.names
        dataset, condition = self.dataset(), self._filter(where)
        wanted = pa.schema([self.schema.field(name) for name in names])
        # File by file: a scan of the whole dataset reads ahead of a slow consumer without an end, whatever its
        # read-ahead is set to (138 MB of vectors, 100 ms a batch: 90 MB in memory; so 10 MB, and not slower).
        with errors_about(self.store, f"table {self.table}"):
            for fragment in dataset.get_fragments(condition):
                for batch in fragment.to_batches(
                    schema=dataset.schema, columns=names, filter=condition, batch_size=batch_rows, batch_readahead=2
                ):
                    if batch.num_rows:
                        yield batch.cast(wanted)

    def read(self, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """Read rows into memory; meant for key columns, or for a `where` that bounds the result."""
        names = list(columns) if columns is not None else self.schema.names
        wanted = pa.schema([self.schema.field(name) for name in names])
        return pa.Table.from_batches(self.batches(names, where), schema=wanted)

    def count(self, where: pc.Expression | None = None) -> int:
        """Count rows without reading them."""
        with errors_about(self.store, f"table {self.table}"):
            return int(self.dataset().count_rows(filter=self._filter(where)))


def partition_values(store: Store, name: str, column: str) -> list[str]:
    """Return the values of a partition column that the newest version of a table has files of, sorted; reads no row."""
    with newest_table(store, name) as table:
        actions = pa.table(table.get_add_actions(flatten=True))
    key = f"partition.{column}"
    return sorted(pc.unique(actions[key]).to_pylist()) if key in actions.column_names else []


def lanes_of(store: Store, name: str) -> list[str]:
    """Return the lanes of a table that hold rows, sorted."""
    return partition_values(store, name, LANES[name])


def in_set(column: str, values: Sequence[str] | pa.Array) -> pc.Expression:
    """Build the filter `column in values`."""
    array = values if isinstance(values, pa.Array) else pa.array(list(values), pa.string())
    return pads.field(column).isin(array)
