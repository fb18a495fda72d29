"""Manifest and items file: round trip, de-duplication, no secrets; and the worker's spool over them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from rag_core import ids
from rag_core.config import EmbeddingConfig
from rag_core.embedding.launch import worker_command, worker_env
from rag_core.embedding.manifest import ITEMS, read_manifest, remove_manifest, write_manifest
from rag_core.embedding.model import resolve_model
from rag_core.embedding.spool import TextSpool, spool_items
from rag_core.errors import PermanentError
from rag_core.tables.store import Store

SPEC = resolve_model(EmbeddingConfig())


def items(texts: list[str]) -> pa.RecordBatch:
    columns = [[ids.text_hash(t) for t in texts], texts, [len(t.split()) for t in texts]]
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, ITEMS, strict=True)], schema=ITEMS)


def test_round_trip_without_repeats(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    address = write_manifest(store, EmbeddingConfig(), SPEC, [items(["a b", "c", "a b"]), items(["c", "d e f"])], "run")
    manifest = read_manifest(address)
    assert (manifest.item_count, manifest.token_count, manifest.dim) == (3, 6, 384)
    assert manifest.model_fingerprint == SPEC.fingerprint
    assert manifest.embedding == EmbeddingConfig()
    assert manifest.store == store
    assert pq.read_table(tmp_path / manifest.items).column("text").to_pylist() == ["a b", "c", "d e f"]
    remove_manifest(store, "run")
    remove_manifest(store, "run")
    assert not (tmp_path / "work/embedding/run").exists()


def test_nothing_to_do_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert write_manifest(store, EmbeddingConfig(), SPEC, [items([])], "run") is None
    assert not (tmp_path / "work/embedding/run").exists()


def test_secrets_stay_out(tmp_path: Path) -> None:
    config = EmbeddingConfig(api_key=SecretStr("s3cret"))
    address = write_manifest(Store(str(tmp_path)), config, SPEC, [items(["a"])], "run")
    assert "s3cret" not in Path(address).read_text()
    assert worker_env(config)["RAG_EMBEDDING__API_KEY"] == "s3cret"
    assert "s3cret" not in " ".join(worker_command(address))


def test_unreadable_manifests_are_permanent(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="no work manifest"):
        read_manifest(str(tmp_path / "none.json"))
    (tmp_path / "bad.json").write_text('{"run_id": 1}')
    with pytest.raises(PermanentError, match="not a work manifest"):
        read_manifest(str(tmp_path / "bad.json"))


def test_offline_unless_downloads_are_allowed() -> None:
    assert worker_env(EmbeddingConfig())["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in worker_env(EmbeddingConfig(allow_download=True))


def test_spool_gives_missing_texts_longest_first_in_slices(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    texts = ["wörd " * n for n in (1, 9, 3, 7, 5)]
    manifest = read_manifest(write_manifest(store, EmbeddingConfig(), SPEC, [items(texts)], "run"))
    filesystem, root = store.filesystem()
    cached = ids.text_hash(texts[2])
    with TextSpool() as spool:
        keys, count, tokens = spool_items(
            spool, filesystem, f"{root}/{manifest.items}", lambda asked: [h for h in asked.to_pylist() if h != cached]
        )
        slices = list(spool.slices(12))
    assert (len(keys), count, tokens) == (5, 4, 22)
    assert np.array_equal(keys, np.sort(keys))
    assert [t.count("w") for _, part in slices for t in part] == [9, 7, 5, 1]
    assert len(slices) == 2
    assert all(ids.text_hash(t) == h for hashes, part in slices for h, t in zip(hashes, part, strict=True))


def test_an_empty_spool_has_no_slices(tmp_path: Path) -> None:
    with TextSpool() as spool:
        assert list(spool.slices(100)) == []
