"""Executors and this process must be the same software: fingerprints are made here, rows are made there."""

import json
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from rag_core.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What decides what a document's text and chunks are, and how they are written.
_DISTRIBUTIONS: Final = ("rag-assets", "kreuzberg", "tokenizers", "deltalake", "pyarrow", "pyspark")


def versions() -> dict[str, str]:
    """Return the versions of this process: of Python (major and minor) and of what makes rows."""
    found = {name: _version(name) for name in _DISTRIBUTIONS}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **found}


def check_versions(session: "SparkSession", where: str) -> None:
    """Ask one executor for its versions.

    Raises:
        ConfigError: They differ from this process's; the sentence names both sides.
    """
    (row,) = session.range(1, numPartitions=1).mapInArrow(_tell, "versions string").collect()
    require_same(json.loads(row["versions"]), versions(), where)


def require_same(there: Mapping[str, str], here: Mapping[str, str], where: str) -> None:
    """Refuse executors of other versions.

    Raises:
        ConfigError: Names each difference.
    """
    differing = [
        f"{name} {there.get(name, 'none')} and not {here[name]}" for name in here if there.get(name) != here[name]
    ]
    if differing:
        raise ConfigError(
            f"{where}: its executors have {', '.join(differing)}; their rows would not be what the fingerprints say. "
            "Give both the same image, or the same constraints.txt (docs/spark.md)"
        )


def _tell(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for _ in batches:
        yield pa.record_batch({"versions": [json.dumps(versions())]})


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"
