"""Starting a session of Spark: a local driver, a driver of a cluster, or a client of a Connect server."""

import os
import socket
import sys
import time
from typing import Any, Final
from urllib.parse import urlsplit

from pyspark.sql import SparkSession

from rag_core.config import SparkConfig
from rag_core.doctor.java import require_java
from rag_core.errors import TransientError

_BACK_OFF_S: Final = 5.0
_CONNECT_PORT: Final = 15002


def start(config: SparkConfig) -> SparkSession:
    """Start a session, or join the one of this process.

    Raises:
        PermanentError: Java is missing or too old; the sentence says how to get it.
        TransientError: The Connect server does not answer within `spark.wait_s`.
    """
    builder = SparkSession.builder.appName("rag-assets")
    if config.remote is not None:
        _require_listening(config)
        session = builder.remote(config.remote).getOrCreate()
        _bound_waiting(session, config.wait_s)
        return session
    require_java()
    # Workers must be this very interpreter; "python3" of the PATH has none of the packages.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        "spark.driver.memory": config.driver_memory,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
        "spark.python.worker.reuse": "true",
        **config.conf,
    }
    if not config.master.startswith("local"):
        for name in ("spark.driver.bindAddress", "spark.driver.host"):
            if name not in config.conf:
                settings.pop(name)
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.master(config.master).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _require_listening(config: SparkConfig) -> None:
    """Wait for a Connect server to listen; pyspark's client would ask for ten minutes, and then not say where.

    Raises:
        TransientError: It does not within the time.
    """
    address = urlsplit(config.address)
    deadline = time.monotonic() + config.wait_s
    while True:
        try:
            with socket.create_connection((address.hostname or "", address.port or _CONNECT_PORT), timeout=_BACK_OFF_S):
                return
        except OSError as error:
            if time.monotonic() + 1 > deadline:
                raise TransientError(
                    f"{config.cluster}: nothing answers there after {config.wait_s:.0f} s ({error.strerror or error}); "
                    "start the Connect server, or correct the address"
                ) from error
        time.sleep(1)


def _bound_waiting(session: Any, wait_s: float) -> None:
    """Have a server that goes away waited for as the configuration says; the client's own bound is ten minutes."""
    from pyspark.sql.connect.client.retries import DefaultPolicy

    tries = max(1, round(wait_s / _BACK_OFF_S))
    session.client.set_retry_policies(
        [DefaultPolicy(max_retries=tries, initial_backoff=200, max_backoff=int(_BACK_OFF_S * 1000))]
    )
