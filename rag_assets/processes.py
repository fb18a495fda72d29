"""Names of the processes that execute runs, so that a dead one is known as dead and is never taken for a later one."""

import os
import signal
import socket
import sys
from pathlib import Path

import psutil

PROCESS_TAG = "rag/process"
"""Tag of a run: the process that executes it, as `process_tag` names it."""


def process_tag(pid: int | None = None) -> str:
    """Name a process so that it cannot be taken for a later one with the same number: host, number, start time.

    Args:
        pid: Its number; by default this process's own.

    Raises:
        psutil.NoSuchProcess: There is no such process, or it has ended and only waits to be collected.
    """
    number = os.getpid() if pid is None else pid
    return f"{socket.gethostname()}:{number}:{_started(number)}"


def is_here(tag: str) -> bool:
    """Tell whether the process was started on this machine: of others nothing can be told, nor done to them."""
    return tag.startswith(f"{socket.gethostname()}:")


def pid_of(tag: str) -> int:
    """Return the number of a named process."""
    return int(tag.rsplit(":", 2)[1])


def is_alive(tag: str) -> bool:
    """Tell whether a process of this machine still runs; one that was killed and not collected does not."""
    try:
        return process_tag(pid_of(tag)) == tag
    except psutil.NoSuchProcess:
        return False


def send_signal(tag: str, number: signal.Signals) -> bool:
    """Send a signal to a process of this machine.

    Returns:
        False if it was not there any more.
    """
    if not is_alive(tag):
        return False
    try:
        os.kill(pid_of(tag), number)
    except ProcessLookupError:
        return False
    return True


def _started(pid: int) -> str:
    """Return when a process started, in a form that a clock that is set does not change."""
    if sys.platform != "linux":
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            raise psutil.NoSuchProcess(pid)
        return f"{process.create_time():.2f}"
    try:
        # After the name, which is in parentheses and may hold anything. `man 5 proc`, /proc/pid/stat: state is field 3,
        # starttime field 22, in ticks since the machine started. psutil adds the boot time, which moves with the clock.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(pid) from error
    if fields[0] in "ZXx":
        raise psutil.NoSuchProcess(pid)
    return fields[19]
