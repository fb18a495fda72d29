"""A connection to one Milvus server: calls with a time limit, bounded tries, and errors of the platform's classes.

A server that restarts is waited for, within the call's time limit; a Milvus Lite that was killed is started again by
its supervisor, and what it has forgotten to load is loaded.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rag_core.config import IndexConfig
from rag_core.errors import TransientError
from rag_core.index import loading, tls
from rag_core.index.capabilities import Capabilities, capabilities, parse_version, server_kind
from rag_core.index.milvus_errors import is_not_loaded, is_overloaded, is_unreachable, quiet_pymilvus, sorted_error

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_LOGGER = logging.getLogger(__name__)
_BACK_OFF_S: Final = 0.1
_MAX_BACK_OFF_S: Final = 3.0
_PLACEMENT: Final = {"replicas", "resource_groups"}
_LONG: Final = 10.0  # loading, flushing and building take longer than reading

Result = TypeVar("Result")


class Connection:
    """Wraps one `MilvusClient`; safe to use from several threads."""

    def __init__(self, config: IndexConfig, uri: str, *, find_again: Callable[[], str] | None = None) -> None:
        """Connect.

        Args:
            config: The `index` section.
            uri: Address of the server.
            find_again: Returns the address anew, starting the server if it is gone; None where it never moves.

        Raises:
            TransientError: The server cannot be reached within the time limit.
            ConfigError: It refuses the login.
        """
        quiet_pymilvus()
        self._config = config
        self._find_again = find_again
        self._lock = threading.Lock()
        self.address = uri
        self._milvus = self._first_connection()

    @property
    def timeout_s(self) -> float:
        """Time limit of an ordinary call."""
        return self._config.timeout_s

    @property
    def long_timeout_s(self) -> float:
        """Time limit of loading, flushing and building."""
        return self._config.timeout_s * _LONG

    def capabilities(self) -> Capabilities:
        """Ask the server what it is, and look up what that can do."""
        version = self.call("version", lambda milvus: milvus.get_server_version(timeout=self.timeout_s))
        details = self.call(
            "server details", lambda milvus: milvus.get_server_version(timeout=self.timeout_s, detail=True)
        )
        return capabilities(server_kind(version, details.get("deploy_mode", "")), parse_version(version))

    def call(
        self,
        action: str,
        request: "Callable[[MilvusClient], Result]",
        *,
        collection: str | None = None,
        once: bool = False,
    ) -> Result:
        """Run a request, again while the server is unreachable or overloaded and the time limit is not over.

        Args:
            action: What is being done, for the error message.
            request: Sends it; must have the same end state when run twice.
            collection: Loaded, and the request repeated, if the server has not loaded it.
            once: For a request that belongs to the present channel, such as a cursor's next page: no second try.

        Raises:
            TransientError: Unreachable, too slow, overloaded, or failed without a reason.
            PermanentError: The request can never succeed.
        """
        from grpc import RpcError  # type: ignore[import-untyped]
        from pymilvus.exceptions import MilvusException

        deadline = time.monotonic() + self.timeout_s
        back_off_s = _BACK_OFF_S
        loaded = False
        while True:
            milvus = self._milvus
            try:
                return request(milvus)
            except (MilvusException, RpcError) as error:
                failure = sorted_error(error, address=self.address, action=action)
                if once or time.monotonic() + back_off_s > deadline:
                    raise failure from error
                if milvus is not self._milvus:
                    continue  # another thread has connected again, and closed this channel
                if is_not_loaded(error) and collection is not None and not loaded:
                    self.load(collection)
                    loaded = True
                    continue
                if not is_unreachable(error) and not is_overloaded(error):
                    raise failure from error
                time.sleep(back_off_s)
                back_off_s = min(2 * back_off_s, _MAX_BACK_OFF_S)
                if is_unreachable(error):
                    self._reconnect(milvus)

    def load(self, collection: str) -> None:
        """Load a collection for searching, as configured; errors as those of `call`."""
        self.call(
            f"load of {collection}{_as_asked(self._config)}",
            lambda milvus: loading.load(milvus, collection, self._config, timeout=self.long_timeout_s),
        )

    def close(self) -> None:
        """Close the channel."""
        self._milvus.close()

    def _reconnect(self, failed: "MilvusClient") -> None:
        """Replace a client whose channel is broken: pymilvus's own recovery ends at the first refused connection."""
        with self._lock:
            if self._milvus is not failed:
                return  # another thread has done it
            if self._find_again is not None:
                self.address = self._find_again()
            try:
                self._milvus = self._connect()
            except TransientError as error:
                _LOGGER.warning("%s; trying again", error)
                return
            failed.close()

    def _first_connection(self) -> "MilvusClient":
        deadline = time.monotonic() + self.timeout_s
        while True:
            try:
                return self._connect()
            except TransientError:
                if self._find_again is None or time.monotonic() + _BACK_OFF_S > deadline:
                    raise
            # The local server was there a moment ago; it has been killed since.
            time.sleep(_BACK_OFF_S)
            self.address = self._find_again()

    def _connect(self) -> "MilvusClient":
        from grpc import RpcError
        from pymilvus import MilvusClient
        from pymilvus.exceptions import MilvusException

        if self._config.tls is not None:  # at once and in words, where grpc would wait for its time limit
            tls.check_handshake(self._config, self.address)
        token: Any = self._config.token.get_secret_value() if self._config.token else ""
        try:
            return MilvusClient(
                self.address,
                token=token,
                db_name=self._config.database,
                timeout=self._config.timeout_s,
                dedicated=True,  # a shared channel would be closed under the other client's feet
                **tls.client_options(self._config.tls),
            )
        except (MilvusException, RpcError) as error:
            if is_unreachable(error) and self._find_again is None:
                tls.check_handshake(self._config, self.address)
            raise sorted_error(error, address=self.address, action="connecting") from error


def _as_asked(config: IndexConfig) -> str:
    asked = ", ".join(f"index.{key}: {value}" for key, value in config.model_dump(include=_PLACEMENT).items() if value)
    return f" ({asked})" if asked else ""
