"""The one module through which Milvus is reached: the same code for Lite, standalone and cluster, over gRPC.

What goes into a collection is in `schema`, in which order it is written in `sync`, what queries ask in `retrieval`.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

import pyarrow as pa

from rag_core.config import IndexConfig
from rag_core.errors import FingerprintMismatchError
from rag_core.index import lite_server, schema
from rag_core.index.admin import CollectionAdmin
from rag_core.index.capabilities import check_index_config
from rag_core.index.connection import Connection
from rag_core.index.vectors import FLOAT16, encoded
from rag_core.tables.store import Store

STRONG: Final = "Strong"  # reads see every acknowledged write
Consistency = str | float
"""A Milvus consistency level; or a moment, in seconds since 1970: all that was written before it is seen.

At strong consistency a server has each read wait for its next time tick, up to 200 ms; a moment that has passed costs
nothing. (https://milvus.io/docs/consistency.md) Milvus Lite is always consistent.
"""
_IDS_PER_CALL: Final = 1_000
_PAGE: Final = 10_000  # below the 16,384 rows that a server returns at most
_CANDIDATES: Final = ("ef", "search_list")
_EVERY_ROW: Final = f'{schema.PRIMARY} != ""'


@contextmanager
def connect(config: IndexConfig, store: Store) -> Iterator["IndexClient"]:
    """Connect to the configured server, or to the local Milvus Lite server, which is started if need be.

    A Milvus Lite that is configured by its address has no write lock here: its writers take turns by themselves.

    Raises:
        TransientError: The server cannot be reached or started.
        ConfigError: The server does not offer what the configuration asks, or refuses the login.
    """
    with ExitStack() as stack:
        if config.uri is None:
            files = lite_server.lite_files(store)
            uri = stack.enter_context(lite_server.lease(store, config))
            find_again = partial(lite_server.ensure_running, files, idle_s=config.lite_idle_s)
            connection = Connection(config, uri, find_again=find_again)
        else:
            files = None
            connection = Connection(config, config.uri)
        stack.callback(connection.close)
        offered = connection.capabilities()
        check_index_config(config, offered)
        write_lock = files.write_lock if files else None
        yield IndexClient(config, connection, offered, write_lock=write_lock, s3=store.s3)


class IndexClient(CollectionAdmin):
    """Rows, collections and aliases of one Milvus. Made by `connect`; safe to use from several threads."""

    _settled_at: float | None = None

    def upsert(self, collection: str, partition_key: str, rows: pa.RecordBatch | pa.Table) -> int:
        """Write rows in one call; rows of the same chunk_id are replaced.

        Args:
            collection: Its name.
            partition_key: Dagster partition; its Milvus partition exists.
            rows: Chunks joined with vectors, as `schema.milvus_rows` takes them.

        Returns:
            Rows written.

        Raises:
            FingerprintMismatchError: The vectors have another dimension or come from another model. Checked here,
                because Lite answers a wrong dimension with an empty message.
        """
        if rows.num_rows == 0:
            return 0
        self.check_vectors(collection, rows)
        meta = self.meta(collection)
        data = list(schema.milvus_rows(rows, with_words=meta.lexical, vector_type=meta.vector_type))
        name = schema.partition_name(partition_key)
        with self.write_lock():
            self._call(
                f"upsert of {len(data)} rows into {collection}/{name}",
                lambda milvus: milvus.upsert(collection, data, partition_name=name, timeout=self._timeout),
            )
        return len(data)

    def check_vectors(self, collection: str, rows: pa.RecordBatch | pa.Table) -> None:
        """Raise FingerprintMismatchError unless the vectors of rows belong into a collection."""
        meta = self.meta(collection)
        dim = schema.vectors_of(rows).shape[1]
        if dim != meta.dim:
            raise FingerprintMismatchError(
                f"vectors have dimension {dim}, collection {collection} has {meta.dim}: two models were mixed"
            )
        models = set(rows.column("model_fingerprint").to_pylist())
        if models != {meta.model_fingerprint}:
            raise FingerprintMismatchError(
                f"vectors are from model {sorted(models)}, collection {collection} is for {meta.model_fingerprint}"
            )

    def flush(self, collection: str) -> None:
        """Write what is in memory to segments; Lite searches unflushed rows slowly."""
        with self.write_lock():
            self._call(
                f"flush of {collection}",
                lambda milvus: milvus.flush(collection, timeout=self._connection.long_timeout_s),
            )

    def count(self, collection: str, partition_key: str | None = None, expression: str = _EVERY_ROW) -> int:
        """Count rows by count(*) at strong consistency; 0 for a partition that does not exist."""
        if partition_key is not None and not self.has_partition(collection, partition_key):
            return 0
        # Without a filter Lite counts the whole collection, whatever partition is named.
        rows = self._query(collection, partition_key, expression, ("count(*)",))
        return int(rows[0]["count(*)"])

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Read what was written until now, for many questions about rows that nobody is writing.

        Writes of other clients after this moment may be seen or not.
        """
        before, self._settled_at = self._settled_at, time.time()
        try:
            yield
        finally:
            self._settled_at = before

    def fetch(
        self,
        collection: str,
        partition_key: str | None,
        chunk_ids: Sequence[str],
        fields: Sequence[str],
        consistency: Consistency = STRONG,
    ) -> dict[str, dict[str, Any]]:
        """Return the named fields of the rows that exist, by chunk_id."""
        found: dict[str, dict[str, Any]] = {}
        for some in slices(chunk_ids, _IDS_PER_CALL):
            expression = schema.any_of(schema.PRIMARY, some)
            for row in self._query(collection, partition_key, expression, (schema.PRIMARY, *fields), consistency):
                found[row[schema.PRIMARY]] = row
        return found

    def query(
        self, collection: str, expression: str, fields: Sequence[str], consistency: Consistency = STRONG
    ) -> list[dict[str, Any]]:
        """Return the named fields of the rows that a Milvus filter admits, in no order."""
        return self._query(collection, None, expression, (schema.PRIMARY, *fields), consistency)

    def list_rows(
        self, collection: str, partition_key: str | None, fields: Sequence[str] = ()
    ) -> Iterator[dict[str, Any]]:
        """Iterate over all rows of a partition (or of the collection) by chunk_id, at strong consistency."""
        if partition_key is not None and not self.has_partition(collection, partition_key):
            return
        what = f"listing of {collection}/{partition_key or '*'}"
        iterator = self._call(
            what,
            lambda milvus: milvus.query_iterator(
                collection,
                batch_size=_PAGE,
                output_fields=[schema.PRIMARY, *fields],
                partition_names=self._partition_names(partition_key),
                consistency_level=STRONG,
                timeout=self._timeout,
            ),
            collection,
        )
        try:
            while page := self._connection.call(what, lambda _: iterator.next(), once=True):
                yield from page
        finally:
            iterator.close()

    def list_ids(self, collection: str, partition_key: str | None = None) -> list[str]:
        """Return all chunk_ids of a partition (or of the collection), sorted."""
        return sorted(row[schema.PRIMARY] for row in self.list_rows(collection, partition_key))

    def delete(self, collection: str, partition_key: str, chunk_ids: Sequence[str]) -> None:
        """Delete rows by id, in one call; ids that do not exist are no error.

        Lite pays no heed to the partition: it deletes the ids in every partition of the collection.
        """
        if not chunk_ids or not self.has_partition(collection, partition_key):
            return
        name = schema.partition_name(partition_key)
        expression = schema.any_of(schema.PRIMARY, chunk_ids)
        with self.write_lock():
            self._call(
                f"delete of {len(chunk_ids)} rows from {collection}/{name}",
                lambda milvus: milvus.delete(collection, filter=expression, partition_name=name, timeout=self._timeout),
            )

    def search(
        self,
        collection: str,
        *,
        field: str,
        query: Any,
        limit: int,
        fields: Sequence[str],
        expression: str = "",
        partition_keys: Sequence[str] | None = None,
        params: Mapping[str, Any] | None = None,
        consistency: Consistency = STRONG,
    ) -> list[tuple[float, dict[str, Any]]]:
        """Search one field of a collection.

        Args:
            collection: Its name.
            field: `schema.DENSE` with a (dim,) float32 vector, or `schema.SPARSE` with term id -> weight.
            query: The vector.
            limit: Most hits to return, up to 16,384.
            fields: Fields of each hit.
            expression: Milvus filter; empty for all rows.
            partition_keys: Dagster partitions to search; None for all.
            params: Search parameters of the dense index, such as ef; those that a server wants to be no smaller than
                the limit are raised to it.
            consistency: What must be seen.

        Returns:
            Score and fields of each hit, in the server's order; a higher score is better.
        """
        return self.search_many(
            collection,
            field=field,
            queries=[query],
            limit=limit,
            fields=fields,
            expression=expression,
            partition_keys=partition_keys,
            params=params,
            consistency=consistency,
        )[0]

    def search_many(
        self,
        collection: str,
        *,
        field: str,
        queries: Sequence[Any],
        limit: int,
        fields: Sequence[str],
        expression: str = "",
        partition_keys: Sequence[str] | None = None,
        params: Mapping[str, Any] | None = None,
        consistency: Consistency = STRONG,
    ) -> list[list[tuple[float, dict[str, Any]]]]:
        """Search for several queries in one request; arguments as in `search`.

        Returns:
            The hits of each query, in the order of the queries.
        """
        queries = self._as_stored(collection, field, queries)
        answers = self._call(
            f"search of {field} in {collection}",
            lambda milvus: milvus.search(
                collection,
                data=queries,
                anns_field=field,
                filter=expression,
                limit=limit,
                output_fields=list(fields),
                partition_names=None if partition_keys is None else [*map(schema.partition_name, partition_keys)],
                search_params={"params": _wide_enough(params or {}, limit)},
                timeout=self._timeout,
                **self._sees(consistency),
            ),
            collection,
        )
        # Lite gives sparse scores with their sign turned round; here they are never negative by definition.
        sign = abs if field == schema.SPARSE else float
        return [
            # By `id`: servers before 2.4 do not say what their primary field is called.
            [(sign(hit["distance"]), {**hit["entity"], schema.PRIMARY: hit.id}) for hit in hits]
            for hits in answers
        ]

    def _as_stored(self, collection: str, field: str, queries: Sequence[Any]) -> list[Any]:
        """Write questions in the field's type: a server compares vectors of one type only."""
        if field != schema.DENSE or FLOAT16 not in self.capabilities.vector_types:
            return list(queries)
        vector_type = self.meta(collection).vector_type
        return [encoded(query, vector_type) for query in queries]

    def _query(
        self,
        collection: str,
        partition_key: str | None,
        expression: str,
        fields: Sequence[str],
        consistency: Consistency = STRONG,
    ) -> list[dict[str, Any]]:
        rows = self._call(
            f"query of {collection}/{partition_key or '*'}",
            lambda milvus: milvus.query(
                collection,
                filter=expression,
                output_fields=list(fields),
                partition_names=self._partition_names(partition_key),
                timeout=self._timeout,
                **self._sees(consistency),
            ),
            collection,
        )
        return [dict(row) for row in rows]

    def _sees(self, consistency: Consistency) -> dict[str, Any]:
        if self.capabilities.kind == "lite":  # knows levels only, and sees all that was written at each
            return {"consistency_level": consistency if isinstance(consistency, str) else STRONG}
        moment = self._settled_at if consistency == STRONG else consistency
        if moment is None or isinstance(moment, str):
            return {"consistency_level": STRONG if moment is None else consistency}
        # A hybrid timestamp: milliseconds, and 18 bits to count what happens within one.
        return {"consistency_level": "Customized", "guarantee_timestamp": int(moment * 1_000) << 18}

    @staticmethod
    def _partition_names(partition_key: str | None) -> list[str] | None:
        return None if partition_key is None else [schema.partition_name(partition_key)]


def _wide_enough(params: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Raise the sizes of candidate lists to the limit: they were chosen for answers of ten rows.

    Source: https://milvus.io/docs/hnsw.md and https://milvus.io/docs/disk_index.md (ef and search_list are at least k).
    """
    return {name: max(int(value), limit) if name in _CANDIDATES else value for name, value in params.items()}


def slices(values: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Cut a sequence into parts of at most `size`, in order."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
