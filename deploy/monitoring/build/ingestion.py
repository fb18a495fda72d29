"""The dashboard of ingestion: documents, changes, passes, stages, runs and their queue."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.monitoring.build.panels import GOOD, PIPELINE, SOURCE, Limit, Panels, Query, Row, graph, number, page


def ingestion() -> Dashboard:
    """Make it."""
    return page(
        "rag-ingestion",
        "RAG: ingestion",
        "What there is of each source, what comes in and what becomes of it, and the runs that do it.",
        [
            Row("What there is", _stock()),
            Row("What comes in", _flow()),
            Row("Stages", _stages()),
            Row("Runs", _runs()),
            Row("Alerts", _alerts()),
            Row("The exporter of these metrics", _exporter()),
        ],
        instances='rag_partitions{job="rag-exporter"}',
        with_sources=True,
    )


def _stock() -> Panels:
    return [
        number(
            "Documents", "With status ok: read, and not empty.", "short",
            Query(f'sum(rag_documents{{{SOURCE},status="ok"}})', "ok"),
        ),
        number(
            "Rejected", "Share of documents that could not be read; `rag inspect documents` says why.",
            "percentunit", Query(f"rag_documents_rejected_ratio{{{SOURCE}}}"),
            limits=(GOOD, Limit(0.05, "yellow"), Limit(0.2, "red")),
        ),
        number("Chunks", "Of the served index.", "short", Query(f"sum(rag_chunks{{{SOURCE}}})", "chunks")),
        graph(
            "Documents by status", "Empty: nothing in it to search for. Rejected: it could not be read.", "short",
            Query(f"sum by (status) (rag_documents{{{SOURCE}}})", "{{status}}"), stacked=True, width=12,
        ),
        graph(
            "Chunks, vectors, rows of the index", "Equal when all is done. A gap that stays is work that waits.",
            "short", Query(f"sum(rag_chunks{{{SOURCE}}})", "chunks"), Query(f"sum(rag_vectors{{{SOURCE}}})", "vectors"),
            Query(f"sum(rag_index_rows{{{SOURCE}}})", "rows"), width=12,
        ),
        graph(
            "Rejected share by source", "A jump is an export that broke, or a new kind of file.", "percentunit",
            Query(f"rag_documents_rejected_ratio{{{SOURCE}}}"), limits=(Limit(0.2, "red"),), width=12,
        ),
    ]  # fmt: skip


def _flow() -> Panels:
    passes = f"rag_passes_total{{{SOURCE}}}[$__rate_interval]"
    return [
        graph(
            "Changes seen", "New, changed and deleted objects that looks found, a second.", "ops",
            Query(f"sum by (kind) (rate(rag_changes_seen_total{{{SOURCE}}}[$__rate_interval]))", "{{kind}}"),
            stacked=True,
        ),
        graph(
            "Passes", "Tries to bring a partition up to date, a second, by what became of them.", "ops",
            Query(f"sum by (outcome) (rate({passes}))", "{{outcome}}"), stacked=True,
        ),
        graph(
            "Changes in a pass", "Few: changes are taken up one by one, and each pays for a run. Many: they wait.",
            "short",
            Query(
                f"sum by (source) (rate(rag_pass_objects_total{{{SOURCE}}}[$__rate_interval])) "
                f"/ (sum by (source) (rate({passes})) > 0)",
            ),
        ),
        graph(
            "Passes that fail", "Share of failed and crashed ones over 30 minutes.", "percentunit",
            Query(f"source:rag_passes_failed:ratio_rate30m{{{SOURCE}}}"), limits=(Limit(0.5, "red"),), width=12,
        ),
        graph(
            "Time of runs that made passes", "95th percentile, by why they ran.", "s",
            Query(
                f"histogram_quantile(0.95, sum by (le, reason) "
                f"(rate(rag_pass_run_duration_seconds_bucket{{{PIPELINE}}}[$__rate_interval])))",
                "{{reason}}",
            ),
            limits=(Limit(300, "yellow"),), width=12,
        ),
    ]  # fmt: skip


def _stages() -> Panels:
    return [
        graph(
            "Where the time goes", "Seconds of each step in a second; 1 is a step that never rests.", "short",
            Query(
                f"sum by (stage, step) (rate(rag_stage_step_seconds_total{{{PIPELINE}}}[$__rate_interval]))",
                "{{stage}}: {{step}}",
            ),
            stacked=True, width=12,
        ),
        graph(
            "Work of the stages", "Objects parsed, chunks cut, texts embedded, rows written, a second.", "ops",
            Query(
                f"sum by (stage, item) (rate(rag_stage_items_total{{{PIPELINE}}}[$__rate_interval]))",
                "{{stage}}: {{item}}",
            ),
            width=12,
        ),
        graph(
            "Bytes parsed", "Of objects that were read.", "Bps",
            Query(f"sum(rate(rag_stage_read_bytes_total{{{PIPELINE}}}[$__rate_interval]))", "read"), width=12,
        ),
        graph(
            "Commits", "Changes of the tables, a second.", "ops",
            Query(f"sum by (stage) (rate(rag_stage_commits_total{{{PIPELINE}}}[$__rate_interval]))", "{{stage}}"),
            width=12,
        ),
    ]  # fmt: skip


def _runs() -> Panels:
    return [
        graph(
            "Queue", "Runs that wait, by why they were asked for. Scale workers by this.", "short",
            Query(f'sum by (reason) (rag_runs{{{PIPELINE},state="queued"}})', "{{reason}}"), stacked=True,
        ),
        graph(
            "Runs", "That have not ended, by state.", "short",
            Query(f"sum by (state) (rag_runs{{{PIPELINE}}})", "{{state}}"), stacked=True,
        ),
        graph(
            "Waiting and going on", "How long the first of the queue waits, and the longest run goes on.", "s",
            Query(f"rag_run_queue_oldest_seconds{{{PIPELINE}}}", "oldest in the queue"),
            Query(f"rag_run_longest_seconds{{{PIPELINE}}}", "longest run"), limits=(Limit(900, "yellow"),),
        ),
        graph(
            "Runs that ended", "By job and status.", "short",
            Query(
                f"sum by (dagster_job, status) (increase(rag_runs_ended_total{{{PIPELINE}}}[$__rate_interval]))",
                "{{dagster_job}} {{status}}",
            ),
        ),
        graph(
            "Time of runs", "95th percentile by job, from start to end.", "s",
            Query(
                f"histogram_quantile(0.95, sum by (le, dagster_job) "
                f"(rate(rag_run_duration_seconds_bucket{{{PIPELINE}}}[$__rate_interval])))",
                "{{dagster_job}}",
            ),
        ),
        graph(
            "Pools", "Steps that go on, that wait, and places. Waiting steps with all places taken: raise the limit.",
            "short", Query(f"rag_pool_slots_used{{{PIPELINE}}}", "{{pool}} used"),
            Query(f"rag_pool_steps_waiting{{{PIPELINE}}}", "{{pool}} waiting"),
            Query(f"rag_pool_slots{{{PIPELINE}}}", "{{pool}} places"),
        ),
    ]  # fmt: skip


def _alerts() -> Panels:
    return [
        number(
            "Open alerts", "As `rag alerts` lists them.", "short",
            Query(f"sum by (severity) (rag_alerts_active{{{PIPELINE}}})", "{{severity}}"),
            limits=(GOOD, Limit(1, "red")), width=6,
        ),
        number(
            "Not delivered", "Messages about alerts that some channel was not given yet.", "short",
            Query(f"rag_alert_messages_waiting{{{PIPELINE}}}", "waiting"), limits=(GOOD, Limit(1, "yellow")),
        ),
        number(
            "Daemons without a sign of life", "Of Dagster's; 0 where none is used.", "short",
            Query(
                f"count(rag_daemon_healthy{{{PIPELINE}}} == 0 "
                f"and rag_daemon_last_heartbeat_timestamp_seconds{{{PIPELINE}}} > 0) or vector(0)",
                "daemons",
            ),
            limits=(GOOD, Limit(1, "red")),
        ),
        number(
            "Groups that are not read", "Parts of these metrics that the exporter cannot bring up to date.", "short",
            Query(f"count(rag_exporter_group_up{{{PIPELINE}}} == 0) or vector(0)", "groups"),
            limits=(GOOD, Limit(1, "red")),
        ),
        graph(
            "Open alerts by kind", "docs/operations.md says of each kind what it means and what to do.", "short",
            Query(f"sum by (kind) (rag_alerts_active{{{PIPELINE}}}) > 0", "{{kind}}"), stacked=True, width=6,
        ),
    ]  # fmt: skip


def _exporter() -> Panels:
    return [
        graph(
            "Since the last look", "Of each group. After monitoring.stale_after_s its metrics are left out.", "s",
            Query(f"time() - rag_exporter_group_last_success_timestamp_seconds{{{PIPELINE}}}", "{{group}}"),
            limits=(Limit(300, "red"),),
        ),
        graph(
            "Time of a look", "How long reading each group took.", "s",
            Query(f"rag_exporter_group_duration_seconds{{{PIPELINE}}}", "{{group}}"),
        ),
        graph(
            "Looks that failed", "A second, by group; the exporter's log says why.", "ops",
            Query(f"rate(rag_exporter_group_errors_total{{{PIPELINE}}}[$__rate_interval])", "{{group}}"),
        ),
    ]  # fmt: skip
