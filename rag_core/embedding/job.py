"""What the worker does, without its command line: embed what a manifest lists and the cache lacks, slice by slice."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rag_core.embedding.cache import LOOKUP_ROWS, VectorCache
from rag_core.embedding.encoder import Encoder, peak_rss_bytes
from rag_core.embedding.key_index import KEY_BYTES, KeyArray, as_keys
from rag_core.embedding.manifest import WorkManifest
from rag_core.embedding.spool import TextSpool, spool_items
from rag_core.errors import FingerprintMismatchError, PermanentError, TransientError
from rag_core.faults import crash_point

_UNIT_TOLERANCE: Final = 1e-3
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """A share of a manifest's texts, by ranges of their hashes: the cache's files are of ranges as well.

    Attributes:
        number: Which, from 0 on.
        count: How many there are; disjoint, and all texts together.
    """

    number: int
    count: int

    def holds(self, keys: KeyArray) -> np.ndarray:
        """Return an (n,) bool array: which of the (n,) text hashes are of this share."""
        first = np.array([int(key[:4], 16) for key in keys.tolist()], np.int64)
        mine: np.ndarray = first * self.count >> 16 == self.number
        return mine

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


@dataclass
class Progress:
    """How far a job is.

    Attributes:
        item_count: Items of the manifest.
        reused_count: Of these, in the cache when the job started.
        todo_tokens: Tokens to embed in this job, special tokens excluded, as the chunker counted them.
        done_texts: Texts embedded so far.
        done_tokens: Share of todo_tokens that these are, estimated within a slice.
        checkpoints: Slices committed.
        started: Monotonic time at which the job started.
        embedding_started: Monotonic time at which the model was loaded and embedding began.
    """

    item_count: int
    reused_count: int = 0
    todo_tokens: int = 0
    done_texts: int = 0
    done_tokens: int = 0
    checkpoints: int = 0
    started: float = field(default_factory=time.monotonic)
    embedding_started: float = 0.0

    @property
    def todo_count(self) -> int:
        """Texts to embed in this job."""
        return self.item_count - self.reused_count

    @property
    def seconds(self) -> float:
        """Seconds since the job started."""
        return time.monotonic() - self.started

    @property
    def eta_s(self) -> float | None:
        """Estimated seconds until all is embedded; None before the first batch."""
        if not self.done_tokens:
            return None
        elapsed = time.monotonic() - self.embedding_started
        return elapsed * (self.todo_tokens - self.done_tokens) / self.done_tokens


def run_job(
    manifest: WorkManifest,
    make: Callable[[], Encoder],
    on_progress: Callable[[Progress], None] = lambda _: None,
    *,
    shard: Shard | None = None,
) -> dict[str, Any]:
    """Bring every item of the manifest into the vector cache, and prove that it is there.

    Work that an earlier try or another worker has committed is skipped. After each `checkpoint_tokens` the slice is
    committed; a crash loses at most one slice.

    Args:
        manifest: What to embed.
        make: Makes the encoder; not called when nothing is left to embed.
        on_progress: Called after each batch and each checkpoint.
        shard: The share of the items that is to be done; default: all.

    Returns:
        What was measured, JSON-able: counts, reuse share, checkpoints, and `EmbedStats.to_dict`.

    Raises:
        PermanentError: Refused by the model, or the model is not the manifest's.
        TransientError: Store, endpoint or memory; or items are missing or broken at the end.
    """
    progress = Progress(manifest.item_count)
    cache = VectorCache(manifest.store)
    filesystem, root = manifest.store.filesystem()
    fingerprint = manifest.model_fingerprint
    measured: dict[str, Any] = {}

    def missing(hashes: pa.Array) -> list[str]:
        own = hashes if shard is None else hashes.filter(pa.array(shard.holds(as_keys(hashes)), pa.bool_()))
        return cache.missing(fingerprint, own)

    with TextSpool() as spool:
        keys, todo, progress.todo_tokens = spool_items(spool, filesystem, f"{root}/{manifest.items}", missing)
        if shard is not None:
            keys = keys[shard.holds(keys)]
            progress.item_count = len(keys)
        progress.reused_count = len(keys) - todo
        if todo:
            encoder = make()
            _check_model(encoder, manifest)
            _embed(spool, encoder, cache, manifest, progress=progress, on_progress=on_progress)
            measured = encoder.stats.to_dict()
    _verify(cache, manifest, keys)
    if shard is None:
        cache.compact()
    return measured | {
        "item_count": len(keys),
        "embedded_count": todo,
        "reused_count": progress.reused_count,
        "reuse_share": round(progress.reused_count / max(1, len(keys)), 4),
        "checkpoints": progress.checkpoints,
        "job_seconds": round(progress.seconds, 3),
        "peak_rss_bytes": peak_rss_bytes(),
    }


def verify_manifest(manifest: WorkManifest, *, compact: bool = False) -> int:
    """Prove that every item of a manifest is in the cache, whoever put it there.

    Returns:
        How many items there are.

    Raises:
        PermanentError: There is no items file.
        TransientError: Items are missing or broken; or the store cannot be reached.
    """
    cache = VectorCache(manifest.store)
    keys = _item_keys(manifest)
    _verify(cache, manifest, keys)
    if compact:
        cache.compact()
    return len(keys)


def missing_count(manifest: WorkManifest) -> int:
    """Return how many items of a manifest have no vector yet."""
    keys = _item_keys(manifest)
    return len(VectorCache(manifest.store).missing(manifest.model_fingerprint, [key.decode() for key in keys.tolist()]))


def _item_keys(manifest: WorkManifest) -> KeyArray:
    filesystem, root = manifest.store.filesystem()
    try:
        with filesystem.open_input_file(f"{root}/{manifest.items}") as file:
            batches = [
                as_keys(batch.column(0)).copy()
                for batch in pq.ParquetFile(file).iter_batches(65_536, columns=["text_hash"])
            ]
    except FileNotFoundError as error:
        raise PermanentError(
            f"no items file at {manifest.store.uri(manifest.items)}; run the embeddings asset to write it"
        ) from error
    except OSError as error:
        raise TransientError(f"cannot read {manifest.store.uri(manifest.items)}: {error}") from error
    return np.sort(np.concatenate([np.empty(0, f"S{KEY_BYTES}"), *batches]))


def _embed(
    spool: TextSpool,
    encoder: Encoder,
    cache: VectorCache,
    manifest: WorkManifest,
    *,
    progress: Progress,
    on_progress: Callable[[Progress], None],
) -> None:
    progress.embedding_started = time.monotonic()
    metadata = {"rag.run_id": manifest.run_id}
    for hashes, texts in spool.slices(manifest.embedding.checkpoint_tokens):
        share = progress.todo_tokens / max(1, progress.todo_count)

        def on_batch(batch_texts: int, batch_tokens: int, mean_tokens: float = share) -> None:
            progress.done_texts += batch_texts
            # Endpoints may not report usage; then the mean length has to do.
            progress.done_tokens = min(
                progress.todo_tokens, progress.done_tokens + (batch_tokens or round(batch_texts * mean_tokens))
            )
            on_progress(progress)

        vectors = encoder.embed(texts, "passage", on_batch=on_batch)
        crash_point("embeddings.worker.before_append")
        cache.append(manifest.model_fingerprint, hashes, vectors, commit_metadata=metadata)
        progress.checkpoints += 1
        crash_point("embeddings.worker.after_append")
        on_progress(progress)


def _check_model(encoder: Encoder, manifest: WorkManifest) -> None:
    if encoder.spec.fingerprint != manifest.model_fingerprint:
        raise FingerprintMismatchError(
            f"the worker's model {encoder.spec.name} has fingerprint {encoder.spec.fingerprint}, the manifest asks for "
            f"{manifest.model_fingerprint}; give the worker the same model files and configuration as the pipeline"
        )


def _verify(cache: VectorCache, manifest: WorkManifest, keys: np.ndarray) -> None:
    """Read every item's vector back; keys are sorted, so that each slice reads few files."""
    bad: list[str] = []
    for start in range(0, len(keys), LOOKUP_ROWS):
        asked = [key.decode() for key in keys[start : start + LOOKUP_ROWS].tolist()]
        found, vectors = cache.lookup(manifest.model_fingerprint, asked)
        bad += sorted(set(asked) - set(found))
        if found and vectors.shape[1] != manifest.dim:
            bad += found
        elif found:
            lengths = np.linalg.norm(vectors, axis=1)
            healthy = np.abs(lengths - 1) <= _UNIT_TOLERANCE  # false for NaN
            bad += [name for name, ok in zip(found, healthy, strict=True) if not ok]
    if bad:
        raise TransientError(
            f"{len(bad)} of {len(keys)} items have no finite unit vector of {manifest.dim} dimensions in "
            f"{manifest.store.table_uri('vectors')} after embedding, such as {', '.join(bad[:3])}; run again"
        )
    _LOG.debug("verified %d vectors", len(keys))
