"""What the documents table knows of a source's objects, as the diff of a listing needs it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pyarrow.compute as pc

from rag_core import ids
from rag_core.parsing.settings import ParseSettings, parser_fingerprint
from rag_core.sources.diff import SeenObject
from rag_core.tables.delta import TableSlice

_COLUMNS = ("partition_key", "object_key", "object_fingerprint", "content_hash", "parser_fingerprint", "status")

# Not the fingerprint of any object or parser: what has it is made again.
_STALE = ""


@dataclass(frozen=True)
class SeenSource:
    """Objects of one source.

    Attributes:
        objects: By key.
        partitions: The partition in which each object was found, by key.
        misplaced: (partition, key) of objects found in another partition than their key says.
    """

    objects: Mapping[str, SeenObject]
    partitions: Mapping[str, str]
    misplaced: frozenset[tuple[str, str]] = frozenset()


def seen_source(
    current: TableSlice, source: str, partition_keys: Collection[str], buckets: int, settings: ParseSettings
) -> SeenSource:
    """Read what is known of the objects of a source in some partitions.

    An object is given as stale, so that it is parsed again, if it lies in another partition than its key says (the
    number of buckets was changed), or if a document of it was rejected under other limits than today's.
    """
    passed, refused = parser_fingerprint(settings), parser_fingerprint(settings, rejected=True)
    table = current.of(*partition_keys).read(list(_COLUMNS), pc.field("source") == source)
    objects: dict[str, SeenObject] = {}
    partitions: dict[str, str] = {}
    misplaced: set[tuple[str, str]] = set()
    for partition, key, fingerprint, content_hash, parser, status in zip(
        *(table[name].to_pylist() for name in _COLUMNS), strict=True
    ):
        belongs = ids.partition_key(source, ids.bucket_of(ids.doc_id(source, key), buckets), buckets)
        is_current = parser == (refused if status == "rejected" else passed) and partition == belongs
        if key not in objects or not is_current:
            objects[key] = SeenObject(fingerprint, content_hash, passed if is_current else _STALE)
        partitions[key] = partition
        if partition != belongs:
            misplaced.add((partition, key))
    return SeenSource(objects, partitions, frozenset(misplaced))
