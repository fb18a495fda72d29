"""Addresses inside the store root, the same on local disk and S3."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from rag_core.config_store import S3Config, StoreConfig
from rag_core.tables import s3_access


@dataclass(frozen=True)
class Store:
    """A store root: tables under `tables/`, everything transient under `work/`. Opens nothing; holds no secret.

    Attributes:
        root: Absolute local folder, or s3://bucket/prefix.
        s3: How S3 is reached, where the root is there.
    """

    root: str
    s3: S3Config = S3Config()  # noqa: RUF009 - immutable

    @classmethod
    def of(cls, config: StoreConfig) -> "Store":
        """Return the store of a configuration."""
        return cls(config.root, config.s3)

    @property
    def is_local(self) -> bool:
        """Whether the root is a local folder."""
        return "://" not in self.root

    @property
    def storage_options(self) -> dict[str, str]:
        """What delta-rs is told; empty for local disk."""
        return {} if self.is_local else s3_access.storage_options(self.s3)

    def uri(self, *parts: str) -> str:
        """Join parts below the root."""
        return "/".join([self.root.rstrip("/"), *parts])

    def table_uri(self, table: str) -> str:
        """Return the address of a Delta table."""
        return self.uri("tables", table)

    def local_path(self, *parts: str) -> Path:
        """Return a local path below the root, for what must be on local disk (Milvus Lite, Dagster's own files).

        A remote root keeps such files under `.rag/BUCKET/PREFIX` of the current directory.
        """
        base = Path(self.root) if self.is_local else Path.cwd() / ".rag" / self.root.removeprefix("s3://").strip("/")
        return base.joinpath(*parts)

    def filesystem(self) -> tuple[pafs.FileSystem, str]:
        """Return the file system and the root's path on it, for work files."""
        if self.is_local:
            return pafs.LocalFileSystem(), self.root
        return s3_access.filesystem(self.s3), self.root.removeprefix("s3://").rstrip("/")
