"""Addresses inside the store root, the same on local disk and S3."""

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.fs as pafs


@dataclass(frozen=True)
class Store:
    """A store root: tables under `tables/`, everything transient under `work/`.

    Attributes:
        root: Absolute local folder, or s3://bucket/prefix.
        storage_options: Passed to delta-rs; empty for local disk.
    """

    root: str
    storage_options: dict[str, str] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether the root is a local folder."""
        return "://" not in self.root

    def uri(self, *parts: str) -> str:
        """Join parts below the root."""
        return "/".join([self.root.rstrip("/"), *parts])

    def table_uri(self, table: str) -> str:
        """Return the address of a Delta table."""
        return self.uri("tables", table)

    def local_path(self, *parts: str) -> Path:
        """Return a local path below the root, for what must be on local disk (Milvus Lite, Dagster's own files).

        A remote root keeps such files under `.rag/` of the current directory.
        """
        base = Path(self.root) if self.is_local else Path.cwd() / ".rag"
        return base.joinpath(*parts)

    def filesystem(self) -> tuple[pafs.FileSystem, str]:
        """Return the file system and the root's path on it, for work files."""
        if self.is_local:
            return pafs.LocalFileSystem(), self.root
        filesystem, path = pafs.FileSystem.from_uri(self.root)
        return filesystem, path
