"""Which partitions a backfill is about, what is to be done for each, and how they are packed into runs."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from rag_core.backfill.state import Settings
from rag_core.config import RagConfig
from rag_core.errors import ConfigError
from rag_core.packing import Item, Pack, pack, ranges
from rag_core.partitions import all_partition_keys, keys_by_source, partition_keys_of, source_of
from rag_core.stages.plan import estimated_seconds
from rag_core.stages.staleness import Stale, chosen_sources, survey
from rag_core.stages.throughput import throughput
from rag_core.stages.work import total
from rag_core.tables.store import Store


@dataclass(frozen=True)
class Choice:
    """What a backfill is about, before it starts.

    Attributes:
        stale: The chosen partitions, and what is to be done for each.
        settings: How it is to work.
        rates: Work a second by step, of earlier runs; steps that never ran are missing.
    """

    stale: Mapping[str, Stale]
    settings: Settings
    rates: Mapping[str, float]

    @property
    def weights(self) -> dict[str, int]:
        """Objects to do by partition, at least 1."""
        return {key: one.weight for key, one in self.stale.items()}

    @property
    def expected_s(self) -> float | None:
        """Seconds of all steps by the measured rates; None if none was measured."""
        return self._expected(self.stale.values())

    def runs(self, config: RagConfig) -> list["PlannedRun"]:
        """Return the runs as they would be packed, in their order."""
        return [self._planned(one.partition_keys) for one in packs(config, self.settings, self.weights)]

    def _expected(self, stale: Iterable[Stale]) -> float | None:
        return sum(estimated_seconds(stale, self.rates).values()) if self.rates else None

    def _planned(self, keys: tuple[str, ...]) -> "PlannedRun":
        stale = [self.stale[key] for key in keys]
        work = total(partition.work for partition in stale)
        objects = sum(partition.objects.to_parse + partition.objects.deleted for partition in stale)
        return PlannedRun(
            keys, objects, work.documents_to_cut, work.embeds, work.texts_reused, work.writes, work.rows_to_delete,
            self._expected(stale),
        )  # fmt: skip


@dataclass(frozen=True)
class PlannedRun:
    """A run that would be made: its partitions, and the work of all of them together; figures as in `rag plan`."""

    partition_keys: tuple[str, ...]
    objects: int
    documents_to_cut: int
    texts_to_embed: int
    texts_reused: int
    rows_to_write: int
    rows_to_delete: int
    expected_s: float | None


def choose(
    store: Store,
    config: RagConfig,
    settings: Settings,
    *,
    sources: Collection[str] | None = None,
    patterns: Sequence[str] = (),
    stale_only: bool = False,
) -> Choice:
    """Choose partitions, and look at what is to be done for each.

    Args:
        store: Holds the tables.
        config: Sources and limits.
        settings: How the backfill is to work.
        sources: Only partitions of these; None means all.
        patterns: Only partitions whose key is like one of these (`handbook__0*`); none: all.
        stale_only: Leave out what is up to date.

    Raises:
        ConfigError: There is no such source, stage, or partition.
        SourceError: A source cannot be listed.
    """
    names = chosen_sources(config, sources)
    keys = [key for name in names for key in partition_keys_of(config, name)]
    for pattern in patterns:
        if not any(fnmatchcase(key, pattern) for key in keys):
            raise ConfigError(f"no partition is like {pattern!r}; there are {keys[0]} to {keys[-1]}")
    chosen = {key for key in keys if not patterns or any(fnmatchcase(key, pattern) for pattern in patterns)}
    touched = [name for name in names if any(source_of(key) == name for key in chosen)]
    found = survey(store, config, sources=touched, stage=settings.stage).partitions
    stale = {key: one for key, one in found.items() if key in chosen and (one.is_stale or not stale_only)}
    return Choice(stale, settings, throughput(store))


def packs(config: RagConfig, settings: Settings, weights: Mapping[str, int]) -> list[Pack]:
    """Pack partitions into runs, none of two sources.

    Runs of a single stage are asset runs, whose partitions Dagster names by two ends: a gap begins a new one.
    """
    limits = config.run
    packed: list[Pack] = []
    for keys in keys_by_source(config, weights).values():
        if settings.stage is None:
            items = [Item(key, weights[key]) for key in keys]
            most = settings.max_objects or limits.max_objects_per_run
            packed += pack(items, max_items=limits.max_partitions_per_run, max_weight=most)
        else:
            runs = ranges(keys, all_partition_keys(config), limits.max_partitions_per_run)
            packed += [Pack(run, sum(weights[key] for key in run)) for run in runs]
    return packed
