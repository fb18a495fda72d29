"""An OpenAI-compatible embedding endpoint on loopback whose vectors a test decides."""

import json
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

Embed = Callable[[Sequence[str]], np.ndarray]

WORDS_DIM = 64


def words(texts: Sequence[str]) -> np.ndarray:
    """Embed texts as bags of their words, hashed: (n, 64) float32. No model is loaded, and equal words attract."""
    rows = np.full((len(texts), WORDS_DIM), 1e-3, np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in re.findall(r"\w+", text.lower()):
            row[zlib.crc32(word.encode()) % WORDS_DIM] += 1
    return rows


def projected(embed: Embed, dim: int, *, seed: int = 0) -> Embed:
    """Return a model that is no good: vectors of another one, projected at random to a few dimensions."""

    def project(texts: Sequence[str]) -> np.ndarray:
        vectors = embed(texts)
        return vectors @ np.random.default_rng(seed).standard_normal((vectors.shape[1], dim)).astype(np.float32)

    return project


@contextmanager
def serving(embed: Embed) -> Iterator[str]:
    """Serve a model while the block runs; gives `embedding.base_url`."""
    one_at_a_time = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
            with one_at_a_time:
                vectors = embed(texts)
            data = [{"object": "embedding", "index": i, "embedding": row.tolist()} for i, row in enumerate(vectors)]
            body = {"object": "list", "data": data, "model": "m", "usage": {"total_tokens": 1, "prompt_tokens": 1}}
            payload = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
