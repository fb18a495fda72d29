"""Milvus: the configured server, or a Milvus Lite server that starts by itself."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from rag_core.index.client import IndexClient, connect
from resources.platform import PlatformResource


class MilvusResource(dg.ConfigurableResource["MilvusResource"]):
    """Connects to the index of the configuration."""

    platform: dg.ResourceDependency[PlatformResource]

    @contextmanager
    def client(self) -> Iterator[IndexClient]:
        """Open a client for the time of a step; Milvus Lite is held up as long as one is open."""
        with connect(self.platform.config.index, self.platform.store) as client:
            yield client
