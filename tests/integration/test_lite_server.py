"""The local Milvus Lite server: one for all clients, back after a kill, gone when idle, data intact."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rag_core.errors import TransientError
from rag_core.index import lite_server
from rag_core.index.client import connect
from rag_core.index.lite_files import LiteFiles, count_leases, is_locked
from rag_core.index.lite_supervisor import alive
from rag_core.retrieval.search import search
from rag_core.tables.store import Store
from tests.index_support import CONFIG, DIM, MODEL, PARTITION, chunk_id, rows, vector, word

pytestmark = pytest.mark.milvus
REPO = Path(__file__).resolve().parents[2]
QUICK = CONFIG.model_copy(update={"lite_idle_s": 0.6})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path))
    yield made
    lite_server.stop(lite_server.lite_files(made))


@pytest.fixture
def files(store: Store) -> LiteFiles:
    return lite_server.lite_files(store)


def wait_for(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.02)


def restart(files: LiteFiles) -> None:
    """Kill the server, and wait until its supervisor has started it again on its port."""
    before = lite_server.running(files)
    assert before is not None
    os.kill(before.pid, signal.SIGKILL)
    wait_for(lambda: (after := lite_server.running(files)) is not None and after.pid != before.pid)


@contextmanager
def other_client(store: Store, ready: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, str(REPO / "tests" / "index_support.py"), "lease", store.root, str(ready)],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_clients_share_one_server_that_listens_on_loopback(store: Store, files: LiteFiles, tmp_path: Path) -> None:
    # Two clients that find nothing at the same moment.
    with other_client(store, tmp_path / "a"), other_client(store, tmp_path / "b"):
        wait_for(lambda: all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in "ab"))
        assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()
        assert (tmp_path / "a").read_text().startswith("http://127.0.0.1:")
        assert count_leases(files) == 2
        info = lite_server.running(files)
        assert info is not None
        command = Path(f"/proc/{info.pid}/cmdline").read_bytes().decode().split("\0")
        assert command[command.index("--host") + 1] == "127.0.0.1"


def test_server_outlives_the_killed_client_that_started_it_then_stops_idle(
    store: Store, files: LiteFiles, tmp_path: Path
) -> None:
    with other_client(store, tmp_path / "ready") as process:
        wait_for(lambda: (tmp_path / "ready").exists() and (tmp_path / "ready").read_text())
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert lite_server.running(files) is not None
    wait_for(lambda: count_leases(files) == 0)
    # Its idle time is the 5 s of the client that started it.
    wait_for(lambda: not is_locked(files.supervisor_lock))
    assert lite_server.running(files) is None
    assert not files.server.exists()


def test_killed_server_comes_back_under_a_connected_client_with_its_rows(store: Store, files: LiteFiles) -> None:
    with connect(QUICK, store) as client:
        client.ensure_collection("c", dim=DIM, model_fingerprint=MODEL)
        client.ensure_partition("c", PARTITION)
        client.upsert("c", PARTITION, rows(range(50)))  # acknowledged, not flushed
        before = lite_server.running(files)
        assert before is not None
        os.kill(before.pid, signal.SIGKILL)
        # The same client goes on: the server is started again on its port, the collection loaded again.
        assert client.count("c", PARTITION) == 50
        after = lite_server.running(files)
        assert after is not None
        assert (after.port, after.pid == before.pid) == (before.port, False)


@pytest.mark.parametrize("by_address", [False, True])
def test_server_restarted_between_calls_goes_unnoticed(store: Store, files: LiteFiles, by_address: bool) -> None:
    with lite_server.lease(store, CONFIG) as uri:
        config = CONFIG.model_copy(update={"uri": uri}) if by_address else CONFIG
        with connect(config, store) as client:
            client.ensure_collection("c", dim=DIM, model_fingerprint=MODEL)
            client.ensure_partition("c", PARTITION)
            client.upsert("c", PARTITION, rows(range(20)))
            client.set_alias("a", "c")
            question = {"text": word(3), "vector": vector(3), "model_fingerprint": MODEL}
            calls: list[Callable[[], object]] = [
                lambda: search(client, "a", **question)[0].chunk_id == chunk_id(3),
                lambda: len(client.list_ids("c")) == 20,
                lambda: client.upsert("c", PARTITION, rows([20, 21])) == 2,
                lambda: client.delete("c", PARTITION, [chunk_id(20)]) is None,
                lambda: client.count("c", PARTITION) == 21,
            ]
            for number, call in enumerate(calls[:3] if by_address else calls):  # too many deaths are not mended
                restart(files) if by_address else lite_server.stop(files)
                assert call(), number


def test_clean_stop_and_idle_stop_keep_the_rows(store: Store, files: LiteFiles) -> None:
    with connect(QUICK, store) as client:
        client.ensure_collection("c", dim=DIM, model_fingerprint=MODEL)
        client.ensure_partition("c", PARTITION)
        client.upsert("c", PARTITION, rows(range(30)))
    wait_for(lambda: not is_locked(files.supervisor_lock))
    with connect(QUICK, store) as client:
        assert client.count("c", PARTITION) == 30
    lite_server.stop(files)
    assert lite_server.running(files) is None
    assert lite_server.stop(files) is False
    with connect(QUICK, store) as client:
        assert client.count("c", PARTITION) == 30


def test_killed_supervisor_and_server_are_replaced(store: Store, files: LiteFiles) -> None:
    with lite_server.lease(store, QUICK):
        info = lite_server.running(files)
        assert info is not None
        os.kill(info.supervisor_pid, signal.SIGKILL)
        os.kill(info.pid, signal.SIGKILL)
        wait_for(lambda: not is_locked(files.supervisor_lock))
    assert files.server.exists()  # stale: nobody was left to remove it
    with lite_server.lease(store, QUICK):
        again = lite_server.running(files)
        assert again is not None
        assert again.pid != info.pid


def test_killed_supervisor_takes_its_server_along(store: Store, files: LiteFiles) -> None:
    with lite_server.lease(store, QUICK):
        info = lite_server.running(files)
        assert info is not None
        os.kill(info.supervisor_pid, signal.SIGKILL)
    with connect(QUICK, store) as client:
        assert client.collections() == []
        again = lite_server.running(files)
        assert again is not None
        assert again.pid != info.pid
        wait_for(lambda: not alive(info.pid))


def test_server_that_cannot_start_is_an_error_with_its_log(store: Store, files: LiteFiles) -> None:
    files.data.parent.mkdir(parents=True)
    files.data.write_text("a file where the folder should be")
    message = r"(?s)did not start.*Last lines of .*server\.log"
    with pytest.raises(TransientError, match=message), lite_server.lease(store, QUICK):
        pass
