"""Passages, an index and an embedder for tests of answers."""

import re
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from rag_core.config import RagConfig
from rag_core.config_serving import ServingConfig
from rag_core.retrieval.search import Hit
from rag_core.stages.publication import Manifest
from serving.retrieval.query import Passage

MANIFEST = Manifest(
    collection="chunks_a", alias="chunks", published_at=datetime(2026, 1, 1, tzinfo=UTC), model="m",
    model_fingerprint="model-1", dim=64, metric="COSINE", index_type="HNSW", search_params="{}", documents=1, chunks=1,
    partitions=1, table_versions="{}", settings='{"chunk_lane": "lane"}', ann_recall_at_10=None, verdict="published",
)  # fmt: skip


def passage(
    text: str,
    *,
    chunk_id: str = "c1",
    doc_id: str = "d1",
    title: str | None = None,
    uri: str = "file:///d",
    start: int = 0,
    own: str | None = None,
    heading_path: tuple[str, ...] = (),
) -> Passage:
    """Make a passage; `own` is the text of its chunk, where neighbours are around it."""
    hit = Hit(
        chunk_id=chunk_id, doc_id=doc_id, external_id=None, uri=uri, title=title, heading_path=heading_path, page=None,
        char_start=start + (text.index(own) if own else 0), char_end=start + len(text), ordinal=0, score=1.0,
        text=own or text, source="s", mime="text/markdown", language="en", modified_at_ms=None,
    )  # fmt: skip
    return Passage(hit, text, (start, start + len(text)), len(text) // 4)


def settings_of(base_url: str | None = None, **llm: Any) -> ServingConfig:
    """Make the configuration of a service with a language model."""
    return ServingConfig.model_validate({"llm": {"base_url": base_url, **llm}})


async def embed_words(_index: object, texts: Sequence[str], _kind: Literal["query", "passage"]) -> np.ndarray:
    """Embed texts as bags of hashed words: (n, 64), unit length. No model is loaded, and equal words attract."""
    rows = np.full((len(texts), 64), 1e-3, np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in re.findall(r"\w+", text.lower()):
            row[zlib.crc32(word.encode()) % 64] += 1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def config_of(root: str, **serving: Any) -> RagConfig:
    """Make a configuration whose store is a folder."""
    source = {"kind": "files", "name": "s", "root": "/s", "buckets": 1}
    return RagConfig.model_validate({"store": {"root": root}, "sources": [source], "serving": serving})
