"""Making an index ready to be served, with what it has in common with the one before it."""

from rag_core.config import RagConfig
from rag_core.retrieval.served import ServedIndex
from rag_core.stages.publication import Manifest
from rag_core.tables.store import Store
from serving.index.snapshot import statistics_version


def prepare(config: RagConfig, store: Store, manifest: Manifest, before: ServedIndex | None) -> ServedIndex:
    """Load model and statistics of what a manifest names; takes seconds, and blocks.

    Most publications are of the collection that is served already, after a change of documents: model and term
    statistics are those of before then, and are neither loaded nor held twice.

    Args:
        config: The configuration.
        store: Holds the tables.
        manifest: What is to be served.
        before: What is served, prepared as well.

    Raises:
        ConfigError: The model is not there any more.
        FingerprintMismatchError: It is there, but its files are others now.
    """
    index = ServedIndex(config, manifest, store)
    if before is not None:
        if before.model_fingerprint == index.model_fingerprint:
            vars(index)["encoder"] = before.encoder
        if _statistics_key(before.manifest) == _statistics_key(manifest):
            vars(index)["statistics"] = before.statistics
    _ = index.encoder, index.statistics
    return index


def answers_alike(one: Manifest, other: Manifest) -> bool:
    """Tell whether two publications give the same answers as long as the same rows are indexed."""
    return (one.collection, one.search_params, _statistics_key(one)) == (
        other.collection,
        other.search_params,
        _statistics_key(other),
    )


def _statistics_key(manifest: Manifest) -> tuple[str, str]:
    return statistics_version(manifest), manifest.chunk_lane
