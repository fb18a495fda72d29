"""Sorting what pymilvus raises into the platform's failure classes."""

import logging
from typing import Any, Final

from rag_core.errors import ConfigError, PermanentError, RagError, TransientError

NOT_LOADED: Final = 101
_COLLECTION_NOT_FOUND: Final = frozenset({4, 100})
_PARTITION_NOT_FOUND: Final = 200
_INVALID: Final = frozenset({6, 1100})  # illegal argument: Lite's and the server's number
_UNREACHABLE: Final = frozenset({2, "UNAVAILABLE"})  # 2 is pymilvus's "fail connecting"
_AUTHENTICATION: Final = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
_HOPELESS: Final = frozenset({"UNIMPLEMENTED", "INVALID_ARGUMENT", "OUT_OF_RANGE"})


def quiet_pymilvus() -> None:
    """Keep pymilvus from printing a traceback for each error that it raises anyway.

    Its query iterator also warns at every use on Milvus Lite, which has no time stamps to give.
    """
    import pymilvus  # noqa: F401 - sets the levels of its loggers when it is imported, so it must be before

    for module in ("decorators", "client.connection_manager"):
        logging.getLogger(f"pymilvus.{module}").setLevel(logging.CRITICAL)
    logging.getLogger("pymilvus.client.iterator.query_iterator").setLevel(logging.ERROR)


def is_not_loaded(error: Exception) -> bool:
    """Tell whether the collection only has to be loaded: Lite forgets that when it starts again."""
    return getattr(error, "code", None) == NOT_LOADED


def is_unreachable(error: Exception) -> bool:
    """Tell whether the server was not reached at all: it restarts, or the network is down."""
    return _code(error) in _UNREACHABLE and _refused_login(error) is None


def is_overloaded(error: Exception) -> bool:
    """Tell whether the server itself asks for another try a little later."""
    return bool(getattr(error, "retriable", False))


def sorted_error(error: Exception, *, address: str, action: str) -> RagError:
    """Return the error to raise instead of what pymilvus raised.

    Args:
        error: A pymilvus or grpc exception.
        address: Of the server, for the message.
        action: What was tried, such as `upsert of 1000 rows into rag_0f3c`.

    Returns:
        TransientError for a server that is unreachable, slow, overloaded or failed in a way it does not explain;
        ConfigError for a refused login; PermanentError for a request that can never succeed.
    """
    error = _refused_login(error) or error
    code, message = _code(error), _message(error)
    what = f"{action} on {address}: {message}"
    if code in _AUTHENTICATION or "auth check failure" in message:
        return ConfigError(f"{what}. Check index.token (RAG_INDEX__TOKEN, user:password)")
    if code in _HOPELESS or code in _INVALID or getattr(error, "is_input_error", False):
        return PermanentError(what)
    if code in _COLLECTION_NOT_FOUND or code == _PARTITION_NOT_FOUND:
        return PermanentError(f"{what}. Run the index stage first")
    return TransientError(what)


def _refused_login(error: Exception) -> Exception | None:
    """Return the refusal behind an error: while it connects, pymilvus calls one a failure to connect."""
    cause = error.__cause__
    return cause if isinstance(cause, Exception) and _code(cause) in _AUTHENTICATION else None


def _code(error: Exception) -> Any:
    code = getattr(error, "code", None)
    code = code() if callable(code) else code
    return getattr(code, "name", code) if not isinstance(code, int) else int(code)


def _message(error: Exception) -> str:
    details = getattr(error, "details", None)
    message = getattr(error, "message", None) or (details() if callable(details) else None) or str(error)
    return f"{type(error).__name__}: {message}"
