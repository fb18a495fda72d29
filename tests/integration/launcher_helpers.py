"""An instance with the warm launcher, and runs launched on it through a workspace, as the daemon does it."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import yaml
from dagster._cli.job import _create_run
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget

from rag_assets.instance_settings import default_settings
from rag_assets.launcher import WarmRunLauncher
from rag_assets.launcher.files import ZygoteFiles
from rag_core.config_freshness import RunConfig
from rag_core.index.lite_files import is_locked

IN_PROGRESS = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED)


@dataclass
class Launches:
    """An instance in a folder, and a workspace with one code location."""

    home: Path
    instance: dg.DagsterInstance
    workspace: WorkspaceProcessContext

    @property
    def files(self) -> ZygoteFiles:
        return ZygoteFiles(self.home)

    @property
    def launcher(self) -> WarmRunLauncher:
        launcher = self.instance.run_launcher
        assert isinstance(launcher, WarmRunLauncher)
        return launcher

    def zygote(self) -> int:
        return int(self.files.zygote_lock.read_text() or 0) if is_locked(self.files.zygote_lock) else 0

    def create(self, job: str, config: dict[str, Any] | None = None, tags: dict[str, str] | None = None) -> str:
        """Create a run of a job that is ready to be launched."""
        request = self.workspace.create_request_context()
        location = request.code_locations[0]
        repository = next(iter(location.get_repositories().values()))
        remote = repository.get_full_job(job)
        return _create_run(self.instance, location, repository, remote, config or {}, tags, None, None).run_id

    def launch(self, run_id: str) -> None:
        """Launch it, as the daemon does with a run that its queue lets go."""
        self.instance.launch_run(run_id, self.workspace.create_request_context())

    def run(self, job: str, config: dict[str, Any] | None = None, *, timeout_s: float = 60) -> dg.DagsterRun:
        """Create, launch and wait."""
        run_id = self.create(job, config)
        self.launch(run_id)
        return self.wait(run_id, timeout_s=timeout_s)

    def get(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def wait(self, run_id: str, *, timeout_s: float = 60) -> dg.DagsterRun:
        """Wait until a run has ended."""
        deadline = time.monotonic() + timeout_s
        while not (run := self.get(run_id)).is_finished:
            assert time.monotonic() < deadline, self.story(run_id)
            time.sleep(0.05)
        return run

    def story(self, run_id: str) -> str:
        """Tell what is known of a run, for a failed assertion."""
        events = [f"{entry.timestamp:.2f} {entry.message[:500]}" for entry in self.instance.all_logs(run_id)]
        log = self.files.log.read_text()[-3000:] if self.files.log.exists() else ""
        output = self.files.output(run_id)
        return "\n".join([str(self.get(run_id)), *events, log, output.read_text()[-3000:] if output.exists() else ""])

    def starts(self, run_id: str) -> dict[str, float]:
        """Return the seconds from the launch to some events."""
        wanted = {
            dg.DagsterEventType.RUN_START: "run_started",
            dg.DagsterEventType.STEP_START: "first_step",
            dg.DagsterEventType.RUN_SUCCESS: "run_succeeded",
        }
        found: dict[str, float] = {}
        launched = 0.0
        for entry in self.instance.all_logs(run_id):
            kind = entry.dagster_event.event_type if entry.dagster_event else None
            if kind == dg.DagsterEventType.RUN_STARTING:
                launched = entry.timestamp
            if kind in wanted:
                found.setdefault(wanted[kind], entry.timestamp - launched)
            if entry.message.startswith("Started process for run"):
                found.setdefault("process", entry.timestamp - launched)
        return found


@contextmanager
def launches(root: Path, module: str, *, folder: Path | None = None, **settings: Any) -> Iterator[Launches]:
    """Make an instance in `root` and load a code location; at the end nothing of it runs any more."""
    home = root / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    content = yaml.safe_load(default_settings(RunConfig()))
    content["run_launcher"]["config"] = {"code_module": module, **settings}
    (home / "dagster.yaml").write_text(yaml.safe_dump(content))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home)))
        target = ModuleTarget(
            module_name=module,
            attribute=None,
            working_directory=str(folder or Path.cwd()),
            location_name="tests",
        )
        workspace = stack.enter_context(WorkspaceProcessContext(instance, target))
        made = Launches(home, instance, workspace)
        stack.callback(end, made)
        yield made


def end(made: Launches) -> None:
    """Stop the zygote and every run."""
    made.launcher.client.stop()
    deadline = time.monotonic() + 20
    while made.zygote() and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in psutil.process_iter(["cmdline"]):
        if str(made.home) in " ".join(process.info["cmdline"] or ()) and process.pid != os.getpid():
            process.kill()
