"""Length-prefixed pickles over a pipe: how the parser process and its parent talk. Both ends are this package."""

import os
import pickle
import select
import struct
import time
from collections.abc import Callable
from typing import Any, Final

_HEADER: Final = struct.Struct("!Q")
_CHUNK: Final = 1024 * 1024


class FrameTimeoutError(Exception):
    """The deadline passed before the frame was complete."""


def pack(value: Any) -> bytes:
    """Encode a value as one frame."""
    body = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    return _HEADER.pack(len(body)) + body


def _read_exactly(fd: int, count: int, wait: Callable[[], None]) -> bytes:
    parts: list[bytes] = []
    while count:
        wait()
        part = os.read(fd, min(count, _CHUNK))
        if not part:
            raise EOFError("the other end of the pipe is gone")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def read_frame(fd: int, wait: Callable[[], None] = lambda: None) -> Any:
    """Read one frame; `wait` is called before each read and may block until there is something, or raise.

    Raises:
        EOFError: The other end is gone.
    """
    (length,) = _HEADER.unpack(_read_exactly(fd, _HEADER.size, wait))
    return pickle.loads(_read_exactly(fd, length, wait))


def write_frame(fd: int, frame: bytes, wait: Callable[[], None] = lambda: None) -> None:
    """Write a packed frame; `wait` is called before each write."""
    view = memoryview(frame)
    while view:
        wait()
        view = view[os.write(fd, view[:_CHUNK]) :]


def waiter(fd: int, *, writing: bool, deadline: float, look: Callable[[], None], every_s: float) -> Callable[[], None]:
    """Make a `wait` for `read_frame` or `write_frame`: until the pipe is ready, calling `look` in between.

    Args:
        fd: A pipe's end; for writing it must not block.
        writing: Wait until it can be written, else until it can be read.
        deadline: On `time.monotonic`.
        look: Called every `every_s` seconds of waiting; may raise to give up.
        every_s: Seconds between two looks.
    """

    def wait() -> None:
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise FrameTimeoutError
            timeout_ms = int(1000 * min(left, every_s)) + 1
            poller = select.poll()
            poller.register(fd, select.POLLOUT if writing else select.POLLIN)
            if poller.poll(timeout_ms):
                return
            look()

    return wait
