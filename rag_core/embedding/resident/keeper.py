"""The model that a resident worker keeps: loaded once, warmed up, replaced when a job needs another."""

import ctypes
import gc
import logging
import time
from contextlib import suppress
from typing import Final

import psutil

from rag_core.config import EmbeddingConfig
from rag_core.embedding.encoder import Encoder
from rag_core.embedding.manifest import WorkManifest
from rag_core.embedding.model import resolve_model
from rag_core.embedding.worker import encoder_of

_GROWTH_BYTES: Final = 1 << 30  # what buffers of long texts may add to a worker that waits
_NOT_THE_MODEL: Final = {"api_key", "workers", "worker_idle_s", "checkpoint_tokens"}
_LOG: Final = logging.getLogger(__name__)


class EncoderKeeper:
    """Holds the encoder of the last job's model and settings.

    Attributes:
        loads: How many models were loaded.
    """

    def __init__(self) -> None:
        self.loads = 0
        self._encoder: Encoder | None = None
        self._settings = ""
        self._loaded_bytes = 0

    def encoder(self, manifest: WorkManifest) -> Encoder:
        """Return the manifest's encoder, its statistics at zero.

        Raises:
            ConfigError: As `make_encoder`.
        """
        return self._encoder_of(manifest.embedding, manifest.model_fingerprint)

    def prepare(self, config: EmbeddingConfig) -> None:
        """Load the model of a configuration, for jobs to come.

        Raises:
            ConfigError: As `make_encoder`.
        """
        self._encoder_of(config, resolve_model(config).fingerprint)

    def tidy(self) -> None:
        """Give back what a job's buffers took: 120 MiB after 200 full chunks of the built-in model."""
        gc.collect()
        with suppress(AttributeError, OSError):  # glibc only; other allocators give it back by themselves
            ctypes.CDLL(None).malloc_trim(0)

    def has_grown(self) -> bool:
        """Whether this process holds much more memory than when its model was loaded."""
        return self._loaded_bytes > 0 and rss_bytes() > self._loaded_bytes + _GROWTH_BYTES

    def _encoder_of(self, config: EmbeddingConfig, fingerprint: str) -> Encoder:
        settings = config.model_dump_json(exclude=_NOT_THE_MODEL)
        if self._encoder is None or settings != self._settings or self._encoder.spec.fingerprint != fingerprint:
            self._encoder = None  # before the next is loaded: two would need twice the memory
            gc.collect()
            self._encoder, self._settings = self._load(config), settings
        self._encoder.stats = self._encoder.stats.anew()
        return self._encoder

    def _load(self, config: EmbeddingConfig) -> Encoder:
        started = time.perf_counter()
        encoder = encoder_of(config)
        loaded = time.perf_counter()
        if config.backend == "sentence-transformers":  # an endpoint would charge for it
            encoder.embed(["warm up"], "passage")
        self.loads += 1
        self._loaded_bytes = rss_bytes()
        _LOG.info(
            "%s: loaded in %.2f s, warmed up in %.2f s, %d MiB resident",
            config.model,
            loaded - started,
            time.perf_counter() - loaded,
            self._loaded_bytes >> 20,
        )
        return encoder


def rss_bytes() -> int:
    """Return this process's resident memory."""
    return int(psutil.Process().memory_info().rss)
