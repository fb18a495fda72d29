"""Makes Great Expectations importable in every process, without telling anybody."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importable() -> Iterator[None]:
    """Surround the first import of Great Expectations.

    It imports Spark Connect if PySpark is installed, which takes a process whose main module has no file (`python -c`,
    a spawned process of Dagster's executor) for one that runs its doctests, and ends it with exit code 0.
    Source: pyspark 4.3, pyspark/sql/connect/utils.py, check_dependencies.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")  # read once, at import: nothing may leave the machine
    main = sys.modules["__main__"]
    has_file = hasattr(main, "__file__")
    if not has_file:
        main.__file__ = __file__
    try:
        yield
    finally:
        if not has_file:
            del main.__file__
