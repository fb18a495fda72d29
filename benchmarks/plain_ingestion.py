"""The peer of the pipeline benchmark: what a plain ingestion script does with a folder, once, in one process.

    python -m benchmarks.plain_ingestion FOLDER

kreuzberg, semantic-text-splitter's MarkdownSplitter, `SentenceTransformer.encode` in fp32, and one insert into a Milvus
Lite server, one after the other. It keeps no state: a second call does everything again. What it leaves out is `OMITS`.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault(
    "OMP_WAIT_POLICY", "passive"
)  # as the pipeline's own worker has it; see rag_core.embedding.launch
os.environ.setdefault("HF_HUB_OFFLINE", "1")

OMITS = (
    "detecting changes and deletions, so that a second run costs less",
    "limits on time and memory of a document, and a reason for each document that cannot be read",
    "main content of web pages: navigation is chunked and embedded too",
    "titles, headings, pages and character spans to cite",
    "tables on disk with history, and vectors kept for reuse",
    "a text index (BM25) beside the vectors",
    "reading back what was written, and recovery after a crash",
)
BATCH = 32


def extract(folder: Path) -> tuple[list[tuple[str, str]], int]:
    """Extract Markdown of every file, in the order of names.

    Returns:
        (path, text) of each file that has text, and how many files could not be read.
    """
    import kreuzberg

    config = kreuzberg.ExtractionConfig(use_cache=False, output_format="markdown")
    texts, failed = [], 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            texts.append((str(path), kreuzberg.extract_file_sync(path, config=config).content))
        except kreuzberg.KreuzbergError:
            failed += 1
    return texts, failed


@contextmanager
def milvus_lite(folder: Path) -> Iterator[str]:
    """Run a Milvus Lite server and give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder), "--host", "127.0.0.1"]
    with (folder.parent / "server.log").open("wb") as log:
        server = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log)
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if server.poll() is not None:
                raise SystemExit("the Milvus Lite server did not start")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def ingest(folder: Path, max_tokens: int) -> dict[str, Any]:
    """Ingest a folder and say what each step took; the caller adds the time to start the interpreter."""
    from pymilvus import MilvusClient
    from semantic_text_splitter import MarkdownSplitter
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

    from rag_core.config import EmbeddingConfig
    from rag_core.embedding.model import resolve_model

    spec = resolve_model(EmbeddingConfig())
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def step(name: str) -> None:
        nonlocal started
        now = time.perf_counter()
        seconds[name] = round(now - started, 3)
        started = now

    texts, failed = extract(folder)
    step("extract")
    tokenizer = Tokenizer.from_file(spec.tokenizer_path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    splitter = MarkdownSplitter.from_huggingface_tokenizer(tokenizer, max_tokens)
    chunks = [(path, chunk) for path, text in texts for chunk in splitter.chunks(text)]
    step("split")
    model = SentenceTransformer(spec.location, device="cpu")
    step("load_model")
    vectors = model.encode([chunk for _, chunk in chunks], batch_size=BATCH, normalize_embeddings=True,
                           show_progress_bar=False)  # fmt: skip
    step("embed")
    with tempfile.TemporaryDirectory() as scratch, milvus_lite(Path(scratch) / "data") as uri:
        client = MilvusClient(uri)
        client.create_collection("plain", dimension=spec.dim, metric_type="COSINE", auto_id=True)
        client.insert("plain", [{"vector": vector, "path": path, "text": chunk}
                                for (path, chunk), vector in zip(chunks, vectors, strict=True)])  # fmt: skip
        step("insert")
        client.close()
    return {
        "documents": len(texts),
        "failed": failed,
        "chunks": len(chunks),
        "characters": sum(len(chunk) for _, chunk in chunks),
        "seconds_by_step": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--max-tokens", type=int, default=254)
    options = parser.parse_args()
    print(json.dumps(ingest(options.folder, options.max_tokens)))


if __name__ == "__main__":
    main()
