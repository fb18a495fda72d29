"""The HTTP service under `rag dev`: started, started again when it ends, and stopped."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

_LONGEST_PAUSE_S = 60.0
_STEADY_S = 60.0  # what ran for so long begins with the shortest pause again
_KILL_S = 5.0


class ServiceProcess:
    """Keeps `python -m serving` running.

    Args:
        address: Host and port that it listens on.
        env: Its environment.
        drain_s: How long it may take to end.
        say: Prints a line.
    """

    def __init__(
        self, address: tuple[str, int], env: Mapping[str, str], *, drain_s: float, say: Callable[[str], None]
    ) -> None:
        self._address = address
        self._env = dict(env)
        self._drain_s = drain_s
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._start_at = 0.0
        self._pause_s = 1.0

    def start(self) -> bool:
        """Start it, unless its port is taken.

        Returns:
            Whether it was started.
        """
        host, port = self._address
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(self._address)
            except OSError as error:
                self._say(
                    f"questions     not served: {host}:{port} cannot be used ({error.strerror}); see serving.port"
                )
                return False
        self._spawn()
        self._say(f"questions     http://{host}:{port}")
        return True

    def look(self) -> None:
        """Start it again if it has ended."""
        if self._process is None or self._process.poll() is None:
            return
        now = time.monotonic()
        if self._start_at <= self._started:  # it has ended since the last look
            self._pause_s = 1.0 if now - self._started >= _STEADY_S else min(2 * self._pause_s, _LONGEST_PAUSE_S)
            self._start_at = now + self._pause_s
            self._say(
                f"The service has ended (exit code {self._process.returncode}); starting it again in "
                f"{self._pause_s:.0f} s"
            )
        elif now >= self._start_at:
            self._spawn()

    def stop(self) -> None:
        """End it; requests in flight may end first."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(self._drain_s + _KILL_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _spawn(self) -> None:
        # A session of its own: Ctrl-C comes to `rag dev`, which ends it after what it answers from.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serving"], env=self._env, stdin=subprocess.DEVNULL, start_new_session=True
        )
        self._started = time.monotonic()
