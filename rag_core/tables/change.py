"""Writing Delta tables: rows are staged as Parquet files first, then one commit makes them visible.

The same two steps serve a stage that runs in this process and one whose rows are written by Spark tasks: until the
commit nothing is seen, after it everything is. A crash between the two leaves files that `vacuum` removes.
"""

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction

from rag_core.errors import StoreError, TransientError
from rag_core.faults import crash_point
from rag_core.tables import handles
from rag_core.tables.delta import LANES, SCHEMAS, TableSlice, newest_version, partition_columns, row_schema
from rag_core.tables.files import Sink, open_sink, remove_file
from rag_core.tables.landing import MARK, has_landed, new_mark
from rag_core.tables.store import Store
from rag_core.tables.store_errors import errors_about

_ROW_GROUP_ROWS = 4_096
_TARGET_FILE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class StagedFile:
    """A Parquet file inside the table's folder that no version names yet."""

    path: str
    partition_key: str
    rows: int
    size_bytes: int
    lane: str | None = None

    def partition_values(self, table: str) -> dict[str, str]:
        """Return the values of the table's partition columns."""
        lane = {} if self.lane is None else {LANES[table]: self.lane}
        return {**lane, "partition_key": self.partition_key}


@dataclass(frozen=True)
class TableChange:
    """The difference a stage makes to some partitions, ready to be committed at once.

    Attributes:
        base: The slice the difference was computed against; another commit to its partitions since then is a conflict.
        files: New rows.
        replace_column: Column whose listed values are replaced as a whole, such as `doc_id`.
        replaced: Values whose old rows go away. A new row whose value is not listed here must be new to the table.
        metadata: Kept in the commit: run id, fingerprints, versions that were consumed.
    """

    base: TableSlice
    replace_column: str
    files: tuple[StagedFile, ...] = ()
    replaced: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not self.files and not self.replaced


@dataclass(frozen=True)
class CommitResult:
    """What a commit did; `committed` is false when there was nothing to do and `version` is the one that was read."""

    version: int
    committed: bool
    rows_written: int
    bytes_written: int


class StagingWriter:
    """Writes batches as staged Parquet files, one open file for each partition key, bounded in memory.

    Rows of different partition keys may be mixed in a batch. Use as a context manager: an exception removes the files.
    """

    def __init__(self, store: Store, table: str, lane: str | None = None) -> None:
        if (lane is None) != (table not in LANES):
            raise ValueError(f"table {table} is written {'into a lane' if table in LANES else 'without a lane'}")
        self._lane = lane
        self._folder = "" if lane is None else f"{LANES[table]}={lane}/"
        self._schema = row_schema(table)
        self._file_schema = pa.schema([field for field in self._schema if field.name != "partition_key"])
        self._store = store
        self._table = table
        self._open: dict[str, tuple[str, Sink, pq.ParquetWriter, int]] = {}
        self._files: list[StagedFile] = []

    def __enter__(self) -> "StagingWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows; the batch's columns are those of the table without its lane, in any order."""
        batch = batch.select(self._schema.names).cast(self._schema)
        for key in pc.unique(batch.column("partition_key")).to_pylist():
            rows = batch.filter(pc.equal(batch.column("partition_key"), key))
            self._write_partition(key, rows.select(self._file_schema.names))

    def _write_partition(self, key: str, rows: pa.RecordBatch) -> None:
        if key not in self._open:
            folder = f"{self._folder}partition_key={key}"
            path = f"{folder}/part-{uuid.uuid4().hex}.parquet"
            sink = open_sink(self._store, f"tables/{self._table}/{path}")
            writer = pq.ParquetWriter(sink, self._file_schema, compression="zstd")
            self._open[key] = (path, sink, writer, 0)
        path, sink, writer, count = self._open[key]
        writer.write_batch(rows, row_group_size=_ROW_GROUP_ROWS)
        self._open[key] = (path, sink, writer, count + rows.num_rows)
        if sink.tell() > _TARGET_FILE_BYTES:
            self._finish(key)

    def _finish(self, key: str) -> None:
        path, sink, writer, rows = self._open.pop(key)
        writer.close()
        size = sink.tell()
        sink.close()
        self._files.append(StagedFile(path, key, rows, size, self._lane))

    def close(self) -> tuple[StagedFile, ...]:
        """Close every open file and return all that were written."""
        for key in list(self._open):
            self._finish(key)
        return tuple(self._files)

    def abort(self) -> None:
        """Remove every file that was written, and give up those that are being written."""
        for _path, sink, _writer, _rows in self._open.values():
            sink.abort()
        self._open.clear()
        remove_staged(self._store, self._table, self._files)


def stage(
    store: Store, table: str, batches: Iterable[pa.RecordBatch], lane: str | None = None
) -> tuple[StagedFile, ...]:
    """Write all batches as staged files, in this process."""
    writer = StagingWriter(store, table, lane)
    with writer:
        for batch in batches:
            writer.write(batch)
    return writer.close()


def remove_staged(store: Store, table: str, files: Iterable[StagedFile]) -> None:
    """Delete staged files that no version names; what cannot be deleted now is left to upkeep."""
    with suppress(StoreError):
        for file in files:
            remove_file(store, f"tables/{table}/{file.path}")


def read_staged(
    store: Store, table: str, files: Sequence[StagedFile], *, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Stream the rows of staged files with the table's schema, or some of its columns."""
    names = list(columns) if columns is not None else SCHEMAS[table].names
    schema = pa.schema([SCHEMAS[table].field(name) for name in names])
    filesystem, root = store.filesystem()
    for file in files:
        with filesystem.open_input_file(f"{root}/tables/{table}/{file.path}") as source:
            for batch in pq.ParquetFile(source).iter_batches(batch_size=_ROW_GROUP_ROWS, columns=columns):
                found = dict(zip(batch.schema.names, batch.columns, strict=True))
                for name, value in file.partition_values(table).items():
                    found[name] = pa.repeat(pa.scalar(value), batch.num_rows)
                yield pa.record_batch([found[name] for name in names], names=names).cast(schema)


def commit(change: TableChange, *, run_id: str) -> CommitResult:
    """Make a change visible in one Delta commit, or do nothing if it is empty.

    New rows alone are committed as the files that were staged. A change that replaces or removes rows rewrites only
    the files that hold them.

    Raises:
        TransientError: Another run committed to one of the partitions since the change's base version; run again.
        StoreError: S3 failed; whether the commit was made may not be known, which the next run finds out.
    """
    base, store = change.base, change.base.store
    if (base.lane is None) != (base.table not in LANES):
        raise ValueError(f"a change of table {base.table} names {'its lane' if base.lane is None else 'no lane'}")
    if change.is_empty:
        return CommitResult(base.version, committed=False, rows_written=0, bytes_written=0)
    keys = sorted(base.partition_keys or ())
    mark = new_mark()
    properties = CommitProperties(
        custom_metadata={
            "run_id": run_id,
            MARK: mark,
            **({"lane": base.lane} if base.lane else {}),
            **change.metadata,
        },
        # An application transaction for each partition is what makes two writers of a partition conflict, even two
        # appends, which Delta would accept side by side.
        app_transactions=[Transaction(f"{base.lane or ''}/{key}", base.version + 1) for key in keys],
    )
    crash_point(f"{base.table}.before_commit")
    with errors_about(store, f"table {base.table}"):
        try:
            with handles.HANDLES.writing_at(store, base.table, base.version) as table:
                if change.replaced:
                    _commit_replace(table, change, properties)
                else:
                    _commit_append(table, change, properties)
        except (CommitFailedError, DeltaError, OSError) as error:
            # Staged files are removed only where it is certain that no version names them.
            if not has_landed(store, base.table, base.version, mark):
                if not isinstance(error, CommitFailedError):
                    raise
                remove_staged(store, base.table, change.files)
                raise TransientError(
                    f"table {base.table}: another run changed one of the partitions {keys[0]}..{keys[-1]} after "
                    f"version {base.version} was read; nothing was committed, run these partitions again ({error})"
                ) from error
        if change.replaced:  # their rows were read from there and written anew
            remove_staged(store, base.table, change.files)
    crash_point(f"{base.table}.after_commit")
    return CommitResult(
        version=newest_version(store, base.table),
        committed=True,
        rows_written=sum(file.rows for file in change.files),
        bytes_written=sum(file.size_bytes for file in change.files),
    )


def _commit_append(table: DeltaTable, change: TableChange, properties: CommitProperties) -> None:
    now_ms = int(time.time() * 1000)
    actions = [
        AddAction(
            path=file.path,
            size=file.size_bytes,
            partition_values=file.partition_values(change.base.table),
            modification_time=now_ms,
            data_change=True,
            stats=json.dumps({"numRecords": file.rows}),
        )
        for file in change.files
    ]
    table.create_write_transaction(
        actions,
        mode="append",
        schema=change.base.schema,
        partition_by=list(partition_columns(change.base.table)),
        commit_properties=properties,
    )


def _commit_replace(table: DeltaTable, change: TableChange, properties: CommitProperties) -> None:
    base = change.base
    rows = pa.RecordBatchReader.from_batches(base.schema, read_staged(base.store, base.table, change.files))
    partitions = _sql_in("partition_key", base.partition_keys or ())
    if base.lane is not None:
        partitions = f"{_sql_in(LANES[base.table], [base.lane])} AND {partitions}"
    # Delta refuses new rows that the predicate does not cover, so it names the values that are only now added as well.
    added = _values(base.store, base.table, change.files, change.replace_column)
    values = _sql_in(change.replace_column, sorted(added.union(change.replaced)))
    write_deltalake(table, rows, mode="overwrite", predicate=f"{partitions} AND {values}", commit_properties=properties)


def _values(store: Store, table: str, files: Sequence[StagedFile], column: str) -> set[str]:
    filesystem, root = store.filesystem()
    values: set[str] = set()
    for file in files:
        path = f"{root}/tables/{table}/{file.path}"
        values.update(pc.unique(pq.read_table(path, columns=[column], filesystem=filesystem)[column]).to_pylist())
    return values


def _sql_in(column: str, values: Iterable[str]) -> str:
    quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({quoted})"
