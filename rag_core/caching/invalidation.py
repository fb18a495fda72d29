"""How a run tells the cache of the service that documents were removed, before it writes their receipts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from rag_core.caching.redis_layout import FORGET, GONE_S, RedisKeys, store_id
from rag_core.config import RagConfig
from rag_core.errors import TransientError
from rag_core.tables.store import Store

if TYPE_CHECKING:
    from redis import Redis

# A run has more patience than a request of the service: three tries within some seconds.
_TIMEOUT_S: Final = 5.0
_TRIES: Final = 3


class RedisInvalidation:
    """Deletes from Redis what was made of removed documents.

    A Redis that cannot be reached fails the removal, which the next run repeats: it may come back with all that it
    had, so a receipt that it was told would be false, and one without would leave the answers in place. Who gives
    up the cache for good takes `serving.cache.redis_url` away.
    """

    def __init__(self, redis_url: SecretStr, store: Store) -> None:
        self._url = redis_url
        self._keys = RedisKeys(store_id(store))

    def forget(self, doc_ids: Sequence[str]) -> None:
        """Forget all that was made from these documents; returns once it is done. Done again without effect.

        Raises:
            TransientError: Redis cannot be reached, or refuses.
        """
        with self._redis(
            f"was not told of {len(doc_ids)} removed documents",
            "No receipt was written, and the ledger still has them; the next run repeats the removal",
        ) as redis:
            for keys in self._keys.in_parts(doc_ids):
                redis.eval(FORGET, len(keys), *keys, GONE_S)

    def forget_everything(self) -> int:
        """Forget all that was made from the store, and return how many keys there were.

        For a store that was restored: its versions, which results are kept by, begin again where the snapshot was.

        Raises:
            TransientError: Redis cannot be reached, or refuses.
        """
        with self._redis("still has what was made from the store before", "Do this again when it is there") as redis:
            return sum(redis.unlink(key) for key in redis.scan_iter(self._keys.all, count=1_000))

    def ping(self) -> None:
        """Ask whether Redis answers, and lets us in.

        Raises:
            TransientError: It does not.
        """
        with self._redis("does not answer", "Caches would not be told of removed documents") as redis:
            redis.ping()

    @contextmanager
    def _redis(self, what: str, consequence: str) -> Iterator["Redis"]:
        from redis import Redis
        from redis.backoff import ExponentialBackoff
        from redis.exceptions import RedisError
        from redis.retry import Retry

        try:
            with Redis.from_url(
                self._url.get_secret_value(),
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                retry=Retry(ExponentialBackoff(), _TRIES - 1),
            ) as redis:
                yield redis
        except (RedisError, OSError, ValueError) as error:  # a malformed address is a ValueError
            # The error names host and port and never the password, but an address that cannot be read may be quoted.
            reason = type(error).__name__ if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise TransientError(f"Redis (serving.cache.redis_url) {what}: {reason}. {consequence}") from (
                None if isinstance(error, ValueError) else error
            )


def caches_of(config: RagConfig, store: Store) -> RedisInvalidation | None:
    """Return what is told of removed documents; None where no cache outlives the process that serves."""
    cache = config.serving.cache
    if not cache.enabled or cache.redis_url is None:
        return None
    return RedisInvalidation(cache.redis_url, store)
