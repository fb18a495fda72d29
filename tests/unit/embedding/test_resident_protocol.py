"""Messages of the resident worker, the digest that tells a stale one, and addresses of sockets."""

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.config import EmbeddingConfig
from rag_core.embedding.launch import device_env, worker_slots
from rag_core.embedding.resident.files import identity, resident_files, socket_address, source_files
from rag_core.embedding.resident.protocol import Answer, ProtocolError, Request, read_answer, read_request, send
from rag_core.tables.store import Store


def sent(message: Request | Answer) -> bytes:
    """Return the bytes that a message takes on the wire."""
    left, right = socket.socketpair()
    with left, right:
        send(left, message)
        left.shutdown(socket.SHUT_WR)
        with right.makefile("rb") as stream:
            return stream.read()


@given(st.text(), st.dictionaries(st.text(), st.text(), max_size=3), st.floats(0, 1e6))
def test_a_request_arrives_as_it_was_sent(manifest: str, pipes: dict[str, str], idle_s: float) -> None:
    request = Request(identity="i", idle_s=idle_s, manifest=manifest, pipes=pipes, embedding=EmbeddingConfig())
    line = sent(request)
    assert line.count(b"\n") == 1
    assert read_request(io.BytesIO(line), "i") == request


@given(st.text())
def test_an_answer_arrives_as_it_was_sent(message: str) -> None:
    answers = [Answer(kind="accepted", pid=1), Answer(kind="permanent", message=message, pid=1, loads=2, rss_bytes=3)]
    stream = io.BytesIO(b"".join(sent(answer) for answer in answers))
    assert [read_answer(stream), read_answer(stream), read_answer(stream)] == [*answers, None]


def test_a_client_of_another_version_is_told_apart_before_its_fields_are_read() -> None:
    line = json.dumps({"identity": "newer", "a field": "that this version does not know"}).encode() + b"\n"
    assert read_request(io.BytesIO(line), "own") is None
    with pytest.raises(ProtocolError, match="a field"):
        read_request(io.BytesIO(line.replace(b"newer", b"own")), "own")


@pytest.mark.parametrize(
    "line", [b"", b"GET / HTTP/1.1\n", b"[]\n", b"{}\n", b'{"identity":"own"', b"x" * (1 << 20)], ids=range(6)
)
def test_what_is_no_request_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_request(io.BytesIO(line), "own")


def test_an_answer_that_breaks_off_is_none_and_one_of_another_kind_an_error() -> None:
    assert read_answer(io.BytesIO(b'{"kind":"done","pid"')) is None
    with pytest.raises(ProtocolError):
        read_answer(io.BytesIO(b'{"kind":"dancing","pid":1}\n'))


def test_identity_follows_code_and_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment = {"HOME": "/home/a", "RAG_EMBEDDING__API_KEY": "k1"}
    known = identity(environment)
    assert identity({**environment, "HOME": "/home/b", "RAG_CONFIG": "/x"}) == known
    assert identity({**environment, "RAG_EMBEDDING__API_KEY": "k2"}) != known
    assert identity({**environment, "AWS_SESSION_TOKEN": "t"}) != known
    assert identity({**environment, "RAG_CRASH_AT": "index.mid_upsert"}) == known  # a place of the run, not the worker
    assert identity({**environment, "RAG_CRASH_AT": "embeddings.worker.after_append"}) != known
    source = tmp_path / "module.py"
    source.write_text("old = 1")
    monkeypatch.setattr("rag_core.embedding.resident.files.source_files", lambda: [source])
    before = identity(environment)
    assert identity(environment) == before
    source.write_text("new = 10")
    assert identity(environment) != before


@pytest.mark.slow
def test_every_module_that_a_worker_imports_is_part_of_its_identity() -> None:
    program = (
        "import sys, rag_core.embedding.resident.server, rag_core.embedding.torch_encoder as _;"
        "import rag_core.embedding.openai_encoder, rag_core.embedding.resident.__main__;"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'rag_core'), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    imported = {Path(name).resolve() for name in done.stdout.split("\n") if name}
    assert len(imported) > 20
    assert imported <= set(source_files())


@pytest.mark.parametrize("depth", [1, 12])
def test_sockets_have_an_address_at_any_path(tmp_path: Path, depth: int) -> None:
    path = tmp_path.joinpath(*["a_long_folder_name"] * depth) / "0.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        with socket_address(path) as address:
            listener.bind(address)
        listener.listen()
        assert path.is_socket()
        with socket_address(path) as address:
            assert len(os.fsencode(address)) <= 100
            client.connect(address)


def test_a_worker_lives_in_its_store_or_beside_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resident_files(Store("/data"), 1).socket == Path("/data/work/resident/1.sock")
    monkeypatch.chdir(tmp_path)
    assert resident_files(Store("s3://bucket/a")).socket == tmp_path / ".rag/bucket/a/work/resident/0.sock"


def test_slots_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    auto = EmbeddingConfig()
    assert worker_slots(auto) == 2
    assert [device_env(auto, slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["4", "6", "4"]
    assert worker_slots(EmbeddingConfig(workers=3)) == 3
    cpu = EmbeddingConfig(device="cpu")
    assert (worker_slots(cpu), device_env(cpu, 0)) == (1, {})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert (worker_slots(auto), device_env(auto, 0)) == (1, {})
