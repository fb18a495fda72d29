"""In-process index of the vector table's keys: where, in which file and row, the vector of a text hash is.

Only the key column is read (32 bytes a row against 1,536 of a 384-dimensional vector), and each file only once: Delta
files never change, so a new table version costs reading the files it added.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

KEY_BYTES: Final = 32  # length of every digest of `rag_core.ids`
KeyArray = np.ndarray  # (n,) S32


def as_keys(hashes: "pa.Array | pa.ChunkedArray | list[str]") -> KeyArray:
    """Return text hashes as an (n,) array of fixed-width bytes.

    Raises:
        ValueError: A hash is null or is not 32 characters of ASCII.
    """
    array = pa.array(hashes, pa.string()) if isinstance(hashes, list) else hashes
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    try:
        fixed = array.cast(pa.binary()).cast(pa.binary(KEY_BYTES))
    except pa.ArrowInvalid as error:
        raise ValueError(f"a text hash has {KEY_BYTES} characters: {error}") from error
    if fixed.null_count:
        raise ValueError("a text hash is null")
    data = fixed.buffers()[1]
    if not len(fixed) or data is None:
        return np.empty(0, f"S{KEY_BYTES}")
    return np.frombuffer(data, f"S{KEY_BYTES}", count=len(fixed), offset=fixed.offset * KEY_BYTES)


@dataclass(frozen=True)
class Location:
    """Where the found keys are: parallel arrays, sorted by file and row.

    Attributes:
        asked: (n,) positions in the array of keys that was asked for.
        fragment: (n,) numbers of fragments, into `KeyIndex.fragments`.
        row: (n,) rows inside their fragment.
    """

    asked: np.ndarray
    fragment: np.ndarray
    row: np.ndarray


class KeyIndex:
    """Sorted keys of one model's vectors at one table version; 44 bytes a vector."""

    def __init__(self) -> None:
        self.fragments: list[pads.ParquetFileFragment] = []
        self._keys_of_path: dict[str, KeyArray] = {}
        self._keys: KeyArray = np.empty(0, f"S{KEY_BYTES}")
        self._fragment: np.ndarray = np.empty(0, np.int32)
        self._row: np.ndarray = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def refresh(self, fragments: list[pads.ParquetFileFragment]) -> None:
        """Take over the files of a new table version, reading the keys of those not seen before."""
        added = [fragment for fragment in fragments if fragment.path not in self._keys_of_path]
        kept = {fragment.path for fragment in fragments}
        self._keys_of_path = {path: keys for path, keys in self._keys_of_path.items() if path in kept}
        for fragment in added:
            self._keys_of_path[fragment.path] = as_keys(fragment.to_table(columns=["text_hash"]).column(0))
        self.fragments = fragments
        parts = [self._keys_of_path[fragment.path] for fragment in fragments]
        keys = np.concatenate(parts) if parts else np.empty(0, f"S{KEY_BYTES}")
        number = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
        row = np.concatenate([np.arange(len(part)) for part in parts]) if parts else np.empty(0, np.int64)
        self._keys, first = np.unique(keys, return_index=True)
        self._fragment, self._row = number[first], row[first]

    def contains(self, keys: KeyArray) -> np.ndarray:
        """Return an (n,) bool array: which of the keys have a vector."""
        if not len(self._keys):
            return np.zeros(len(keys), bool)
        position = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        found: np.ndarray = self._keys[position] == keys
        return found

    def locate(self, keys: KeyArray) -> Location:
        """Return where the keys are that have a vector; the others are left out."""
        asked = np.flatnonzero(self.contains(keys))
        position = np.searchsorted(self._keys, keys[asked])
        fragment, row = self._fragment[position], self._row[position]
        order = np.lexsort((row, fragment))
        return Location(asked[order], fragment[order], row[order])
