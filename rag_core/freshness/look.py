"""One look at a source: pages of its listing are compared with the snapshot of the look before, as they come.

Only what differs is kept of a page, so memory does not grow with what is unchanged. Pure: nothing is read or written.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from rag_core.freshness.snapshot import ID, Ids, Snapshot, ids_of, locate, states_of, to_us
from rag_core.sources.base import ListedObject

FOUND: Final = np.dtype(
    [("object_id", ID), ("state", "<u8"), ("modified_at", "<i8"), ("listed_at", "<i8"), ("known", "?")]
)
"""Listed objects that are new (not known) or changed; times by `to_us`, NO_TIME where the source tells none."""


class Look:
    """Compares a listing with a snapshot.

    Attributes:
        objects: Objects that were listed so far.
        repeated: A key that was listed twice, which no source may do; empty if none was.
    """

    def __init__(self, source: str, snapshot: Snapshot, *, take_all: bool = False) -> None:
        """Begin a look.

        Args:
            source: Name of the source.
            snapshot: Of the look before.
            take_all: Give every object as changed, even if it is not.
        """
        self.objects = 0
        self.repeated = ""
        self._source = source
        self._snapshot = snapshot
        self._take_all = take_all
        self._seen = np.zeros(len(snapshot), np.bool_)
        self._found: list[NDArray[np.void]] = []
        self._keys: list[str] = []

    def add(self, page: Sequence[ListedObject], listed_at: datetime) -> None:
        """Compare objects; `listed_at` is when their listing began."""
        keys = [item.key for item in page]
        object_ids, states = ids_of(self._source, keys), states_of([item.fingerprint for item in page])
        places, known = locate(self._snapshot.object_ids, object_ids)
        self._note_repeated(places[known], [keys[number] for number in np.flatnonzero(known)])
        differs = ~known | self._take_all
        if len(self._snapshot):
            differs |= self._snapshot.states[places] != states
        numbers = np.flatnonzero(differs)
        rows = np.empty(len(numbers), FOUND)
        rows["object_id"], rows["state"], rows["known"] = object_ids[numbers], states[numbers], known[numbers]
        rows["modified_at"] = [to_us(page[number].modified_at) for number in numbers.tolist()]
        rows["listed_at"] = to_us(listed_at)
        self.objects += len(page)
        self._found.append(rows)
        self._keys += [keys[number] for number in numbers.tolist()]

    @property
    def found(self) -> NDArray[np.void]:
        """New and changed objects, rows of FOUND in the order of the listing."""
        self._found = [np.concatenate([np.empty(0, FOUND), *self._found])]
        return self._found[0]

    @property
    def keys(self) -> Sequence[str]:
        """The keys of `found`."""
        return self._keys

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Of each object of the snapshot, whether it was listed."""
        return self._seen

    @property
    def gone(self) -> Ids:
        """Ids of the objects of the snapshot that were not listed."""
        return self._snapshot.object_ids[~self._seen]

    def check_new(self) -> None:
        """Look for keys that were listed twice among the new objects too."""
        fresh = np.flatnonzero(~self.found["known"])
        _, first = np.unique(self.found["object_id"][fresh], return_index=True)
        if len(first) < len(fresh):
            twice = np.setdiff1d(np.arange(len(fresh)), first)[0]
            self.repeated = self._keys[fresh[twice]]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was compared so far, to be continued by `continued`."""
        keys = np.frombuffer(orjson.dumps(self._keys), np.uint8)
        return {"seen": np.packbits(self._seen), "found": self.found, "keys": keys, "objects": np.array(self.objects)}

    @classmethod
    def continued(
        cls, source: str, snapshot: Snapshot, arrays: Mapping[str, NDArray[Any]], *, take_all: bool = False
    ) -> "Look":
        """Go on with a look; the snapshot must be the one that it began with."""
        look = cls(source, snapshot, take_all=take_all)
        look.objects = int(arrays["objects"])
        look._seen = np.unpackbits(arrays["seen"], count=len(snapshot)).astype(np.bool_)
        look._found = [arrays["found"]]
        look._keys = orjson.loads(arrays["keys"].tobytes())
        return look

    def _note_repeated(self, places: NDArray[np.intp], keys: Sequence[str]) -> None:
        again = self._seen[places]
        if again.any():
            self.repeated = keys[int(np.argmax(again))]
        self._seen[places] = True
        _, first = np.unique(places, return_index=True)
        if len(first) < len(places):
            self.repeated = keys[int(np.setdiff1d(np.arange(len(places)), first)[0])]
