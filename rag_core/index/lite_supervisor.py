"""The process that keeps a Milvus Lite server running for as long as someone uses it.

It starts `milvus-lite server` on a free loopback port, starts it again on the same port if it dies, and stops it when
no client has held a lease for some time. Clients reach it through `rag_core.index.lite_server`.
"""

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime

from rag_core.index.lite_files import LiteFiles, ServerInfo, count_leases, try_lock

_LOGGER = logging.getLogger(__name__)
_READY_S = 60.0  # a large write-ahead log is replayed before the port opens
_CLOSE_S = 30.0
_TERM_S = 5.0
_MAX_RESTARTS = 5
_RESTART_WINDOW_S = 60.0


def port_open(port: int) -> bool:
    """Tell whether something accepts connections on the loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended and was not collected by its parent does not."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Supervisor:
    """Runs the server of one data folder; `run` returns when the server was stopped."""

    def __init__(self, files: LiteFiles, *, idle_s: float) -> None:
        self._files = files
        self._idle_s = idle_s
        self._poll_s = min(0.2, idle_s / 4)
        self._stopping = threading.Event()
        self._server: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._starts: list[float] = []

    def run(self) -> None:
        """Serve until idle or told to stop.

        Raises:
            RuntimeError: The server does not come up, or dies again and again.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        self._end_leftover()
        try:
            self._start()
            self._watch()
        finally:
            self._files.server.unlink(missing_ok=True)
            self._stop()

    def _watch(self) -> None:
        used_at = time.monotonic()
        while not self._stopping.wait(self._poll_s):
            if self._server is not None and self._server.poll() is not None:
                _LOGGER.warning("server ended with status %s; starting it again", self._server.returncode)
                self._start()
            if count_leases(self._files):
                used_at = time.monotonic()
            elif time.monotonic() - used_at >= self._idle_s and self._may_leave():
                _LOGGER.info("no client for %.0f s; stopping", self._idle_s)
                return

    def _may_leave(self) -> bool:
        # Held until this process ends: a client that arrives meanwhile waits, then finds no supervisor and starts one.
        guard = try_lock(self._files.start_lock)
        if guard is None:
            return False
        if count_leases(self._files):
            os.close(guard)
            return False
        return True

    def _start(self) -> None:
        now = time.monotonic()
        self._starts = [at for at in self._starts if now - at < _RESTART_WINDOW_S] + [now]
        if len(self._starts) > _MAX_RESTARTS:
            raise RuntimeError(f"the server died {_MAX_RESTARTS} times within {_RESTART_WINDOW_S:.0f} s")
        self._port = self._port or _free_port()
        # fmt: off
        command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(self._files.data),
                   "--host", "127.0.0.1", "--port", str(self._port)]
        # fmt: on
        self._server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 this process has one thread
        )
        self._wait_until_ready(self._server)
        info = ServerInfo(self._server.pid, self._port, os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"))
        info.write(self._files.server)
        _LOGGER.info("server %d listens on 127.0.0.1:%d", info.pid, info.port)

    def _wait_until_ready(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _READY_S
        while not port_open(self._port):
            if server.poll() is not None:
                raise RuntimeError(f"the server ended with status {server.returncode} before it listened")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server did not listen within {_READY_S:.0f} s")
            if self._stopping.wait(0.05):
                return

    def _stop(self) -> None:
        if self._server is None or self._server.poll() is not None:
            return
        # Milvus Lite closes its database on SIGINT only; on SIGTERM it would just die and replay its log next time.
        for number, patience_s in ((signal.SIGINT, _CLOSE_S), (signal.SIGTERM, _TERM_S), (signal.SIGKILL, _TERM_S)):
            self._server.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._server.wait(patience_s)
                return

    def _end_leftover(self) -> None:
        """End a server whose supervisor was killed, where the kernel did not do it for us."""
        info = ServerInfo.read(self._files.server)
        self._files.server.unlink(missing_ok=True)
        if info is None or not _is_server_of(info.pid, self._files):
            return
        _LOGGER.warning("ending server %d, left by an earlier supervisor", info.pid)
        for number, patience_s in ((signal.SIGINT, _CLOSE_S), (signal.SIGKILL, _TERM_S)):
            with suppress(ProcessLookupError):
                os.kill(info.pid, number)
            deadline = time.monotonic() + patience_s
            while alive(info.pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            if not alive(info.pid):
                return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG; elsewhere _end_leftover does it


def _is_server_of(pid: int, files: LiteFiles) -> bool:
    import psutil

    try:
        command = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return "milvus_lite" in command and str(files.data) in command
