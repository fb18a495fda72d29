"""What each kind and version of Milvus can do, as a table; nothing here asks a server by trying.

Trying would not help: Milvus Lite accepts IVF_PQ, DISKANN and even made-up index types and then builds nothing.
Sources: milvus_lite 3.2 (index/factory.py, schema, analyzer) and https://milvus.io/docs, index and release pages.
"""

import re
from dataclasses import dataclass
from importlib import metadata
from typing import Final, Literal

from rag_core.config import IndexConfig
from rag_core.errors import ConfigError
from rag_core.index.index_params import check_filled, check_params

ServerKind = Literal["lite", "standalone", "cluster"]
Version = tuple[int, int, int]

_LABELS: Final = {"lite": "Milvus Lite", "standalone": "Milvus standalone", "cluster": "Milvus cluster"}

_LITE_INDEXES: Final = frozenset({"AUTOINDEX", "FLAT", "HNSW", "HNSW_SQ", "IVF_FLAT", "IVF_SQ8"})
_SERVER_INDEXES: Final[tuple[tuple[Version, frozenset[str]], ...]] = (
    ((2, 3, 0), frozenset({"AUTOINDEX", "FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ", "SCANN", "DISKANN"})),
    ((2, 4, 0), frozenset({"GPU_CAGRA", "GPU_IVF_FLAT", "GPU_IVF_PQ", "GPU_BRUTE_FORCE"})),
    ((2, 5, 0), frozenset({"HNSW_SQ", "HNSW_PQ", "HNSW_PRQ"})),
    ((2, 6, 0), frozenset({"IVF_RABITQ"})),
)
_SERVER_SCALAR_INDEXES: Final[tuple[tuple[Version, frozenset[str]], ...]] = (
    ((2, 3, 0), frozenset({"STL_SORT", "Trie"})),
    ((2, 4, 0), frozenset({"INVERTED"})),
    ((2, 5, 0), frozenset({"BITMAP"})),
    ((2, 6, 0), frozenset({"NGRAM"})),
)
_SERVER_VECTORS: Final[tuple[tuple[Version, frozenset[str]], ...]] = (
    ((2, 3, 0), frozenset({"FLOAT_VECTOR", "BINARY_VECTOR"})),
    ((2, 4, 0), frozenset({"FLOAT16_VECTOR", "BFLOAT16_VECTOR", "SPARSE_FLOAT_VECTOR"})),
    ((2, 6, 0), frozenset({"INT8_VECTOR"})),
)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one server offers.

    Attributes:
        kind: lite, standalone or cluster.
        version: Of the server.
        index_types: For the dense field. GPU types also need the server's GPU build, which its version does not tell.
        scalar_index_types: For filter fields.
        vector_types: Milvus data types of vector fields.
        users: Users, roles and TLS.
        partition_load: Whether single partitions can be loaded and released.
        filter_templates: Whether filter values can travel beside the expression.
        placement: Shards, several copies in memory, resource groups.
        own_params: Whether build parameters that are left out have values of the server's own.
        bulk_import: Whether Parquet files can be imported.
        mmap: Whether a collection's property says that it is mapped from disk.
        concurrent_writers: Whether several clients may write to a collection at once.
        max_partitions: Partitions of one collection.
    """

    kind: ServerKind
    version: Version
    index_types: frozenset[str]
    scalar_index_types: frozenset[str]
    vector_types: frozenset[str]
    users: bool
    partition_load: bool
    filter_templates: bool
    placement: bool
    bulk_import: bool
    mmap: bool
    own_params: bool
    concurrent_writers: bool
    max_partitions: int

    @property
    def label(self) -> str:
        """Kind and version as a person reads them."""
        return f"{_LABELS[self.kind]} {'.'.join(map(str, self.version))}"


def parse_version(text: str) -> Version:
    """Read `milvus_lite-3.2.2`, `v2.6.6` or `2.3.5-dev`; ConfigError if no version is in it."""
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if match is None:
        raise ConfigError(f"index.uri: the server calls its version {text!r}; expected a Milvus version such as v2.6.6")
    return int(match[1]), int(match[2]), int(match[3] or 0)


def server_kind(version_text: str, deploy_mode: str) -> ServerKind:
    """Tell the kind from what the server says of itself.

    Args:
        version_text: Answer of GetVersion; Lite puts its name before its version.
        deploy_mode: `deploy_mode` of Connect's answer: embedded, STANDALONE, or a cluster's mode.
    """
    if version_text.startswith("milvus_lite") or deploy_mode.lower() == "embedded":
        return "lite"
    return "standalone" if deploy_mode.upper() in {"", "STANDALONE"} else "cluster"


def capabilities(kind: ServerKind, version: Version) -> Capabilities:
    """Look a server up in the table."""
    if kind == "lite":
        return _lite(version)
    return Capabilities(
        kind=kind,
        version=version,
        index_types=_since(_SERVER_INDEXES, version),
        scalar_index_types=_since(_SERVER_SCALAR_INDEXES, version),
        vector_types=_since(_SERVER_VECTORS, version),
        users=True,
        partition_load=True,
        filter_templates=version >= (2, 5, 0),
        placement=True,
        bulk_import=version >= (2, 3, 4),
        mmap=version >= (2, 4, 0),
        own_params=version >= (2, 5, 0),
        concurrent_writers=True,
        max_partitions=1024 if version >= (2, 4, 0) else 4096,
    )


def local_capabilities() -> Capabilities:
    """Return what the installed Milvus Lite offers, without starting it."""
    return _lite(parse_version(metadata.version("milvus-lite")))


def check_index_config(config: IndexConfig, offered: Capabilities, *, partitions: int | None = None) -> None:
    """Refuse a configuration that the backend cannot serve as asked.

    Args:
        config: The `index` section.
        offered: The backend, from `capabilities` or `local_capabilities`.
        partitions: Partitions that the collection is going to have, where known.

    Raises:
        ConfigError: Names key, value and backend, and what the backend has instead.
    """
    if config.index_type not in offered.index_types:
        has = ", ".join(sorted(offered.index_types))
        raise ConfigError(f"index.index_type: {config.index_type!r} is not offered by {offered.label}; it has {has}")
    if config.lexical and "SPARSE_FLOAT_VECTOR" not in offered.vector_types:
        raise ConfigError(
            f"index.lexical: {offered.label} has no sparse vectors, which hold the BM25 weights; set it to false to "
            "search by meaning only, or use Milvus 2.4 or later, or leave index.uri out for Milvus Lite"
        )
    if not offered.users:
        if config.token is not None:
            raise ConfigError(
                f"index.token: {offered.label} has no users; remove the token or set index.uri to a server"
            )
        if config.uri is not None and config.uri.startswith("https://"):
            raise ConfigError(f"index.uri: {config.uri!r}: {offered.label} has no TLS; use http://")
    _check_layout(config, offered)
    if partitions is not None and partitions > offered.max_partitions:
        raise ConfigError(
            f"buckets: {partitions} partitions, but a collection of {offered.label} holds {offered.max_partitions}; "
            "lower buckets"
        )
    check_params(config, lite=offered.kind == "lite", label=offered.label)
    if not offered.own_params:
        check_filled(config, offered.label)


def _check_layout(config: IndexConfig, offered: Capabilities) -> None:
    if config.vector_type not in offered.vector_types:
        # 2.3.5 takes such vectors without an error, and answers a single question with wrong rows.
        raise ConfigError(
            f"index.vector_type: {offered.label} has no {config.vector_type}; leave it out for FLOAT_VECTOR, or use a "
            "server of Milvus 2.4 or later"
        )
    for key in ("shards", "replicas", "resource_groups"):
        if getattr(config, key) and not offered.placement:
            raise ConfigError(
                f"index.{key}: {offered.label} keeps one copy in one process; remove it, or set index.uri to a server"
            )
    if config.bulk_import is not None and not offered.bulk_import:
        raise ConfigError(
            f"index.bulk_import: {offered.label} imports no Parquet files; remove it, or use a server of Milvus 2.3.4 "
            "or later"
        )
    if config.mmap and not offered.mmap:
        raise ConfigError(
            f"index.mmap: {offered.label} does not map single collections from disk; set it to false, or use a server "
            "of Milvus 2.4 or later"
        )


def _lite(version: Version) -> Capabilities:
    return Capabilities(
        kind="lite",
        version=version,
        index_types=_LITE_INDEXES,
        scalar_index_types=frozenset({"INVERTED"}),
        vector_types=frozenset({"FLOAT_VECTOR", "SPARSE_FLOAT_VECTOR"}),
        users=False,
        partition_load=False,
        filter_templates=False,
        placement=False,
        bulk_import=False,
        mmap=False,
        own_params=True,
        concurrent_writers=False,
        max_partitions=1024,  # no limit of its own; each is a folder that every flush looks into
    )


def _since(table: tuple[tuple[Version, frozenset[str]], ...], version: Version) -> frozenset[str]:
    return frozenset().union(*(names for since, names in table if version >= since))
