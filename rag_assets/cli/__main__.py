"""`python -m rag_assets.cli`: the command line without its entry point."""

from rag_assets.cli import main

main()
