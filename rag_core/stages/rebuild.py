"""Rebuilding: what a changed setting embeds anew, and the guard against a rebuilding that nobody asked for."""

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.generation import changed_settings
from rag_core.stages.common import anti_join
from rag_core.stages.embeddings import EmbeddingPlan
from rag_core.stages.publication import Generations
from rag_core.tables.delta import TableSlice


def reembedded_share(plan: EmbeddingPlan, known: Generations) -> float:
    """Return the share of the target's chunks that its model would embed because of changed settings.

    Counted are chunks of documents that the served collection had before this run. Those of documents that the target
    has vectors of are no rebuilding any more: the document itself changed. So the share falls while a rebuilding goes
    on, and is 0 once it is done; also where nothing else is served, and for new documents.
    """
    if known.served is None or known.served.embedding_lane == known.target.embedding_lane:
        return 0.0
    store, keys = plan.current.store, plan.current.partition_keys
    # The ledger and not the vectors: those of the served collection already show this run's new documents.
    ledger = TableSlice.newest(store, "index_partitions", keys, lane=known.served.collection)
    chunks = plan.chunks.read(["doc_id", "text_hash"])
    chunks = chunks.join(ledger.read(["doc_id"]), keys=["doc_id"], join_type="left semi")
    if not chunks.num_rows:
        return 0.0
    unbuilt = anti_join(chunks, plan.current.read(["doc_id"]), ["doc_id"])
    again: int = pc.sum(pc.is_in(unbuilt["text_hash"], pa.array(plan.missing_texts, pa.string()))).as_py() or 0
    share: float = again / chunks.num_rows
    return share


def refusal(plan: EmbeddingPlan, known: Generations) -> str:
    """Say why a plan must not be carried out unless somebody asked for it; empty if it may.

    It must not if the share is above `publication.max_reembed_share`.
    """
    share, limit = reembedded_share(plan, known), known.target.config.publication.max_reembed_share
    if known.served is None or share <= limit:
        return ""
    changed = "; ".join(changed_settings(known.served, known.target))
    return (
        f"settings changed ({changed}): {share:.0%} of the served chunks of {_range(plan)} would be embedded anew, "
        f"publication.max_reembed_share allows {limit:.0%}. {known.served.collection} serves on and takes changes. "
        f"See what would be done with `rag plan`; do it with `rag run --rebuild` (run tag rag/rebuild: allow)"
    )


def _range(plan: EmbeddingPlan) -> str:
    keys = plan.current.partition_keys or ("all partitions",)
    return keys[0] if len(keys) == 1 else f"{keys[0]}..{keys[-1]}"
