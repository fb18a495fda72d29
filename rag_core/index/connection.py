"""A connection to one Milvus server: calls with a time limit, bounded tries, and errors of the platform's classes.

pymilvus itself tries again while the server is unreachable, until the call's time limit; what is added here are tries
after "too many requests", loading what a restarted Milvus Lite has forgotten to load, and following Lite to a new port.
"""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rag_core.config import IndexConfig
from rag_core.errors import TransientError
from rag_core.index.capabilities import Capabilities, capabilities, parse_version, server_kind
from rag_core.index.milvus_errors import is_not_loaded, is_overloaded, quiet_pymilvus, sorted_error

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_LOGGER = logging.getLogger(__name__)
_TRIES: Final = 4
_BACK_OFF_S: Final = 0.5
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
        self.address = uri
        self._milvus = self._connect()

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
        details = self.call("server details", lambda milvus: milvus.get_server_version(detail=True))
        return capabilities(server_kind(version, details.get("deploy_mode", "")), parse_version(version))

    def call(
        self, action: str, request: "Callable[[MilvusClient], Result]", *, collection: str | None = None
    ) -> Result:
        """Run a request that may be repeated.

        Args:
            action: What is being done, for the error message.
            request: Sends it; must have the same end state when run twice.
            collection: Loaded, and the request repeated, if the server has not loaded it.

        Raises:
            TransientError: Unreachable, too slow, overloaded, or failed without a reason.
            PermanentError: The request can never succeed.
        """
        from grpc import RpcError  # type: ignore[import-untyped]
        from pymilvus.exceptions import MilvusException

        for attempt in range(_TRIES):
            last = attempt == _TRIES - 1
            try:
                return request(self._milvus)
            except (MilvusException, RpcError) as error:
                if not last and is_not_loaded(error) and collection is not None:
                    self._load(collection)
                elif not last and is_overloaded(error):
                    time.sleep(_BACK_OFF_S * 2**attempt)
                else:
                    failure = sorted_error(error, address=self.address, action=action)
                    if last or not isinstance(failure, TransientError) or not self._followed():
                        raise failure from error
        raise AssertionError("unreachable: the last try returns or raises")

    def close(self) -> None:
        """Close the channel."""
        self._milvus.close()

    def _load(self, collection: str) -> None:
        self.call(
            f"load of {collection}", lambda milvus: milvus.load_collection(collection, timeout=self.long_timeout_s)
        )

    def _followed(self) -> bool:
        """Reconnect if the server has moved; tell whether it has."""
        if self._find_again is None:
            return False
        address = self._find_again()
        if address == self.address:
            return False
        _LOGGER.warning("Milvus moved from %s to %s; connecting again", self.address, address)
        self._milvus.close()
        self.address = address
        self._milvus = self._connect()
        return True

    def _connect(self) -> "MilvusClient":
        from grpc import RpcError
        from pymilvus import MilvusClient
        from pymilvus.exceptions import MilvusException

        token: Any = self._config.token.get_secret_value() if self._config.token else ""
        try:
            return MilvusClient(
                self.address,
                token=token,
                db_name=self._config.database,
                timeout=self._config.timeout_s,
                dedicated=True,  # a shared channel would be closed under the other client's feet
            )
        except (MilvusException, RpcError) as error:
            raise sorted_error(error, address=self.address, action="connecting") from error
