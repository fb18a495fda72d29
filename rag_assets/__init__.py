"""The assets: one thin module per stage, jobs, and the command line that runs them. Logic is in `rag_core`."""
