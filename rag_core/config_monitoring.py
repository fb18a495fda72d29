"""Types of `rag.yaml` that say how the exporter of the pipeline's metrics is reached, and how often it looks."""

from pydantic import Field, model_validator

from rag_core.config_base import Section


class MonitoringConfig(Section):
    """`rag exporter`: the pipeline's metrics for Prometheus. The service has its own, at `/metrics`."""

    host: str = Field(default="127.0.0.1", description="Address to listen on; there is no authentication.")
    port: int = Field(default=9465, ge=0, le=65_535, description="Port to listen on; 0: any that is free.")
    refresh_s: float = Field(
        default=15.0, gt=0, description="Seconds between two looks at the store; scrapes get what was seen last."
    )
    stale_after_s: float = Field(
        default=300.0, gt=0, description="What could not be looked at for so long is not exported any more."
    )

    @model_validator(mode="after")
    def _stale_after_refresh(self) -> "MonitoringConfig":
        if self.stale_after_s <= self.refresh_s:
            raise ValueError("stale_after_s must be above refresh_s")
        return self
