"""`ParserProcess`: parsing in a child that can be killed, so that no document crashes, hangs or fills a worker.

Time is watched from here (SIGKILL at the limit); memory by the child's address-space limit, which the kernel enforces
however fast a document allocates. A child that died costs its document a `rejected` row and is replaced at the next.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Final, Protocol, Self

from rag_core import ids
from rag_core.errors import TransientError
from rag_core.parsing.frames import FrameTimeoutError, pack, read_frame, waiter, write_frame
from rag_core.parsing.model import ParsedDocument, Status, clean_line
from rag_core.parsing.parse import parse_object
from rag_core.parsing.settings import ParseSettings
from rag_core.parsing.sniff import BINARY
from rag_core.sources.base import SourceObject

logger = logging.getLogger(__name__)

_TARGET: Final = "rag_core.parsing.parse:parse_object"
_START_S: Final = 120.0  # importing on a cold, busy machine
_LOOK_S: Final = 1.0
_ALLOCATION_SIGNS: Final = (b"memory allocation of", b"MemoryError", b"bad_alloc", b"out of memory", b"Cannot allocate")
_ERROR_TAIL_BYTES: Final = 4096


class Parser(Protocol):
    """Something that parses an object into documents."""

    def parse(self, item: SourceObject, data: bytes) -> list[ParsedDocument]:
        """Parse one object; at least one document."""
        ...


class InlineParser:
    """Parses in this process, without limits: for tests, and for text that is known to be harmless."""

    def __init__(self, settings: ParseSettings) -> None:
        self.settings = settings

    def parse(self, item: SourceObject, data: bytes) -> list[ParsedDocument]:
        """Parse one object."""
        return parse_object(data, item, self.settings)


def unparsed(item: SourceObject, data: bytes | None, reason: str, status: Status = "rejected") -> ParsedDocument:
    """Make the document of an object that was not parsed; without data its fingerprint stands for its content."""
    return ParsedDocument(
        uri=item.uri,
        mime=BINARY,
        size_bytes=item.size_bytes if data is None else len(data),
        content_hash=ids.digest("unread", item.fingerprint) if data is None else ids.digest(data),
        external_id=item.external_id,
        title=clean_line(PurePosixPath(item.key).stem),
        modified_at=item.modified_at,
        status=status,
        reason=reason,
    )


class ParserProcess:
    """A parser in a child process, started when it is first needed. Use it from one thread at a time.

    Args:
        settings: Limits and field names.
        recycle_after: Documents after which the child is replaced, against leaks in native code.
        recycle_rss_mib: Resident size after a document above which the child is replaced.
        target: Dotted name of the function that parses, `module:function`.
    """

    def __init__(
        self,
        settings: ParseSettings,
        *,
        recycle_after: int = 2_000,
        recycle_rss_mib: int = 768,
        target: str = _TARGET,
    ) -> None:
        self.settings = settings
        self._recycle_after = recycle_after
        self._recycle_rss = recycle_rss_mib * 1024 * 1024
        self._target = target
        self._child: subprocess.Popen[bytes] | None = None
        self._errors: Any = None
        self._parsed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        return None if self._child is None else self._child.pid

    def close(self) -> None:
        """Kill the child; the next `parse` would start another."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._errors.close()

    def parse(self, item: SourceObject, data: bytes) -> list[ParsedDocument]:
        """Parse one object within the limits.

        Returns:
            As `parse_object`; one `rejected` document where the time or memory limit was hit or the child died.

        Raises:
            TransientError: No child can be started.
        """
        child = self._ready()
        assert child.stdin is not None and child.stdout is not None
        deadline = time.monotonic() + self.settings.timeout_s
        try:
            self._send(child, pack((data, item)), deadline)
            kind, documents = read_frame(child.stdout.fileno(), self._waiter(child.stdout.fileno(), deadline))
        except FrameTimeoutError:
            self.close()
            limit = f"{self.settings.timeout_s:g} s"
            return [unparsed(item, data, f"Timed out: parsing took longer than {limit}. Raise parsing.timeout_s.")]
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return [unparsed(item, data, self._death())]
        except BaseException:  # an interrupt between request and answer: the child would answer the next one with this
            self.close()
            raise
        if kind == "memory":
            self.close()
            return [unparsed(item, data, self._out_of_memory())]
        self._parsed += 1
        if self._parsed >= self._recycle_after or self._rss(child.pid) > self._recycle_rss:
            self.close()
        parsed: list[ParsedDocument] = documents
        return parsed

    def _ready(self) -> subprocess.Popen[bytes]:
        """Return a living child; one that died idle (with the thread that had started it) is replaced in silence."""
        if self._child is not None and self._child.poll() is not None:
            self.close()
        if self._child is None:
            self._child = self._start()
            self._parsed = 0
        return self._child

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
            "RAYON_NUM_THREADS": "1",
            "TOKIO_WORKER_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",  # each further arena reserves 64 MiB of the address space that is limited
        }
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        child = subprocess.Popen(
            [sys.executable, "-m", "rag_core.parsing.child", self._target, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            close_fds=True,
        )
        assert child.stdin is not None and child.stdout is not None
        os.set_blocking(child.stdin.fileno(), False)
        deadline = time.monotonic() + _START_S
        try:
            self._send(child, pack(self.settings), deadline)
            read_frame(child.stdout.fileno(), self._waiter(child.stdout.fileno(), deadline))
        except (EOFError, BrokenPipeError, FrameTimeoutError) as error:
            self._child = child
            tail = self._error_tail().decode("utf-8", "replace").strip()[-500:]
            self.close()
            raise TransientError(f"the parser process does not start: {tail or 'no message'}") from error
        return child

    def _waiter(self, fd: int, deadline: float) -> Any:
        return waiter(fd, writing=False, deadline=deadline, look=lambda: None, every_s=_LOOK_S)

    @staticmethod
    def _send(child: subprocess.Popen[bytes], frame: bytes, deadline: float) -> None:
        assert child.stdin is not None
        fd = child.stdin.fileno()
        write_frame(fd, frame, waiter(fd, writing=True, deadline=deadline, look=lambda: None, every_s=_LOOK_S))

    def _death(self) -> str:
        """Say what the child died of, and bury it."""
        assert self._child is not None
        code = self._child.wait()
        tail = self._error_tail()
        self.close()
        if any(sign in tail for sign in _ALLOCATION_SIGNS):
            return self._out_of_memory()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if code == -signal.SIGKILL:
            return f"The parser was killed ({how}), most likely because the machine ran out of memory. Try again."
        return f"The parser crashed on this document ({how}). Save the document again, or exclude it."

    def _out_of_memory(self) -> str:
        return (
            f"Out of memory: parsing needed more than {self.settings.memory_mib} MiB. Raise parsing.memory_mib, or "
            "split the document."
        )

    def _error_tail(self) -> bytes:
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _ERROR_TAIL_BYTES))
        tail: bytes = self._errors.read()
        return tail

    @staticmethod
    def _rss(pid: int) -> int:
        try:
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return 0
