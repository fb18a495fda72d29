"""What a cache is to the rest of the service, and which one the configuration asks for."""

from collections.abc import Sequence
from typing import Protocol

from rag_core.config_base import MIB
from rag_core.config_serving import CacheConfig
from rag_core.errors import ConfigError
from serving.observability.metrics import Metrics


class Cache(Protocol):
    """Keeps bytes for a while. A cache that fails is one that has nothing: no method raises.

    Keys name all that a value depends on, the version of the index among it, so a value is never wrong for its key.
    What was made of a document that was removed is nevertheless forgotten: it must not be kept at all.
    """

    async def get(self, key: str) -> bytes | None:
        """Return what is kept, or None."""

    async def set(self, key: str, value: bytes, *, ttl_s: float, doc_ids: Sequence[str] = ()) -> None:
        """Keep a value.

        Args:
            key: Names all that the value depends on.
            value: What to keep.
            ttl_s: For so long at most; a cache may forget it sooner, or not keep it at all.
            doc_ids: The documents that it was made of. If one of them was forgotten in the last minutes, the value is
                not kept: whoever made it may have begun before.
        """

    async def forget(self, doc_ids: Sequence[str]) -> int:
        """Forget all that was made of any of these documents, and return how many entries that were."""

    async def close(self) -> None:
        """Give back connections."""


class NoCache:
    """Keeps nothing."""

    async def get(self, key: str) -> bytes | None:
        """Return None."""
        return None

    async def set(self, key: str, value: bytes, *, ttl_s: float, doc_ids: Sequence[str] = ()) -> None:
        """Do nothing."""

    async def forget(self, doc_ids: Sequence[str]) -> int:
        """Return 0."""
        return 0

    async def close(self) -> None:
        """Do nothing."""


def make_cache(config: CacheConfig, store_id: str, metrics: Metrics) -> Cache:
    """Make the cache that the configuration asks for.

    Args:
        config: The section `serving.cache`.
        store_id: From `rag_core.caching.redis_layout.store_id`; runs use the same.
        metrics: Failures of Redis are counted there.

    Raises:
        ConfigError: The address of Redis is none.
    """
    if not config.enabled:
        return NoCache()
    if config.redis_url is None:
        from serving.cache.memory import MemoryCache

        return MemoryCache(config.memory_mib * MIB)
    from serving.cache.redis_cache import RedisCache

    try:
        return RedisCache(config.redis_url, store_id, metrics, timeout_s=config.redis_timeout_s)
    except ValueError:
        # Not chained: the cause may quote the address, and with it the password.
        raise ConfigError(
            "serving.cache.redis_url (RAG_SERVING__CACHE__REDIS_URL) is not the address of a Redis; expected one such "
            "as redis://user:password@host:6379/0"
        ) from None
