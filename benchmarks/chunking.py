"""Chunking speed against semantic-text-splitter, both sides in one run: same texts, tokenizer and size, one thread.

    python -m benchmarks.chunking [--input FOLDER] [--max-tokens 254] [--json]

The default texts are the Markdown and text files of the example corpus and, where it is there, of the test corpora
(RAG_CORPORA). `first pass` starts with an empty word cache; `later passes` is a worker that has seen its words.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("RAYON_NUM_THREADS", "1")  # before tokenizers starts its threads
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from semantic_text_splitter import MarkdownSplitter
from tokenizers import Tokenizer

from rag_core.chunking.chunker import make_chunker
from rag_core.chunking.tokens import TokenCounter, default_tokenizer_path
from rag_core.config import ChunkingConfig

REPO = Path(__file__).resolve().parents[1]
PIECE_CHARS = 4_000


@dataclass(frozen=True)
class Result:
    """One contender's figures over all texts; tokens are counted on each chunk alone."""

    name: str
    seconds: float
    mchar_per_s: float
    chunks: int = 0
    tokens_mean: float = 0.0
    tokens_max: int = 0


def default_folders() -> list[Path]:
    corpora = Path(os.environ.get("RAG_CORPORA", REPO.parent / "shared" / "corpora"))
    folders = [REPO / "examples" / "corpus", corpora / "mixed" / "md", corpora / "mixed" / "txt"]
    return [folder for folder in folders if folder.is_dir()]


def read_texts(folders: list[Path], max_chars: int) -> list[str]:
    """Read .md and .txt files, each cut to max_chars so that one book does not decide the result."""
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in {".md", ".txt"})
    return [path.read_text(encoding="utf-8", errors="replace")[:max_chars] for path in paths]


def timed(name: str, texts: list[str], split: Callable[[str], list[str]], counter: TokenCounter) -> Result:
    started = time.perf_counter()
    chunks = [chunk for text in texts for chunk in split(text)]
    seconds = time.perf_counter() - started
    tokens = [counter.count(chunk) for chunk in chunks] or [0]
    speed = sum(map(len, texts)) / seconds / 1e6
    return Result(name, seconds, speed, len(chunks), statistics.fmean(tokens), max(tokens))


def tokenizer_floor(texts: list[str], tokenizer: Tokenizer) -> Result:
    """Measure the tokenizer alone, with offsets, at a piece size where it is at its best."""
    pieces = [text[i : i + PIECE_CHARS] for text in texts for i in range(0, len(text), PIECE_CHARS)]
    started = time.perf_counter()
    tokenizer.encode_batch(pieces, add_special_tokens=False)
    seconds = time.perf_counter() - started
    return Result("tokenizers encode_batch (tokens only)", seconds, sum(map(len, texts)) / seconds / 1e6)


def run(texts: list[str], max_tokens: int, strategies: list[str]) -> list[Result]:
    tokenizer = Tokenizer.from_file(str(default_tokenizer_path()))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    counter = TokenCounter()
    splitter = MarkdownSplitter.from_huggingface_tokenizer(tokenizer, max_tokens)
    results = [tokenizer_floor(texts, tokenizer)]
    for strategy in strategies:
        chunker = make_chunker(ChunkingConfig.model_validate({"strategy": strategy, "max_tokens": max_tokens}))

        def split(text: str, chunker=chunker) -> list[str]:
            return [chunk.embedded_text for chunk in chunker.split(text)]

        results.append(timed(f"{strategy}, first pass", texts, split, counter))
        later = [timed(f"{strategy}, later passes", texts, split, counter) for _ in range(3)]
        results.append(min(later, key=lambda result: result.seconds))
    results.append(timed("semantic-text-splitter MarkdownSplitter", texts, splitter.chunks, counter))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, action="append", help="folder of .md and .txt files; repeatable")
    parser.add_argument("--max-tokens", type=int, default=254)
    parser.add_argument("--max-chars", type=int, default=300_000, help="read of each file")
    parser.add_argument("--strategy", action="append", choices=["markdown", "recursive", "fixed"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    texts = read_texts(options.input or default_folders(), options.max_chars)
    if not any(texts):
        parser.error("no .md or .txt files found; name a folder with --input")
    results = run(texts, options.max_tokens, options.strategy or ["markdown"])
    peer = results[-1]
    if options.json:
        rows = [asdict(result) | {"times_peer": result.mchar_per_s / peer.mchar_per_s} for result in results]
        print(json.dumps({"texts": len(texts), "chars": sum(map(len, texts)), "results": rows}))
        return
    print(f"{len(texts)} texts, {sum(map(len, texts)):,} characters, {options.max_tokens} tokens, {platform.machine()}")
    print(f"{'':40} {'Mchar/s':>8} {'times':>6} {'chunks':>7} {'mean':>6} {'max':>5}")
    for result in results:
        ratio = result.mchar_per_s / peer.mchar_per_s
        line = f"{result.name:40} {result.mchar_per_s:8.2f} {ratio:6.1f}"
        print(line + (f" {result.chunks:7d} {result.tokens_mean:6.1f} {result.tokens_max:5d}" if result.chunks else ""))


if __name__ == "__main__":
    main()
