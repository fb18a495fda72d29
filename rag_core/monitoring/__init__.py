"""The pipeline's metrics for Prometheus: what the store's tables say, in groups that fail by themselves."""
