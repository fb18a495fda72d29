import os
import threading
from pathlib import Path

import pytest

from rag_core.errors import TransientError
from rag_core.index.lite_files import LiteFiles, ServerInfo, count_leases, held_lease, is_locked, locked, try_lock


def test_lease_is_counted_while_held_and_leaves_nothing(tmp_path: Path) -> None:
    files = LiteFiles(tmp_path / "data")
    assert count_leases(files) == 0
    with held_lease(files), held_lease(files):
        assert count_leases(files) == 2
        (files.leases / "left-by-a-dead-client").touch()
        assert count_leases(files) == 2
    assert list(files.leases.iterdir()) == []


def test_leases_survive_a_sweeping_supervisor(tmp_path: Path) -> None:
    files = LiteFiles(tmp_path / "data")
    files.leases.mkdir(parents=True)
    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            count_leases(files)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for _ in range(200):
            with held_lease(files):
                assert count_leases(files) == 1
    finally:
        stop.set()
        sweeper.join()


@pytest.mark.slow
def test_lock_waits_then_gives_up(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    descriptor = try_lock(path)
    assert descriptor is not None
    assert is_locked(path)
    with pytest.raises(TransientError, match="locked by another process"), locked(path, timeout_s=0.1):
        pass
    threading.Timer(0.2, os.close, [descriptor]).start()
    with locked(path, timeout_s=10.0):
        assert is_locked(path)
    assert not is_locked(path)


def test_server_file_round_trips_and_tolerates_damage(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    assert ServerInfo.read(path) is None
    info = ServerInfo(1, 2, 3, "2026-01-01T00:00:00+00:00")
    info.write(path)
    assert ServerInfo.read(path) == info
    assert info.uri == "http://127.0.0.1:2"
    for damaged in ("", "{", "[]", '{"pid": 1}'):
        path.write_text(damaged)
        assert ServerInfo.read(path) is None
