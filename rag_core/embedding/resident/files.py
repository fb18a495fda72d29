"""Files that a resident worker and its clients share, and the digest by which they know that they fit together.

Locks are `flock`s, freed by the kernel when their holder dies; see `rag_core.index.lite_files`.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from rag_core import ids
from rag_core.errors import PermanentError
from rag_core.tables.store import Store

_PACKAGE: Final = Path(__file__).resolve().parents[2]
# What a worker imports of this package; a test looks that it is all.
_SOURCES: Final = (
    "__init__.py", "config.py", "config_*.py", "errors.py", "faults.py", "ids.py", "retry_after.py", "schemas.py",
    "embedding/**/*.py", "tables/__init__.py", "tables/store.py", "tables/s3_*.py", "tables/store_errors.py",
    "tables/files.py", "tables/landing.py", "tables/dataset.py", "tables/handles.py", "aws.py", "index/__init__.py",
    "index/lite_files.py",
)  # fmt: skip
_LIBRARIES: Final = ("torch", "transformers", "sentence-transformers", "tokenizers", "openai", "deltalake", "pyarrow")
_VARIABLES: Final = ("RAG_EMBEDDING__API_KEY", "http_proxy", "https_proxy", "no_proxy")
_PREFIXES: Final = ("AWS_", "AZURE_", "GOOGLE_", "HF_", "TRANSFORMERS_", "CUDA_", "OMP_", "HTTP_", "HTTPS_", "NO_PROXY")
_LONGEST_ADDRESS: Final = 100  # bytes; Linux takes 107, macOS 103


@dataclass(frozen=True, slots=True)
class ResidentFiles:
    """Addresses of the shared files.

    Attributes:
        socket: Where the worker listens, absolute; the other files lie beside it.
    """

    socket: Path

    @property
    def alive(self) -> Path:
        """Held by the worker for as long as it lives; its content is the worker's process id."""
        return self.socket.with_suffix(".alive")

    @property
    def start_lock(self) -> Path:
        """Held while a client connects or starts the worker, and while an idle one goes away."""
        return self.socket.with_suffix(".start")

    @property
    def turn(self) -> Path:
        """Held by the client whose job the worker does."""
        return self.socket.with_suffix(".turn")

    @property
    def log(self) -> Path:
        """Output of the worker."""
        return self.socket.with_suffix(".log")


def resident_files(store: Store, slot: int = 0) -> ResidentFiles:
    """Return the files of a store's worker, by whatever path; where several work at once, each has a slot."""
    return ResidentFiles(store.local_path("work", "resident").resolve() / f"{slot}.sock")


def identity(environment: Mapping[str, str]) -> str:
    """Digest what a worker cannot change once it runs: program, libraries, credentials and other variables.

    Source files count by size and time, which takes some milliseconds; models are compared by their own fingerprint.
    """
    sources = [(path, path.stat()) for path in source_files()]
    variables = [(name, value) for name, value in sorted(environment.items()) if _matters(name, value)]
    return ids.fingerprint(
        {
            "python": [sys.executable, sys.version],
            "sources": [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in sources],
            "libraries": [_version(name) for name in _LIBRARIES],
            "variables": variables,
        }
    )


def _matters(name: str, value: str) -> bool:
    if name == "RAG_CRASH_AT":  # other places are not in the worker: it survives the run that is killed there
        return value.startswith("embeddings.worker.")
    return name in _VARIABLES or name.startswith(_PREFIXES)


def source_files() -> list[Path]:
    """List the source files whose change makes a worker stale, sorted."""
    return sorted(path for pattern in _SOURCES for path in _PACKAGE.glob(pattern))


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """Give an address for `bind` and `connect`, which take only short ones, of a socket at any path.

    Raises:
        PermanentError: The path is too long, and this system has no other way to name it.
    """
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    if not Path("/proc/self/fd").is_dir():
        raise PermanentError(
            f"{path}: longer than the {_LONGEST_ADDRESS} bytes of a socket's address; set a shorter store.root, or "
            "embedding.worker_idle_s: 0 to have no worker that stays"
        )
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
