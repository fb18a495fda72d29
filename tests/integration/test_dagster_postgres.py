"""Dagster as a deployment runs it, from deploy/'s files: Postgres, code server, daemon, web server."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import psutil
import pytest
import yaml

from tests.ports import free_port
from tests.production.services import BIN, postgres, postgres_program, postgres_restarted, process
from tests.unit.deploy.files import DEPLOY, ROOT, read

pytestmark = pytest.mark.slow

WAIT_S = 180.0
LAUNCH = """
mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
RUNS = "{ runsOrError { ... on Runs { results { runId status tags { key value } } } } }"
DAEMONS = "{ instance { daemonHealth { allDaemonStatuses { daemonType healthy required } } } }"
POOLS = "{ instance { concurrencyLimits { concurrencyKey slotCount } } }"


@dataclass
class Deployed:
    """What is running, and where."""

    folder: Path
    url: str
    env: dict[str, str]
    code_port: int

    def ask(self, query: str, **variables: Any) -> Any:
        answer = httpx.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=30)
        answer.raise_for_status()
        found = answer.json()
        assert "errors" not in found, found
        return found["data"]

    def launch(self, partition: str, **more: str) -> str:
        """Launch the job of one stage for one partition, as the page does; it goes through the queue."""
        selector = {
            "repositoryName": "__repository__",
            "repositoryLocationName": "rag_assets",
            "jobName": "build_documents",
        }
        tags = [{"key": key, "value": value} for key, value in {"dagster/partition": partition, **more}.items()]
        done = self.ask(LAUNCH, params={"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}})
        assert done["launchRun"]["__typename"] == "LaunchRunSuccess", done
        return str(done["launchRun"]["run"]["runId"])

    def launch_when_back(self, partition: str, **more: str) -> str:
        """Launch as soon as it is taken: the web server may fail a request or two after Postgres was away."""
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                return self.launch(partition, **more)
            except (httpx.HTTPError, AssertionError):
                assert time.monotonic() < deadline, self.logs()
                time.sleep(1)

    def runs(self) -> dict[str, str]:
        return {run["runId"]: run["status"] for run in self.ask(RUNS)["runsOrError"]["results"]}

    def wait(self, run_id: str) -> str:
        """Wait for the end of a run; Postgres and the web server may be away meanwhile."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            try:
                status = self.runs().get(run_id, "")
            except (httpx.HTTPError, AssertionError):
                status = ""
            if status in {"SUCCESS", "FAILURE", "CANCELED"}:
                return status
            time.sleep(1)
        raise AssertionError(f"run {run_id} has not ended: {self.logs()}")

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.folder.glob("*.log"))

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / arguments[0]), *arguments[1:]]
        return subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("dagster")
    texts, home = folder / "texts", folder / "home"
    texts.mkdir()
    home.mkdir()
    for number in range(6):
        (texts / f"{number}.md").write_text(f"# Text {number}\n\nWhat is said in text {number}.\n")
    shutil.copy(DEPLOY / "dagster" / "machine.yaml", home / "dagster.yaml")
    source = {"name": "notes", "kind": "files", "root": str(texts)}
    config = {"store": {"root": str(folder / "store")}, "buckets": 2, "sources": [source], "embedding": {"workers": 3}}
    (folder / "rag.yaml").write_text(yaml.safe_dump(config))
    code_port, web_port = free_port(), free_port()
    workspace = read(DEPLOY / "compose" / "workspace.yaml")
    workspace["load_from"][0]["grpc_server"] |= {"host": "127.0.0.1", "port": code_port}
    (folder / "workspace.yaml").write_text(yaml.safe_dump(workspace))
    url = f"http://127.0.0.1:{web_port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/server_info", timeout=5).is_success
        except httpx.TransportError:
            return False

    with ExitStack() as stack:
        address = stack.enter_context(postgres(folder))
        stack.callback(stop_postgres, folder)
        own = {
            "DAGSTER_POSTGRES_URL": address, "DAGSTER_HOME": str(home), "RAG_CONFIG": str(folder / "rag.yaml"),
            "PYTHONPATH": str(ROOT), "DAGSTER_DISABLE_TELEMETRY": "yes",
        }  # fmt: skip
        found = Deployed(folder, url, {**os.environ, **own}, code_port)
        assert (done := found.command("rag", "pools")).returncode == 0, done.stderr
        health = ["dagster", "api", "grpc-health-check", "-p", str(code_port)]
        code = ["code-server", "start", "-m", "definitions", "-h", "127.0.0.1", "-p", str(code_port)]
        daemon = [str(BIN / "dagster-daemon"), "run", "-w", str(folder / "workspace.yaml")]
        page = ["-h", "127.0.0.1", "-p", str(web_port), "-w", str(folder / "workspace.yaml")]
        stack.enter_context(
            process("code", [str(BIN / "dagster"), *code], folder, lambda: found.command(*health).returncode == 0, own)
        )
        stack.enter_context(
            process(
                "daemon", daemon, folder, lambda: found.command("dagster-daemon", "liveness-check").returncode == 0, own
            )
        )
        stack.enter_context(process("page", [str(BIN / "dagster-webserver"), *page], folder, answers, own))
        yield found


def stop_postgres(folder: Path) -> None:
    """Stop the Postgres that was started again, which is no child of the one that the fixture ends."""
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((folder / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGINT)


def test_a_run_goes_through_the_queue(deployed: Deployed) -> None:
    run_id = deployed.launch("notes__00")
    assert deployed.wait(run_id) == "SUCCESS", deployed.logs()
    (deployed.folder / "store" / "tables" / "documents" / "_delta_log").stat()


def test_probes_and_pools_are_as_the_manifests_take_them(deployed: Deployed) -> None:
    health = deployed.ask(DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
    needed = {one["daemonType"]: one["healthy"] for one in health if one["required"]}
    assert {"SENSOR", "SCHEDULER", "QUEUED_RUN_COORDINATOR", "MONITORING"} <= needed.keys()
    assert all(needed.values()), needed
    limits = {one["concurrencyKey"]: one["slotCount"] for one in deployed.ask(POOLS)["instance"]["concurrencyLimits"]}
    assert {"embedding": 3, "milvus_writes": 1}.items() <= limits.items()
    closed = deployed.command("dagster", "api", "grpc-health-check", "-p", str(free_port()))
    assert closed.returncode != 0


def test_postgres_is_killed_and_comes_back(deployed: Deployed) -> None:
    """Nothing is started again by hand: all find the database again, and what was in it."""
    before = deployed.runs()
    with postgres_restarted(deployed.folder):
        time.sleep(3)  # every loop of the daemon meets its absence
        with pytest.raises((httpx.HTTPError, AssertionError)):
            deployed.runs()
    run_id = deployed.launch_when_back("notes__01")
    assert deployed.wait(run_id) == "SUCCESS", deployed.logs()
    assert before.keys() < deployed.runs().keys()
    assert deployed.command("dagster-daemon", "liveness-check").returncode == 0


def test_a_run_that_is_under_way_outlives_a_short_gap(deployed: Deployed) -> None:
    """Dagster tries to connect for some ten seconds, wherever the run meets the gap; the step's own retry is behind."""
    run_id = deployed.launch_when_back("notes__01")
    with ExitStack() as gap:
        with not_writing(deployed, step_begun(deployed, run_id)):
            gap.enter_context(postgres_restarted(deployed.folder))
        time.sleep(3)
    assert deployed.wait(run_id) == "SUCCESS", deployed.logs()


def test_an_upgrade_finds_nothing_to_migrate(deployed: Deployed) -> None:
    before = deployed.runs()
    done = deployed.command("dagster", "instance", "migrate")
    assert done.returncode == 0, done.stderr
    assert before.keys() <= deployed.runs().keys()


def test_a_dump_is_brought_back_into_an_empty_server(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history of runs, as docs/backup.md saves it: dumped, brought back elsewhere, read by Dagster."""
    dump = deployed.folder / "dagster.dump"
    address = deployed.env["DAGSTER_POSTGRES_URL"].replace("+psycopg2", "")
    subprocess.run([str(postgres_program("pg_dump")), "-Fc", "-f", str(dump), address], check=True)
    kept = deployed.runs().keys()
    with postgres(deployed.folder / "elsewhere") as other:
        target = ["--no-owner", "--exit-on-error", "-d", other.replace("+psycopg2", "")]
        subprocess.run([str(postgres_program("pg_restore")), *target, str(dump)], check=True)
        monkeypatch.setenv("DAGSTER_POSTGRES_URL", other)
        with dg.DagsterInstance.from_config(deployed.env["DAGSTER_HOME"]) as instance:
            found = instance.get_runs()
            assert {run.run_id for run in found} <= kept
            assert {run.run_id for run in found if run.is_success} >= {launched(deployed, "notes__00")}
            events = instance.get_latest_materialization_event(dg.AssetKey("documents"))
            assert events is not None


def launched(deployed: Deployed, partition: str) -> str:
    """Return the run that the first test launched."""
    tag = {"key": "dagster/partition", "value": partition}
    runs = deployed.ask(RUNS)["runsOrError"]["results"]
    return str(next(run["runId"] for run in runs if tag in run["tags"] and run["status"] == "SUCCESS"))


def test_a_run_that_is_lost_while_postgres_is_away_is_given_up_after_its_time(deployed: Deployed) -> None:
    """Nobody writes that it ended. The last test: the code server stops to look after runs then, and may start none."""
    run_id = deployed.launch_when_back("notes__00", **{"dagster/max_runtime": "20"})
    process = step_begun(deployed, run_id)
    with postgres_restarted(deployed.folder):
        os.kill(process, signal.SIGKILL)
        time.sleep(30)  # longer than anyone tries to write that it is gone
    assert deployed.wait(run_id) == "FAILURE", deployed.logs()


def step_begun(deployed: Deployed, run_id: str) -> int:
    """Wait until a run has begun a step, and return its process, as its log lines name it."""
    deadline, log = time.monotonic() + WAIT_S, deployed.folder / "code.log"
    while not (found := re.search(rf"{run_id} - (\d+) - \w+ - STEP_START", log.read_text())):
        assert time.monotonic() < deadline, deployed.logs()
        time.sleep(0.05)
    return int(found[1])


@contextmanager
def not_writing(deployed: Deployed, process: int) -> Iterator[None]:
    """Hold a process still at a moment when it has no connection to Postgres: it has one for each statement."""
    port = int(deployed.env["DAGSTER_POSTGRES_URL"].rpartition(":")[2].partition("/")[0])
    run = psutil.Process(process)
    run.suspend()
    try:
        while any(one.raddr and one.raddr.port == port for one in run.net_connections()):
            run.resume()
            time.sleep(0.01)
            run.suspend()
        yield
    finally:
        run.resume()
