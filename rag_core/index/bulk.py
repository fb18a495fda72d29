"""The first load of a large partition: Parquet files in the storage of the Milvus server, and its import of them.

An import does not look for rows of the same id, so it is only for a partition that holds none. Whatever it does not
bring, upserts do. Source: https://milvus.io/docs/import-data.md; column types as pymilvus's bulk_writer writes them.
"""

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from rag_core.errors import PermanentError, TransientError
from rag_core.index import schema
from rag_core.index.client import IndexClient
from rag_core.tables.files import remove_folder, writing
from rag_core.tables.store import Store

_ROWS_PER_FILE: Final = 20_000  # in memory while a file is written
_POLL_S: Final = 0.5
_DONE: Final = 6
_FAILED: Final = (1, 7)
_LISTED: Final = 1_000


class ImportRefusedError(Exception):
    """The server did not import the rows, and none of them will appear; the message says why."""


@dataclass(frozen=True)
class BulkImport:
    """Imports into one partition that is empty.

    Attributes:
        client: Connected to a server; its configuration has `bulk_import`.
        collection: Its name.
        partition_key: Dagster partition; its Milvus partition exists.
    """

    client: IndexClient
    collection: str
    partition_key: str

    def suits(self, rows: int) -> bool:
        """Whether so many rows are worth an import, and the partition is empty."""
        settings = self.client.config.bulk_import
        if settings is None or rows < settings.min_rows:
            return False
        return self.client.count(self.collection, self.partition_key) == 0

    def write(self, batches: Iterable[pa.RecordBatch | pa.Table]) -> dict[str, str]:
        """Write files, have them imported, and wait until the rows are searchable.

        Args:
            batches: As `IndexClient.upsert` takes them; no chunk_id twice.

        Returns:
            row_hash of each row, by chunk_id.

        Raises:
            ImportRefusedError: Nothing was imported, or one of several files was not.
            TransientError: It cannot be told whether rows are going to appear: run again, which waits for them first.
        """
        settings = self.client.config.bulk_import
        assert settings is not None  # `suits` said so
        hashes: dict[str, str] = {}
        files = Store(settings.to, self.client.s3)
        folder = f"{self.collection}-{schema.partition_name(self.partition_key)}-{uuid.uuid4().hex}"
        try:
            names = list(self._files(files, folder, batches, hashes))
            self._wait([self._begin(name) for name in names])
        finally:
            remove_folder(files, folder)
        self.client.refresh(self.collection)
        return hashes

    def wait_for_earlier(self) -> None:
        """Wait for imports of a run that was cut off: their rows must not appear beside those that replace them.

        Raises:
            TransientError: They do not end in time.
        """
        if self.client.config.bulk_import is None:
            return
        tasks = self.client.ask(
            f"imports into {self.collection}",
            lambda milvus: milvus._get_connection().list_bulk_insert_tasks(_LISTED, self.collection),
        )
        pending = [one.task_id for one in tasks if one.state not in (_DONE, *_FAILED)]
        self._wait(pending, may_fail=True)
        if tasks:
            self.client.refresh(self.collection)

    def _files(
        self, files: Store, folder: str, batches: Iterable[pa.RecordBatch | pa.Table], hashes: dict[str, str]
    ) -> Iterator[str]:
        meta = self.client.meta(self.collection)
        for number, rows in enumerate(_gathered(batches)):
            self.client.check_vectors(self.collection, rows)
            name = f"{folder}/{number:06d}.parquet"
            with writing(files, name) as sink:
                pq.write_table(import_table(rows, meta), sink)
            hashes.update(zip(rows["chunk_id"].to_pylist(), rows["row_hash"].to_pylist(), strict=True))
            # A server names files by their key in its bucket, or by their path where its storage is a folder.
            yield urlsplit(files.uri(name)).path.lstrip("/") if not files.is_local else files.uri(name)

    def _begin(self, name: str) -> int:
        partition = schema.partition_name(self.partition_key)
        try:
            task: int = self.client.ask(
                f"import of {name} into {self.collection}/{partition}",
                # Sent once, also by pymilvus: a second time the rows would come twice.
                lambda milvus: milvus._get_connection().do_bulk_insert(
                    self.collection, partition, [name], retry_times=0
                ),
                once=True,
            )
        except PermanentError as error:
            raise ImportRefusedError(str(error)) from error
        return task

    def _wait(self, tasks: Sequence[int], *, may_fail: bool = False) -> None:
        deadline = time.monotonic() + self.client.long_timeout_s
        failures = []
        for task in tasks:
            while (state := self._state(task)).state not in (_DONE, *_FAILED):
                if time.monotonic() > deadline:
                    raise TransientError(
                        f"{self.collection}/{self.partition_key}: import {task} is {state.state_name} after "
                        f"{self.client.long_timeout_s:.0f} s; run again, or raise index.timeout_s"
                    )
                time.sleep(_POLL_S)
            if state.state in _FAILED:
                failures.append(state.failed_reason or state.state_name)
        if failures and not may_fail:
            raise ImportRefusedError("; ".join(failures[:3]))

    def _state(self, task: int) -> Any:
        return self.client.ask(
            f"state of import {task}", lambda milvus: milvus._get_connection().get_bulk_insert_state(task)
        )


def import_table(rows: pa.Table, meta: schema.CollectionMeta) -> pa.Table:
    """Return rows as a server imports them from Parquet: one column for each field of the collection.

    Args:
        rows: As `schema.milvus_rows` takes them; at least one.
        meta: Of the collection.

    Returns:
        Vectors as lists of float32; sparse ones as JSON.
    """
    made = list(schema.milvus_rows(rows, with_words=meta.lexical))
    columns: dict[str, pa.Array] = {}
    for name in schema.FIELDS:
        values = [row[name] for row in made]
        columns[name] = pa.array(values, pa.string() if isinstance(values[0], str) else pa.int64())
    columns[schema.DENSE] = pa.array([row[schema.DENSE] for row in made], pa.list_(pa.float32()))
    if meta.lexical:
        columns[schema.SPARSE] = pa.array([_as_json(row[schema.SPARSE]) for row in made], pa.string())
    return pa.table(columns)


def _as_json(weights: Mapping[int, float]) -> str:
    return json.dumps({str(term): float(weight) for term, weight in weights.items()})


def _gathered(batches: Iterable[pa.RecordBatch | pa.Table]) -> Iterator[pa.Table]:
    """Put small batches together, so that there are few files."""
    held: list[pa.Table] = []
    for rows in batches:
        held.append(rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows]))
        if sum(one.num_rows for one in held) >= _ROWS_PER_FILE:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)
