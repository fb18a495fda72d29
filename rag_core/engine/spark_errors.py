"""What Spark says, as the platform's failures: which of them another try can help, and what to do about the others.

Spark tells of a failed task in the text of one exception, with the traceback of Python's worker at its end; what class
that text belongs to is read from it. Conditions of Connect's sessions: https://spark.apache.org/docs/latest/sql-error-conditions.html
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rag_core import errors
from rag_core.errors import ConfigError, PermanentError, RagError, TransientError

# A session that the server does not have any more, or a server that is another one.
_LOST_SESSION: Final = re.compile(
    r"INVALID_HANDLE\.|SESSION_(NOT_FOUND|CLOSED|CHANGED)|OPERATION_(NOT_FOUND|ABANDONED)|INVALID_CURSOR|NO_ACTIVE_SESSION"
)
_UNREACHABLE: Final = re.compile(
    r"UNAVAILABLE|RETRIES_EXCEEDED|failed to connect to all addresses|Connection (reset|refused)|Socket closed|"
    r"Answer from Java side is empty|SparkContext (was|is|has been) (shut ?down|stopped)|stopped SparkContext|"
    r"CANNOT_CREATE_SESSION|All masters are unresponsive"
)
_NO_CODE: Final = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
_VERSIONS: Final = re.compile(r"PYTHON_VERSION_MISMATCH|Python in worker has different version[^\n]*")
_OURS: Final = re.compile(r"rag_core\.errors\.(\w+): ([^\n]*)")
_RAISED: Final = re.compile(r"^\s*([A-Za-z_][\w.]*(?:Error|Exception)): ([^\n]*)", re.MULTILINE)
_LOST_EXECUTOR: Final = re.compile(
    r"ExecutorLostFailure|Executor heartbeat timed out|Worker lost|Remote RPC client disassociated|OutOfMemory|"
    r"Python worker exited unexpectedly|Command exited with code \d+|FetchFailed"
)
_SHOWN_CHARS: Final = 600


def sorted_error(error: BaseException, where: str) -> RagError:
    """Return the failure that an error of Spark is.

    Args:
        error: What pyspark raised.
        where: The cluster, as the configuration names it, such as `spark.remote sc://spark:15002`.

    Returns:
        ConfigError: executors lack this project, or have another Python.
        PermanentError: code of a task failed; another try would fail the same way.
        TransientError: the cluster, its session or an executor was lost, or Spark failed without a reason.
        What a task itself raised of the platform's classes stays one of that class.
    """
    text = str(error)
    if found := _of_task(text, where):
        return found
    if is_lost(error):
        return TransientError(f"{where}: the session was lost ({_reason(text)}); nothing was committed, run again")
    if lost := _LOST_EXECUTOR.search(text):
        return TransientError(
            f"{where}: a task lost its executor too often ({lost[0]}); nothing was committed. Run again; if it stays, "
            "give executors more memory (spark.executor.memoryOverhead is Python's) or look at their logs"
        )
    if raised := _RAISED.findall(text):
        name, message = raised[-1]
        return PermanentError(f"{where}: code of a task failed: {name}: {message[:_SHOWN_CHARS]}")
    return TransientError(f"{where}: {_reason(text)}; nothing was committed, run again")


def _of_task(text: str, where: str) -> RagError | None:
    """Return what a task itself said, or what says that it cannot run this project; None if it is neither."""
    if ours := _OURS.findall(text):
        name, message = ours[-1]
        kind = getattr(errors, name, PermanentError)
        said: RagError = kind(f"{where}: {message}")
        return said
    if missing := _NO_CODE.search(text):
        return ConfigError(
            f"{where}: its Python has no module {missing[1]!r}; its image, or its nodes, must have this project with "
            "the versions of constraints.txt (docs/spark.md)"
        )
    if other := _VERSIONS.search(text):
        return ConfigError(f"{where}: {other[0]}; give it the Python of this process (docs/spark.md)")
    return None


def is_lost(error: BaseException) -> bool:
    """Tell whether the session must be made anew: its server is gone, or has forgotten it."""
    text = str(error)
    if _OURS.search(text):
        return False  # a task says so, of something else
    is_connection = isinstance(error, ConnectionError | EOFError) or type(error).__name__ == "Py4JNetworkError"
    return is_connection or bool(_LOST_SESSION.search(text) or _UNREACHABLE.search(text))


@contextmanager
def errors_of(where: str) -> Iterator[None]:
    """Turn what Spark raises in the block into the platform's failures; those stay as they are."""
    from grpc import RpcError  # type: ignore[import-untyped]
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    try:
        yield
    except RagError:
        raise
    except (PySparkException, Py4JError, RpcError, ConnectionError, EOFError) as error:
        raise sorted_error(error, where) from error


def _reason(text: str) -> str:
    """Return the line that says most: the innermost cause of a Java exception, else the first."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    others = [line for line in lines if not line.startswith("An error occurred while calling")]
    return (causes[-1:] + others[:1] + ["no reason given"])[0][:_SHOWN_CHARS]
