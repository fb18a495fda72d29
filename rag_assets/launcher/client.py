"""Asks the zygote to start a run, and starts the zygote where there is none or its code is older."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from rag_assets.launcher.digest import code_digest
from rag_assets.launcher.files import ZygoteFiles
from rag_assets.launcher.preload import QUIET
from rag_assets.launcher.protocol import Reply, Request, receive, send, short_address
from rag_core.errors import TransientError
from rag_core.index.lite_files import is_locked, last_lines, locked

_ANSWER_S = 20.0  # forking takes milliseconds; on a machine that swaps, seconds
_POLL_S = 0.05
_LOG_BYTES = 4 * 1024 * 1024


class ZygoteError(TransientError):
    """There is no zygote that could start the run, and the run was not started."""


class ZygoteUnansweredError(ZygoteError):
    """A zygote went away while it was asked; the run was not started. Another zygote may start at once."""


class ZygoteClient:
    """Talks to the zygote of one DAGSTER_HOME; safe to use from several threads and processes.

    Args:
        files: Where the zygote is.
        code_module: Module of the code location.
        idle_s: The zygote goes this long after the last run, unless `rag dev` is there.
        start_timeout_s: How long a start may take.
    """

    def __init__(self, files: ZygoteFiles, *, code_module: str, idle_s: float, start_timeout_s: float) -> None:
        self._files = files
        self._code_module = code_module
        self._idle_s = idle_s
        self._start_timeout_s = start_timeout_s

    def launch(self, run_id: str, instance_ref: str, *, may_start: bool = True) -> None:
        """Have a run started.

        Args:
            run_id: The run, which nobody has started yet.
            instance_ref: The Dagster instance, as Dagster serialises it.
            may_start: Whether to start a zygote if there is none that will do.

        Raises:
            TransientError: It was not started.
        """
        self._files.folder.mkdir(parents=True, exist_ok=True)
        # One launcher at a time: none finds a zygote that another has just found to be stale.
        with locked(self._files.start_lock, timeout_s=2 * self._start_timeout_s):
            digest = code_digest(self._code_module)
            request = Request("launch", digest, run_id, instance_ref, dict(os.environ), str(Path.cwd()))
            reply = self._ask(request)
            if reply is None or reply.status != "started":
                if not may_start:
                    raise ZygoteError("there is none that runs the newest code, and the last one did not start")
                self._start(digest)
                reply = self._ask(request)
            if reply is None or reply.status != "started":
                raise ZygoteError(f"it answered {reply.status if reply else 'nothing'} just after its start")

    def warm_up(self) -> None:
        """Start a zygote, unless there is one that will do, and wait until it is ready.

        Raises:
            TransientError: There is none.
        """
        self._files.folder.mkdir(parents=True, exist_ok=True)
        with locked(self._files.start_lock, timeout_s=2 * self._start_timeout_s):
            digest = code_digest(self._code_module)
            reply = self._ask(Request("ping", digest))
            if reply is None or reply.status != "ready":
                self._start(digest)

    def stop(self) -> bool:
        """Have the zygote end; runs go on.

        Returns:
            Whether there was one.
        """
        return self._ask(Request("stop")) is not None

    def _ask(self, request: Request) -> Reply | None:
        """Return the zygote's answer; None if there is none and it did nothing."""
        try:
            with short_address(self._files.socket) as address:
                connection = _connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        with closing(connection):
            try:
                send(connection, request)
                return Reply(**json.loads(receive(connection)))
            except (OSError, ValueError, TypeError) as error:
                if request.operation == "launch":
                    return self._settle(request.run_id, error)
                return None

    def _settle(self, run_id: str, error: Exception) -> Reply:
        """Find out whether a run was started whose launch got no answer, and make sure that it will not be later."""
        try:
            os.close(self._files.claim(run_id))
        except FileExistsError:
            return Reply("started")
        raise ZygoteUnansweredError(f"it did not answer ({error or type(error).__name__})") from error

    def _start(self, digest: str) -> None:
        """Start a zygote, after the one that is going away or instead of none, and wait until it listens."""
        deadline = time.monotonic() + self._start_timeout_s
        while is_locked(self._files.zygote_lock):
            if self._listens():
                return  # somebody else's, which was still starting
            self._wait(deadline, "an earlier one neither listens nor ends")
        self._spawn(digest)
        while not self._listens():
            if not is_locked(self._files.zygote_lock):
                raise ZygoteError(f"it ended while starting. Last lines of its log:\n{last_lines(self._files.log)}")
            self._wait(deadline, f"it did not listen within {self._start_timeout_s:.0f} s")

    def _wait(self, deadline: float, reason: str) -> None:
        if time.monotonic() > deadline:
            raise ZygoteError(f"{reason}; see {self._files.log}")
        time.sleep(_POLL_S)

    def _listens(self) -> bool:
        return self._ask(Request("ping")) is not None

    def _spawn(self, digest: str) -> None:
        if sys.platform != "linux":
            raise ZygoteError("forking a process with so many libraries is safe on Linux only")
        if self._files.log.exists() and self._files.log.stat().st_size > _LOG_BYTES:
            self._files.log.replace(self._files.log.with_suffix(".log.1"))
        # fmt: off
        command = [sys.executable, "-m", "rag_assets.launcher.zygote", "--home", str(self._files.home),
                   "--digest", digest, "--code-module", self._code_module, "--idle-s", str(self._idle_s)]
        # fmt: on
        package_root = str(Path(__file__).resolve().parents[2])
        python_path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
        with self._files.log.open("ab") as log:
            try:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for `rag dev`, which then says what is to end
                    env={**os.environ, **QUIET, "PYTHONPATH": python_path},
                    check=False,
                    timeout=self._start_timeout_s,
                )
            except subprocess.TimeoutExpired as error:
                raise ZygoteError(f"it did not start within {self._start_timeout_s:.0f} s") from error
        if done.returncode != 0:
            raise ZygoteError(f"exit code {done.returncode}. Last lines of its log:\n{last_lines(self._files.log)}")


def _connect(address: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_ANSWER_S)
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection
