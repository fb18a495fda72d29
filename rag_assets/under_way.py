"""Which partitions are being worked on now, as Dagster's runs say."""

from collections.abc import Iterable

import dagster as dg

from rag_assets.packed import PACKED_JOB, partitions_of
from rag_core.config import RagConfig
from rag_core.partitions import all_partition_keys

_PARTITION = "dagster/partition"
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def under_way(instance: dg.DagsterInstance, config: RagConfig, *, but: str = "") -> frozenset[str]:
    """Return the partitions of runs that have begun and not ended.

    Args:
        instance: Knows the runs.
        config: Has the partitions, in the order of their ranges.
        but: Id of a run that is left out.
    """
    begun = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
    keys = all_partition_keys(config)
    runs = [run for run in instance.get_runs(begun) if run.run_id != but]
    return frozenset(key for run in runs for key in _partitions(run, keys))


def _partitions(run: dg.DagsterRun, keys: list[str]) -> Iterable[str]:
    if run.job_name == PACKED_JOB:
        return partitions_of(run.run_config)
    if _PARTITION in run.tags:
        return (run.tags[_PARTITION],)
    first, last = (run.tags.get(tag) for tag in _RANGE)
    if first in keys and last in keys:
        return keys[keys.index(first) : keys.index(last) + 1]
    return ()
