"""The HTTP service: search and cited answers; imports `rag_core` only."""
