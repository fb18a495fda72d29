"""The resident worker's side: one job after another, until it is idle, stale or too large."""

import logging
import os
import select
import socket
import time
from contextlib import suppress
from typing import Any, Final

from dagster_pipes import PipesContext, PipesDefaultContextLoader, PipesDefaultMessageWriter, PipesMappingParamsLoader

from rag_core.embedding.job import Progress
from rag_core.embedding.manifest import WorkManifest
from rag_core.embedding.resident.files import ResidentFiles
from rag_core.embedding.resident.keeper import EncoderKeeper, rss_bytes
from rag_core.embedding.resident.protocol import Answer, ProtocolError, Request, read_request, send
from rag_core.embedding.worker import PipesReporter, classified, run_manifest
from rag_core.errors import PermanentError, RagError
from rag_core.index.lite_files import try_lock

_REQUEST_S: Final = 5.0  # a client writes its request at once
_LOOK_S: Final = 1.0
_LOG: Final = logging.getLogger(__name__)


class _AbandonedError(Exception):
    """The client of the job went away."""


class ResidentWorker:
    """Serves the jobs of one store; `run` returns when the process is to end."""

    def __init__(self, files: ResidentFiles, listener: socket.socket, *, identity: str, idle_s: float) -> None:
        self._files = files
        self._listener = listener
        self._identity = identity
        self._leave_at = time.monotonic() + idle_s
        self._leaving = False
        self._keeper = EncoderKeeper()
        self._inode = files.socket.stat().st_ino

    def run(self) -> None:
        """Serve until there was no job for as long as the clients asked, or until another reason to leave."""
        while not self._leaving:
            left_s = self._leave_at - time.monotonic()
            if self._is_asked(max(0.0, min(_LOOK_S, left_s))):
                connection, _ = self._listener.accept()
                with connection:
                    self._serve(connection)
            elif (left_s <= 0 or not self._is_found()) and self._may_leave():
                self._leave("no more jobs" if left_s <= 0 else f"{self._files.socket} is gone")

    def _is_asked(self, timeout_s: float) -> bool:
        return bool(select.select([self._listener], [], [], timeout_s)[0])

    def _is_found(self) -> bool:
        """Whether clients still find this worker; whoever removed the store removed the socket with it."""
        with suppress(OSError):
            return self._files.socket.stat().st_ino == self._inode
        return False

    def _may_leave(self) -> bool:
        if not self._files.start_lock.parent.is_dir():
            return True
        # Held until this process ends: a client that arrives meanwhile waits, then finds no worker and starts one.
        guard = try_lock(self._files.start_lock)
        if guard is None:
            return False
        if self._is_asked(0.0):
            os.close(guard)
            return False
        return True

    def _leave(self, reason: str) -> None:
        """Stop listening; clients that have connected already see their connection end, and start another worker."""
        _LOG.info("leaving: %s", reason)
        self._leaving = True
        if self._is_found():
            self._files.socket.unlink(missing_ok=True)
        self._listener.close()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(_REQUEST_S)
        try:
            with connection.makefile("rb") as stream:
                request = read_request(stream, self._identity)
        except (ProtocolError, OSError) as error:
            _LOG.warning("no request: %s", error)
            return
        connection.settimeout(None)
        if request is None:
            self._leave("a client has other code, libraries or variables")
            self._say(connection, "stale")
            return
        self._say(connection, "accepted")
        self._do(request, connection)
        self._leave_at = max(self._leave_at, time.monotonic() + request.idle_s)

    def _do(self, request: Request, connection: socket.socket) -> None:
        kind, message, started = "done", "", time.perf_counter()
        try:
            if request.manifest:
                self._embed(request, connection)
            elif request.embedding is not None:
                self._keeper.prepare(request.embedding)
        except _AbandonedError:
            _LOG.info("%s: abandoned by its client", request.manifest)
            self._keeper.tidy()
            return
        except (RagError, OSError) as error:
            kind, message = ("permanent" if isinstance(error, PermanentError) else "transient"), str(error)
        except Exception as error:  # noqa: BLE001 - a bug, or a device in a state that no later job should meet
            _LOG.exception("%s", request.manifest)
            kind, message = "transient", f"{type(error).__name__}: {error}; the traceback is in {self._files.log}"
            self._leave("an unexpected error")
        self._keeper.tidy()
        if not self._leaving and self._keeper.has_grown():
            self._leave(f"{rss_bytes() >> 20} MiB are resident")
        _LOG.info("%s %s in %.2f s %s", request.manifest or "model", kind, time.perf_counter() - started, message)
        self._say(connection, kind, message)

    def _embed(self, request: Request, connection: socket.socket) -> None:
        """Do a job as a worker process of its own would, in a Pipes context that nothing of this process keeps."""
        # `open_dagster_pipes` would return the first job's context for ever.
        context = PipesContext(
            PipesMappingParamsLoader(request.pipes), PipesDefaultContextLoader(), PipesDefaultMessageWriter()
        )

        def encoder(manifest: WorkManifest) -> Any:
            _check_client(connection)
            return self._keeper.encoder(manifest)

        with context as pipes, classified():
            run_manifest(request.manifest, _WatchedReporter(pipes, connection), encoder)

    def _say(self, connection: socket.socket, kind: str, message: str = "") -> None:
        answer = {"kind": kind, "message": message, "pid": os.getpid(), "loads": self._keeper.loads}
        try:
            send(connection, Answer.model_validate({**answer, "rss_bytes": rss_bytes()}))
        except OSError as error:
            _LOG.info("client gone before the answer: %s", error)


class _WatchedReporter(PipesReporter):
    """Reports by Pipes, and ends the job at the next batch after its client went away."""

    def __init__(self, pipes: PipesContext, connection: socket.socket) -> None:
        super().__init__(pipes)
        self._connection = connection

    def progress(self, progress: Progress) -> None:
        _check_client(self._connection)
        super().progress(progress)


def _check_client(connection: socket.socket) -> None:
    """Raise if the client closed its end; clients say nothing after their request."""
    try:
        gone = not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        gone = False
    except OSError:
        gone = True
    if gone:
        raise _AbandonedError
