"""From a finished comparison to what is recorded of it: the changes, and the state that the next look begins with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rag_core import ids
from rag_core.config import FilesSource, RagConfig, SourceConfig
from rag_core.freshness.change_rows import Scene, change_rows, keys_in_documents, objects_in_documents
from rag_core.freshness.changes import load_changes
from rag_core.freshness.look import Look
from rag_core.freshness.look_files import LookState
from rag_core.freshness.shrink import shrink_message
from rag_core.freshness.snapshot import (
    UNSETTLED,
    Ids,
    Snapshot,
    ids_from_hex,
    ids_of,
    ids_to_hex,
    locate,
    settle,
    states_of,
    to_us,
)
from rag_core.partitions import partition_keys_of
from rag_core.tables.store import Store

# What does not decide which objects a source has.
_OTHER_SETTINGS: Final = {"objective", "chunking", "principals", "max_bytes", "buckets", "events"}


class ToldChange(Protocol):
    """What an event says of an object; `rag_core.sources.s3_messages.Event` is one."""

    @property
    def object_key(self) -> str:
        """Key inside the source."""
        ...

    @property
    def fingerprint(self) -> str | None:
        """As a listing gives it; None: the object was removed."""
        ...

    @property
    def event_time(self) -> datetime:
        """When it happened, UTC."""
        ...


@dataclass(frozen=True)
class Before:
    """A source as the look before left it, and as it is configured.

    Attributes:
        store: Holds tables and state.
        config: The configuration.
        source: That of the source.
        state: What the look before left; None: this is the first look.
        looked_at: When the newest complete listing began, as far as anybody knows; None: there was none.
    """

    store: Store
    config: RagConfig
    source: SourceConfig
    state: LookState | None
    looked_at: datetime | None

    @property
    def snapshot(self) -> Snapshot:
        """Objects of the look before."""
        return Snapshot.empty() if self.state is None else self.state.snapshot

    @property
    def partition_keys(self) -> list[str]:
        """The partitions of the source, by bucket."""
        return partition_keys_of(self.config, self.source.name)

    @property
    def settings(self) -> str:
        """Digest of what decides which objects the source has."""
        return ids.fingerprint(self.source.model_dump(mode="json", exclude=_OTHER_SETTINGS))

    @property
    def is_moved(self) -> bool:
        """Whether objects belong to other partitions than at the look before, because `buckets` was changed."""
        return self.state is not None and self.state.buckets != len(self.partition_keys)

    @property
    def can_settle(self) -> bool:
        """Whether objects are left to settle.

        Only files are written in place; records, days and S3 objects are whole when they appear. And where all objects
        are recorded because all belong to other partitions, the next look would not give those that were left again.
        """
        return isinstance(self.source, FilesSource) and not self.is_moved

    @property
    def is_configured_alike(self) -> bool:
        """Whether what the source shows now can be compared with the look before; else differences are not counted."""
        return self.state is not None and self.state.settings == self.settings and not self.is_moved

    def next_look(self) -> int:
        """Return the number of the next look that finds something."""
        if self.state is not None:
            return self.state.look + 1
        return int(pc.max(load_changes(self.store, source=self.source.name)["look"]).as_py() or 0) + 1


@dataclass(frozen=True)
class Conclusion:
    """What a look found.

    Attributes:
        changes: Rows of `source_changes`.
        state: What the next look begins with.
        is_news: Whether changes or state are to be written.
    """

    changes: pa.Table
    state: LookState
    is_news: bool


def implausible(before: Before, look: Look) -> str | None:
    """Say why so much of the source cannot be gone; None if it can."""
    known = len(before.snapshot) if before.state is not None else len(_known_documents(before))
    return shrink_message(before.source, known, len(_gone(before, look)), before.config.freshness)


def conclude(before: Before, look: Look, *, started_at: datetime, seen_at: datetime) -> Conclusion:
    """Conclude a complete listing that began and ended at these times."""
    limits, looked_at = before.config.freshness, to_us(before.looked_at if before.state is not None else None)
    unsettled = before.state.unsettled if before.state is not None else np.empty(0, UNSETTLED)
    found = look.found
    settling = settle(
        found,
        unsettled,
        looked_at=looked_at,
        settle_s=limits.settle_s if before.can_settle else 0.0,
        settle_max_s=limits.settle_max_s,
    )
    taken = np.flatnonzero(~settling.held).tolist()
    rows, gone = found[taken], _gone(before, look)
    scene = Scene(before.partition_keys, before.next_look(), seen_at, before.is_configured_alike)
    tables = [
        change_rows(
            scene,
            np.where(rows["known"], "changed", "new").tolist(),
            rows["object_id"],
            keys=[look.keys[number] for number in taken],
            states=rows["state"],
            times=rows["modified_at"],
            not_before=settling.not_before[taken],
        )
    ]
    if len(gone):
        tables.append(_deleted(before, scene, gone, np.full(len(gone), looked_at)))
    if before.is_moved:
        tables.append(_left(before, scene, rows, [look.keys[number] for number in taken]))
    state = LookState(
        look=scene.look,
        looked_at=started_at,
        settings=before.settings,
        buckets=len(scene.partition_keys),
        snapshot=before.snapshot.changed(look.seen, rows["object_id"], rows["state"]),
        unsettled=settling.unsettled,
    )
    changes = pa.concat_tables(tables)
    is_news = (
        bool(changes.num_rows) or not before.is_configured_alike or settling.unsettled.tobytes() != unsettled.tobytes()
    )
    return Conclusion(changes, state, is_news)


def conclude_told(before: Before, events: Sequence[ToldChange], *, seen_at: datetime) -> Conclusion:
    """Conclude what events say, each of another object; the source must have been listed before."""
    state = before.state
    assert state is not None
    object_ids = ids_of(before.source.name, (event.object_key for event in events))
    removed = np.array([event.fingerprint is None for event in events], np.bool_)
    states = states_of(event.fingerprint or "" for event in events)
    places, known = locate(state.snapshot.object_ids, object_ids)
    is_same = known & (state.snapshot.states[places] == states) if len(state.snapshot) else known
    differs = np.flatnonzero(np.where(removed, known, ~is_same)).tolist()
    scene = Scene(before.partition_keys, before.next_look(), seen_at, counted=True)
    kinds = np.where(removed, "deleted", np.where(known, "changed", "new"))[differs]
    changes = change_rows(
        scene,
        kinds.tolist(),
        object_ids[differs],
        keys=[events[number].object_key for number in differs],
        states=np.where(removed, np.uint64(0), states)[differs],
        times=np.array([to_us(events[number].event_time) for number in differs], np.int64),
        not_before=np.full(len(differs), to_us(before.looked_at)),
        told=True,
    )
    keep = np.ones(len(state.snapshot), np.bool_)
    keep[places[known & removed]] = False
    snapshot = state.snapshot.changed(keep, object_ids[~removed], states[~removed])
    unsettled = state.unsettled[~np.isin(state.unsettled["object_id"], object_ids)]
    return Conclusion(
        changes, replace(state, look=scene.look, snapshot=snapshot, unsettled=unsettled), bool(changes.num_rows)
    )


def _known_documents(before: Before) -> Ids:
    return ids_from_hex(objects_in_documents(before.store, before.source.name))


def _gone(before: Before, look: Look) -> Ids:
    """Return the objects that are known and were not listed; before the first look, the documents are what is known."""
    if before.state is not None:
        return look.gone
    known = _known_documents(before)
    return known[~np.isin(known, look.found["object_id"])]


def _deleted(before: Before, scene: Scene, gone: Ids, not_before: NDArray[np.int64]) -> pa.Table:
    keys = keys_in_documents(before.store, scene.partition_keys, gone)
    return change_rows(scene, ["deleted"] * len(gone), gone, keys=keys, not_before=not_before)


def _left(before: Before, scene: Scene, rows: NDArray[Any], keys: Sequence[str]) -> pa.Table:
    """Make the partitions that objects left dirty too, as far as they still are partitions: their rows must go."""
    assert before.state is not None
    names, number = ids_to_hex(rows["object_id"]), before.state.buckets
    old = [ids.partition_key(before.source.name, ids.bucket_of(name, number), number) for name in names]
    existing: Mapping[str, int] = {key: bucket for bucket, key in enumerate(scene.partition_keys)}
    moved = [
        at
        for at, (name, key) in enumerate(zip(names, old, strict=True))
        if key in existing and existing[key] != ids.bucket_of(name, len(existing))
    ]
    return change_rows(
        scene,
        ["changed"] * len(moved),
        rows["object_id"][moved],
        keys=[keys[at] for at in moved],
        states=rows["state"][moved],
        not_before=np.full(len(moved), to_us(before.looked_at)),
        partitions=[old[at] for at in moved],
    )
