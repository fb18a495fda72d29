"""Runs in forked processes: they work, are watched, can be ended, and start cold where there is no zygote."""

import fcntl
import itertools
import json
import logging
import os
import shutil
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from rag_assets.cli.dev_runs import RunWatcher, end_runs
from rag_assets.launcher.client import ZygoteClient
from rag_assets.launcher.files import ZygoteFiles, held_lease
from rag_assets.processes import PROCESS_TAG, pid_of
from rag_core.index.lite_files import LiteFiles, is_locked
from rag_core.index.lite_server import ensure_running, stop
from tests.conftest import REPO
from tests.integration.launcher_helpers import Launches, launches

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.uname().sysname != "Linux", reason="forks on Linux only")]

LOCATION = "warm_location"


def until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the code location, importable here and in every process that is started."""
    folder = tmp_path_factory.mktemp("code")
    shutil.copy(Path(__file__).with_name(f"{LOCATION}.py"), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(REPO)]))
        patch.delenv("DAGSTER_HOME", raising=False)
        yield folder


@pytest.fixture(scope="module")
def made(code: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launches]:
    # Longer than the address of a socket may be.
    root = tmp_path_factory.mktemp("a-folder-with-a-name-that-is-much-longer-than-the-address-of-a-unix-socket-may-be")
    with launches(root, LOCATION, folder=code) as made:
        yield made


def patient(made: Launches, folder: Path, name: str = "run") -> tuple[str, Path]:
    """Launch a run that waits, and return it and the file that releases it."""
    folder.mkdir(parents=True, exist_ok=True)
    started, release = folder / f"{name}.started", folder / f"{name}.release"
    config = {"ops": {"wait_for_release": {"config": {"started": str(started), "release": str(release)}}}}
    run_id = made.create("patient", config)
    made.launch(run_id)
    until(started.exists)
    return run_id, release


def look_around(made: Launches, into: Path) -> dict:
    run = made.run("quick", {"ops": {"look_around": {"config": {"into": str(into)}}}})
    assert run.is_success, made.story(run.run_id)
    return {"run": run, **json.loads(into.read_text())}


def test_a_run_is_a_fork_with_the_launchers_environment(
    made: Launches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_LAUNCHER", "yes")
    before = time.time()
    first, second = (look_around(made, tmp_path / name) for name in ("first", "second"))
    assert first["pid"] != second["pid"]
    assert first["session"] == first["pid"] == pid_of(first["run"].tags[PROCESS_TAG])
    assert first["cwd"] == str(Path.cwd())
    assert (first["variable"], first["quiet"]) == ("yes", None)
    assert first["brought"] == ["deltalake", "pymilvus", "great_expectations"], "torch is not for the zygote"
    assert set(first["blas_threads"]) == {len(os.sched_getaffinity(0))}
    assert first["numpy_random"] != second["numpy_random"]
    # Neither imported its modules: they were there before.
    assert first["at_import"] == second["at_import"]
    assert second["at_import"] < max(before, made.files.zygote_lock.stat().st_mtime + 120)
    zygotes = {os.readlink(entry) for entry in Path(f"/proc/{made.zygote()}/fd").iterdir()}  # noqa: PTH115 -- as text
    own = {link for link in zygotes if link.startswith("socket:") or link.endswith(".lock")}
    assert len(own) == 4, "its lock, where it listens, and what wakes it"
    assert not own & set(first["open_files"]), "a run that held them would pass for the zygote"
    mode = made.files.socket.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert len(list(Path(f"/proc/{made.zygote()}/task").iterdir())) == 1
    assert "threads" not in made.files.log.read_text()


@pytest.mark.milvus
def test_twenty_at_once_use_every_library(made: Launches, tmp_path: Path) -> None:
    milvus = LiteFiles(tmp_path / "milvus" / "data")
    uri = ensure_running(milvus, idle_s=600)
    config = {"root": str(tmp_path), "milvus": uri}
    try:
        runs = [
            made.create("real_work", {"ops": {"work_with_everything": {"config": {**config, "number": number}}}})
            for number in range(20)
        ]
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(made.launch, runs))
        ended = [made.wait(run_id, timeout_s=300) for run_id in runs]
    finally:
        stop(milvus)
    failed = [run for run in ended if not run.is_success]
    assert not failed, made.story(failed[0].run_id)
    assert all("rag/warm" in run.tags for run in ended)
    assert len({run.tags[PROCESS_TAG] for run in ended}) == 20
    until(lambda: not psutil.Process(made.zygote()).children(), 20)


def test_pools_and_retries_hold_in_one_process(made: Launches, tmp_path: Path) -> None:
    made.instance.event_log_storage.set_concurrency_slots("milvus_writes", 1)
    files = [tmp_path / str(number) for number in range(3)]
    runs = [made.create("pooled", {"ops": {"hold_the_pool": {"config": {"into": str(file)}}}}) for file in files]
    for run_id in runs:
        made.launch(run_id)
    assert all(made.wait(run_id).is_success for run_id in runs)
    held = sorted(json.loads(file.read_text()) for file in files)
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(held)), held
    retried = made.run("retried")
    assert retried.is_success, made.story(retried.run_id)
    kinds = made.instance.all_logs(retried.run_id, of_type=dg.DagsterEventType.STEP_RESTARTED)
    assert len(kinds) == 1


def test_a_killed_run_is_closed_at_once(made: Launches) -> None:
    run = made.run("killed", timeout_s=10)
    assert run.is_failure
    assert "SIGKILL" in made.story(run.run_id)


def test_monitoring_notices_a_killed_run_whose_zygote_is_gone(made: Launches, tmp_path: Path) -> None:
    run_id, _ = patient(made, tmp_path)
    alive, _ = patient(made, tmp_path, "alive")
    os.kill(made.zygote(), signal.SIGKILL)
    until(lambda: not is_locked(made.files.zygote_lock))
    assert made.launcher.check_run_worker_health(made.get(run_id)).status == WorkerStatus.RUNNING
    os.kill(pid_of(made.get(run_id).tags[PROCESS_TAG]), signal.SIGKILL)
    until(lambda: made.launcher.check_run_worker_health(made.get(run_id)).status == WorkerStatus.FAILED)
    list(execute_run_monitoring_iteration(made.workspace, logging.getLogger("test")))
    assert made.get(run_id).is_failure
    assert "is gone" in made.story(run_id)
    # The other is a run of its own, and the next launch finds a new zygote.
    assert not made.get(alive).is_finished
    (tmp_path / "alive.release").touch()
    assert made.wait(alive).is_success
    assert look_around(made, tmp_path / "next")["pid"]


def test_a_run_is_interrupted_as_by_the_default_launcher(made: Launches, tmp_path: Path) -> None:
    run_id, _ = patient(made, tmp_path)
    assert made.launcher.terminate(run_id)
    assert made.wait(run_id).status == dg.DagsterRunStatus.CANCELED
    assert not made.launcher.terminate(run_id), "it has ended"


def test_a_run_whose_process_is_gone_is_canceled(made: Launches, tmp_path: Path) -> None:
    run_id, _ = patient(made, tmp_path)
    zygote = psutil.Process(made.zygote())
    zygote.suspend()  # so that it does not close the run first
    try:
        os.kill(pid_of(made.get(run_id).tags[PROCESS_TAG]), signal.SIGKILL)
        until(lambda: made.launcher.check_run_worker_health(made.get(run_id)).status == WorkerStatus.FAILED)
        assert made.launcher.terminate(run_id)
        assert made.get(run_id).status == dg.DagsterRunStatus.CANCELED
    finally:
        zygote.resume()


def test_changed_code_has_a_new_zygote_and_old_runs_go_on(made: Launches, code: Path, tmp_path: Path) -> None:
    run_id, release = patient(made, tmp_path)
    before = made.zygote()
    module = code / f"{LOCATION}.py"
    source = module.read_text()
    module.write_text(source.replace("VERSION = 1\n", "VERSION = 22\n"))
    try:
        assert look_around(made, tmp_path / "seen")["version"] == 22
        assert made.zygote() not in (0, before)
        assert not psutil.pid_exists(before)
        assert not made.get(run_id).is_finished
        release.touch()
        assert made.wait(run_id).is_success
    finally:
        module.write_text(source)


def test_a_launch_that_got_no_answer_is_settled(made: Launches, tmp_path: Path) -> None:
    """A zygote that is killed between a request and its answer has started the run or not, and never twice."""
    look_around(made, tmp_path / "seen")
    zygote = psutil.Process(made.zygote())
    zygote.suspend()
    run_id = made.create("retried")
    launching = threading.Thread(target=made.launch, args=(run_id,))
    launching.start()
    until(lambda: is_locked(made.files.start_lock))
    zygote.kill()
    launching.join(60)
    assert made.wait(run_id).is_success, made.story(run_id)
    starts = [entry for entry in made.instance.all_logs(run_id) if entry.message.startswith("Started process for run")]
    assert len(starts) == 1
    # That one went away says nothing about the next, which starts at once.
    assert "rag/warm" in made.run("retried").tags


def test_without_a_zygote_a_run_starts_as_usual(code: Path, tmp_path: Path) -> None:
    with launches(tmp_path / "cold", LOCATION, folder=code, start_timeout_s=0.01) as made:
        run = made.run("retried", timeout_s=120)
        assert run.is_success, made.story(run.run_id)
        assert PROCESS_TAG not in run.tags
        assert "This run starts in a new process" in made.story(run.run_id)
        assert made.launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
        # The next does not wait for another attempt.
        began = time.monotonic()
        with pytest.raises(Exception, match="did not start"):
            made.launcher.client.launch("none", "", may_start=False)
        assert time.monotonic() - began < 5


def client(home: Path, idle_s: float) -> tuple[ZygoteFiles, ZygoteClient]:
    files = ZygoteFiles(home)
    return files, ZygoteClient(files, code_module=LOCATION, idle_s=idle_s, start_timeout_s=120)


def test_it_goes_when_idle_and_stays_for_rag_dev(code: Path, tmp_path: Path) -> None:
    files, idle = client(tmp_path, 0.5)
    with held_lease(files):
        idle.warm_up()
        log = files.log
        descriptor = os.open(files.lease, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
        with pytest.raises(AssertionError, match="come to pass"):
            until(lambda: not is_locked(files.zygote_lock), 3)
    until(lambda: not is_locked(files.zygote_lock), 10)
    assert "rag dev has ended" in log.read_text()
    idle.warm_up()
    until(lambda: not is_locked(files.zygote_lock), 10)
    assert "idle" in log.read_text()
    assert not files.socket.exists()


def test_time_from_launch_to_first_step(made: Launches, capsys: pytest.CaptureFixture[str]) -> None:
    made.run("retried")
    warm = made.starts(made.run("retried").run_id)
    with launches(made.home.parent / "cold", LOCATION, folder=Path.cwd(), start_timeout_s=0.01) as cold_made:
        cold_made.run("retried", timeout_s=120)
        cold = cold_made.starts(cold_made.run("retried", timeout_s=120).run_id)
    with capsys.disabled():
        for name, found in (("warm", warm), ("default", cold)):
            print(f"\n{name}: {', '.join(f'{key} {value:.2f} s' for key, value in found.items())}", end="")  # noqa: T201
    assert warm.keys() == cold.keys()


def test_rag_dev_lets_runs_finish_and_then_interrupts_them(made: Launches, tmp_path: Path) -> None:
    finishing, release = patient(made, tmp_path, "finishing")
    staying, _ = patient(made, tmp_path, "staying")
    said: list[str] = []
    threading.Timer(0.5, release.touch).start()
    end_runs(made.instance, threading.Event(), said.append, patience_s=5)
    assert made.get(finishing).is_success
    assert made.get(staying).status == dg.DagsterRunStatus.CANCELED
    assert said[0].startswith("2 runs in progress")
    assert said[1].startswith(f"interrupting 1 run: {staying[:8]}")
    assert len(said) == 2
    end_runs(made.instance, threading.Event(), said.append)
    assert len(said) == 2, "there is nothing to wait for"


def test_rag_dev_says_what_ran(made: Launches) -> None:
    said: list[str] = []
    watcher = RunWatcher(made.instance, "http://ui", said.append)
    made.run("retried")
    failed = made.run("killed")
    watcher.look()
    watcher.tell()
    said = [line for line in said if "patient" not in line]  # an earlier test's, which may end meanwhile
    assert len(said) == 2, said
    assert "retried: done in" in said[0]
    assert "killed: failure in" in said[1]
    assert said[1].endswith(f"http://ui/runs/{failed.run_id}")
