"""The run launcher that `dagster.yaml` names: runs in forked processes, and in new ones where that does not work."""

import logging
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster._config import Field
from dagster._config.config_schema import UserConfigSchema
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._serdes import ConfigurableClassData, serialize_value

from rag_assets.launcher.client import ZygoteClient, ZygoteUnansweredError
from rag_assets.launcher.files import ZygoteFiles
from rag_assets.processes import PROCESS_TAG, is_alive, is_here, pid_of, send_signal
from rag_core.errors import TransientError
from rag_core.index.lite_files import last_lines

_LOGGER = logging.getLogger(__name__)
_PAUSE_S = 60.0  # after a zygote that did not start, runs start as usual for so long without waiting for another
_TAGGED_S = 5.0  # a process that was forked has by then said which it is


class WarmRunLauncher(DefaultRunLauncher):
    """Starts the processes of runs from a zygote, which has imported everything; else as Dagster's default does.

    Args:
        idle_s: The zygote ends this long after the last run; while `rag dev` runs, it stays.
        start_timeout_s: A zygote that is not ready by then is not waited for: the run starts as usual.
        code_module: Module of the code location whose runs it starts; those of others start as usual.
    """

    def __init__(
        self,
        idle_s: float = 600.0,
        start_timeout_s: float = 90.0,
        code_module: str = "definitions",
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        super().__init__(inst_data=inst_data)
        self._settings = {"idle_s": idle_s, "start_timeout_s": start_timeout_s}
        self._code_module = code_module
        self._guard = threading.Lock()
        self._paused_until = 0.0

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Describe the settings in `dagster.yaml`."""
        return {
            "idle_s": Field(float, is_required=False, default_value=600.0),
            "start_timeout_s": Field(float, is_required=False, default_value=90.0),
            "code_module": Field(str, is_required=False, default_value="definitions"),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Make a launcher of the settings in `dagster.yaml`."""
        return cls(inst_data=inst_data, **config_value)

    @property
    def client(self) -> ZygoteClient:
        """What talks to the zygote of this instance."""
        return ZygoteClient(self._files, code_module=self._code_module, **self._settings)

    @property
    def _files(self) -> ZygoteFiles:
        return ZygoteFiles(Path(self._instance.root_directory))

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run; in a process that the code server starts if there is no zygote, with an event that says so."""
        run = context.dagster_run
        if not self._is_of_code_module(run):
            super().launch_run(context)
            return
        try:
            self._launch_warm(run.run_id)
        except (TransientError, OSError) as error:
            _LOGGER.warning("run %s starts cold: %s", run.run_id, error)
            self._instance.report_engine_event(
                f"The zygote that starts runs at once cannot be used: {error}. This run starts in a new process, "
                "which takes some seconds longer.",
                run,
                cls=type(self),
            )
            super().launch_run(context)

    def _launch_warm(self, run_id: str) -> None:
        with self._guard:
            may_start = time.monotonic() >= self._paused_until
        try:
            self.client.launch(run_id, serialize_value(self._instance.get_ref()), may_start=may_start)
        except (TransientError, OSError) as error:
            if may_start and not isinstance(error, ZygoteUnansweredError):
                with self._guard:
                    self._paused_until = time.monotonic() + _PAUSE_S
            raise
        self._run_ids.add(run_id)

    def _is_of_code_module(self, run: dg.DagsterRun) -> bool:
        origin = run.job_code_origin
        return origin is not None and getattr(origin.repository_origin.code_pointer, "module", "") == self._code_module

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring asks after the processes of runs."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Tell whether the process of a run is alive.

        A run without a process of ours, or with one on another machine, counts as running: who started it knows better.
        """
        tag = run.tags.get(PROCESS_TAG)
        if tag is None or not is_here(tag) or is_alive(tag):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.FAILED, f"its process {pid_of(tag)} is gone: killed, out of memory, or the machine restarted"
        )

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """Return the last lines that the process of a run wrote outside of its steps; None if there are none."""
        output = self._files.output(run.run_id)
        text = last_lines(output) if output.exists() else ""
        return f"Last lines of {output}:\n{text}" if text else None

    def terminate(self, run_id: str) -> bool:
        """Interrupt the process of a run, as Ctrl-C would; the run then ends as canceled.

        Returns:
            False if the run had ended, or its process is on another machine.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        tag = self.process_of(run)
        if tag is None:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        if not is_here(tag):
            self._instance.report_engine_event(f"Its process {tag} is on another machine.", run, cls=type(self))
            return False
        if not send_signal(tag, signal.SIGINT):
            self._instance.report_run_canceled(run, "The process of this run was gone.")
        return True

    def process_of(self, run: dg.DagsterRun) -> str | None:
        """Return the tag of a run's process, waiting for it if it has just been forked; None if it has none."""
        deadline = time.monotonic() + _TAGGED_S
        tag = run.tags.get(PROCESS_TAG)
        while tag is None and self._files.output(run.run_id).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
            newer = self._instance.get_run_by_id(run.run_id)
            tag = newer.tags.get(PROCESS_TAG) if newer is not None else None
        return tag
