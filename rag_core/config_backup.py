"""Types of `rag.yaml` that say where snapshots of the tables go."""

from pydantic import Field, field_validator

from rag_core.config_base import Section


class BackupConfig(Section):
    """Snapshots of the tables: `rag backup`. Without `to` none is taken by itself."""

    to: str | None = Field(
        default=None,
        description="Local folder or s3://bucket/prefix, outside of the store; S3 is reached as the store's is. A "
        "relative path is relative to the file.",
    )
    keep: int = Field(default=14, ge=1, description="Snapshots that are kept; older ones are removed.")

    @field_validator("to")
    @classmethod
    def _known_scheme(cls, value: str | None) -> str | None:
        if value is not None and "://" in value and not value.startswith("s3://"):
            raise ValueError("a local folder or s3://bucket/prefix")
        return value
