"""A cache in the process itself, bounded by the bytes that it holds: what was used longest ago goes first."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cachetools import TTLCache

from rag_core.caching.redis_layout import GONE_S

# Of an entry beside its value: the key, the objects, and its places in the dictionaries; counted with sys.getsizeof.
_ENTRY_BYTES: Final = 600
_DOCUMENT_BYTES: Final = 150
_GONE_AT_MOST: Final = 100_000


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    expires_at: float
    doc_ids: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.value) + _ENTRY_BYTES + _DOCUMENT_BYTES * len(self.doc_ids)


class MemoryCache:
    """Keeps entries by key, and knows which of them were made of a document.

    Not built on cachetools' caches: these take entries out in several ways that a subclass does not see, and the index
    by document must lose each of them.
    """

    def __init__(self, max_bytes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._by_document: dict[str, set[str]] = {}
        self._gone: TTLCache[str, None] = TTLCache(_GONE_AT_MOST, GONE_S, timer=clock)
        self.size_bytes = 0

    async def get(self, key: str) -> bytes | None:
        """Return what is kept, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_at <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    async def set(self, key: str, value: bytes, *, ttl_s: float, doc_ids: Sequence[str] = ()) -> None:
        """Keep a value; one that is larger than the whole cache is not kept."""
        self._drop(key)
        entry = _Entry(value, self._clock() + ttl_s, tuple(dict.fromkeys(doc_ids)))
        if entry.size > self._max_bytes or any(doc_id in self._gone for doc_id in entry.doc_ids):
            return
        while self.size_bytes + entry.size > self._max_bytes:
            self._drop(next(iter(self._entries)))
        self._entries[key] = entry
        self.size_bytes += entry.size
        for doc_id in entry.doc_ids:
            self._by_document.setdefault(doc_id, set()).add(key)

    async def forget(self, doc_ids: Sequence[str]) -> int:
        """Forget all that was made of any of these documents, and return how many entries that were."""
        for doc_id in doc_ids:
            self._gone[doc_id] = None
        keys = frozenset[str]().union(*(self._by_document.get(doc_id, ()) for doc_id in doc_ids))
        for key in keys:
            self._drop(key)
        return len(keys)

    async def close(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._by_document.clear()
        self.size_bytes = 0

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self.size_bytes -= entry.size
        for doc_id in entry.doc_ids:
            keys = self._by_document[doc_id]
            keys.discard(key)
            if not keys:
                del self._by_document[doc_id]
