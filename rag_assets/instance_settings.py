"""The `dagster.yaml` that is written into the store: how runs are queued, started, watched and forgotten."""

import hashlib
from pathlib import Path

from rag_core.config_freshness import RunConfig

_FILE = "dagster.yaml"
_MARK = "# Content when written: "

# Digests of what earlier versions wrote, which had no mark.
_EARLIER = frozenset({"7fa2520af744", "568af71557d7", "b422a197bf36"})

_TEXT = """\
# How long a tick of a sensor or schedule is remembered, in days; it changes nothing but what the UI shows.
retention:
  sensor: {{purge_after_days: {{skipped: 1, success: 7, failure: 30, started: 1}}}}
  schedule: {{purge_after_days: {{skipped: 1, success: 7, failure: 30, started: 1}}}}
  auto_materialize: {{purge_after_days: {{skipped: 1, success: 7, failure: 30, started: 1}}}}
telemetry:
  enabled: false
nux:
  # No pop-up that asks for an e-mail address.
  enabled: false
run_launcher:
  # Forks the process of a run from one that has everything imported: a run starts at once instead of after seconds.
  module: rag_assets.launcher
  class: WarmRunLauncher
  # config: {{idle_s: 600, start_timeout_s: 90}}
run_coordinator:
  module: dagster._core.run_coordinator.queued_run_coordinator
  class: QueuedRunCoordinator
  config:
    dequeue_interval_seconds: 1
    dequeue_use_threads: true
    dequeue_num_workers: {concurrent_runs}
concurrency:
  runs:
    # One more than run.concurrent_runs, for checks and publication.
    max_concurrent_runs: {places}
    # Backfills leave a place for fresh changes: those that rag asks for, and those of the UI.
    tag_concurrency_limits:
      - {{key: rag/reason, value: backfill, limit: {backfills}}}
      - {{key: dagster/backfill, limit: {backfills}}}
  pools:
    # For pools without a limit of their own. Those of `embedding` and `milvus_writes` follow rag.yaml.
    default_limit: 1
    granularity: op
sensors:
  use_threads: true
  num_workers: 4
schedules:
  use_threads: true
  num_workers: 2
auto_materialize:
  use_threads: true
  num_workers: 2
backfills:
  use_threads: true
  num_workers: 2
freshness:
  enabled: true
run_monitoring:
  # A run whose process was killed is marked as failed, and gives its places in the pools back.
  enabled: true
  poll_interval_seconds: 5
  start_timeout_seconds: 120
  cancel_timeout_seconds: 60
  free_slots_after_run_end_seconds: 5
"""

_HEAD = """\
# Written by rag; yours to change. Once it is changed, rag leaves it alone; until then, it follows rag.yaml and new
# versions. https://docs.dagster.io/deployment/oss/dagster-yaml
"""


def default_settings(run: RunConfig) -> str:
    """Return the content of `dagster.yaml` for a configuration, with a mark by which an unchanged one is known."""
    backfills = max(1, run.concurrent_runs - 1)
    body = _TEXT.format(concurrent_runs=run.concurrent_runs, places=run.concurrent_runs + 1, backfills=backfills)
    return f"{_HEAD}{_MARK}{_digest(body)}\n{body}"


def write_settings(home: Path, run: RunConfig | None) -> Path:
    """Write `dagster.yaml` into a folder, or bring one up to date that is as rag wrote it.

    Args:
        home: DAGSTER_HOME, which exists.
        run: What it follows; None leaves a file that is there as it is.

    Returns:
        The file.
    """
    path = home / _FILE
    if path.exists() and (run is None or not is_ours(path.read_text())):
        return path
    wanted = default_settings(run or RunConfig())
    if not path.exists() or path.read_text() != wanted:
        part = path.with_suffix(".part")
        part.write_text(wanted)
        part.replace(path)
    return path


def is_ours(text: str) -> bool:
    """Tell whether a `dagster.yaml` is one that rag wrote, unchanged since."""
    head, mark, rest = text.partition(_MARK)
    if not mark:
        return _digest(text) in _EARLIER
    digest, _, body = rest.partition("\n")
    return head == _HEAD and digest == _digest(body)


def lacks_launcher(home: Path) -> bool:
    """Tell whether a `dagster.yaml` starts each run in a new, cold process."""
    path = home / _FILE
    return not path.exists() or "WarmRunLauncher" not in path.read_text()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
