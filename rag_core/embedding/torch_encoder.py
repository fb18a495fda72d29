"""Encoder for sentence-transformers models on CPU and CUDA: own batching, measured precision, back-off on memory.

One process uses one device. For several GPUs start one worker per GPU (`CUDA_VISIBLE_DEVICES`) on the same manifest cut
into parts: the vector cache is what they share.
"""

import copy
import logging
import os
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from rag_core.config import EmbeddingConfig
from rag_core.embedding.batching import pad, padded_length, plan_batches
from rag_core.embedding.encoder import EmbedStats, Kind, OnBatch, unit_rows
from rag_core.embedding.fused_gelu import fuse_gelu
from rag_core.embedding.lean_import import sentence_transformer
from rag_core.embedding.model import ModelSpec
from rag_core.embedding.packing import pack
from rag_core.errors import ConfigError, PermanentError, TransientError

# Activations of 4,096 tokens stay near the caches; larger batches were no faster on CPU (MiniLM, bf16, best of
# two: 195 chunks/s at 4,096, 185 at 8,192) and take more memory.
CPU_BATCH_TOKENS: Final = 4_096
# Below this, trying half precision costs more than it can save; queries stay in fp32 and are never held up by it.
CALIBRATE_FROM_TOKENS: Final = 8_192
_CALIBRATION_TOKENS: Final = 2_048
_PAD_MULTIPLE: Final = 16  # CPU attention takes 4.0 ms at length 200 and 2.7 ms at 208
# Texts of up to half a row are packed. MiniLM in fp32 on two cores, 32 questions of 23 tokens on average, of 8 to 59:
# 4.7 ms each, and 9.1 ms padded to the longest; 17 and 22 ms for one alone.
_ROW_TOKENS: Final = 128
_DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_OUT_OF_MEMORY: Final = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
_LOG: Final = logging.getLogger(__name__)


class TorchEncoder:
    """A sentence-transformers model; see `Encoder`.

    The transformer runs in the chosen precision, pooling and all after it in fp32.

    Raises:
        ConfigError: `device: cuda` without CUDA, or a model that sentence-transformers cannot load.
    """

    def __init__(self, spec: ModelSpec, config: EmbeddingConfig) -> None:
        self.spec = spec
        self._config = config
        self._device = _device(config)
        model = _load(spec, self._device)
        backend = getattr(model.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ConfigError(f"embedding.model: {spec.name} has no fast tokenizer (tokenizer.json); choose another")
        self._tokenizer = type(backend).from_str(backend.to_str())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(spec.max_tokens)
        self._pad_id = int(model.tokenizer.pad_token_id or 0)
        modules = list(model)
        self._transformer: Any = modules[0]
        self._head: list[Any] = modules[1:]
        self._can_pack = self._on_cpu and _has_absolute_positions(self._transformer)
        self._batch_tokens = min(config.batch_tokens, CPU_BATCH_TOKENS) if self._on_cpu else config.batch_tokens
        self.stats = EmbedStats(device=self._device.type)
        self._calibrated = config.precision != "auto"
        if config.precision in ("bf16", "fp16"):
            self._transformer = self._converted(config.precision)
            self.stats.precision = config.precision

    @property
    def _on_cpu(self) -> bool:
        return self._device.type == "cpu"

    def embed(self, texts: list[str], kind: Kind, *, on_batch: OnBatch | None = None) -> np.ndarray:
        """See `Encoder.embed`."""
        started = time.perf_counter()
        vectors = np.empty((len(texts), self.spec.dim), np.float32)
        if texts:
            token_ids = self._tokenise(texts, kind)
            lengths = np.array([len(row) for row in token_ids])
            if not self._calibrated and int(lengths.sum()) >= CALIBRATE_FROM_TOKENS:
                self._calibrate(token_ids, lengths)
            todo = self._plan(lengths)[::-1]
            while todo:
                batch = todo.pop()
                try:
                    vectors[batch] = self._forward(self._transformer, [token_ids[i] for i in batch])
                except (MemoryError, RuntimeError) as error:
                    todo += self._halve(batch, lengths, error)
                    continue
                self._count(lengths[batch])
                if on_batch:
                    on_batch(len(batch), int(lengths[batch].sum()))
        self.stats.seconds += time.perf_counter() - started
        return unit_rows(vectors, model=self.spec.name) if texts else vectors

    def _plan(self, lengths: np.ndarray) -> list[np.ndarray]:
        """Cut texts into batches: those that are packed by their tokens alone, the others by their padded tokens."""
        is_short = lengths <= _ROW_TOKENS // 2 if self._can_pack else np.zeros(len(lengths), bool)
        short, long = np.flatnonzero(is_short), np.flatnonzero(~is_short)
        batches = plan_batches(lengths[long], batch_tokens=self._batch_tokens, multiple=_PAD_MULTIPLE)
        planned = [long[batch] for batch in batches]
        if len(short):
            ends = np.cumsum(lengths[short]) // self._batch_tokens
            planned += np.split(short, np.flatnonzero(np.diff(ends)) + 1)
        return planned

    def _tokenise(self, texts: list[str], kind: Kind) -> list[list[int]]:
        prefix = self.spec.query_prefix if kind == "query" else self.spec.passage_prefix
        encodings = self._tokenizer.encode_batch_fast([prefix + text for text in texts] if prefix else texts)
        return [encoding.ids or [self._pad_id] for encoding in encodings]

    @torch.inference_mode()
    def _forward(self, transformer: Any, token_ids: list[list[int]]) -> np.ndarray:
        is_packed = self._can_pack and max(map(len, token_ids)) <= _ROW_TOKENS // 2
        features = (self._packed if is_packed else self._padded)(transformer, token_ids)
        for module in self._head:
            features = module(features)
        vectors: np.ndarray = features["sentence_embedding"].float().cpu().numpy()
        if vectors.shape[1] != self.spec.dim:
            raise PermanentError(f"model {self.spec.name} gave {vectors.shape[1]} dimensions, not {self.spec.dim}")
        return vectors

    def _padded(self, transformer: Any, token_ids: list[list[int]]) -> dict[str, Tensor]:
        """Run the transformer over one text a row."""
        ids, mask = pad(token_ids, pad_id=self._pad_id, multiple=_PAD_MULTIPLE)
        features: dict[str, Tensor] = {
            "input_ids": torch.from_numpy(ids).to(self._device),
            "attention_mask": torch.from_numpy(mask).to(self._device),
        }
        features = transformer(features)
        features["token_embeddings"] = features["token_embeddings"].float()
        return features

    def _packed(self, transformer: Any, token_ids: list[list[int]]) -> dict[str, Tensor]:
        """Run the transformer over several texts a row, and lay its output out as if it had been one a row."""
        packed = pack(token_ids, pad_id=self._pad_id, width=_ROW_TOKENS)
        bert = transformer.auto_model
        mask = torch.from_numpy(packed.mask)
        output = bert(
            input_ids=torch.from_numpy(packed.ids),
            position_ids=torch.from_numpy(packed.positions),
            attention_mask=torch.zeros(mask.shape, dtype=bert.dtype).masked_fill_(~mask, float("-inf"))[:, None],
        ).last_hidden_state
        ids, tokens = pad(token_ids, pad_id=self._pad_id, multiple=1)
        of_texts = torch.zeros((*ids.shape, output.shape[2]))
        of_texts[torch.from_numpy(tokens).bool()] = output.flatten(0, 1)[torch.from_numpy(packed.flat)].float()
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(tokens),
            "token_embeddings": of_texts,
        }

    def _count(self, lengths: np.ndarray) -> None:
        longest, tokens = int(lengths.max()), int(lengths.sum())
        is_packed = self._can_pack and longest <= _ROW_TOKENS // 2
        self.stats.texts += len(lengths)
        self.stats.tokens += tokens
        self.stats.padded_tokens += tokens if is_packed else padded_length(longest, _PAD_MULTIPLE) * len(lengths)
        self.stats.batches += 1

    def _halve(self, batch: np.ndarray, lengths: np.ndarray, error: Exception) -> list[np.ndarray]:
        """Split a batch that did not fit, and make later ones as small; anything but lack of memory is raised on."""
        if not _is_out_of_memory(error):
            raise error
        if not self._on_cpu:
            torch.cuda.empty_cache()
        if len(batch) == 1:
            raise TransientError(
                f"not enough memory on {self._device.type} to embed one text of {int(lengths[batch[0]])} tokens with "
                f"{self.spec.name}; free memory or set a smaller embedding.max_tokens"
            ) from error
        self.stats.oom_halvings += 1
        half = len(batch) // 2
        self._batch_tokens = max(256, half * int(lengths[batch].max()))
        _LOG.warning("batch of %d texts did not fit into memory; now %d padded tokens", len(batch), self._batch_tokens)
        return [batch[half:], batch[:half]]

    def _calibrate(self, token_ids: list[list[int]], lengths: np.ndarray) -> None:
        """Take the first half precision that agrees with fp32 on a sample of these texts and is faster."""
        self._calibrated = True
        sample = _sample(lengths)
        rows = [token_ids[i] for i in sample]
        expected, fp32_s = self._timed(self._transformer, rows)
        for precision in ("bf16",) if self._on_cpu else ("fp16", "bf16"):
            try:
                candidate = self._converted(precision)
                got, half_s = self._timed(candidate, rows)
            except (RuntimeError, MemoryError, PermanentError) as error:
                _LOG.info("%s does not work here: %s", precision, error)
                continue
            cosine = float((got * expected).sum(axis=1).mean())
            _LOG.info("%s: mean cosine to fp32 %.5f, %.2f times its speed", precision, cosine, fp32_s / half_s)
            if cosine >= self._config.min_cosine and half_s < fp32_s:
                self._transformer = candidate
                self.stats.precision = precision
                self.stats.cosine_to_fp32 = round(cosine, 6)
                self.stats.speedup_to_fp32 = round(fp32_s / half_s, 2)
                return

    def _timed(self, transformer: Any, rows: list[list[int]]) -> tuple[np.ndarray, float]:
        """Return the rows' unit vectors and the seconds they took, after a short row that pays for warming up."""
        self._forward(transformer, rows[:1])
        started = time.perf_counter()
        vectors = self._forward(transformer, rows)
        return unit_rows(vectors, model=self.spec.name), time.perf_counter() - started

    def _converted(self, precision: str) -> Any:
        transformer = copy.deepcopy(self._transformer).to(_DTYPES[precision])
        if self._on_cpu:
            fuse_gelu(transformer)
        return transformer


def _has_absolute_positions(transformer: Any) -> bool:
    """Tell whether positions are given to the model, as packing needs, and not told apart by distance or padding."""
    config = getattr(getattr(transformer, "auto_model", None), "config", None)
    is_absolute = getattr(config, "position_embedding_type", "absolute") == "absolute"
    return getattr(config, "model_type", None) == "bert" and is_absolute


def _sample(lengths: np.ndarray) -> np.ndarray:
    """Choose texts evenly over the lengths, some `_CALIBRATION_TOKENS` tokens of them."""
    order = np.argsort(lengths, kind="stable")
    count = int(np.clip(_CALIBRATION_TOKENS // max(1, int(lengths.mean())), 1, len(order)))
    chosen: np.ndarray = order[np.linspace(0, len(order) - 1, count).astype(int)]
    return chosen


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return any(phrase in str(error).lower() for phrase in _OUT_OF_MEMORY)


def _device(config: EmbeddingConfig) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("embedding.device: cuda, but torch finds no CUDA device here; use cpu or auto")
    on_cuda = config.device != "cpu" and torch.cuda.is_available()
    if not on_cuda:
        torch.set_num_threads(_cpu_count())
    return torch.device("cuda" if on_cuda else "cpu")


def _cpu_count() -> int:
    """Return the cores this process may use; more threads than a container's quota only wait for each other."""
    cores = min(torch.get_num_threads(), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1_024)
    quota_file = Path("/sys/fs/cgroup/cpu.max")
    if quota_file.is_file():
        quota, period = quota_file.read_text().split()
        if quota != "max":
            cores = min(cores, max(1, -(-int(quota) // int(period))))
    return max(1, cores)


def _load(spec: ModelSpec, device: torch.device) -> Any:
    # The folder is complete on disk; without these, loading asks the hub whether it has something newer.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
    model_class = sentence_transformer()
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model = model_class(spec.location, device=str(device), local_files_only=True)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise ConfigError(f"embedding.model: {spec.name} cannot be loaded from {spec.location}: {error}") from error
    module: nn.Module = model.float().eval()
    return module
