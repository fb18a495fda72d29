"""What the next run would do, before anything runs: by source, and for the index that rag.yaml asks for.

Sources are listed and tables read; nothing is written. What depends on text that was not cut yet is an estimate.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rag_core.config import RagConfig
from rag_core.generation import Generation, changed_settings
from rag_core.partitions import source_of
from rag_core.stages.common import anti_join
from rag_core.stages.outdated import GenerationRows
from rag_core.stages.publication import Generations, latest_manifest
from rag_core.stages.retirement import retired_partitions
from rag_core.stages.staleness import Stale, Survey, survey
from rag_core.stages.throughput import throughput
from rag_core.stages.work import IndexWork, Objects, total
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store

_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class SourcePlan:
    """Objects of a source: how many are new, changed (or to be parsed anew), gone and unchanged."""

    source: str
    new: int
    changed: int
    deleted: int
    unchanged: int


@dataclass(frozen=True)
class IndexPlan:
    """Work for one generation.

    Attributes:
        collection: Its collection.
        served: Whether queries reach it now.
        documents_to_cut: Documents whose chunks are missing or stale in its lane, those to be parsed included.
        texts_to_embed: Texts that its model has no vector for.
        texts_reused: Chunks that wait for a vector which is in the cache.
        rows_to_write: Rows of its collection to be written.
        rows_to_delete: Rows of its collection to be deleted.
        is_estimate: Whether some documents must be cut first, so that chunks are estimated from those that were cut.
        reembed_share: Share of the served chunks that would be embedded anew because of changed settings.
        bytes_of_vectors: Size of the vectors to be added, in the store and in Milvus each.
        seconds: Estimated seconds by step, from measured throughput; steps that never ran are missing.
    """

    collection: str
    served: bool
    documents_to_cut: int
    texts_to_embed: int
    texts_reused: int
    rows_to_write: int
    rows_to_delete: int
    is_estimate: bool
    reembed_share: float
    bytes_of_vectors: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        sources: One entry for each source.
        indexes: The served generation, if rag.yaml asks for another, and the one it asks for.
        changed_settings: In what the two differ; empty if they do not.
        refused: Whether the run would refuse to embed without `--rebuild`.
        partitions: Those that are not up to date, and the work on each.
    """

    sources: list[SourcePlan]
    indexes: list[IndexPlan]
    changed_settings: list[str]
    refused: bool
    partitions: list[Stale] = field(default_factory=list)

    def to_dict(self, *, by_partition: bool = False) -> dict[str, Any]:
        """Return the plan for JSON."""
        listed = asdict(replace(self, partitions=[]))
        del listed["partitions"]
        return listed | ({"partitions": [one.to_dict() for one in self.partitions]} if by_partition else {})


def make_plan(store: Store, config: RagConfig, *, sources: Sequence[str] | None = None, listing: bool = True) -> Plan:
    """Plan a run over some sources; None means all. Without `listing`, from the tables alone.

    Raises:
        SourceError: A source cannot be listed.
        ConfigError: The model is not there, or there is no such source.
    """
    found = survey(store, config, sources=sources, listing=listing)
    known = found.known
    rates = throughput(store)
    pending = sum(stale.objects.to_parse for stale in found.partitions.values())
    indexes = [_index_plan(store, found, one, pending, rates, whole=sources is None) for one in known.active]
    limit = config.publication.max_reembed_share
    changed_now = changed_settings(known.served, known.target) if known.served else []
    stale = [one for one in found.partitions.values() if one.is_stale]
    return Plan(_by_source(found), indexes, changed_now, indexes[-1].reembed_share > limit, stale)


def estimated_seconds(stale: Iterable[Stale], rates: Mapping[str, float]) -> dict[str, float]:
    """Estimate the seconds of each step for some partitions from measured throughput; steps never run are missing."""
    listed = list(stale)
    work = total(index for one in listed for index in one.indexes.values())
    return _seconds(sum(one.objects.to_parse for one in listed), work, rates)


def _seconds(to_parse: int, work: IndexWork, rates: Mapping[str, float]) -> dict[str, float]:
    amounts = {"parse": to_parse, "chunk": work.documents_to_cut, "embed": work.embeds, "index": work.writes}
    return {step: round(amount / rates[step], 1) for step, amount in amounts.items() if step in rates}


def _by_source(found: Survey) -> list[SourcePlan]:
    sources: dict[str, list[Objects]] = {}
    for key, stale in found.partitions.items():
        sources.setdefault(source_of(key), []).append(stale.objects)
    names = ("new", "changed", "deleted", "unchanged")
    return [
        SourcePlan(source, **{name: sum(getattr(one, name) for one in listed) for name in names})
        for source, listed in sources.items()
    ]


def _index_plan(
    store: Store, found: Survey, generation: Generation, pending: int, rates: Mapping[str, float], *, whole: bool
) -> IndexPlan:
    rows = found.rows[generation.collection]
    work = total(stale.indexes[generation.collection] for stale in found.partitions.values())
    last = latest_manifest(store)
    return IndexPlan(
        collection=generation.collection,
        served=last is not None and last.collection == generation.collection,
        documents_to_cut=work.documents_to_cut,
        texts_to_embed=work.embeds,
        texts_reused=work.texts_reused,
        rows_to_write=work.writes,
        rows_to_delete=work.rows_to_delete + (_retired_rows(store, generation) if whole else 0),
        is_estimate=work.documents_to_cut > 0,
        reembed_share=_reembed_share(store, found.known, rows),
        bytes_of_vectors=work.writes * generation.spec.dim * _FLOAT32_BYTES,
        seconds=_seconds(pending, work, rates),
    )


def _retired_rows(store: Store, generation: Generation) -> int:
    """Count rows of partitions that the configuration does not have any more; every run of all sources removes them."""
    keys = retired_partitions(store, generation.config)
    return TableSlice.newest(store, "index_partitions", keys, lane=generation.collection).count() if keys else 0


def _reembed_share(store: Store, known: Generations, rows: GenerationRows) -> float:
    """Estimate what `rebuild.reembedded_share` will be; all chunks of documents that are still to be cut count."""
    served, generation = known.served, rows.generation
    if served is None or generation is not known.target or served.embedding_lane == generation.embedding_lane:
        return 0.0
    ledger = TableSlice.newest(store, "index_partitions", lane=served.collection).read(["doc_id"])
    built = TableSlice.newest(store, "embeddings", lane=generation.embedding_lane).read(["doc_id"])
    documents = rows.documents.join(ledger.select(["doc_id"]), keys=["doc_id"], join_type="left semi")
    if not documents.num_rows:
        return 0.0
    chunks = rows.kept.join(documents.select(["doc_id"]), keys=["doc_id"], join_type="left semi")
    uncut = anti_join(anti_join(documents, built, ["doc_id"]), chunks, ["doc_id"]).num_rows / documents.num_rows
    unbuilt = anti_join(chunks, built, ["doc_id"])
    again = pc.sum(pc.is_in(unbuilt["text_hash"], pa.array(rows.missing, pa.string()))).as_py() or 0
    return float(uncut + (1 - uncut) * again / max(1, chunks.num_rows))
