"""Files that the local Milvus Lite server and its clients share, and the locks that order them.

All locks are `flock`s: the kernel frees them when their holder dies, even by SIGKILL, so none is ever stale. They
need a local disk.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

from rag_core.errors import TransientError

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class LiteFiles:
    """Addresses of the shared files, beside the database's folder.

    Attributes:
        data: Folder of the database itself, opened by the server only.
    """

    data: Path

    @property
    def leases(self) -> Path:
        """Folder with one locked file for each client."""
        return self.data.parent / "leases"

    @property
    def server(self) -> Path:
        """What runs where; written when the server accepts connections."""
        return self.data.parent / "server.json"

    @property
    def log(self) -> Path:
        """Output of supervisor and server."""
        return self.data.parent / "server.log"

    @property
    def start_lock(self) -> Path:
        """Held while a client looks for or starts the server, and while an idle one goes away."""
        return self.data.parent / "start.lock"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the supervisor for as long as it lives; its content is the supervisor's process id."""
        return self.data.parent / "supervisor.lock"

    @property
    def write_lock(self) -> Path:
        """Held around writes: Lite's collections take one writer at a time."""
        return self.data.parent / "write.lock"


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Content of `server.json`: process ids, port on 127.0.0.1, and start in UTC (ISO 8601)."""

    pid: int
    port: int
    supervisor_pid: int
    started_at: str

    @property
    def uri(self) -> str:
        """Address for clients."""
        return f"http://127.0.0.1:{self.port}"

    def write(self, path: Path) -> None:
        """Write the file in one step, so that no reader sees half of it."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self)))
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> "ServerInfo | None":
        """Read the file; None where it is missing or not ours."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None


def try_lock(path: Path) -> int | None:
    """Take a lock without waiting; the returned descriptor holds it until closed, None means someone else does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(path: Path) -> bool:
    """Tell whether someone holds the lock."""
    if not path.exists():
        return False
    descriptor = try_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


@contextmanager
def locked(path: Path, *, timeout_s: float) -> Iterator[None]:
    """Hold a lock, waiting for it if need be.

    Raises:
        TransientError: Someone else held it for all of timeout_s.
    """
    deadline = time.monotonic() + timeout_s
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise TransientError(f"{path}: locked by another process for {timeout_s:.0f} s; is a run stuck?")
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def held_lease(files: LiteFiles) -> Iterator[None]:
    """Tell the supervisor, for as long as the block runs, that the server is in use."""
    files.leases.mkdir(parents=True, exist_ok=True)
    path = files.leases / f"{os.getpid()}-{uuid4().hex}"
    while True:
        descriptor = try_lock(path)
        # The supervisor may have swept the file away between its creation and its locking.
        if descriptor is not None and path.exists():
            break
        if descriptor is not None:
            os.close(descriptor)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
        os.close(descriptor)


def count_leases(files: LiteFiles) -> int:
    """Count the clients that are alive, and sweep the files of those that are not."""
    alive = 0
    for path in list(files.leases.iterdir()) if files.leases.is_dir() else ():
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alive += 1
        else:
            with suppress(FileNotFoundError):
                path.unlink()
        finally:
            os.close(descriptor)
    return alive


def last_lines(path: Path, count: int = 20) -> str:
    """Return the end of a log file, for an error message."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-count:])
    except OSError:
        return "(no log)"
