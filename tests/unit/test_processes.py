"""Processes are known by host, number and start; dead ones as dead, those that nobody collected included."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from rag_assets.processes import is_alive, is_here, pid_of, process_tag, send_signal


def test_this_process_is_alive_and_a_later_one_of_its_number_is_not_it() -> None:
    tag = process_tag()
    assert pid_of(tag) == os.getpid()
    assert is_here(tag)
    assert is_alive(tag)
    assert not is_alive(tag + "1"), "started at another time"
    assert not is_here("elsewhere" + tag)


def test_a_killed_process_is_dead_before_it_is_collected() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    tag = process_tag(child.pid)
    assert is_alive(tag)
    assert send_signal(tag, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still there
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    assert not is_alive(tag)
    assert not send_signal(tag, signal.SIGINT)
    child.wait()
    assert not is_alive(tag)
    with pytest.raises(psutil.NoSuchProcess):
        process_tag(child.pid)
