"""`rag` in a process of its own that starts at once: forked from one that has imported what the commands need.

It can be killed like any other, and ends as the interpreter ends. What differs from `python -m rag_assets.cli` is that
imports were done before its environment was set; `Platform.command` is the real thing.
"""

import atexit
import logging
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from rag_assets.launcher.preload import QUIET
from tests.conftest import REPO

WORKER_IDLE_S = 120.0
"""How long the embedding worker stays for the next run of a test; it is slow to start."""


def run(
    arguments: Sequence[str], environment: Mapping[str, str], *, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Args:
        arguments: As after `rag`.
        environment: All of its environment.
        timeout_s: It is killed after this long.

    Returns:
        What `subprocess.run` returns; the return code of one that was killed is the negative signal.

    Raises:
        TimeoutExpired: It had to be killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = start(arguments, environment, out=out, err=err)
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["rag", *arguments], timeout_s, out.read_bytes(), err.read_bytes())
        return subprocess.CompletedProcess(["rag", *arguments], process.exitcode, out.read_text(), err.read_text())


def start(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    out: Path = Path(os.devnull),
    err: Path = Path(os.devnull),
) -> ForkServerProcess:
    """Start a command; it is the caller's to wait for it."""
    process = _context().Process(target=_be_rag, args=(list(arguments), dict(environment), Path.cwd(), out, err))
    process.start()
    return process


@cache
def _context() -> ForkServerContext:
    """Start the process that others are forked from; it ends with this one, however this one ends."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.integration.warm_imports"])
    before = dict(os.environ)
    try:
        for name in [name for name in os.environ if name.startswith("RAG_")]:
            del os.environ[name]
        # Its imports find this package by PYTHONPATH alone. The tracker beside it warns of what killed processes left.
        path = os.pathsep.join([str(REPO), *filter(None, [before.get("PYTHONPATH")])])
        os.environ.update({**QUIET, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore:resource_tracker"})
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


def _be_rag(arguments: list[str], environment: dict[str, str], folder: Path, out: Path, err: Path) -> None:
    """Turn the fork into a process like one that was started, and run the command."""
    for number, path in ((1, out), (2, err)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    logging.getLogger().handlers.clear()
    random.seed()
    sys.modules["numpy"].random.seed()
    sys.argv = ["rag", *arguments]
    atexit._clear()
    try:
        # Not before: its consoles ask what the output is when they are made.
        from rag_assets import runner
        from rag_assets.cli.app import main

        runner._WORKER_IDLE_S = WORKER_IDLE_S
        main()
    finally:
        atexit._run_exitfuncs()
