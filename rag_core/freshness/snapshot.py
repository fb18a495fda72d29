"""What a look saw: which objects a source has, and in which state. Pure arrays; files are in `look_files`.

An object takes 24 bytes: 16 of its id, 8 of a hash of its fingerprint. Keys and times are not kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rag_core import ids

Ids = NDArray[np.bytes_]
"""Object ids of 16 bytes, dtype S16. Zero bytes at an end are not lost in comparisons: all ids are equally long."""

ID: Final = np.dtype("S16")
NO_TIME: Final = np.iinfo(np.int64).min
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_us(time: datetime | None) -> int:
    """Return microseconds since 1970, exactly; NO_TIME for None."""
    return NO_TIME if time is None else (time - _EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime | None:
    """Return the time of `to_us`."""
    return None if microseconds == NO_TIME else _EPOCH + timedelta(microseconds=int(microseconds))


def ids_of(source: str, keys: Iterable[str]) -> Ids:
    """Return the ids of objects, in order."""
    return np.frombuffer(ids.root_doc_ids(source, keys), ID)


def ids_from_hex(texts: Iterable[str]) -> Ids:
    """Return ids that are written as in the tables, in order."""
    return np.frombuffer(bytes.fromhex("".join(texts)), ID)


def ids_to_hex(object_ids: Ids) -> list[str]:
    """Write ids as in the tables."""
    text = np.ascontiguousarray(object_ids).tobytes().hex()  # an element of S16 would lose zero bytes at its end
    width = 2 * ID.itemsize
    return [text[start : start + width] for start in range(0, len(text), width)]


def states_of(fingerprints: Iterable[str]) -> NDArray[np.uint64]:
    """Hash fingerprints to 64 bits: another state means that the documents stage would parse the object again."""
    digests = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in fingerprints)
    return np.frombuffer(digests, "<u8")


def buckets_of(object_ids: Ids, buckets: int) -> NDArray[np.int32]:
    """Return the bucket of each object, as `ids.bucket_of`: by the first 60 bits of its id."""
    first = np.ascontiguousarray(object_ids).view(">u8")[::2]
    return ((first.astype(np.uint64) >> np.uint64(4)) % np.uint64(buckets)).astype(np.int32)


def locate(sorted_ids: Ids, wanted: Ids) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Find ids among sorted ones: the place of each, and whether it is there; the place of those that are not is 0."""
    if not len(sorted_ids):
        return np.zeros(len(wanted), np.intp), np.zeros(len(wanted), np.bool_)
    places = np.minimum(np.searchsorted(sorted_ids, wanted), len(sorted_ids) - 1)
    found = sorted_ids[places] == wanted
    return np.where(found, places, 0), found


@dataclass(frozen=True)
class Snapshot:
    """The objects of a source.

    Attributes:
        object_ids: Sorted, each once.
        states: Of each, `states_of` its fingerprint.
    """

    object_ids: Ids
    states: NDArray[np.uint64]

    @classmethod
    def empty(cls) -> "Snapshot":
        """Return a snapshot of nothing."""
        return cls(np.empty(0, ID), np.empty(0, np.uint64))

    def __len__(self) -> int:
        return len(self.object_ids)

    def changed(self, keep: NDArray[np.bool_], new_ids: Ids, new_states: NDArray[np.uint64]) -> "Snapshot":
        """Return this snapshot with some objects left out, and others put in or given another state.

        Args:
            keep: Of each object here, whether it stays.
            new_ids: Ids of objects, each once, in any order.
            new_states: Their states.
        """
        places, known = locate(self.object_ids, new_ids)
        states = self.states.copy()
        states[places[known]] = new_states[known]
        keep = keep.copy()
        keep[places[known]] = True
        all_ids = np.concatenate([self.object_ids[keep], new_ids[~known]])
        all_states = np.concatenate([states[keep], new_states[~known]])
        if known.all():
            return Snapshot(all_ids, all_states)
        order = np.argsort(all_ids)
        return Snapshot(all_ids[order], all_states[order])

    def counts(self, buckets: int) -> list[int]:
        """Count objects by bucket."""
        return [int(count) for count in np.bincount(buckets_of(self.object_ids, buckets), minlength=buckets)]


UNSETTLED: Final = np.dtype(
    [("object_id", ID), ("state", "<u8"), ("state_since", "<i8"), ("since", "<i8"), ("not_before", "<i8")]
)
"""Objects that are being written: the state that was seen last and since when it is the same, since when they are
unsettled, and the start of the last look that did not show the change (NO_TIME: there was none). Times by `to_us`."""

Unsettled = NDArray[np.void]
"""Rows of UNSETTLED, sorted by object_id."""


@dataclass(frozen=True)
class Settling:
    """Which of some changed objects are left to be written to their end.

    Attributes:
        held: Of each, whether it is left.
        not_before: Of each, the start of the last look that did not show the change.
        unsettled: The rows of those that are left.
    """

    held: NDArray[np.bool_]
    not_before: NDArray[np.int64]
    unsettled: Unsettled


def settle(
    found: NDArray[np.void], before: Unsettled, *, looked_at: int, settle_s: float, settle_max_s: float
) -> Settling:
    """Decide which changed objects are left for a later look.

    An object is left while it is younger than `settle_s`. A time in the future says nothing, so what was seen in the
    same state for that long is settled too; and what never settles is taken after `settle_max_s`.

    Args:
        found: Structured rows with `object_id`, `state`, `modified_at` and `listed_at`.
        before: What was left by the look before.
        looked_at: Start of the look before, or NO_TIME.
        settle_s: See `FreshnessConfig`.
        settle_max_s: See `FreshnessConfig`.
    """
    rest_us, most_us = int(settle_s * 1e6), int(settle_max_s * 1e6)
    places, known = locate(before["object_id"], found["object_id"])
    listed_at = found["listed_at"]

    def earlier(column: str, otherwise: Any) -> NDArray[np.int64]:
        return np.where(known, before[column][places], otherwise) if len(before) else np.full(len(found), otherwise)

    since = earlier("since", listed_at)
    not_before = earlier("not_before", looked_at)
    is_same = known & (earlier("state", 0) == found["state"])
    state_since = np.where(is_same, earlier("state_since", listed_at), listed_at)
    is_young = (found["modified_at"] != NO_TIME) & (found["modified_at"] > listed_at - rest_us)
    is_rested = is_same & (listed_at - state_since >= rest_us)
    held = is_young & ~is_rested & (listed_at - since < most_us) & (rest_us > 0)
    unsettled = np.empty(int(held.sum()), UNSETTLED)
    columns: Sequence[NDArray[Any]] = (found["object_id"], found["state"], state_since, since, not_before)
    for name, column in zip(UNSETTLED.names or (), columns, strict=True):
        unsettled[name] = column[held]
    return Settling(held, not_before, unsettled[np.argsort(unsettled["object_id"])])
