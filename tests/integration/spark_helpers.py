"""What tests of Spark need of a machine: a Python that lacks this project."""

import venv
from pathlib import Path
from typing import Final

import pyarrow as pa

_OF_SPARK: Final = frozenset({"pyarrow", "numpy", "pandas", "dateutil", "six", "pytz", "tzdata", "grpc", "google"})


def python_without_project(folder: Path) -> Path:
    """Make an environment that has what Spark's workers import, and not this project; gives its interpreter."""
    venv.create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    for path in Path(pa.__file__).parents[1].iterdir():
        if path.name.partition(".")[0].lower() in _OF_SPARK:
            (packages / path.name).symlink_to(path)
    return folder / "bin" / "python"
