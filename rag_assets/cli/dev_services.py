"""Dagster's UI and daemon under `rag dev`: started, started again when they end, and stopped as a whole."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import FrameType

import psutil

_LONGEST_PAUSE_S = 30.0
_STEADY_S = 60.0  # what ran for so long begins with the shortest pause again
_TURN_S = 0.5
_STOP_S = 75.0  # `dagster dev` itself waits 60 s for its parts
_KILL_S = 5.0


class Services:
    """Runs `dagster dev` until told to stop; `run` returns when nothing of it is left.

    Args:
        command: `dagster dev` with its arguments.
        env: Its environment.
        say: Prints a line.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._command = list(command)
        self._env = dict(env)
        self._say = say
        self.stopping = threading.Event()
        self.hurry = threading.Event()

    def run(self, each_turn: Callable[[], None]) -> None:
        """Keep Dagster running until SIGINT or SIGTERM; a second one sets `hurry`.

        Args:
            each_turn: Called about twice a second.
        """
        # Not ignored, as a shell leaves SIGINT for background jobs: inherited, that would make Dagster deaf.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        pause_s = 1.0
        while not self.stopping.is_set():
            started = time.monotonic()
            status = self._run_once(each_turn)
            if self.stopping.is_set():
                return
            if time.monotonic() - started >= _STEADY_S:
                pause_s = 1.0
            self._say(f"Dagster has ended (exit code {status}); starting it again in {pause_s:.0f} s")
            self.stopping.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.stopping.is_set():
            self.hurry.set()
        self.stopping.set()

    def _run_once(self, each_turn: Callable[[], None]) -> int:
        # A session of its own: Ctrl-C comes here only, and what an abrupt end leaves behind can be found.
        child = subprocess.Popen(self._command, env=self._env, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            while child.poll() is None and not self.stopping.wait(_TURN_S):
                each_turn()
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    child.wait(_STOP_S)
        finally:
            if child.poll() is None:
                child.kill()
            status = child.wait()
            end_session(child.pid)
        return status


def end_session(session: int) -> None:
    """End what is left of a session: servers whose parent was killed would keep the port, and launch runs.

    Processes of runs that a code server started are left to finish.
    """
    left = [process for process in psutil.process_iter() if _is_server_of(process, session)]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, deaf = psutil.wait_procs(left, timeout=_KILL_S)
    for process in deaf:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(deaf, timeout=_KILL_S)


def _is_server_of(process: psutil.Process, session: int) -> bool:
    try:
        if os.getsid(process.pid) != session or process.status() == psutil.STATUS_ZOMBIE:
            return False
        command = " ".join(process.cmdline())  # empty for an instant while a process starts
        return command != "" and "multiprocessing" not in command
    except (psutil.Error, ProcessLookupError):
        return False
