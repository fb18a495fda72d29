"""Anti-entropy: whether a collection holds, partition by partition, what its ledger says; mending is in `mending`.

Two read paths are compared with the ledger: all rows listed by id, and a sample of rows searched by their own vectors.
Only ids and hashes are held in memory, of one partition at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.index import schema
from rag_core.index.client import IndexClient
from rag_core.index.comparison import KINDS, Difference, compare
from rag_core.index.ledger import IDENTITY, LedgerTables
from rag_core.index.self_search import sample, unsearchable
from rag_core.tables.delta import in_set, partition_values

if TYPE_CHECKING:
    from rag_core.stages.publication import Manifest

SAMPLES: Final = 32
"""Rows of a partition that are searched by their own vectors, unless told otherwise."""

_EXAMPLES: Final = 5
_DEFAULT: Final = "_default"  # Milvus's own partition, into which nothing of ours is written
_PAGE: Final = 10_000
_HELD: Final = pa.schema([pa.field(name, pa.string()) for name in IDENTITY])
_EMPTY: Final = _HELD.empty_table()


@dataclass(frozen=True)
class PartitionState:
    """What was found in one partition of a collection.

    Attributes:
        partition_key: Dagster partition; of a partition that nobody knows, its name in Milvus.
        collection: The collection.
        ledger_rows: Rows that the ledger has of it.
        index_rows: Rows that Milvus counts in it, by count(*).
        sampled: Rows that were searched by their own vectors.
        counts: Rows by kind of difference, every kind of `KINDS`.
        examples: A few ids of each kind that occurs.
        is_known: Whether the configuration or the ledger has the partition.
        is_settled: False while a sync of the partition is under way, or one was cut off: it may differ because of that.
    """

    partition_key: str
    collection: str
    ledger_rows: int
    index_rows: int
    sampled: int
    counts: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]]
    is_known: bool = True
    is_settled: bool = True

    @property
    def is_clean(self) -> bool:
        """Whether the partition holds what the ledger says, and is one that somebody knows."""
        return self.is_known and self.ledger_rows == self.index_rows and not any(self.counts.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, and `is_clean`."""
        return {**asdict(self), "is_clean": self.is_clean}


@dataclass(frozen=True)
class Look:
    """One look at a partition: its state, and the differences with all their ids."""

    state: PartitionState
    difference: Difference


def look_at(
    client: IndexClient,
    tables: LedgerTables,
    partition_key: str,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    also: Sequence[str] = (),
    is_known: bool = True,
) -> Look:
    """Compare a partition with the ledger as the tables have it, once.

    Args:
        client: Connected to the Milvus that holds the collection.
        tables: The collection's.
        partition_key: The partition.
        samples: How many rows to search by their own vectors; 0 for none.
        seed: Draws other rows.
        also: Ids that are searched whether drawn or not, if they are in the partition.
        is_known: Kept in the state.
    """
    collection = tables.collection
    ledger = tables.identities(partition_key)
    is_there = client.has_collection(collection)
    # Counted first: an old server lists rows just written only after a read at strong consistency has waited for them.
    count = client.count(collection, partition_key) if is_there else 0
    held = listed_rows(client, collection, partition_key) if is_there else _EMPTY
    listed = pc.unique(held["chunk_id"])
    # A server's listing shows an id that it holds twice once, its count(*) twice.
    doubled = doubled_ids(client, collection, partition_key, sorted(listed.to_pylist())) if count > len(listed) else []
    found = compare(ledger, held, doubled=doubled)
    found = _with_owners(found, tables, partition_key)
    sound = set(ledger["chunk_id"].to_pylist()).difference(found.missing, found.stale, found.duplicated)
    drawn = sorted({*sample(list(sound), samples, seed), *sound.intersection(also)})
    missed, sampled = unsearchable(client, tables, partition_key, drawn) if drawn else ([], 0)
    found = replace(found, unsearchable=tuple(missed))
    state = PartitionState(
        partition_key=partition_key,
        collection=collection,
        ledger_rows=ledger.num_rows,
        index_rows=count,
        sampled=sampled,
        counts={kind: len(found.ids(kind)) for kind in KINDS},
        examples={kind: found.ids(kind)[:_EXAMPLES] for kind in KINDS if found.ids(kind)},
        is_known=is_known,
        is_settled=not tables.journal.is_open(partition_key),
    )
    return Look(state, found)


def verify_partition(
    client: IndexClient,
    tables: LedgerTables,
    partition_key: str,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    is_known: bool = True,
) -> PartitionState:
    """Compare a partition with the ledger, by both read paths.

    A partition that differs is looked at again, with the newest ledger and while nobody writes: a run may have written
    between the reading of the ledger and the listing.

    Raises:
        TransientError: Milvus cannot be reached, or another process wrote for an hour.
    """
    state = look_at(client, tables, partition_key, samples=samples, seed=seed, is_known=is_known).state
    if state.is_clean:
        return state
    with client.write_lock():
        return look_at(client, tables.newest(), partition_key, samples=samples, seed=seed, is_known=is_known).state


def verify(
    client: IndexClient,
    tables: LedgerTables,
    partitions: Mapping[str, bool],
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Iterator[PartitionState]:
    """Compare partitions with the ledger, one after the other.

    Args:
        client: Connected to the Milvus that holds the collection.
        tables: The collection's.
        partitions: Key -> whether it is known, as `partitions_of` returns it.
        samples: How many rows of each to search by their own vectors.
        seed: Draws other rows.

    Yields:
        One state for each partition, in order, as soon as it is known.
    """
    for key, is_known in partitions.items():
        yield verify_partition(client, tables, key, samples=samples, seed=seed, is_known=is_known)


def partitions_of(client: IndexClient, tables: LedgerTables, configured: Sequence[str]) -> dict[str, bool]:
    """List all partitions there are to compare, those that nobody knows last.

    Args:
        client: Connected to the Milvus that holds the collection.
        tables: The collection's; their slices name no partitions.
        configured: Partition keys of the configuration.

    Returns:
        Key -> whether the configuration or a ledger row of the collection has it. A partition that only Milvus has goes
        by its name there. Milvus's own is listed, as known, if somebody wrote rows into it.
    """
    in_ledger = set()
    for key in partition_values(tables.ledger.store, tables.ledger.table, "partition_key"):
        if key in configured or tables.ledger.of(key).count():
            in_ledger.add(key)
    known = [*configured, *sorted(in_ledger.difference(configured))]
    partitions = dict.fromkeys(known, True)
    if not client.has_collection(tables.collection):
        return partitions
    names = {schema.partition_name(key) for key in known}
    partitions |= {name: False for name in client.partitions(tables.collection) if name not in names}
    if client.count(tables.collection, _DEFAULT):
        partitions[_DEFAULT] = True
    return partitions


def alias_finding(client: IndexClient, manifest: "Manifest") -> str | None:
    """Say what is wrong with the alias, or None if it points at the collection that the manifest names."""
    target = client.alias_target(manifest.alias)
    if target == manifest.collection:
        return None
    if not client.has_collection(manifest.collection):
        return f"collection {manifest.collection}, which the manifest names, is not on {client.address}"
    points_at = "does not exist" if target is None else f"points at {target}"
    return f"alias {manifest.alias} {points_at}; the manifest names {manifest.collection}"


def listed_rows(client: IndexClient, collection: str, partition_key: str) -> pa.Table:
    """List a partition: `IDENTITY` of each row, in no particular order, as Arrow from page to page to save memory."""
    rows = client.list_rows(collection, partition_key, IDENTITY[1:])
    batches = []
    while page := list(islice(rows, _PAGE)):
        batches.append(pa.RecordBatch.from_pydict({name: [row[name] for row in page] for name in IDENTITY}, _HELD))
    return pa.Table.from_batches(batches, _HELD)


def doubled_ids(client: IndexClient, collection: str, partition_key: str, ordered: list[str]) -> list[str]:
    """Find the ids of which there is more than one row, by counting: a server lists such an id once.

    Args:
        client: Where to count.
        collection: Its name.
        partition_key: The partition.
        ordered: All ids that it lists, sorted; ranges that hold too many rows are halved until one id is left.
    """

    def rows(some: list[str]) -> int:
        first, last = schema.quoted(some[0]), schema.quoted(some[-1])
        return client.count(collection, partition_key, f"{schema.PRIMARY} >= {first} and {schema.PRIMARY} <= {last}")

    found: list[str] = []
    ranges = [ordered] if ordered else []
    while ranges:
        some = ranges.pop()
        if rows(some) <= len(some):
            continue
        if len(some) == 1:
            found += some
            continue
        middle = len(some) // 2
        ranges += [some[:middle], some[middle:]]
    return found


def _with_owners(found: Difference, tables: LedgerTables, partition_key: str) -> Difference:
    """Tell the copies of other partitions' rows from orphans; no row may stand in two partitions of a collection."""
    if not found.orphaned:
        return found
    whole = replace(tables.ledger, partition_keys=None)
    rows = whole.read(["chunk_id", "partition_key"], in_set("chunk_id", found.orphaned))
    owners = dict(zip(rows["chunk_id"].to_pylist(), rows["partition_key"].to_pylist(), strict=True))
    if not owners:
        return found
    return replace(
        found,
        orphaned=tuple(chunk_id for chunk_id in found.orphaned if chunk_id not in owners),
        duplicated=tuple(sorted({*found.duplicated, *owners})),
        owners=owners,
    )
