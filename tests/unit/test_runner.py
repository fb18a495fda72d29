"""Packing of partitions into runs, and the runs whose process is gone."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_assets.instance import PROCESS_TAG, dagster_home, fail_dead_runs, process_tag
from rag_core.packing import ranges
from rag_core.tables.store import Store

ALL = [f"s__{number:02d}" for number in range(40)]


@given(st.lists(st.sampled_from(ALL), unique=True), st.integers(1, 10))
def test_every_key_runs_once_in_bounded_contiguous_runs(keys: list[str], limit: int) -> None:
    runs = ranges(keys, ALL, limit)
    assert sorted(key for run in runs for key in run) == sorted(keys)
    for run in runs:
        start = ALL.index(run[0])
        assert list(run) == ALL[start : start + len(run)]
        assert len(run) <= limit


def test_contiguous_keys_fill_runs() -> None:
    assert [len(run) for run in ranges(ALL, ALL, 32)] == [32, 8]


@pytest.mark.slow
def test_run_of_a_dead_process_is_closed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    home = dagster_home(Store(str(tmp_path)))
    dead = subprocess.run(
        [sys.executable, "-c", "from rag_assets.instance import process_tag; print(process_tag())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    @dg.job
    def build_index() -> None:
        pass

    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = {
            tag: instance.create_run_for_job(
                build_index, tags={PROCESS_TAG: tag}, status=dg.DagsterRunStatus.STARTED
            ).run_id
            for tag in (dead, process_tag())
        }
        assert fail_dead_runs(instance) == [runs[dead]]
        failed, alive = (instance.get_run_by_id(runs[tag]) for tag in (dead, process_tag()))
        assert failed is not None
        assert alive is not None
        assert (failed.status, alive.status) == (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED)
        assert fail_dead_runs(instance) == []
