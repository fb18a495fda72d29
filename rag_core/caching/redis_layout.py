"""How cached results lie in Redis: the names of the keys, and the two scripts that change several keys at once.

rag:STORE:entry:KEY   string      a result or an answer; expires
rag:STORE:doc:DOC     sorted set  keys of the entries that were made of a document, by when they expire
rag:STORE:gone:DOC    string      the document was removed: nothing that was made of it may be kept; expires

A search that began before a removal may end after it, and would then keep what it found. The third kind prevents that
for longer than any request takes.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from rag_core import ids
from rag_core.tables.store import Store

GONE_S: Final = 600
"""How long after a removal nothing that is made of the document is kept; longer than any request takes."""

DOCUMENTS_PER_CALL: Final = 500
"""Documents that one call of `FORGET` is given: scripts hold up all other clients of Redis."""

KEEP: Final = """
for i = 3, #KEYS, 2 do
  if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end
end
local ttl = tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ttl)
for i = 2, #KEYS, 2 do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  redis.call('ZADD', KEYS[i], now + ttl, KEYS[1])
  if redis.call('PTTL', KEYS[i]) < ttl then redis.call('PEXPIRE', KEYS[i], ttl) end
end
return 1
"""
"""Keys: the entry, then for each document its `doc` and its `gone`. Arguments: the value, milliseconds.

Returns 1, or 0 if one of the documents was removed and nothing was kept.
"""

FORGET: Final = """
local forgotten = 0
for i = 1, #KEYS, 2 do
  redis.call('SET', KEYS[i + 1], '1', 'EX', ARGV[1])
  for _, entry in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do
    forgotten = forgotten + redis.call('UNLINK', entry)
  end
  redis.call('UNLINK', KEYS[i])
end
return forgotten
"""
"""Keys: for each document its `doc` and its `gone`. Argument: seconds that `gone` stays.

Returns how many entries were deleted.
"""


def store_id(store: Store) -> str:
    """Name a store in keys that several stores share; whoever names the root alike gets the same."""
    return ids.digest("store", store.root.rstrip("/"))[:12]


class RedisKeys:
    """Names of the keys of one store."""

    def __init__(self, store_id: str) -> None:
        self._prefix = f"rag:{store_id}:"

    def entry(self, key: str) -> str:
        """Return where an entry is."""
        return f"{self._prefix}entry:{key}"

    @property
    def all(self) -> str:
        """Return the pattern of all keys of the store."""
        return f"{self._prefix}*"

    def documents(self, doc_ids: Sequence[str]) -> list[str]:
        """Return `doc` and `gone` of each document, as the scripts want them."""
        return [f"{self._prefix}{kind}:{doc_id}" for doc_id in doc_ids for kind in ("doc", "gone")]

    def in_parts(self, doc_ids: Sequence[str]) -> Iterator[list[str]]:
        """Give `documents` of some documents at a time."""
        for start in range(0, len(doc_ids), DOCUMENTS_PER_CALL):
            yield self.documents(doc_ids[start : start + DOCUMENTS_PER_CALL])
