"""What looks leave in the store, under `work/looks/<source>/`, so that a crash at any time neither loses nor doubles.

    current.json        the newest finished look: its number, when the newest complete listing began, its files
    state-N.npz         the snapshot of look N, and what was unsettled
    pending.arrow       changes of a look that is decided but not finished: `recover` finishes it
    partial.npz         a listing that is to be continued

A look that found changes writes state-N, then pending; from then on it is decided. It appends the changes to the table,
points current.json to state-N, and removes pending. Appending the same changes again does no harm: see `changes`.

Looks of one machine keep apart by a locked file, from beginning to end. Those of several machines that share a store
in S3 list side by side; a lease keeps apart what they write, and a look that was overtaken meanwhile writes nothing.
"""

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from rag_core.errors import TransientError
from rag_core.faults import crash_point
from rag_core.freshness.changes import TABLE as CHANGES
from rag_core.freshness.changes import append_changes
from rag_core.freshness.snapshot import Snapshot, Unsettled
from rag_core.index.lite_files import locked
from rag_core.tables.delta import ensure_table
from rag_core.tables.files import list_folder, read_file, remove_file, write_file
from rag_core.tables.locks import LEASE_S, Held, exclusive
from rag_core.tables.store import Store

# Where a write costs money, that nothing changed is only written this often; the sensor's cursor knows it anyway.
_REMOTE_NOTE_EVERY: Final = timedelta(seconds=60)

_LEASE_WAIT_S: Final = LEASE_S + 5.0  # that of a process which was killed ends by then

_UNREADABLE: Final = (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile)
"""What NumPy raises where a file is empty, cut off or something else: the machine lost power while it was written."""


@dataclass(frozen=True)
class LookState:
    """What is known after a look.

    Attributes:
        look: Its number; looks that find nothing have none.
        looked_at: When the newest complete listing began.
        settings: Digest of what decides which objects the source has.
        buckets: Partitions of the source.
        snapshot: Its objects.
        unsettled: What is still being written.
    """

    look: int
    looked_at: datetime
    settings: str
    buckets: int
    snapshot: Snapshot
    unsettled: Unsettled


class OvertakenError(TransientError):
    """Another machine looked at the source meanwhile."""


class LookFiles:
    """The files of one source."""

    def __init__(self, store: Store, source: str) -> None:
        self._store = store
        self._source = source
        self._seen: dict[str, Any] | None = None
        self._lock = store.local_path("work", "looks", f"{source}.lock")
        self._folder = f"work/looks/{source}"

    @contextmanager
    def locked(self, timeout_s: float) -> Iterator[bool]:
        """Keep other processes of this machine from looking; False: one did, all the time."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        lock = locked(self._lock, timeout_s=timeout_s)
        try:
            lock.__enter__()
        except TransientError:
            yield False
            return
        try:
            yield True
        finally:
            lock.__exit__(None, None, None)

    def recover(self) -> LookState | None:
        """Finish what a process began that ended too early, and return the state; None: there was no look yet.

        A state that cannot be read, or that is older than the table of changes, counts as none: the next look is a
        first one.
        """
        if self._get("pending.arrow") is not None:
            with self._writing_alone() as held:
                self._finish_pending(held)
        note = self._seen = self._note()
        if note is None or note["table"] != self._table_id():
            return None
        data = self._get(note["state"])
        if data is None:
            return None
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                snapshot = Snapshot(arrays["object_ids"], arrays["states"])
                unsettled = arrays["unsettled"]
        except _UNREADABLE:
            return None
        looked_at = datetime.fromisoformat(note["looked_at"])
        return LookState(note["look"], looked_at, note["settings"], note["buckets"], snapshot, unsettled)

    def write(self, state: LookState, changes: pa.Table) -> None:
        """Append the changes of a look and make its state the current one. After a crash, `recover` does the rest.

        Raises:
            OvertakenError: Another machine's look was faster; nothing was written.
        """
        with self._writing_alone() as held:
            self._write(state, changes, held)

    @contextmanager
    def _writing_alone(self) -> Iterator[Held]:
        if self._store.is_local:  # `locked` is held
            yield Held()
            return
        with exclusive(self._store, f"looks/{self._source}", timeout_s=_LEASE_WAIT_S) as held:
            yield held

    def _finish_pending(self, held: Held) -> None:
        pending = self._get("pending.arrow")
        if pending is None:
            return
        try:
            with pa.ipc.open_file(pending) as file:
                changes, note = file.read_all(), json.loads(file.schema.metadata[b"look"])
        except pa.ArrowInvalid:  # the machine lost power; the look was not finished and is done again
            self._remove("pending.arrow")
            return
        before = self._note() or {}
        is_done = all(before.get(name) == note[name] for name in ("look", "table", "state"))
        self._finish(changes, note, held, is_done=is_done)

    def _write(self, state: LookState, changes: pa.Table, held: Held) -> None:
        if not self._store.is_local and _key(self._note()) != _key(self._seen):
            raise OvertakenError(f"source {self._source!r}: another machine looked at it meanwhile")
        name = f"state-{state.look}.npz"
        buffer = io.BytesIO()
        snapshot = state.snapshot
        np.savez(buffer, object_ids=snapshot.object_ids, states=snapshot.states, unsettled=state.unsettled)
        self._put(name, buffer.getbuffer())
        crash_point("look.before_pending")
        note = {**_note_of(state), "state": name, "table": self._table_id()}
        if changes.num_rows:
            schema = changes.schema.with_metadata({b"look": json.dumps(note).encode()})
            sink = pa.BufferOutputStream()
            with pa.ipc.new_file(sink, schema) as writer:
                writer.write_table(changes.cast(schema))
            held.check()
            self._put("pending.arrow", sink.getvalue())
        crash_point("look.before_append")
        self._finish(changes, note, held)

    def note_unchanged(self, state: LookState, looked_at: datetime) -> None:
        """Keep when a look that found nothing began; it is what later changes cannot be older than."""
        if self._store.is_local or looked_at - state.looked_at >= _REMOTE_NOTE_EVERY:
            with self._writing_alone():
                now = self._note() or {}
                if self._store.is_local or _key(now) == _key(self._seen):
                    self._put("current.json", json.dumps({**now, "looked_at": looked_at.isoformat()}).encode())

    def read_partial(self) -> tuple[Mapping[str, Any], dict[str, Any]] | None:
        """Return arrays and facts of `write_partial`; None if there are none."""
        data = self._get("partial.npz")
        if data is None:
            return None
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}, json.loads(arrays["facts"].tobytes())
        except _UNREADABLE:
            return None

    def write_partial(self, arrays: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Keep a listing that is to be continued, in place of any other."""
        buffer = io.BytesIO()
        np.savez(buffer, **arrays, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8))
        self._put("partial.npz", buffer.getbuffer())

    def remove_partial(self) -> None:
        """Forget such a listing."""
        self._remove("partial.npz")

    def forget(self) -> None:
        """Remove all files of the source: the next look is a first one."""
        for info in list_folder(self._store, self._folder):
            self._remove(info.base_name)

    def _finish(self, changes: pa.Table, note: Mapping[str, Any], held: Held, *, is_done: bool = False) -> None:
        """Do, perhaps again, what follows once a look is decided; all but cleaning may be done."""
        if not is_done:
            append_changes(self._store, changes)
            crash_point("look.before_pointer")
            held.check()
            self._put("current.json", json.dumps(note).encode())
        crash_point("look.before_cleaning")
        self._remove("pending.arrow")
        for info in list_folder(self._store, self._folder):
            if info.base_name.startswith("state-") and info.base_name != note["state"]:
                self._remove(info.base_name)

    def _table_id(self) -> str:
        """Identify the table of changes: what was seen counts for nothing where what was recorded of it is gone."""
        return str(ensure_table(self._store, CHANGES).metadata().id)

    def _note(self) -> dict[str, Any] | None:
        data = self._get("current.json")
        try:
            note = None if data is None else json.loads(data)
        except ValueError:
            return None
        return note if isinstance(note, dict) else None

    def _get(self, name: str) -> bytes | None:
        return read_file(self._store, f"{self._folder}/{name}")

    def _put(self, name: str, data: "bytes | memoryview | pa.Buffer") -> None:
        """Write a file so that it is seen whole or not at all."""
        write_file(self._store, f"{self._folder}/{name}", data)

    def _remove(self, name: str) -> None:
        remove_file(self._store, f"{self._folder}/{name}")


def _key(note: Mapping[str, Any] | None) -> tuple[Any, ...]:
    """Return what tells one look from another, whenever it was last noted."""
    return () if note is None else tuple(note.get(name) for name in ("look", "table", "state"))


def _note_of(state: LookState) -> dict[str, Any]:
    return {
        "look": state.look,
        "looked_at": state.looked_at.isoformat(),
        "settings": state.settings,
        "buckets": state.buckets,
    }
