"""Encoder for any OpenAI-compatible endpoint: request batches, bounded concurrency, retries that honour Retry-After."""

import logging
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Final

import numpy as np

from rag_core.config import EmbeddingConfig
from rag_core.embedding.encoder import EmbedStats, Kind, OnBatch, unit_rows
from rag_core.embedding.model import ModelSpec
from rag_core.errors import ConfigError, PermanentError, TransientError
from rag_core.retry_after import retry_after_s

_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 60.0
_LONGEST_ASKED_WAIT_S: Final = 300.0  # an endpoint that asks for more is left to the next run
_RETRIED_STATUS: Final = frozenset({408, 409, 425, 429})  # and every 5xx
_NO_KEY: Final = "none"  # the client insists on a key; endpoints without authentication ignore it
_ADVICE: Final = {
    400: "the request was refused: check embedding.model, and embedding.max_tokens against the endpoint's limit",
    401: "the key was refused: set RAG_EMBEDDING__API_KEY",
    403: "the key may not use this model: check RAG_EMBEDDING__API_KEY and embedding.model",
    404: "no such address or model: check embedding.base_url (it usually ends in /v1) and embedding.model",
    413: "the request is too large: lower embedding.request_batch",
    422: "the request was refused: check embedding.model and embedding.request_batch",
}
_LOG: Final = logging.getLogger(__name__)


class OpenAIEncoder:
    """An embeddings endpoint; see `Encoder`.

    `max_tokens` is not enforced here: chunks are within it by construction, and a longer query is the endpoint's to
    cut or refuse. `stats.tokens` is what the endpoint reports as usage (0 where it does not).
    """

    def __init__(self, spec: ModelSpec, config: EmbeddingConfig) -> None:
        from openai import OpenAI, OpenAIError

        self.spec = spec
        self._config = config
        self.stats = EmbedStats(precision="remote", device=str(config.base_url))
        self._lock = threading.Lock()
        key = config.api_key.get_secret_value() if config.api_key else _NO_KEY
        try:
            self._client = OpenAI(
                base_url=config.base_url, api_key=key or _NO_KEY, timeout=config.timeout_s, max_retries=0
            )
        except (OpenAIError, ValueError) as error:
            raise ConfigError(f"embedding.base_url: {config.base_url!r} cannot be used: {error}") from error

    def embed(self, texts: list[str], kind: Kind, *, on_batch: OnBatch | None = None) -> np.ndarray:
        """See `Encoder.embed`; `on_batch` is called from the calling thread."""
        started = time.perf_counter()
        prefix = self.spec.query_prefix if kind == "query" else self.spec.passage_prefix
        vectors = np.empty((len(texts), self.spec.dim), np.float32)
        size = self._config.request_batch
        stop = threading.Event()
        with ThreadPoolExecutor(self._config.concurrency, thread_name_prefix="embed") as pool:
            requests = {
                pool.submit(self._request, [prefix + text for text in texts[start : start + size]], stop): start
                for start in range(0, len(texts), size)
            }
            try:
                for request in as_completed(requests):
                    rows, tokens = request.result()
                    vectors[requests[request] : requests[request] + len(rows)] = rows
                    self._count(len(rows), tokens)
                    if on_batch:
                        on_batch(len(rows), tokens)
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        self.stats.seconds += time.perf_counter() - started
        return unit_rows(vectors, model=self.spec.name) if texts else vectors

    def _count(self, texts: int, tokens: int) -> None:
        self.stats.texts += texts
        self.stats.tokens += tokens
        self.stats.padded_tokens += tokens
        self.stats.batches += 1

    def _request(self, texts: list[str], stop: threading.Event) -> tuple[np.ndarray, int]:
        """Return ((n, dim) float32, tokens used) of one request, repeated while its failure may pass."""
        from openai import APIConnectionError, APIError, APIStatusError

        wait_s = 0.0
        for attempt in range(self._config.max_retries + 1):
            try:
                response = self._client.embeddings.create(
                    model=self.spec.location, input=texts, encoding_format="float"
                )
                return self._vectors(response, len(texts)), _tokens(response)
            except APIStatusError as error:
                if not _may_pass(error):
                    raise PermanentError(self._sentence(error)) from error
                failure: APIError = error
                wait_s = retry_after_s(error.response.headers) or _back_off(attempt)
            except APIConnectionError as error:
                failure, wait_s = error, _back_off(attempt)
            except (APIError, ValueError) as error:
                raise PermanentError(f"{self._endpoint}: not an OpenAI embeddings response: {error}") from error
            if wait_s > _LONGEST_ASKED_WAIT_S:
                break
            if attempt < self._config.max_retries:
                with self._lock:
                    self.stats.retries += 1
                _LOG.info("%s: %s; trying again in %.1f s", self._endpoint, _short(failure), wait_s)
                if stop.wait(wait_s):
                    break
        raise TransientError(
            f"{self._endpoint}: {attempt + 1} tries failed, the last with: {_short(failure)}; "
            "run again later, or lower embedding.concurrency if it is a rate limit"
        ) from failure

    def _vectors(self, response: Any, expected: int) -> np.ndarray:
        """Put the vectors in the order of their `index`, which endpoints may return in any."""
        items = response.data or []
        if sorted(item.index for item in items) != list(range(expected)):
            raise PermanentError(f"{self._endpoint}: {len(items)} vectors for {expected} texts, or indices that repeat")
        widths = {len(item.embedding) for item in items}
        if widths != {self.spec.dim}:
            found = ", ".join(map(str, sorted(widths)))
            raise PermanentError(f"{self._endpoint}: vectors have {found} dimensions; set embedding.dim to that number")
        ordered = sorted(items, key=lambda item: int(item.index))
        return np.array([item.embedding for item in ordered], np.float32)

    @property
    def _endpoint(self) -> str:
        return f"embedding endpoint {self._config.base_url} (model {self.spec.location})"

    def _sentence(self, error: Any) -> str:
        advice = _ADVICE.get(error.status_code, "the endpoint refused the request for good")
        return f"{self._endpoint}: HTTP {error.status_code}, {_short(error)}; {advice}"


def _may_pass(error: Any) -> bool:
    if getattr(error, "code", None) == "insufficient_quota":  # sent as 429, but waiting does not pay the bill
        return False
    return error.status_code in _RETRIED_STATUS or error.status_code >= 500


def _back_off(attempt: int) -> float:
    longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt)
    return random.uniform(longest / 2, longest)


def _tokens(response: Any) -> int:
    usage = getattr(response, "usage", None)
    return int(getattr(usage, "total_tokens", 0) or 0)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
