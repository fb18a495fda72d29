"""The command line `rag`. Commands are thin: they call `rag_core`, or Dagster jobs for everything that writes."""

from rag_assets.cli.app import main

__all__ = ["main"]
