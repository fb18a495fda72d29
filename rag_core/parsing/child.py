"""The parser process: reads objects from standard input, answers with documents. `sandbox.ParserProcess` starts it.

It dies with its parent (on Linux by the kernel's hand, everywhere at the end of the pipe), keeps its own address space
below a limit, and gives real standard output to nobody: a library that prints must not break the protocol.
"""

import ctypes
import importlib
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rag_core.parsing.frames import pack, read_frame, write_frame

_PR_SET_PDEATHSIG: Final = 1
_MIB: Final = 1024 * 1024


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def address_space_bytes() -> int:
    """Return this process's virtual size; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _limit_memory(memory_mib: int) -> None:
    size = address_space_bytes()
    if size:
        limit = size + memory_mib * _MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _load(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _warm_up() -> None:
    """Load what parsing needs before the memory limit is set, so that the limit is about documents."""
    importlib.import_module("kreuzberg")
    importlib.import_module("lxml.etree")


def serve(target: str, parent: int) -> None:
    """Answer requests until the pipe ends.

    Frames in: first the settings, then (data, item) pairs. Frames out: "ready", then ("documents", list) or
    ("memory", None) after the limit was hit, when the process is no longer to be trusted.
    """
    _die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    answers = os.dup(1)
    os.dup2(2, 1)
    logging.basicConfig(level=logging.WARNING)
    parse = _load(target)
    settings = read_frame(0)
    _warm_up()
    _limit_memory(settings.memory_mib)
    write_frame(answers, pack("ready"))
    while True:
        try:
            data, item = read_frame(0)
        except EOFError:
            return
        try:
            answer = pack(("documents", parse(data, item, settings)))
        except MemoryError:
            answer = pack(("memory", None))
        write_frame(answers, answer)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
