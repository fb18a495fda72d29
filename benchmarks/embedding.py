"""Embedding: plain `SentenceTransformer.encode` in fp32 against this project's encoder, on the same chunks.

    python -m benchmarks.embedding --chunks 400            # one size
    python -m benchmarks.embedding --chunks 200 400 800    # several
    python -m benchmarks.embedding --folder docs/          # text files of a folder instead of the example corpus

Both sides run in this process, one after the other, on the same texts in the same order; each embeds a few chunks
first, so that neither pays for loading. Ours pays for its calibration in every size: a fresh encoder each time.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # for both sides; see rag_core.embedding.launch

import numpy as np

from rag_core.config import EmbeddingConfig
from rag_core.embedding.encoder import make_encoder, peak_rss_bytes
from rag_core.embedding.model import resolve_model

REPO = Path(__file__).resolve().parents[1]
TEXT_SUFFIXES = {".md", ".txt", ".html", ".htm", ".rst", ".csv"}


def read_texts(folder: Path) -> Iterator[str]:
    """Yield the texts of JSONL records (`title` and `text`) and of text files, in the order of their names."""
    for path in sorted(folder.rglob("*")):
        if path.name in ("queries.jsonl", "questions.jsonl"):
            continue
        if path.suffix == ".jsonl":
            for line in path.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                yield f"{record.get('title', '')} {record.get('text', '')}".strip()
        elif path.suffix in TEXT_SUFFIXES:
            yield path.read_text(encoding="utf-8", errors="replace")


def cut(texts: Iterator[str], config: EmbeddingConfig, count: int) -> list[str]:
    """Cut texts into at most `count` distinct chunks of the model's own limit, at token boundaries."""
    from tokenizers import Tokenizer

    spec = resolve_model(config)
    tokenizer = Tokenizer.from_file(spec.tokenizer_path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    chunks: dict[str, None] = {}
    for text in texts:
        offsets = tokenizer.encode(text[:200_000], add_special_tokens=False).offsets
        for start in range(0, len(offsets), spec.max_content_tokens):
            span = offsets[start : start + spec.max_content_tokens]
            chunks.setdefault(text[span[0][0] : span[-1][1]])
            if len(chunks) == count:
                return list(chunks)
    return list(chunks)


def plain(chunks: list[str], config: EmbeddingConfig) -> tuple[np.ndarray, float]:
    """Embed with sentence-transformers as its documentation shows; returns vectors and seconds."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(resolve_model(config).location, device=config.device.replace("auto", "cpu"))
    model.encode(chunks[:8], show_progress_bar=False)
    started = time.perf_counter()
    vectors = model.encode(chunks, show_progress_bar=False, normalize_embeddings=True)
    return vectors, time.perf_counter() - started


def ours(chunks: list[str], config: EmbeddingConfig) -> tuple[np.ndarray, float, dict[str, Any]]:
    """Embed with this project's encoder; returns vectors, seconds and what it measured."""
    encoder = make_encoder(config)
    encoder.embed(chunks[:8], "passage")
    started = time.perf_counter()
    vectors = encoder.embed(chunks, "passage")
    return vectors, time.perf_counter() - started, encoder.stats.to_dict()


def compare(chunks: list[str], config: EmbeddingConfig) -> dict[str, Any]:
    """Run both sides on the same chunks."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(resolve_model(config).tokenizer_path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch(chunks))
    expected, plain_s = plain(chunks, config)
    vectors, ours_s, stats = ours(chunks, config)
    cosines = (vectors * expected).sum(axis=1)
    return {
        "chunks": len(chunks),
        "tokens": tokens,
        "mean_tokens": round(tokens / len(chunks), 1),
        "plain_chunks_per_s": round(len(chunks) / plain_s, 1),
        "plain_tokens_per_s": round(tokens / plain_s),
        "ours_chunks_per_s": round(len(chunks) / ours_s, 1),
        "ours_tokens_per_s": round(tokens / ours_s),
        "ratio": round(plain_s / ours_s, 2),
        "mean_cosine": round(float(cosines.mean()), 5),
        "min_cosine": round(float(cosines.min()), 5),
        "padding_share": stats["padding_share"],
        "precision": stats["precision"],
        "peak_rss_mib": peak_rss_bytes() // 2**20,
    }


def default_folder() -> Path:
    """Return the Cranfield corpus where it is, else the example corpus."""
    corpora = Path(os.environ.get("RAG_CORPORA", REPO.parent / "shared" / "corpora"))
    return corpora / "cranfield" if (corpora / "cranfield").is_dir() else REPO / "examples" / "corpus"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="+", default=[400])
    parser.add_argument("--folder", type=Path, default=default_folder())
    parser.add_argument("--model", default=EmbeddingConfig().model)
    parser.add_argument("--batch-tokens", type=int, default=EmbeddingConfig().batch_tokens)
    parser.add_argument("--min-ratio", type=float, default=0.0, help="exit with 1 below this speed-up")
    parser.add_argument("--json", action="store_true", help="print one JSON object a size")
    arguments = parser.parse_args()
    config = EmbeddingConfig(model=arguments.model, device="cpu", batch_tokens=arguments.batch_tokens)
    chunks = cut(read_texts(arguments.folder), config, max(arguments.chunks))
    if not chunks:
        parser.error(f"no text in {arguments.folder}")
    good = True
    for count in sorted(set(arguments.chunks)):
        result = compare(chunks[:count], config)
        good &= result["ratio"] >= arguments.min_ratio and result["mean_cosine"] >= config.min_cosine
        if arguments.json:
            print(json.dumps(result))
        else:
            print("  ".join(f"{name} {value}" for name, value in result.items()))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
