"""Types of `rag.yaml` that say where large changes are parsed and chunked."""

from typing import Any

from pydantic import Field, field_validator

from rag_core.config_base import MIB, Section


class SparkConfig(Section):
    """The Spark that parses and chunks large changes."""

    master: str = Field(default="local[*]", description="Spark master URL.")
    remote: str | None = Field(default=None, description="Spark Connect URL; wins over master.")
    wait_s: float = Field(
        default=60.0, gt=0, description="How long a Connect server that does not answer is asked again."
    )
    driver_memory: str = Field(default="1g", description="Heap of the local driver.")
    in_process_max_objects: int = Field(
        default=2_048, ge=0, description="Changes up to this many objects run in the process itself, without a JVM."
    )
    in_process_max_bytes: int = Field(
        default=64 * MIB, ge=0, description="Changes up to this many bytes run in the process itself."
    )
    conf: dict[str, str] = Field(default_factory=dict, description="Further Spark settings.")

    @property
    def cluster(self) -> str:
        """Key and address of the cluster, for a message."""
        return f"spark.master {self.master}" if self.remote is None else f"spark.remote {self.address}"

    @property
    def address(self) -> str:
        """Where the cluster is: the first of its masters, or a Connect server, without the parameters (a token)."""
        if self.remote is not None:
            return self.remote.partition("/;")[0]
        return self.master.partition(",")[0]

    @field_validator("conf", mode="before")
    @classmethod
    def _as_spark_writes_them(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: str(item).lower() if isinstance(item, bool | int | float) else item for key, item in value.items()}
