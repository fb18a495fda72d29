"""What the groups say of real tables."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rag_core.alerts.model import Finding
from rag_core.alerts.reading import last_look_path, poison_folder, problem_path
from rag_core.alerts.state import STATE_PATH, Attempts, BookState, OpenAlert, save_state
from rag_core.config import RagConfig
from rag_core.freshness.measuring import measure
from rag_core.monitoring.alerts import AlertMetrics
from rag_core.monitoring.backups import BackupMetrics
from rag_core.monitoring.embedding import EmbeddingMetrics
from rag_core.monitoring.freshness import FreshnessMetrics
from rag_core.monitoring.looks import LookMetrics
from rag_core.monitoring.passes import PassMetrics
from rag_core.monitoring.rows import RowMetrics
from rag_core.monitoring.stage_work import StageMetrics
from rag_core.reports.pages import write_text
from rag_core.tables.delta import ensure_table
from rag_core.tables.log import append_rows
from tests.freshness_facts import at, change, passed
from tests.unit.monitoring.facts import NOW, append, config_of, say, store_of


@pytest.fixture
def config(tmp_path: Path) -> RagConfig:
    return config_of(tmp_path)


def test_freshness_is_what_the_objective_says(config: RagConfig) -> None:
    store = store_of(config)
    now = at(7_200)
    late = [change(number, 6_000 + number) for number in range(12)]
    append_rows(store, "source_changes", [*late, change(99, 7_000, seen=7_000)])
    append_rows(store, "passes", [passed(6_100, 6_900)])
    said = say(FreshnessMetrics(store, config), now)
    standing = measure(store, config, "handbook", now=now).standing
    assert standing.bad == 12
    assert said["rag_freshness_data_age_seconds{handbook}"] == standing.data_age_s == 200
    assert said["rag_freshness_changes_pending{handbook}"] == 1
    assert said["rag_freshness_window_changes{late,handbook}"] == 12
    assert said["rag_freshness_error_budget_left_ratio{handbook}"] == standing.budget_left
    assert {w: said[f"rag_freshness_burn_rate{{handbook,{w}}}"] for w in standing.burn} == standing.burn
    assert said["rag_freshness_outcomes{handbook,1h}"] == 12
    assert said["rag_freshness_outcomes{handbook,5m}"] == 0, "the window itself, although the rate reaches back"
    assert said[f"rag_freshness_state{{handbook,{standing.state}}}"] == 1
    assert sum(value for name, value in said.items() if name.startswith("rag_freshness_state{handbook")) == 1
    assert said["rag_freshness_latency_seconds{handbook,max}"] == standing.max_s
    assert said["rag_freshness_state{wiki,ok}"] == 1
    assert "rag_freshness_attained_ratio{wiki}" not in said, "no share of nothing"


def documents(source: str, bucket: int, *statuses: str) -> list[dict[str, Any]]:
    return [
        {
            "partition_key": f"{source}__{bucket:02d}",
            "source": source,
            "doc_id": f"{source}{bucket}{n}",
            "status": status,
        }
        for n, status in enumerate(statuses)
    ]


def test_documents_are_counted_by_status_and_files_are_read_once(
    config: RagConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, read = store_of(config), []
    whole = pq.read_table
    monkeypatch.setattr(pq, "read_table", lambda path, **given: read.append(path) or whole(path, **given))
    append(store, "documents", documents("handbook", 0, "ok", "rejected", "ok"))
    append(store, "documents", documents("handbook", 1, "ok", "ok"))
    group = RowMetrics(store, config)
    said = say(group)
    assert said["rag_documents{handbook,ok}"] == 4
    assert said["rag_documents{handbook,rejected}"] == 1
    assert said["rag_documents{handbook,empty}"] == 0
    assert said["rag_documents_rejected_ratio{handbook}"] == 1 / 5
    assert said["rag_documents{wiki,ok}"] == 0
    assert "rag_documents_rejected_ratio{wiki}" not in said
    assert len(read) == 1, "the log says the status of a file that has one only"
    append(store, "documents", documents("wiki", 0, "empty"))
    assert say(group)["rag_documents{wiki,empty}"] == 1
    assert len(read) == 1, "what was read of a file stays true"
    ensure_table(store, "documents").delete("partition_key = 'handbook__00'")
    assert say(group)["rag_documents{handbook,ok}"] == 2


def test_rows_of_an_index_that_is_not_published_are_not_counted(config: RagConfig) -> None:
    store = store_of(config)
    append(store, "chunks", [{"lane": "a", "partition_key": "wiki__00", "source": "wiki", "chunk_id": "1"}])
    group = RowMetrics(store, config)
    assert say(group)["rag_chunks{wiki}"] == 0
    settings = '{"chunk_lane": "a", "embedding_lane": "b"}'
    append(store, "published_index", [{"collection": "c", "settings": settings}])
    assert say(group)["rag_chunks{wiki}"] == 1


def test_counters_begin_at_zero_and_count_each_row_once(config: RagConfig) -> None:
    store = store_of(config)
    append_rows(store, "source_changes", [change(0, 10)])
    append_rows(store, "passes", [passed(20, 30)])
    group = PassMetrics(store, config)
    first = say(group, at(60))
    assert first["rag_passes_total{ok,handbook}"] == 0, "what was before is not counted"
    assert first["rag_changes_seen_total{deleted,wiki}"] == 0
    append_rows(store, "source_changes", [change(1, 40, kind="deleted"), change(2, 40), change(2, 40)])
    failed = passed(50, None, outcome="held", failure="permanent", stage="chunks", objects=3, run_id="later")
    # of a process whose clock is behind
    append_rows(store, "passes", [failed, passed(15, 25, run_id="other", partition_key="handbook__01")])
    for _ in range(2):
        said = say(group, at(60))
        assert said["rag_changes_seen_total{deleted,handbook}"] == 1
        assert said["rag_changes_seen_total{changed,handbook}"] == 1
        assert said["rag_passes_total{ok,handbook}"] == 1
        assert said["rag_passes_total{held,handbook}"] == 1
        assert said["rag_pass_objects_total{handbook}"] == 4
        assert said["rag_pass_run_duration_seconds_count{change}"] == 2, "of runs, not of partitions"
    assert said["rag_partitions{handbook}"] == 8
    assert said["rag_partitions_dirty{handbook}"] == 1
    assert said["rag_partitions_stuck{handbook}"] == 1
    assert said["rag_partitions_held{handbook}"] == 1
    append_rows(store, "passes", [passed(55, 59, run_id="last")])
    assert say(group, at(60))["rag_partitions_held{handbook}"] == 0


def test_looks_and_what_keeps_them_from_finding_anything(config: RagConfig) -> None:
    store = store_of(config)
    group = LookMetrics(store, config)
    assert "rag_source_last_look_timestamp_seconds{wiki}" not in say(group)
    write_text(store, last_look_path("wiki"), f'{{"started_at": "{NOW.isoformat()}"}}')
    problem = f'{{"kind": "listing_failed", "message": "m", "since": "{NOW.isoformat()}"}}'
    write_text(store, problem_path("wiki"), problem)
    write_text(store, f"{poison_folder('wiki')}/one.json", "{}")
    said = say(group)
    assert said["rag_source_last_look_timestamp_seconds{wiki}"] == NOW.timestamp()
    assert said["rag_source_listing_problem{listing_failed,wiki}"] == 1
    assert said["rag_source_listing_problem{implausible_shrink,wiki}"] == 0
    assert said["rag_source_poison_events{wiki}"] == 1
    assert said["rag_source_poison_events{handbook}"] == 0


def measured(totals: dict[str, float], seconds: dict[str, float]) -> dict[str, Any]:
    return {"measured": {"totals": totals, "seconds": seconds}}


def test_work_of_stages_is_added_up_from_their_commits(config: RagConfig) -> None:
    store = store_of(config)
    row = [{"partition_key": "wiki__00"}]
    append(store, "documents", row, **measured({"parsed": 5}, {"parse": 1.0}))
    group = StageMetrics(store)
    assert say(group)["rag_stage_items_total{parsed,documents}"] == 0
    append(store, "documents", row, **measured({"parsed": 3, "bytes_read": 100}, {"list": 0.5, "parse": 2.0}))
    append(store, "documents", row, **measured({"parsed": 4}, {"parse": 1.0}))
    append(store, "documents", row)  # such as a compaction
    for _ in range(2):
        said = say(group)
        assert said["rag_stage_items_total{parsed,documents}"] == 7
        assert said["rag_stage_step_seconds_total{documents,parse}"] == 3
        assert said["rag_stage_commits_total{documents}"] == 2
        assert said["rag_stage_read_bytes_total"] == 100


REPORT = {
    "tokens": 900, "padded_tokens": 1_000, "seconds": 3.0, "batches": 4, "oom_halvings": 1, "retries": 0,
    "tokens_per_s": 300.0, "padding_share": 0.1, "reuse_share": 0.25, "peak_rss_bytes": 10, "precision": "bf16",
    "device": "cuda:1", "peak_gpu_bytes": 30, "gpu_total_bytes": 40,
}  # fmt: skip


def test_embedding_shows_the_last_job_at_once_and_counts_those_that_follow(config: RagConfig) -> None:
    store = store_of(config)
    row, work = [{"lane": "a", "partition_key": "wiki__00"}], measured({"embedded": 3, "reused": 1}, {"embed": 3.0})
    group = EmbeddingMetrics(store)
    assert say(group)["rag_embedding_last_job_tokens_per_second"] != 0, "no job is not a slow one"
    append(store, "embeddings", row, worker=REPORT, **work)
    group = EmbeddingMetrics(store)
    said = say(group)
    assert said["rag_embedding_last_job_tokens_per_second"] == 300
    assert said["rag_embedding_last_job_info{cuda,bf16}"] == 1
    assert said["rag_embedding_last_job_peak_memory_bytes{gpu}"] == 30
    assert said["rag_embedding_last_job_peak_memory_ratio{gpu}"] == 0.75
    assert said["rag_embedding_tokens_total"] == 0
    append(store, "embeddings", row, **measured({"embedded": 0, "reused": 5}, {}))  # no model was called
    append(store, "embeddings", row, worker={**REPORT, "device": "https://a.example/v1", "peak_gpu_bytes": 0}, **work)
    said = say(group)
    assert said["rag_embedding_texts_total{embedded}"] == 3
    assert said["rag_embedding_texts_total{reused}"] == 6
    assert said["rag_embedding_tokens_total"] == 900
    assert said["rag_embedding_padded_tokens_total"] == 1_000
    assert said["rag_embedding_oom_halvings_total"] == 1
    assert said["rag_embedding_last_job_info{endpoint,bf16}"] == 1, "an address is no label"
    assert "rag_embedding_last_job_info{cuda,bf16}" not in said
    assert "rag_embedding_last_job_peak_memory_bytes{gpu}" not in said


def test_open_alerts_by_kind(config: RagConfig) -> None:
    store = store_of(config)
    group = AlertMetrics(store)
    assert say(group)["rag_alerts_active{stuck_partition,warning}"] == 0
    found = [Finding(f"stuck_partition/wiki__0{n}", "stuck_partition", "warning", "t", "b") for n in range(3)]
    state = BookState(open={one.key: OpenAlert(one, NOW, NOW, "warning") for one in found})
    state.channels["webhook"] = Attempts(4, NOW + timedelta(minutes=1), "refused")
    save_state(store, state)
    said = say(group)
    assert said["rag_alerts_active{stuck_partition,warning}"] == 3
    assert said["rag_alerts_active{index_dirt,critical}"] == 0
    assert said["rag_alert_channel_failures{webhook}"] == 4
    write_text(store, STATE_PATH, "{")
    with pytest.raises(ValueError, match="JSON"):
        group.update(NOW)
    assert store.local_path(STATE_PATH).read_text() == "{", "to begin it anew is for the sensor to do"


def test_the_newest_snapshot(config: RagConfig, tmp_path: Path) -> None:
    group = BackupMetrics(store_of(config), str(tmp_path / "backup"))
    assert say(group)["rag_backup_last_snapshot_timestamp_seconds"] == 0
    folder = tmp_path / "backup" / "snapshots"
    folder.mkdir(parents=True)
    for name in ("20260301T170000.000000Z", "20260228T170000.000000Z"):
        (folder / f"{name}.json").write_text("{}")
    said = say(group)
    assert said["rag_backup_last_snapshot_timestamp_seconds"] == (NOW - timedelta(hours=1)).timestamp()
    assert said["rag_backup_snapshots"] == 2
