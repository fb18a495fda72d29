"""Every group of metrics that the store alone can tell."""

from rag_core.config import RagConfig
from rag_core.monitoring.alerts import AlertMetrics
from rag_core.monitoring.backups import BackupMetrics
from rag_core.monitoring.embedding import EmbeddingMetrics
from rag_core.monitoring.freshness import FreshnessMetrics
from rag_core.monitoring.group import Group
from rag_core.monitoring.index import IndexMetrics
from rag_core.monitoring.looks import LookMetrics
from rag_core.monitoring.passes import PassMetrics
from rag_core.monitoring.rows import RowMetrics
from rag_core.monitoring.stage_work import StageMetrics
from rag_core.tables.store import Store


def store_groups(store: Store, config: RagConfig) -> list[Group]:
    """Make the groups; nothing is read yet.

    Raises:
        PermanentError: Backups would lie inside the store.
    """
    groups: list[Group] = [
        FreshnessMetrics(store, config),
        RowMetrics(store, config),
        PassMetrics(store, config),
        LookMetrics(store, config),
        StageMetrics(store),
        EmbeddingMetrics(store),
        IndexMetrics(store, config),
        AlertMetrics(store),
    ]
    if config.backup.to is not None:
        groups.append(BackupMetrics(store, config.backup.to))
    return groups
