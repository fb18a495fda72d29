"""Embeddings a second by batch size and length: this project's encoder and plain `SentenceTransformer.encode`.

    python -m benchmarks.embedding_gpu                                             # on a GPU: fp32, fp16, bf16
    python -m benchmarks.embedding_gpu --device cpu --batches 8 16 --tokens 32 --texts 64 --precisions fp32 bf16

Texts of exactly so many tokens, special tokens included, so that nothing is padded and a batch is what it is called.
Reported beside the rate is its share of the device's peak: floating-point operations of the forward pass over what the
card can do at that precision, `--peak-tflops` where the card is not known here.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag_core.config import EmbeddingConfig
from rag_core.embedding.encoder import make_encoder
from rag_core.embedding.model import ModelSpec, resolve_model

# Dense matrix operations without sparsity, in 10^12 a second, by precision.
# Source: NVIDIA's data sheets of A100 (SXM), H100 (SXM), H200, L4, L40S, A10, T4; fp32 is the figure without TF32.
PEAK_TFLOPS = {
    "A100": {"fp32": 19.5, "fp16": 312.0, "bf16": 312.0},
    "H100": {"fp32": 67.0, "fp16": 989.0, "bf16": 989.0},
    "H200": {"fp32": 67.0, "fp16": 989.0, "bf16": 989.0},
    "L40S": {"fp32": 91.6, "fp16": 362.0, "bf16": 362.0},
    "L4": {"fp32": 30.3, "fp16": 121.0, "bf16": 121.0},
    "A10": {"fp32": 31.2, "fp16": 125.0, "bf16": 125.0},
    "T4": {"fp32": 8.1, "fp16": 65.0},
}
WORDS = ("wing", "lift", "drag", "flow", "shock", "layer", "heat", "plate", "angle", "speed")


@dataclass(frozen=True)
class Shape:
    """What decides the operations of a BERT-like forward pass."""

    layers: int
    hidden: int
    intermediate: int

    @classmethod
    def of(cls, spec: ModelSpec) -> "Shape":
        """Read the model's configuration."""
        found = json.loads(Path(spec.location, "config.json").read_text())
        return cls(found["num_hidden_layers"], found["hidden_size"], found["intermediate_size"])

    def flops(self, tokens: int) -> float:
        """Floating-point operations of one text: two for each multiplication and addition of a matrix product.

        In each layer four projections of hidden x hidden, two of hidden x intermediate, and attention, which is
        tokens x tokens x hidden twice. Source: Kaplan et al. 2020, Scaling Laws for Neural Language Models, table 1.
        """
        dense = 2 * tokens * (4 * self.hidden**2 + 2 * self.hidden * self.intermediate)
        attention = 2 * 2 * tokens**2 * self.hidden
        return float(self.layers * (dense + attention))


@dataclass(frozen=True)
class Measured:
    """One row: who embedded what, and how fast."""

    side: str
    precision: str
    batch: int
    tokens: int
    texts: int
    embeddings_per_s: float
    tokens_per_s: float
    batch_ms: float
    tflops: float
    share_of_peak: float | None
    peak_gpu_mib: int | None


def texts_of(spec: ModelSpec, count: int, tokens: int) -> list[str]:
    """Make distinct texts of exactly `tokens` tokens, special tokens included."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(spec.tokenizer_path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    room = tokens - spec.special_tokens
    words = itertools.cycle(WORDS)
    result = []
    for number in range(count):
        head = f"{number:06d} "
        taken = len(tokenizer.encode(head, add_special_tokens=False).ids)
        text = head + " ".join(next(words) for _ in range(room - taken))
        found = len(tokenizer.encode(text).ids)
        assert found == tokens, f"a text of {found} tokens in place of {tokens}"
        result.append(text)
    return result


def plain(spec: ModelSpec, device: str, precision: str) -> Callable[[list[str], int], np.ndarray]:
    """Embed as the documentation of sentence-transformers shows, with the model loaded at a precision."""
    import torch
    from sentence_transformers import SentenceTransformer

    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    model = SentenceTransformer(spec.location, device=device, model_kwargs={"dtype": dtype})

    def embed(texts: list[str], batch: int) -> np.ndarray:
        return np.asarray(
            model.encode(texts, batch_size=batch, show_progress_bar=False, normalize_embeddings=True), np.float32
        )

    return embed


def ours(spec: ModelSpec, device: str, precision: str, tokens: int) -> Callable[[list[str], int], np.ndarray]:
    """Embed as the worker does, with its budget of tokens set to the batch."""
    encoders: dict[int, Any] = {}

    def embed(texts: list[str], batch: int) -> np.ndarray:
        if batch not in encoders:
            encoders.clear()
            settings = {"device": device, "precision": precision, "batch_tokens": max(256, batch * tokens)}
            encoders[batch] = make_encoder(EmbeddingConfig.model_validate(settings), spec)
        return np.asarray(encoders[batch].embed(texts, "passage"))

    return embed


def measure(
    embed: Callable[[list[str], int], np.ndarray], texts: list[str], batch: int, *, device: str, repeats: int
) -> tuple[float, int | None, np.ndarray]:
    """Return the best seconds of some repetitions, the most GPU memory in MiB, and the vectors, after a warm-up."""
    import torch

    vectors = embed(texts[: 2 * batch], batch)
    best = float("inf")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(repeats):
        started = time.perf_counter()
        vectors = embed(texts, batch)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    peak = int(torch.cuda.max_memory_allocated() >> 20) if device == "cuda" else None
    return best, peak, vectors


def peak_tflops(device: str, precision: str, given: float | None) -> float | None:
    """Return what the card can do at a precision; None where that is not known."""
    if given is not None or device != "cuda":
        return given
    import torch

    name = torch.cuda.get_device_name()
    # The longest name first: an L40S is no L4.
    known = next((card for card in sorted(PEAK_TFLOPS, key=len, reverse=True) if card in name), None)
    return PEAK_TFLOPS[known].get(precision) if known else None


def rows(arguments: argparse.Namespace) -> Iterator[Measured]:
    """Measure every combination, both sides of each one after the other."""
    spec = resolve_model(EmbeddingConfig(model=arguments.model))
    shape = Shape.of(spec)
    for precision, tokens in itertools.product(arguments.precisions, arguments.tokens):
        sides = {
            "plain": plain(spec, arguments.device, precision),
            "ours": ours(spec, arguments.device, precision, tokens),
        }
        for batch in arguments.batches:
            texts = texts_of(spec, max(arguments.texts, batch), tokens)
            peak = peak_tflops(arguments.device, precision, arguments.peak_tflops)
            vectors: dict[str, np.ndarray] = {}
            for side, embed in sides.items():
                seconds, memory, vectors[side] = measure(
                    embed, texts, batch, device=arguments.device, repeats=arguments.repeats
                )
                rate = len(texts) / seconds
                tflops = rate * shape.flops(tokens) / 1e12
                yield Measured(
                    side, precision, batch, tokens, len(texts), round(rate, 1), round(rate * tokens),
                    round(1000 * seconds * batch / len(texts), 2), round(tflops, 3),
                    None if peak is None else round(tflops / peak, 4), memory,
                )  # fmt: skip
            cosine = float((vectors["plain"] * vectors["ours"]).sum(axis=1).min())
            assert cosine > 0.99, f"the two sides differ: lowest cosine {cosine:.4f}"


def device_name(device: str) -> str:
    """Return what is measured on, for people."""
    import torch

    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "fp16", "bf16"], default=["fp32", "fp16", "bf16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 128, 256, 512, 1024])
    parser.add_argument("--tokens", nargs="+", type=int, default=[32, 128, 256])
    parser.add_argument("--texts", type=int, default=16_384, help="texts of one measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak-tflops", type=float, help="of the device at the precision, where it is not known here")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    arguments = parser.parse_args(argv)
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("no CUDA device here; use --device cpu with small sizes\n")
        return 2
    if not arguments.json:
        print(device_name(arguments.device))
        print("side   precision  batch  tokens  embeddings/s   tokens/s  ms/batch  TFLOP/s  of peak  GPU MiB")
    for row in rows(arguments):
        if arguments.json:
            print(json.dumps({**asdict(row), "device": device_name(arguments.device)}), flush=True)
            continue
        share = "-" if row.share_of_peak is None else f"{row.share_of_peak:.1%}"
        print(
            f"{row.side:6} {row.precision:9} {row.batch:6} {row.tokens:7} {row.embeddings_per_s:13,.1f} "
            f"{row.tokens_per_s:10,.0f} {row.batch_ms:9.2f} {row.tflops:8.3f} {share:>8} {row.peak_gpu_mib or '-':>8}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
