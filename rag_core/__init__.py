"""Logic of the platform that imports no Dagster; shared by assets, serving, the command line and benchmarks."""
