"""What is out of date, by partition: sources are listed, key columns of the tables are read once, nothing is written.

What Milvus lost by itself is not seen here: `rag verify` finds that. What depends on text that was not cut yet is an
estimate.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rag_core import ids
from rag_core.config import RagConfig
from rag_core.errors import ConfigError
from rag_core.partitions import partition_keys_of
from rag_core.stages.common import Counts
from rag_core.stages.documents import ListedObjects, listed_objects
from rag_core.stages.outdated import GenerationRows, read_generation
from rag_core.stages.publication import STAGE_TABLES, Generations, generations
from rag_core.stages.work import IndexWork, Objects, total
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store


@dataclass(frozen=True)
class Stale:
    """What is to be done for one partition: its objects, and the work for each collection that is kept up to date."""

    partition_key: str
    objects: Objects = field(default_factory=Objects)
    indexes: Mapping[str, IndexWork] = field(default_factory=dict)

    @property
    def is_stale(self) -> bool:
        """Whether there is anything to do."""
        parses = self.objects.to_parse or self.objects.deleted
        return bool(parses) or not all(work.is_none for work in self.indexes.values())

    @property
    def work(self) -> IndexWork:
        """The work for all collections together."""
        return total(self.indexes.values())

    @property
    def weight(self) -> int:
        """Objects or documents to do, at least 1; what runs are packed by."""
        touched = max((work.documents for work in self.indexes.values()), default=0)
        return max(1, self.objects.to_parse + self.objects.deleted, touched)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {"partition": self.partition_key, "objects": asdict(self.objects), "indexes": {
            collection: asdict(work) for collection, work in self.indexes.items()
        }}  # fmt: skip


@dataclass(frozen=True)
class Survey:
    """What is out of date.

    Attributes:
        partitions: One entry for each partition of the sources that were looked at, up to date or not.
        known: The generations that are kept up to date.
        rows: Of each of them, by collection, what the survey read.
    """

    partitions: Mapping[str, Stale]
    known: Generations
    rows: Mapping[str, GenerationRows]


def stale_partitions(
    store: Store, config: RagConfig, *, sources: Sequence[str] | None = None, stage: str | None = None
) -> dict[str, Stale]:
    """Return what is to be done for each partition that is not up to date, by partition key.

    Args:
        store: Holds the tables.
        config: Sources, settings.
        sources: Their names; None means all.
        stage: Only what this stage would do if it ran now, on the tables as they are; None means what a whole run
            would do. Sources are listed for None and `documents`.

    Raises:
        SourceError: A source cannot be listed.
        ConfigError: The model is not there, or there is no such source or stage.
    """
    found = survey(store, config, sources=sources, stage=stage).partitions
    return {key: stale for key, stale in found.items() if stale.is_stale}


def survey(
    store: Store,
    config: RagConfig,
    *,
    sources: Sequence[str] | None = None,
    stage: str | None = None,
    listing: bool = True,
) -> Survey:
    """Look at every partition of the sources.

    Args and errors are those of `stale_partitions`; without `listing` no source is asked, and its objects are taken to
    be as the tables say.
    """
    if stage is not None and stage not in STAGE_TABLES:
        raise ConfigError(f"no stage {stage!r}; expected one of {', '.join(STAGE_TABLES)}")
    names = chosen_sources(config, sources)
    listed = {name: _listed(store, config, name) for name in names if listing and stage in (None, "documents")}
    objects = {key: _objects(counts) for one in listed.values() for key, counts in one.counts.items()}
    outdated = {ids.doc_id(name, key) for name, one in listed.items() for key in one.outdated} if stage is None else ()
    to_parse = {key: one.to_parse for key, one in objects.items() if stage is None and one.to_parse}
    keys = [key for name in names for key in partition_keys_of(config, name)]
    known = generations(store, config)
    rows = {
        one.collection: read_generation(store, known, one, keys, outdated=outdated, stage=stage)
        for one in (known.active if stage != "documents" else ())
    }
    works = {collection: one.work(to_parse) for collection, one in rows.items()}
    nothing, no_objects = IndexWork(), Objects()
    partitions = {
        key: Stale(key, objects.get(key, no_objects), {name: work.get(key, nothing) for name, work in works.items()})
        for key in keys
    }
    return Survey(partitions, known, rows)


def chosen_sources(config: RagConfig, sources: Collection[str] | None) -> list[str]:
    """Return the names of the chosen sources in the order of the configuration; None means all.

    Raises:
        ConfigError: There is no such source.
    """
    known = [source.name for source in config.sources]
    if unknown := sorted(set(sources or ()).difference(known)):
        raise ConfigError(f"no source {', '.join(unknown)}; expected one of {', '.join(known)}")
    return [name for name in known if sources is None or name in sources]


def _listed(store: Store, config: RagConfig, name: str) -> ListedObjects:
    documents = TableSlice.newest(store, "documents", partition_keys_of(config, name))
    return listed_objects(documents, config, config.source(name))


def _objects(counts: Counts) -> Objects:
    return Objects(counts.new, counts.changed, counts.deleted, counts.unchanged)
