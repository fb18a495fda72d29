"""The configuration and the store of this code location."""

from pathlib import Path

import dagster as dg
from pydantic import Field, PrivateAttr

from rag_core.config import RagConfig
from rag_core.config_loader import load_config
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store


class PlatformResource(dg.ConfigurableResource["PlatformResource"]):
    """`rag.yaml` and the store that it names."""

    config_path: str = Field(description="Path of rag.yaml, as resolved when the code location was loaded.")

    _config: RagConfig | None = PrivateAttr(default=None)

    @property
    def config(self) -> RagConfig:
        """The configuration, read once per process."""
        if self._config is None:
            self._config = load_config(Path(self.config_path) if self.config_path else None, check_files=False).config
        return self._config

    @property
    def store(self) -> Store:
        """The store; opens nothing."""
        return Store.of(self.config.store)

    def slice(self, table: str, partition_keys: list[str] | tuple[str, ...] | None = None) -> TableSlice:
        """Return partitions of a table at its newest version."""
        return TableSlice.newest(self.store, table, partition_keys)
