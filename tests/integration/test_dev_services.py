"""What `rag dev` does around Dagster: it is started again, stopped as a whole, and runs are let finish."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rag_assets.cli.dev_services import Services, end_session

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def script(folder: Path, text: str) -> list[str]:
    path = folder / "server.py"
    path.write_text(text)
    return [sys.executable, str(path)]


def test_it_is_started_again_until_it_is_stopped(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = script(
        tmp_path,
        "import sys, time\n"
        f"log = open({str(log)!r}, 'a+')\n"
        "log.seek(0)\n"
        "times = len(log.readlines())\n"
        "log.write(f'{time.time()}\\n'); log.flush()\n"
        "if times < 2: sys.exit(7)\n"
        "try: time.sleep(60)\n"
        "except KeyboardInterrupt: log.write('stopped\\n'); log.close()\n",
    )
    said: list[str] = []
    services = Services(command, os.environ, said.append)
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        if len(log.read_text().splitlines()) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    began = time.monotonic()
    services.run(turn)
    lines = log.read_text().splitlines()
    assert lines[-1] == "stopped", "it was told, and not killed"
    first, second, third = (float(line) for line in lines[:3])
    assert second - first >= 1
    assert third - second >= 2
    assert time.monotonic() - began < 30
    assert [line.split(";")[0] for line in said] == ["Dagster has ended (exit code 7)"] * 2
    assert not services.hurry.is_set()
    assert turns >= 1


def test_a_second_signal_hurries(tmp_path: Path) -> None:
    command = script(tmp_path, "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: time.sleep(0.5)\n")
    services = Services(command, os.environ, lambda _: None)

    def turn() -> None:
        # The second arrives while the first is worked at.
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        os.kill(os.getpid(), signal.SIGINT)

    services.run(turn)
    deadline = time.monotonic() + 5
    while not services.hurry.is_set() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert services.hurry.is_set()


def test_what_an_abrupt_end_leaves_behind_is_ended(tmp_path: Path) -> None:
    """Servers whose parent was killed go; the process of a run that a code server started is left to finish."""
    child = "import time; time.sleep(60)"
    command = script(
        tmp_path,
        "import subprocess, sys\n"
        f"for extra in ('server', 'multiprocessing'): print(subprocess.Popen([sys.executable, '-c', {child!r}, extra])"
        ".pid, flush=True)\n"
        "sys.stdin.read()\n",
    )
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True)
    assert parent.stdout is not None
    server, run = (psutil.Process(int(parent.stdout.readline())) for _ in range(2))
    try:
        parent.kill()
        parent.wait()
        assert server.is_running()
        while not (server.cmdline() and run.cmdline()):  # for an instant a process has none
            time.sleep(0.01)
        end_session(parent.pid)
        assert not server.is_running()
        assert run.is_running()
    finally:
        run.kill()
