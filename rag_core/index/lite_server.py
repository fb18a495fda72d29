"""The local default backend: a Milvus Lite server on loopback that starts when needed and stops when idle.

Milvus Lite allows one process for each database, so the pipeline's processes are all clients of one server.
`python -m rag_core.index.lite_server --data-dir DIR --idle-s N` starts the supervisor; clients do that by themselves.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rag_core.errors import TransientError
from rag_core.index.lite_files import (
    LiteFiles,
    ServerInfo,
    held_lease,
    is_locked,
    last_lines,
    locked,
    try_lock,
)
from rag_core.index.lite_supervisor import Supervisor, alive, port_open

if TYPE_CHECKING:
    from rag_core.config import IndexConfig
    from rag_core.tables.store import Store

_READY_S = 90.0
_LOCK_S = 150.0  # longer than a start, and than an idle server's going away
_STOP_S = 45.0
_LOG_BYTES = 8 * 1024 * 1024


def lite_files(store: "Store") -> LiteFiles:
    """Return where the store keeps its local index."""
    return LiteFiles(store.local_path("milvus").absolute() / "data")


@contextmanager
def lease(store: "Store", config: "IndexConfig") -> Iterator[str]:
    """Keep the local server running while the block runs, and start it if none does.

    Yields:
        The server's address, http://127.0.0.1:PORT.

    Raises:
        TransientError: The server does not come up; the message ends with the last lines of its log.
    """
    files = lite_files(store)
    with held_lease(files):
        yield ensure_running(files, idle_s=config.lite_idle_s)


def ensure_running(files: LiteFiles, *, idle_s: float) -> str:
    """Return the address of the running server, starting it if there is none. Callers hold a lease.

    Raises:
        TransientError: As in `lease`.
    """
    files.data.parent.mkdir(parents=True, exist_ok=True)
    with locked(files.start_lock, timeout_s=_LOCK_S):
        if not is_locked(files.supervisor_lock):
            _spawn_supervisor(files, idle_s)
        return _wait_until_ready(files).uri


def running(files: LiteFiles) -> ServerInfo | None:
    """Return the server that runs and accepts connections, or None."""
    info = ServerInfo.read(files.server)
    usable = info is not None and is_locked(files.supervisor_lock) and alive(info.pid) and port_open(info.port)
    return info if usable else None


def stop(files: LiteFiles) -> bool:
    """Stop the server, whoever uses it; its data stays.

    Returns:
        Whether one was running.

    Raises:
        TransientError: It is still there after it was killed.
    """
    if not is_locked(files.supervisor_lock):
        return False
    info = ServerInfo.read(files.server)
    supervisor_pid = int(files.supervisor_lock.read_text() or 0)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if supervisor_pid:
            with suppress(ProcessLookupError):
                os.kill(supervisor_pid, number)
        if number == signal.SIGKILL and info is not None:
            with suppress(ProcessLookupError):
                os.kill(info.pid, number)
        deadline = time.monotonic() + _STOP_S
        while time.monotonic() < deadline:
            if not is_locked(files.supervisor_lock):
                return True
            time.sleep(0.05)
    raise TransientError(f"{files.data}: the Milvus Lite supervisor {supervisor_pid} does not stop")


def _spawn_supervisor(files: LiteFiles, idle_s: float) -> None:
    if files.log.exists() and files.log.stat().st_size > _LOG_BYTES:
        files.log.replace(files.log.with_suffix(".log.1"))
    # fmt: off
    command = [sys.executable, "-m", "rag_core.index.lite_server",
               "--data-dir", str(files.data), "--idle-s", str(idle_s)]
    # fmt: on
    package_root = str(Path(__file__).resolve().parents[2])
    python_path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    with files.log.open("ab") as log:
        # Its own session: a signal to the client's process group must not take the server from other clients.
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": python_path},
            check=False,
            timeout=_READY_S,
        )
    if done.returncode != 0:
        raise TransientError(_failure(files, f"its supervisor ended with status {done.returncode}"))


def _wait_until_ready(files: LiteFiles) -> ServerInfo:
    deadline = time.monotonic() + _READY_S
    while (info := running(files)) is None:
        if not is_locked(files.supervisor_lock):
            raise TransientError(_failure(files, "it ended while starting"))
        if time.monotonic() > deadline:
            raise TransientError(_failure(files, f"it did not listen within {_READY_S:.0f} s"))
        time.sleep(0.05)
    return info


def _failure(files: LiteFiles, reason: str) -> str:
    return f"Milvus Lite for {files.data} did not start: {reason}. Last lines of {files.log}:\n{last_lines(files.log)}"


def _supervisor_lock(files: LiteFiles) -> int | None:
    """Take the supervisor's lock; a client that merely looks at it holds it for an instant, hence the patience."""
    for _ in range(20):
        descriptor = try_lock(files.supervisor_lock)
        if descriptor is not None:
            return descriptor
        time.sleep(0.05)
    return None


def main() -> int:
    """Take the supervisor's lock, let the caller go on, and supervise."""
    parser = argparse.ArgumentParser(prog="python -m rag_core.index.lite_server", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the database")
    parser.add_argument("--idle-s", type=float, default=120.0, help="stop this long after the last client went away")
    arguments = parser.parse_args()
    files = LiteFiles(arguments.data_dir.absolute())
    files.data.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _supervisor_lock(files)
    if descriptor is None:
        return 0
    # The lock lives on in the child; the parent's end tells the client that it is held, and leaves no zombie.
    if os.fork():
        os._exit(0)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s supervisor %(levelname)s %(message)s")
    try:
        Supervisor(files, idle_s=arguments.idle_s).run()
    except RuntimeError:
        logging.getLogger(__name__).exception("giving up")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
