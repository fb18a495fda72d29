"""Rebuilding: what a changed setting embeds anew, and the guard against a rebuilding that nobody asked for."""

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.embedding.manifest import remove_manifest
from rag_core.errors import PermanentError
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
    return again / rows.num_rows


def refuse_unasked(plan: EmbeddingPlan, known: Generations) -> None:
    """Refuse to embed a large part of the served chunks anew.

    Raises:
        PermanentError: The share is above `publication.max_reembed_share`; nothing was embedded.
    """
    share, limit = reembedded_share(plan, known), known.target.config.publication.max_reembed_share
    if known.served is None or share <= limit:
        return
    remove_manifest(plan.current.store, plan.run_id)
    old, new = known.served.spec, known.target.spec
    changed = f"the model {old.name} became {new.name}" if old.fingerprint != new.fingerprint else "chunking changed"
    raise PermanentError(
        f"{changed} in the configuration: {share:.0%} of the served chunks of this run would be embedded anew, "
        f"publication.max_reembed_share allows {limit:.0%}. {known.served.collection} serves on and takes changes. "
        f"See what would be done with `rag plan`; do it with `rag run --rebuild` (run tag rag/rebuild: allow)"
    )
