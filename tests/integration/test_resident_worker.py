"""The resident embedding worker: real processes, the real built-in model, real Delta tables."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import psutil
import pyarrow as pa
import pytest
import yaml
from dagster_pipes import encode_param
from deltalake import DeltaTable

from rag_core import ids
from rag_core.config import EmbeddingConfig
from rag_core.embedding import resident
from rag_core.embedding.cache import VectorCache
from rag_core.embedding.manifest import ITEMS, write_manifest
from rag_core.embedding.model import resolve_model
from rag_core.embedding.resident.files import ResidentFiles, resident_files
from rag_core.errors import PermanentError, TransientError
from rag_core.index.lite_files import is_locked
from rag_core.tables.store import Store
from resources.embedding import EmbeddingLauncherResource
from resources.platform import PlatformResource
from tests.integration.embedding_server import WORDS_DIM, serving, words

SENTENCE = "the boundary layer of a slender wing in supersonic flow was measured at several angles of attack "
FEW = [f"{n}: {SENTENCE}" for n in range(5)]
MANY = [f"{n}: {SENTENCE * 3}" for n in range(40)]
SETTINGS = {"precision": "fp32", "device": "cpu", "checkpoint_tokens": 500, "worker_idle_s": 120.0}

pytestmark = pytest.mark.slow


class Bench:
    """A store whose worker the tests use, directly and through Dagster."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        self.settings = {**SETTINGS, **settings}
        self.store = Store(str(root / "data"))
        self.jobs = 0

    @property
    def files(self) -> ResidentFiles:
        return resident_files(self.store)

    def config(self, **settings: Any) -> EmbeddingConfig:
        return EmbeddingConfig(**{**self.settings, **settings})

    def manifest(self, texts: list[str], **settings: Any) -> str:
        config = self.config(**settings)
        self.jobs += 1
        columns = [[ids.text_hash(t) for t in texts], texts, [len(t.split()) for t in texts]]
        batch = pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, ITEMS, strict=True)], schema=ITEMS)
        address = write_manifest(self.store, config, resolve_model(config), [batch], f"job{self.jobs}")
        assert address is not None
        return address

    def pipes(self, name: str = "") -> dict[str, str]:
        """Return Pipes variables as a session has them; the messages go to a file."""
        context = self.root / "context.json"
        context.write_text(json.dumps({"extras": {}, "run_id": "r"}))
        messages = {"path": str(self.messages_file(name)), "include_stdio_in_messages": False}
        return {
            "DAGSTER_PIPES_CONTEXT": encode_param({"path": str(context)}),
            "DAGSTER_PIPES_MESSAGES": encode_param(messages),
        }

    def messages_file(self, name: str = "") -> Path:
        return self.root / f"messages{name or self.jobs}"

    def messages(self, name: str = "") -> list[dict[str, Any]]:
        path = self.messages_file(name)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def embed(self, texts: list[str], **settings: Any) -> resident.Answer:
        manifest = self.manifest(texts, **settings)
        return resident.embed(self.store, self.config(**settings), manifest, pipes=self.pipes())

    def missing(self, texts: list[str]) -> int:
        fingerprint = resolve_model(self.config()).fingerprint
        return len(VectorCache(self.store).missing(fingerprint, [ids.text_hash(text) for text in texts]))

    def rows(self) -> int:
        """Count the stored vectors, repeated ones as often as they are there."""
        return int(DeltaTable(self.store.table_uri("vectors")).to_pyarrow_dataset().count_rows())

    def launch(self, manifest: str, on_progress: Callable[..., None] = lambda *_: None, **settings: Any) -> Any:
        """Run a manifest in an asset, as the pipeline does; gives what the launcher returned, or raises what it did."""
        path = self.root / "rag.yaml"
        embedding = {**self.settings, **settings}
        source = {"name": "a", "kind": "files", "root": str(self.root)}
        path.write_text(yaml.safe_dump({"store": {"root": "data"}, "sources": [source], "embedding": embedding}))
        outcome: list[Any] = []

        @dg.asset
        def embeddings(
            context: dg.AssetExecutionContext, launcher: EmbeddingLauncherResource
        ) -> dg.MaterializeResult[None]:
            try:
                outcome.append(launcher.run(context, manifest, on_progress))
            except (PermanentError, TransientError) as error:
                outcome.append(error)
            return dg.MaterializeResult()

        launcher = EmbeddingLauncherResource(platform=PlatformResource(config_path=str(path)))
        with dg.DagsterInstance.ephemeral() as instance:
            assert dg.materialize([embeddings], instance=instance, resources={"launcher": launcher}).success
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """With the built-in model."""
    made = Bench(tmp_path)
    yield made
    resident.stop(made.store)


class Endpoint:
    """A model that needs no loading, and answers as a test says."""

    def __init__(self) -> None:
        self.zero = False
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, texts: Any) -> np.ndarray:
        self.go_on.wait(60)
        return np.zeros((len(texts), WORDS_DIM), np.float32) if self.zero else words(texts)


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
def light(tmp_path: Path, endpoint: Endpoint) -> Iterator[Bench]:
    """With an endpoint's model, for what is about the process."""
    with serving(endpoint) as address:
        made = Bench(tmp_path, backend="openai", model="m", base_url=address, dim=WORDS_DIM, request_batch=4)
        yield made
        endpoint.go_on.set()
        resident.stop(made.store)


def wait_until(condition: Callable[[], Any], *, timeout_s: float = 60.0) -> None:
    """Wait for what another process does; its files are all there is to look at."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def test_the_second_job_finds_the_model_loaded(bench: Bench) -> None:
    progress: list[tuple[Any, ...]] = []
    started = time.perf_counter()
    cold = bench.launch(bench.manifest(FEW), lambda *seen: progress.append(seen))
    between = time.perf_counter()
    pid = int(bench.files.alive.read_text())
    warm = bench.launch(bench.manifest([f"again {text}" for text in FEW]))
    seconds = (between - started, time.perf_counter() - between)
    rss = psutil.Process(pid).memory_info().rss
    print(f"\ncold {seconds[0]:.2f} s, warm {seconds[1]:.2f} s with the run's own; {rss >> 20} MiB resident")  # noqa: T201 - with -s
    assert progress[-1][0] == "tokens embedded"
    assert progress[-1][1] == progress[-1][2] > 0
    assert (cold["embedded_count"], warm["embedded_count"], warm["texts"]) == (5, 5, 5)
    assert cold["load_seconds"] > warm["load_seconds"]
    assert int(bench.files.alive.read_text()) == pid
    answer = bench.embed(["a third job"])
    assert (answer.pid, answer.loads) == (pid, 1)
    assert bench.files.socket.stat().st_mode & 0o777 == 0o600


def test_vectors_are_those_of_a_worker_of_its_own(bench: Bench, tmp_path: Path) -> None:
    other = Bench(tmp_path / "other")
    bench.launch(bench.manifest(FEW))
    other.root.mkdir()
    other.launch(other.manifest(FEW), worker_idle_s=0)
    assert not other.files.socket.parent.exists()
    fingerprint = resolve_model(bench.config()).fingerprint
    hashes = [ids.text_hash(text) for text in FEW]
    found, vectors = VectorCache(bench.store).lookup(fingerprint, hashes)
    assert found == hashes
    np.testing.assert_allclose(vectors, VectorCache(other.store).lookup(fingerprint, hashes)[1], atol=1e-6)


def test_killed_during_a_job_and_the_retry_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = bench.manifest(MANY)
    monkeypatch.setenv("RAG_CRASH_AT", "embeddings.worker.after_append")  # SIGKILL behind the first checkpoint
    with pytest.raises(TransientError, match="worker died; texts that it committed are kept"):
        bench.launch(manifest)
    missing = bench.missing(MANY)
    assert 0 < missing < len(MANY)
    monkeypatch.delenv("RAG_CRASH_AT")
    report = bench.launch(manifest)
    assert (report["embedded_count"], report["reused_count"]) == (missing, len(MANY) - missing)
    assert bench.rows() == len(MANY)


def test_it_leaves_when_there_is_no_work(light: Bench) -> None:
    pid = light.embed(FEW, worker_idle_s=0.5).pid
    wait_until(lambda: not psutil.pid_exists(pid))
    assert not is_locked(light.files.alive)
    assert not light.files.socket.exists()
    assert light.embed(["more"]).pid != pid


def test_it_stays_for_the_client_that_asks_for_longest(light: Bench) -> None:
    pid = light.embed(FEW).pid
    assert light.embed(["a command that ends"], worker_idle_s=0.1).pid == pid
    time.sleep(1.5)  # longer than it takes to look
    assert light.embed(["later"]).pid == pid


def test_it_leaves_when_the_store_is_removed(light: Bench) -> None:
    pid = light.embed(FEW).pid
    shutil.rmtree(light.root / "data")
    wait_until(lambda: not psutil.pid_exists(pid))


def test_a_stale_one_is_replaced(light: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = light.embed(FEW)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "renewed")
    second = light.embed(["with other credentials"])
    assert first.pid != second.pid
    with suppress(psutil.NoSuchProcess):
        psutil.Process(first.pid).wait(30)  # it has let go of the socket, and may still be ending
    assert second.loads == 1
    assert light.missing([*FEW, "with other credentials"]) == 0


def test_another_model_replaces_the_one_it_holds(bench: Bench) -> None:
    first = bench.embed(FEW)
    second = bench.embed(FEW, max_tokens=64)
    third = bench.embed(["a"], max_tokens=64)
    assert first.pid == second.pid == third.pid
    assert (first.loads, second.loads, third.loads) == (1, 2, 2)
    assert bench.rows() == 2 * len(FEW) + 1


def test_two_clients_take_turns(light: Bench) -> None:
    jobs = [[f"{name} {text}" for text in MANY] for name in ("a", "b")]
    manifests = [light.manifest(texts) for texts in jobs]
    answers: list[resident.Answer] = []

    def client(manifest: str) -> None:
        answers.append(resident.embed(light.store, light.config(), manifest, pipes=light.pipes("both")))

    threads = [threading.Thread(target=client, args=(manifest,)) for manifest in manifests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len({answer.pid for answer in answers}) == 1
    assert [answer.loads for answer in answers] == [1, 1]
    methods = [message["method"] for message in light.messages("both")]
    assert [method for method in methods if method in ("opened", "closed")] == ["opened", "closed"] * 2
    assert light.missing(jobs[0] + jobs[1]) == 0


def test_a_job_whose_run_is_killed_stops_and_the_worker_lives(light: Bench, endpoint: Endpoint) -> None:
    pid = light.embed(FEW).pid
    manifest = light.manifest(MANY)
    program = (
        "import json, sys; from rag_core.embedding import resident; from rag_core.tables.store import Store;"
        "from rag_core.config import EmbeddingConfig as C; store, config, manifest, pipes = sys.argv[1:];"
        "resident.embed(Store(store), C(**json.loads(config)), manifest, pipes=json.loads(pipes))"
    )
    arguments = [light.store.root, json.dumps(light.settings), manifest, json.dumps(light.pipes())]
    endpoint.go_on.clear()
    run = subprocess.Popen([sys.executable, "-c", program, *arguments])
    wait_until(light.messages)
    run.kill()
    run.wait()
    endpoint.go_on.set()
    assert light.embed(["the next job"]).pid == pid
    assert light.missing(MANY) == len(MANY)  # it stopped at its first batch, with a slice to commit
    assert "abandoned by its client" in light.files.log.read_text()


def test_failures_keep_their_class(light: Bench) -> None:
    pid = light.embed(FEW).pid
    with pytest.raises(PermanentError, match="no work manifest at"):
        light.launch(str(light.root / "none.json"))
    manifest = light.manifest(["one"])
    tables = light.root / "data" / "tables"
    tables.rename(tables.with_name("elsewhere"))
    tables.touch()  # the table's place is taken by a file: the store does not work
    with pytest.raises(TransientError, match="vector cache"):
        light.launch(manifest)
    tables.unlink()
    tables.with_name("elsewhere").rename(tables)
    assert light.embed(["another"]).pid == pid


def test_an_unexpected_error_ends_the_worker_and_may_be_tried_again(light: Bench) -> None:
    pid = light.embed(FEW).pid
    with pytest.raises(TransientError, match=r"KeyError.*traceback is in .*0\.log"):
        resident.embed(light.store, light.config(), light.manifest(["one"]), pipes={})
    assert "Traceback" in light.files.log.read_text()
    assert light.embed(["one"]).pid != pid


def test_one_that_does_not_start_is_transient(light: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = light.manifest(FEW)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(TransientError, match="did not start: status 1"):
        resident.embed(light.store, light.config(), manifest, pipes=light.pipes())


def test_started_beforehand_it_has_the_model(bench: Bench) -> None:
    assert not resident.prestart(bench.store, bench.config(worker_idle_s=0))
    assert resident.prestart(bench.store, bench.config())
    pid = int(bench.files.alive.read_text())
    answer = bench.embed(FEW)
    assert (answer.pid, answer.loads) == (pid, 1)


def test_an_endpoint_behind_the_worker(light: Bench, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_EMBEDDING__API_KEY", "k1")
    first = light.launch(light.manifest(FEW))
    second = light.launch(light.manifest(["more", "texts"]))
    endpoint.zero = True
    with pytest.raises(PermanentError, match="zero or not finite"):
        light.launch(light.manifest(["zero"]))
    assert (first["texts"], second["texts"], second["precision"]) == (5, 2, "remote")
    assert light.rows() == 7
