"""What Spark says is sorted: what passes is transient, what stays says what to do; other versions are refused."""

import socket

import pytest
from pyspark.errors import PySparkException

from rag_core.config import SparkConfig
from rag_core.engine.spark import SparkEngine
from rag_core.engine.spark_errors import errors_of, is_lost, sorted_error
from rag_core.engine.spark_versions import require_same, versions
from rag_core.errors import ConfigError, PermanentError, SourceRefusedError, StoreError, TransientError

WHERE = "spark.remote sc://spark:15002"

JOB = """\
Job aborted due to stage failure: Task 1 in stage 0.0 failed 4 times, most recent failure: Lost task 1.3 in stage 0.0
(TID 7) (10.0.0.4 executor 2): org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "/opt/venv/lib/python3.11/site-packages/pyspark/worker.py", line 1, in main
    process()
  {}

\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.handlePythonException(PythonRunner.scala:600)
"""


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("[INVALID_HANDLE.SESSION_NOT_FOUND] The handle is invalid.", TransientError, "session was lost"),
        ("[INVALID_HANDLE.SESSION_CHANGED] The server has restarted.", TransientError, "run again"),
        ("<_MultiThreadedRendezvous: StatusCode.UNAVAILABLE>", TransientError, "lost"),
        (JOB.format("rag_core.errors.StoreError: s3://lake/x: SlowDown: reduce"), StoreError, "s3://lake/x: SlowDown"),
        (
            JOB.format("rag_core.errors.SourceRefusedError: source 'a': AccessDenied"),
            SourceRefusedError,
            "AccessDenied",
        ),
        (JOB.format("rag_core.errors.NoSuchClassError: from another version"), PermanentError, "from another version"),
        (JOB.format("ModuleNotFoundError: No module named 'rag_core'"), ConfigError, "must have this project"),
        ("[PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.10", ConfigError, "give it the Python"),
        (
            JOB.format("ExecutorLostFailure (executor 2 exited caused by one of the running tasks)"),
            TransientError,
            "spark.executor.memoryOverhead",
        ),
        (JOB.format("java.lang.OutOfMemoryError: Java heap space"), TransientError, "more memory"),
        (
            JOB.format("ValueError: chunk 3 has no text"),
            PermanentError,
            "code of a task failed: ValueError: chunk 3 has no text",
        ),
        (
            "An error occurred while calling o1.save.\nCaused by: java.io.IOException: disk full",
            TransientError,
            "java.io.IOException: disk full",
        ),
        ("", TransientError, "no reason given"),
    ],
)
def test_an_error_is_of_its_class_and_says_where(text: str, kind: type, words: str) -> None:
    found = sorted_error(PySparkException(text), WHERE)
    assert type(found) is kind
    assert str(found).startswith(f"{WHERE}: ")
    assert words in str(found)


def test_only_a_lost_session_is_made_anew() -> None:
    assert is_lost(PySparkException("[INVALID_HANDLE.SESSION_CLOSED] closed"))
    assert is_lost(ConnectionRefusedError(111, "Connection refused"))
    assert not is_lost(PySparkException(JOB.format("ValueError: no")))
    assert not is_lost(PySparkException(JOB.format("rag_core.errors.StoreError: UNAVAILABLE_KEY")))


def test_what_is_sorted_already_stays_and_what_is_no_sparks_goes_through() -> None:
    with pytest.raises(StoreError, match=r"^mine$"), errors_of(WHERE):
        raise StoreError("mine")
    with pytest.raises(ZeroDivisionError), errors_of(WHERE):
        raise ZeroDivisionError
    with pytest.raises(TransientError, match="Connection refused"), errors_of(WHERE):
        raise ConnectionRefusedError(111, "Connection refused")


def test_executors_of_other_versions_are_refused() -> None:
    here = versions()
    assert here["python"].count(".") == 1
    assert "none" not in here.values()
    require_same(here, here, WHERE)
    with pytest.raises(ConfigError, match=r"have python 3\.9 and not .*, kreuzberg none and not .*constraints\.txt"):
        require_same(
            {**{name: value for name, value in here.items() if name != "kreuzberg"}, "python": "3.9"}, here, WHERE
        )


def test_an_address_where_nothing_listens_is_told_in_time() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"sc://127.0.0.1:{taken.getsockname()[1]}/;token=secret"
        with pytest.raises(TransientError, match=r"nothing answers there after 1 s .*start the Connect server") as told:
            SparkEngine(SparkConfig(remote=address, wait_s=1)).session()
    assert "secret" not in str(told.value)
