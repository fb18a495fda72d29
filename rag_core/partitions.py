"""Partition keys: source and hash bucket, flat and static. How documents are spread over them is decided here only."""

from collections.abc import Iterable

from rag_core import ids
from rag_core.config import RagConfig

# Dagster's UI slows down from here (dagster issue 33456).
MAX_PARTITIONS = 25_000


def all_partition_keys(config: RagConfig) -> list[str]:
    """Return every partition key, source by source in the order of the configuration, buckets ascending.

    The buckets of one source are contiguous, so that a range of keys is a source.
    """
    return [key for source in config.sources for key in partition_keys_of(config, source.name)]


def partition_keys_of(config: RagConfig, source_name: str) -> list[str]:
    """Return the partition keys of one source, buckets ascending."""
    buckets = config.buckets_of(config.source(source_name))
    return [ids.partition_key(source_name, bucket, buckets) for bucket in range(buckets)]


def source_of(partition_key: str) -> str:
    """Return the source's name in a partition key."""
    return partition_key.rsplit("__", 1)[0]


def keys_by_source(config: RagConfig, partition_keys: Iterable[str]) -> dict[str, list[str]]:
    """Group partition keys by source.

    Raises:
        KeyError: A key names a source or bucket that the configuration does not have.
    """
    grouped: dict[str, list[str]] = {}
    for key in partition_keys:
        grouped.setdefault(source_of(key), []).append(key)
    for name, keys in grouped.items():
        unknown = sorted(set(keys) - set(partition_keys_of(config, name)))
        if unknown:
            raise KeyError(f"no such partition of source {name}: {', '.join(unknown)}")
    return grouped
