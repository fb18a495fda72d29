"""Rebuilding: what a changed setting embeds anew, and the guard against a rebuilding that nobody asked for."""

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.embedding.manifest import remove_manifest
from rag_core.generation import changed_settings
from rag_core.stages.embeddings import EmbeddingPlan
from rag_core.stages.publication import Generations
from rag_core.tables.delta import TableSlice


def reembedded_share(plan: EmbeddingPlan, known: Generations) -> float:
    """Return the share of the plan's chunks of served documents whose text the target's model never saw.

    0 where nothing is served, where the target is served, and for documents that are not served yet: new content is no
    rebuilding.
    """
    if known.served is None or known.served.embedding_lane == known.target.embedding_lane:
        return 0.0
    lane = known.served.embedding_lane
    served = TableSlice.newest(plan.current.store, "embeddings", plan.current.partition_keys, lane=lane)
    documents = pc.unique(served.read(["doc_id"])["doc_id"])
    rows = plan.rows.filter(pc.is_in(plan.rows["doc_id"], documents))
    if not rows.num_rows:
        return 0.0
    missing = pa.array(plan.missing_texts, pa.string())
    again: int = pc.sum(pc.is_in(rows["text_hash"], missing)).as_py()
    share: float = again / rows.num_rows
    return share


def refusal(plan: EmbeddingPlan, known: Generations) -> str:
    """Say why a plan must not be carried out unless somebody asked for it; empty if it may.

    It must not if the share is above `publication.max_reembed_share`. The plan's manifest is removed then.
    """
    share, limit = reembedded_share(plan, known), known.target.config.publication.max_reembed_share
    if known.served is None or share <= limit:
        return ""
    remove_manifest(plan.current.store, plan.run_id)
    changed = "; ".join(changed_settings(known.served, known.target))
    return (
        f"settings changed ({changed}): {share:.0%} of the served chunks of {_range(plan)} would be embedded anew, "
        f"publication.max_reembed_share allows {limit:.0%}. {known.served.collection} serves on and takes changes. "
        f"See what would be done with `rag plan`; do it with `rag run --rebuild` (run tag rag/rebuild: allow)"
    )


def _range(plan: EmbeddingPlan) -> str:
    keys = plan.current.partition_keys or ("all partitions",)
    return keys[0] if len(keys) == 1 else f"{keys[0]}..{keys[-1]}"
