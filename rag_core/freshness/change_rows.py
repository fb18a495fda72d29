"""Rows of `source_changes`, from what a look found: when each object changed at the latest, and how that is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rag_core import ids
from rag_core.freshness.snapshot import NO_TIME, Ids, buckets_of, ids_to_hex, to_us
from rag_core.partitions import source_of
from rag_core.schemas import SOURCE_CHANGES, TIMESTAMP
from rag_core.tables.delta import TableSlice, in_set
from rag_core.tables.store import Store

_NO_STATE: Final = np.uint64(0)


@dataclass(frozen=True)
class Scene:
    """What all changes of a look share.

    Attributes:
        partition_keys: Those of the source, by bucket.
        look: Its number.
        seen_at: When all of it had been listed: a listing that begins later shows its changes too.
        counted: Whether the objective counts them.
    """

    partition_keys: Sequence[str]
    look: int
    seen_at: datetime
    counted: bool


def change_rows(
    scene: Scene,
    kinds: Sequence[str],
    object_ids: Ids,
    *,
    keys: Sequence[str | None],
    states: NDArray[np.uint64] | None = None,
    times: NDArray[np.int64] | None = None,
    not_before: NDArray[np.int64],
    partitions: Sequence[str] | None = None,
    told: bool = False,
) -> pa.Table:
    """Make rows of `source_changes`.

    Args:
        scene: The look.
        kinds: Of each object: new, changed or deleted.
        object_ids: The objects.
        keys: Their keys; None where the key is not known any more.
        states: What they changed to; None for deleted ones.
        times: When the source says that they changed, by `to_us`; None: it says it of none.
        not_before: Start of the last look that did not show the change, or NO_TIME.
        partitions: Of each object; None: the one that it belongs to.
        told: The times are of events: they say when something happened, so they hold also before `not_before`.
    """
    seen_at, size = to_us(scene.seen_at), len(object_ids)
    floor = np.where(not_before == NO_TIME, NO_TIME, np.minimum(not_before, seen_at))
    claimed = np.full(size, NO_TIME) if times is None else times
    if told:
        floor = np.minimum(floor, claimed)
    worst = np.where(floor == NO_TIME, seen_at, floor)
    changed_at = np.where(claimed == NO_TIME, worst, np.clip(claimed, floor, seen_at))
    stands = (claimed != NO_TIME) & (claimed == changed_at)
    if partitions is None:
        buckets = pa.array(buckets_of(object_ids, len(scene.partition_keys)))
        partitions = pa.array(scene.partition_keys, pa.string()).take(buckets).to_pylist()
    names = ids_to_hex(object_ids)
    becomes = np.full(size, _NO_STATE) if states is None else states
    parts = zip(partitions, names, kinds, becomes.tolist(), strict=True)
    look = str(scene.look)
    columns: dict[str, Any] = {
        "change_id": [ids.digest("change", key, name, look, kind, str(state)) for key, name, kind, state in parts],
        "source": pa.repeat(source_of(scene.partition_keys[0]), size),
        "partition_key": pa.array(partitions, pa.string()),
        "object_id": pa.array(names, pa.string()),
        "object_key": pa.array(keys, pa.string()),
        "kind": pa.array(kinds, pa.string()),
        "changed_at": _times(changed_at),
        "basis": np.where(stands, "event" if told else "source", "bound").tolist(),
        "not_before": _times(floor),
        "seen_at": _times(np.full(size, seen_at)),
        "look": pa.repeat(pa.scalar(scene.look, pa.int64()), size),
        "counted": scene.counted & (floor != NO_TIME),
    }
    return pa.table(columns, schema=SOURCE_CHANGES)


def keys_in_documents(store: Store, partition_keys: Sequence[str], object_ids: Ids) -> list[str | None]:
    """Look up the keys of objects among the documents; None where an object never became one."""
    names = ids_to_hex(object_ids)
    documents = TableSlice.newest(store, "documents", partition_keys)
    rows = documents.read(["object_id", "object_key"], in_set("object_id", names))
    known = dict(zip(rows["object_id"].to_pylist(), rows["object_key"].to_pylist(), strict=True))
    return [known.get(name) for name in names]


def objects_in_documents(store: Store, source: str) -> list[str]:
    """Return the ids of all objects of a source that the documents table knows."""
    documents = TableSlice.newest(store, "documents")
    found: list[str] = pc.unique(documents.read(["object_id"], pc.field("source") == source)["object_id"]).to_pylist()
    return found


def _times(microseconds: NDArray[np.int64]) -> pa.Array:
    return pa.array(microseconds, pa.int64(), mask=microseconds == NO_TIME).cast(TIMESTAMP)
