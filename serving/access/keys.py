"""API keys as the service holds them: read at the start, and again when their file changes."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Final

from rag_core.access_key_file import read_key_file
from rag_core.access_keys import KeyEntry, KeyRing, parse_keys
from rag_core.config_serving import AccessConfig
from rag_core.errors import ConfigError
from serving.access.bearer import refused
from serving.caller import Caller

_LOG: Final = logging.getLogger(__name__)
_VARIABLE: Final = "RAG_SERVING__ACCESS__KEYS"
_LOOK_S: Final = 1.0

Stamp = tuple[int, int, int] | None


class ApiKeys:
    """The keys of a file, of a variable, or of both.

    The file is looked at before a key is judged, at most each second. A new file that is broken, or gone, changes
    nothing: nobody is locked out by a slip, and the error is logged once.
    """

    def __init__(self, config: AccessConfig, *, clock: Callable[[], float] = monotonic) -> None:
        """Read the keys.

        Raises:
            ConfigError: They cannot be read, or two of them are the same.
        """
        self._path = config.keys_file
        self._fixed = parse_keys(config.keys.get_secret_value(), where=f"env {_VARIABLE}") if config.keys else ()
        self._clock = clock
        self._looked_at = clock()
        self._stamp = _stamp(self._path)
        self._ring = self._read()
        self._look: asyncio.Task[None] | None = None

    async def authenticate(self, key: str) -> Caller:
        """Return whose key it is.

        Raises:
            ApiError: 401, the key is unknown or expired.
        """
        await self._look_again()
        entry = self._ring.find(key, datetime.now(UTC))
        if entry is None:
            raise refused("unknown or expired API key")
        return Caller(f"key:{entry.id}", frozenset(entry.principals))

    async def _look_again(self) -> None:
        """Look at the file if that is due; whoever comes while it is read waits for it, as that key may be revoked."""
        if self._path is not None and self._look is None and self._clock() - self._looked_at >= _LOOK_S:
            self._looked_at = self._clock()
            self._look = asyncio.create_task(self._reload())
        if self._look is not None:
            await asyncio.shield(self._look)

    async def _reload(self) -> None:
        try:
            stamp = await asyncio.to_thread(_stamp, self._path)
            if stamp != self._stamp:
                self._stamp = stamp
                self._ring = await asyncio.to_thread(self._read)
                _LOG.info("API keys were read again: %d", len(self._ring.entries))
        except ConfigError as error:
            _LOG.error("the API keys of before still hold: %s", error)
        finally:
            self._look = None

    def _read(self) -> KeyRing:
        of_file: tuple[KeyEntry, ...] = read_key_file(self._path) if self._path is not None else ()
        known = {entry.hash for entry in self._fixed}
        for entry in of_file:
            if entry.hash in known:
                raise ConfigError(f"{self._path}: key {entry.id}: hash: the same key is in {_VARIABLE}; remove one")
        return KeyRing((*self._fixed, *of_file))


def _stamp(path: Path | None) -> Stamp:
    """Return what differs when a file was written or replaced; None if it is not there."""
    try:
        status = path.stat() if path is not None else None
    except OSError:
        return None
    return None if status is None else (status.st_mtime_ns, status.st_size, status.st_ino)
