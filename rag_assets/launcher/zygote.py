"""The zygote: a process with one thread that has imported what runs need, and forks one process for each run.

`python -m rag_assets.launcher.zygote --home DAGSTER_HOME --digest DIGEST`; launchers start it by themselves. It goes
when it is idle, when its code is no longer the newest, and with the last `rag dev`. Runs go on without it.
"""

import argparse
import json
import logging
import os
import select
import signal
import socket
import time
from pathlib import Path

from dagster._core.secrets.env_file import get_env_var_dict

from rag_assets.launcher import child
from rag_assets.launcher.files import ZygoteFiles
from rag_assets.launcher.preload import preload, warn_of_threads
from rag_assets.launcher.protocol import Reply, Request, receive, send, short_address
from rag_core.index.lite_files import is_locked, try_lock

_LOGGER = logging.getLogger("rag_assets.launcher.zygote")  # and not "__main__"
_POLL_S = 1.0
_PATIENCE_S = 5.0  # for a launcher that has connected to say what it wants
_SWEEP_EVERY = 100  # runs


class Zygote:
    """Takes requests one after the other; `serve` returns when it is time to go."""

    def __init__(self, files: ZygoteFiles, lock: int, *, digest: str, idle_s: float) -> None:
        self._files = files
        self._lock = lock
        self._digest = digest
        self._idle_s = idle_s
        self._children: dict[int, Request | None] = {}  # None: a process that closes a run
        self._stopping = ""
        self._runs = 0
        self._wake, self._waker = socket.socketpair()
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def serve(self) -> None:
        """Listen until idle, stale, told to stop, or left alone."""
        self._listen()
        used_at, had_lease = time.monotonic(), False
        while not self._stopping:
            ready, _, _ = select.select([self._server, self._wake], [], [], _POLL_S)
            if self._server in ready:
                self._take()
                used_at = time.monotonic()
            if self._wake in ready:
                self._wake.recv(4096)
            self._collect()
            lease = is_locked(self._files.lease)
            if had_lease and not lease:
                self._stopping = "rag dev has ended"
            elif not lease and not self._children and time.monotonic() - used_at >= self._idle_s:
                self._stopping = f"idle for {self._idle_s:.0f} s"
            had_lease = had_lease or lease
        _LOGGER.info("going: %s; %d runs go on", self._stopping, len(self._children))
        self._files.socket.unlink(missing_ok=True)

    def _listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # so that it wakes the loop
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._files.socket.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            with short_address(self._files.socket) as address:
                self._server.bind(address)
        finally:
            os.umask(before)
        self._server.listen(64)

    def _on_stop(self, number: int, _: object) -> None:
        self._stopping = signal.Signals(number).name

    def _take(self) -> None:
        """Answer one launcher. Whatever it does wrong costs it its connection, and nobody else anything."""
        connection, _ = self._server.accept()
        connection.settimeout(_PATIENCE_S)
        with connection:
            try:
                request = Request(**json.loads(receive(connection)))
            except (OSError, ValueError, TypeError) as error:
                _LOGGER.warning("a request that cannot be read: %s", error)
                return
            # A launcher without an answer looks whether its run was started.
            try:
                send(connection, self._reply(request, connection))
            except OSError as error:
                _LOGGER.warning("%s of run %r: %s", request.operation, request.run_id, error)

    def _reply(self, request: Request, connection: socket.socket) -> Reply:
        if request.operation == "stop":
            self._stopping = "told to stop"
            return Reply("stopping", os.getpid())
        if request.digest not in ("", self._digest):
            self._stopping = "the code or rag.yaml has changed"
            return Reply("stale", os.getpid())
        if request.operation == "ping":
            return Reply("ready", os.getpid())
        warn_of_threads()
        pid = os.fork()
        if pid == 0:
            self._in_child(request, connection, None)
        self._children[pid] = request
        self._runs += 1
        return Reply("started", pid)

    def _in_child(self, request: Request, connection: socket.socket | None, ending: str | None) -> None:
        """Do a child's work, and never come back."""
        code = 1
        try:
            self._let_go(connection)
            if ending is None:
                child.execute(request, self._files)
            else:
                child.close(request, self._files, ending)
            code = 0
        except BaseException:  # noqa: BLE001 -- anything else would make this process a second zygote
            child.report_crash()
        finally:
            child.leave(code)

    def _let_go(self, connection: socket.socket | None) -> None:
        """Close what is the zygote's: a run that held its lock or socket would pass for it after its end."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for open_socket in (self._server, self._wake, self._waker, connection):
            if open_socket is not None:
                open_socket.close()
        os.close(self._lock)

    def _collect(self) -> None:
        """Take leave of the children that have ended; of one that was killed, have its run closed."""
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._children.clear()
                return
            if pid == 0:
                return
            request = self._children.pop(pid, None)
            if request is not None and status != 0:
                ending = child.ending_of(status)
                _LOGGER.warning("the process %d of run %s %s", pid, request.run_id, ending)
                closing = os.fork()
                if closing == 0:
                    self._in_child(request, None, ending)
                self._children[closing] = None
            if self._runs % _SWEEP_EVERY == 0:
                self._files.sweep()


def main() -> int:
    """Take the zygote's lock, let the launcher go on, load everything, and serve."""
    parser = argparse.ArgumentParser(prog="python -m rag_assets.launcher.zygote", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="DAGSTER_HOME")
    parser.add_argument("--digest", required=True, help="of the code and configuration that it loads")
    parser.add_argument("--code-module", default="definitions", help="module of the code location")
    parser.add_argument("--idle-s", type=float, default=600.0, help="it goes this long after the last run")
    arguments = parser.parse_args()
    files = ZygoteFiles(arguments.home.absolute())
    lock = try_lock(files.zygote_lock)
    if lock is None:
        return 0
    # The lock lives on in the child; the parent's end tells the launcher that it is held, and leaves no zombie.
    if os.fork():
        os._exit(0)
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s zygote %(levelname)s %(message)s")
    logging.getLogger("rag_assets").setLevel(logging.INFO)
    files.sweep()
    os.environ.update(get_env_var_dict(str(Path.cwd())))  # as in Dagster's code servers
    try:
        preload(arguments.code_module)
    except Exception:  # code of users, which may raise anything; the launcher starts runs as usual
        _LOGGER.exception("%s cannot be loaded", arguments.code_module)
        return 1
    Zygote(files, lock, digest=arguments.digest, idle_s=arguments.idle_s).serve()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
