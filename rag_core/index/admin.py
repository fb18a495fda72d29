"""Collections, partitions, indexes and aliases of a Milvus; the rows in them are in `client`."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from rag_core.config import IndexConfig
from rag_core.config_store import S3Config
from rag_core.errors import FingerprintMismatchError, PermanentError, TransientError
from rag_core.index import loading, schema
from rag_core.index.capabilities import Capabilities
from rag_core.index.connection import Connection
from rag_core.index.lite_files import locked
from rag_core.index.schema import CollectionMeta

_WRITE_LOCK_S: Final = 3_600.0
_INDEX_POLL_S: Final = 0.5


class CollectionAdmin:
    """What `IndexClient` can do with whole collections. Safe to use from several threads.

    Every method may raise TransientError (unreachable, slow, overloaded) and PermanentError (impossible request);
    every write can be repeated with the same end state.
    """

    def __init__(
        self,
        config: IndexConfig,
        connection: Connection,
        offered: Capabilities,
        *,
        write_lock: Path | None,
        s3: S3Config | None = None,
    ) -> None:
        self.s3 = s3 or S3Config()
        self.config = config
        self.capabilities = offered
        self._connection = connection
        self._lock_file = write_lock
        self._lock = threading.RLock()
        self._lock_depth = 0
        self._metas: dict[str, CollectionMeta] = {}

    @property
    def address(self) -> str:
        """Address of the server."""
        return self._connection.address

    @contextmanager
    def write_lock(self) -> Iterator[None]:
        """Hold the right to write. On Lite writers take turns, across processes; on a server this does nothing.

        Re-entrant within a thread. Each write takes it by itself; hold it around writes and their verification.

        Raises:
            TransientError: Another process held it for an hour.
        """
        if self._lock_file is None:
            yield
            return
        with self._lock, ExitStack() as stack:
            if self._lock_depth == 0:
                stack.enter_context(locked(self._lock_file, timeout_s=_WRITE_LOCK_S))
            self._lock_depth += 1
            try:
                yield
            finally:
                self._lock_depth -= 1

    def ensure_collection(
        self, name: str, *, dim: int, model_fingerprint: str, config: IndexConfig | None = None
    ) -> CollectionMeta:
        """Make the collection, or what a crash left unmade of it, and load it.

        Args:
            name: From `schema.collection_name`.
            dim: Vector dimension.
            model_fingerprint: Model of the vectors.
            config: Metric and index type; default: those of the connection's configuration.

        Raises:
            FingerprintMismatchError: The collection exists with another model or dimension.
        """
        config = config or self.config
        wanted = CollectionMeta(
            model_fingerprint,
            dim,
            config.metric,
            config.index_type,
            lexical=config.lexical,
            vector_type=config.vector_type,
        )
        with self.write_lock():
            if not self.has_collection(name):
                create = partial(
                    _create_collection, name=name, meta=wanted, config=config, lite=self.capabilities.kind == "lite",
                    timeout=self._connection.long_timeout_s,
                )  # fmt: skip
                self._call(f"making collection {name}", create)
            found = self.meta(name)
            if found != wanted:
                raise FingerprintMismatchError(f"collection {name} holds {found}, but {wanted} is wanted")
            self._ensure_indexes(name, config)
            if self.capabilities.mmap:
                self._ensure_mmap(name)
            self.load(name)
        return wanted

    def _ensure_mmap(self, name: str) -> None:
        timeout = self._connection.long_timeout_s
        described = self._call(
            f"description of {name}", lambda milvus: milvus.describe_collection(name, timeout=timeout)
        )
        if loading.is_mapped(described) != self.config.mmap:
            apply = partial(loading.map_from_disk, name=name, mmap=self.config.mmap, timeout=timeout)
            self._call(f"index.mmap of {name}", apply)

    def _ensure_indexes(self, name: str, config: IndexConfig) -> None:
        timeout = self._connection.long_timeout_s
        present = self._call(f"indexes of {name}", lambda milvus: milvus.list_indexes(name, timeout=timeout))
        wanted = schema.milvus_indexes(
            config,
            lite=self.capabilities.kind == "lite",
            scalar=self.capabilities.scalar_index_types,
            own_params=self.capabilities.own_params,
        )
        for field, params in wanted.items():
            if field not in present:
                create = partial(_create_index, name=name, params=params, timeout=timeout)
                self._call(f"making index {field} of {name}", create)

    def load(self, name: str) -> None:
        """Load a collection for searching, on as many nodes as is configured; at once if it is so loaded."""
        self._connection.load(name)

    def refresh(self, name: str) -> None:
        """Have rows that were imported into a loaded collection loaded as well."""
        timeout = self._connection.long_timeout_s
        self._call(f"load of what was imported into {name}", lambda milvus: milvus.refresh_load(name, timeout=timeout))

    def has_collection(self, name: str) -> bool:
        """Tell whether a collection or alias of that name exists."""
        found = self._call(f"look for {name}", lambda milvus: milvus.has_collection(name, timeout=self._timeout))
        return bool(found)

    def meta(self, name: str) -> CollectionMeta:
        """Return what a collection (not an alias) says of itself.

        Raises:
            PermanentError: There is no such collection, or another program made it.
        """
        if name not in self._metas:
            described = self._call(
                f"description of {name}", lambda milvus: milvus.describe_collection(name, timeout=self._timeout)
            )
            meta = CollectionMeta.from_description(described)
            if meta is None:
                raise PermanentError(f"collection {name} on {self.address} was not made by this program")
            self._metas[name] = meta
        return self._metas[name]

    def knows(self, name: str) -> bool:
        """Whether `meta` of a collection asks nothing of the server."""
        return name in self._metas

    def collections(self) -> list[str]:
        """Return the names of all collections, sorted."""
        return sorted(self._call("list of collections", lambda milvus: milvus.list_collections(timeout=self._timeout)))

    def drop_collection(self, name: str) -> None:
        """Drop a collection and its rows; nothing happens if there is none."""
        with self.write_lock():
            self._call(f"drop of {name}", lambda milvus: milvus.drop_collection(name, timeout=self._timeout))
            self._metas.pop(name, None)

    def partitions(self, collection: str) -> list[str]:
        """Return the names of the partitions that this program made, sorted."""
        names = self._call(
            f"partitions of {collection}", lambda milvus: milvus.list_partitions(collection, timeout=self._timeout)
        )
        return sorted(name for name in names if name != "_default")

    def ensure_partition(self, collection: str, partition_key: str) -> str:
        """Make the Milvus partition of a Dagster partition, and return its name."""
        name = schema.partition_name(partition_key)
        with self.write_lock():
            if not self.has_partition(collection, partition_key):
                self._call(
                    f"making partition {name} of {collection}",
                    lambda milvus: milvus.create_partition(collection, name, timeout=self._timeout),
                )
        return name

    def has_partition(self, collection: str, partition_key: str) -> bool:
        """Tell whether the Milvus partition of a Dagster partition exists."""
        name = schema.partition_name(partition_key)
        found = self._call(
            f"look for partition {name} of {collection}",
            lambda milvus: milvus.has_partition(collection, name, timeout=self._timeout),
        )
        return bool(found)

    def drop_partition(self, collection: str, partition_key: str) -> None:
        """Drop the Milvus partition of a Dagster partition and its rows; nothing happens if there is none."""
        name = schema.partition_name(partition_key)
        with self.write_lock():
            if self.has_partition(collection, partition_key):
                self._call(
                    f"drop of partition {name} of {collection}",
                    lambda milvus: self._drop_partition(milvus, collection, name),
                )

    def _drop_partition(self, milvus: Any, collection: str, name: str) -> None:
        if self.capabilities.partition_load:  # a server drops no partition that is loaded
            milvus.release_partitions(collection, [name], timeout=self._timeout)
        milvus.drop_partition(collection, name, timeout=self._timeout)

    def wait_until_indexed(self, collection: str) -> int:
        """Wait until the dense index holds every flushed row, and return how many it holds.

        Raises:
            TransientError: It does not within ten times the request's time limit; some builds fail for ever, silently.
        """
        deadline = time.monotonic() + self._connection.long_timeout_s
        while True:
            index = self._call(
                f"index of {collection}",
                lambda milvus: milvus.describe_index(collection, schema.DENSE, timeout=self._timeout),
            )
            if int(index.get("pending_index_rows") or 0) == 0:
                return int(index.get("indexed_rows") or 0)
            if time.monotonic() > deadline:
                raise TransientError(
                    f"index {schema.DENSE} of {collection} on {self.address}: {index.get('pending_index_rows')} rows "
                    f"not built after {self._connection.long_timeout_s:.0f} s; state {index.get('state')}"
                )
            time.sleep(_INDEX_POLL_S)

    def alias_target(self, alias: str) -> str | None:
        """Return the collection that an alias points at, or None."""
        listed = self._call("list of aliases", lambda milvus: milvus.list_aliases(timeout=self._timeout))
        if alias not in listed["aliases"]:
            return None
        described = self._call(f"alias {alias}", lambda milvus: milvus.describe_alias(alias, timeout=self._timeout))
        return str(described["collection_name"])

    def set_alias(self, alias: str, collection: str) -> None:
        """Point an alias at a collection, in one step for queries."""
        with self.write_lock():
            target = self.alias_target(alias)
            if target == collection:
                return
            self._call(
                f"alias {alias} to {collection}",
                lambda milvus: (milvus.alter_alias if target else milvus.create_alias)(
                    collection, alias, timeout=self._timeout
                ),
            )

    def drop_alias(self, alias: str) -> None:
        """Drop an alias; nothing happens if there is none."""
        with self.write_lock():
            if self.alias_target(alias) is not None:
                self._call(f"drop of alias {alias}", lambda milvus: milvus.drop_alias(alias, timeout=self._timeout))

    def ask(self, action: str, request: Callable[[Any], Any], *, once: bool = False) -> Any:
        """Run a request that has no method of its own; arguments as those of `Connection.call`."""
        return self._connection.call(action, request, once=once)

    @property
    def long_timeout_s(self) -> float:
        """Time limit of loading, flushing, building and importing."""
        return self._connection.long_timeout_s

    @property
    def _timeout(self) -> float:
        return self._connection.timeout_s

    def _call(self, action: str, request: Callable[[Any], Any], collection: str | None = None) -> Any:
        return self._connection.call(action, request, collection=collection)


def _create_collection(
    milvus: Any, *, name: str, meta: CollectionMeta, config: IndexConfig, lite: bool, timeout: float
) -> None:
    properties = schema.collection_properties(meta) if lite else loading.properties(mmap=config.mmap)
    shards = {} if config.shards is None else {"num_shards": config.shards}
    made = schema.milvus_schema(meta.dim, meta)
    milvus.create_collection(name, schema=made, properties=properties, timeout=timeout, **shards)


def _create_index(milvus: Any, *, name: str, params: Any, timeout: float) -> None:
    milvus.create_index(name, params, timeout=timeout)
