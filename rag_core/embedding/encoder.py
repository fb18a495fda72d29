"""What every encoder offers and measures; `make_encoder` picks the one that the configuration names."""

import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from rag_core.config import EmbeddingConfig
from rag_core.embedding.model import ModelSpec, resolve_model
from rag_core.errors import PermanentError

Kind = Literal["passage", "query"]
OnBatch = Callable[[int, int], None]
"""Called after each batch with the texts and the tokens that it held."""


@dataclass
class EmbedStats:
    """What an encoder did since it was made.

    Attributes:
        texts: Texts embedded.
        tokens: Their tokens, special tokens and prefixes included.
        padded_tokens: Tokens computed; `tokens` plus padding.
        seconds: Time inside `embed`, calibration included.
        batches: Batches, or requests of an endpoint.
        oom_halvings: How often a batch did not fit into memory and was halved.
        retries: Requests of an endpoint that were repeated.
        precision: `fp32`, `bf16`, `fp16`, or `remote`.
        device: `cpu`, `cuda` or the endpoint's address.
        cosine_to_fp32: Mean cosine of half precision to fp32 on the calibration sample; None where it was not measured.
        speedup_to_fp32: How many times faster half precision was on that sample.
    """

    texts: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    seconds: float = 0.0
    batches: int = 0
    oom_halvings: int = 0
    retries: int = 0
    precision: str = "fp32"
    device: str = "cpu"
    cosine_to_fp32: float | None = None
    speedup_to_fp32: float | None = None

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second, padding not counted; 0 before the first text."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def padding_share(self) -> float:
        """Share of the computed tokens that were padding, 0 to 1."""
        return 1 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0

    def anew(self) -> "EmbedStats":
        """Return the statistics of the same model with all counts at zero."""
        return EmbedStats(
            precision=self.precision,
            device=self.device,
            cosine_to_fp32=self.cosine_to_fp32,
            speedup_to_fp32=self.speedup_to_fp32,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all fields and rates, JSON-able, with this process's peak memory."""
        return {
            **self.__dict__,
            "seconds": round(self.seconds, 3),
            "tokens_per_s": round(self.tokens_per_s, 1),
            "padding_share": round(self.padding_share, 4),
            "peak_rss_bytes": peak_rss_bytes(),
            **gpu_memory(),
        }


class Encoder(Protocol):
    """Turns texts into vectors. Not thread-safe: a process has one, or one a thread."""

    spec: ModelSpec
    stats: EmbedStats

    def embed(self, texts: list[str], kind: Kind, *, on_batch: OnBatch | None = None) -> np.ndarray:
        """Embed texts; the prefix of `kind` is put before each, and what exceeds the model's limit is cut off.

        Returns:
            (n, dim) float32, rows of unit length, in the order of `texts`.

        Raises:
            PermanentError: The model or endpoint refuses or gives what cannot be a vector.
            TransientError: The endpoint is unavailable, or memory ran out even for one text.
        """
        ...


def make_encoder(config: EmbeddingConfig, spec: ModelSpec | None = None) -> Encoder:
    """Load the configured model, or connect to the configured endpoint.

    Raises:
        ConfigError: The model is unknown, or the device or key is not there.
    """
    spec = spec or resolve_model(config)
    if config.backend == "openai":
        from rag_core.embedding.openai_encoder import OpenAIEncoder

        return OpenAIEncoder(spec, config)
    # Read once, when torch's thread pool starts. Threads that spin while they wait starve each other as soon as another
    # process wants the cores (see `rag_core.embedding.launch`).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from rag_core.embedding.torch_encoder import TorchEncoder

    return TorchEncoder(spec, config)


def unit_rows(vectors: np.ndarray, *, model: str) -> np.ndarray:
    """Scale rows to unit length, as float32.

    Raises:
        PermanentError: A row is zero or not finite, which no healthy model gives.
    """
    vectors = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    bad = int((~np.isfinite(norms) | (norms < 1e-12)).sum())
    if bad:
        raise PermanentError(
            f"embedding model {model} gave {bad} of {len(vectors)} vectors that are zero or not finite; "
            "set embedding.precision: fp32 if it runs in half precision, else the model itself is broken"
        )
    unit: np.ndarray = (vectors / norms).astype(np.float32)
    return unit


def gpu_memory() -> dict[str, int]:
    """Return the most memory of its GPU that this process had reserved, and what the GPU has, in bytes; {} without."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    return {
        "peak_gpu_bytes": int(torch.cuda.max_memory_reserved()),
        "gpu_total_bytes": int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory),
    }


def peak_rss_bytes() -> int:
    """Return the largest resident memory this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
