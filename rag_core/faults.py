"""Named places at which a test can kill the process, to prove that a crash there loses nothing."""

import os
import signal


def crash_point(name: str) -> None:
    """Kill this process with SIGKILL if the environment variable RAG_CRASH_AT names this place; else do nothing."""
    if os.environ.get("RAG_CRASH_AT") == name:
        os.write(2, f"killed at {name}\n".encode())  # a buffer would die with the process
        os.kill(os.getpid(), signal.SIGKILL)
