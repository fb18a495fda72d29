"""What happens in a process that a zygote has forked: it executes one run, or closes one whose process died."""

import logging
import os
import random
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress

import dagster as dg
from dagster._cli.api import _execute_run_command_body
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import deserialize_value
from dagster._utils.interrupts import capture_interrupts

from rag_assets.launcher.files import ZygoteFiles
from rag_assets.launcher.protocol import Request
from rag_assets.processes import PROCESS_TAG, process_tag

WARM_TAG = "rag/warm"
"""Tag of a run that a zygote's child executes."""


def execute(request: Request, files: ZygoteFiles) -> None:
    """Execute a run as `dagster api execute_run` does (dagster 1.13.27, dagster/_cli/api.py, execute_run_command).

    Events go to the instance; whatever the run's end, it is recorded there. Nothing is done for a run that was started
    before.

    Raises:
        Exception: The instance or the run cannot be read.
    """
    try:
        output = files.claim(request.run_id)
    except FileExistsError:
        return
    _become_a_run(request, output)
    with capture_interrupts(), dg.DagsterInstance.from_ref(_instance_ref(request)) as instance:
        # Before the run says that it has started: from then on its health is looked at by this tag.
        instance.add_run_tags(request.run_id, {PROCESS_TAG: process_tag(), WARM_TAG: "yes"})
        _execute_run_command_body(request.run_id, instance, lambda _: None, set_exit_code_on_failure=False)


def close(request: Request, files: ZygoteFiles, ending: str) -> None:
    """Mark a run as failed whose process ended before the run did, and free the places that it holds in pools.

    As Dagster's code server does for its own (dagster/_grpc/server.py, _check_for_run_cleanup), but at once.

    Args:
        request: The run.
        files: Where its output is.
        ending: How the process ended.
    """
    output = os.open(files.output(request.run_id), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    _become_a_run(request, output)
    with dg.DagsterInstance.from_ref(_instance_ref(request)) as instance:
        run = instance.get_run_by_id(request.run_id)
        if run is None:
            return
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        if run.is_finished:
            return
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, f"The process of this run {ending}.")
        else:
            instance.report_run_failed(run, f"The process of this run {ending} before the run had ended.")


def ending_of(status: int) -> str:
    """Put the status of `waitpid` into words."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hint = " (out of memory, perhaps)" if number == signal.SIGKILL else ""
        return f"was killed by {signal.Signals(number).name}{hint}"
    return f"ended with exit code {os.waitstatus_to_exitcode(status)}"


def leave(code: int) -> None:
    """End this process without what the zygote registered for its own end."""
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def report_crash() -> None:
    """Write the exception that is handled to the output."""
    with suppress(Exception):
        traceback.print_exc()


def _instance_ref(request: Request) -> InstanceRef:
    return deserialize_value(request.instance_ref, InstanceRef)


def _become_a_run(request: Request, output: int) -> None:
    """Turn the zygote's copy into a process like one that was started: session, output, environment, randomness."""
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    # Messages go to where stderr is now.
    logging.getLogger().handlers.clear()
    os.environ.clear()
    os.environ.update(request.env)
    with suppress(OSError):
        os.chdir(request.cwd)
    _seed()
    _allow_threads(request.env)


def _seed() -> None:
    """Give each run its own random numbers; Python's generator is seeded anew by itself, numpy's is not."""
    random.seed()
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()


def _allow_threads(env: Mapping[str, str]) -> None:
    """Let linear algebra use the processors again, which it must not in the zygote (`preload.QUIET`)."""
    if (threadpoolctl := sys.modules.get("threadpoolctl")) is None:
        return
    asked = env.get("OPENBLAS_NUM_THREADS") or env.get("OMP_NUM_THREADS") or ""
    threadpoolctl.threadpool_limits(int(asked) if asked.isdigit() else len(os.sched_getaffinity(0)), user_api="blas")
