"""The local Dagster instance: its home is in the store, so that runs and their history stay with the data."""

import os
from pathlib import Path

from rag_core.tables.store import Store

_DAGSTER_YAML = """\
# Written by rag on first use; yours to change. https://docs.dagster.io/deployment/oss/dagster-yaml
telemetry:
  enabled: false
concurrency:
  pools:
    # Milvus Lite takes one writer at a time, and one embedding worker fills the machine.
    default_limit: 1
    granularity: op
run_retries:
  enabled: true
  max_retries: 1
"""


def dagster_home(store: Store) -> Path:
    """Return DAGSTER_HOME: the environment's, else `dagster/` in the store, made with telemetry off."""
    configured = os.environ.get("DAGSTER_HOME")
    if configured:
        return Path(configured)
    home = store.local_path("dagster")
    home.mkdir(parents=True, exist_ok=True)
    settings = home / "dagster.yaml"
    if not settings.exists():
        settings.write_text(_DAGSTER_YAML)
    return home
