"""Starts runs in processes that are forked from one which has imported everything (`WarmRunLauncher`)."""

from rag_assets.launcher.launcher import WarmRunLauncher

__all__ = ["WarmRunLauncher"]
