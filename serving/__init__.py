"""The HTTP service; imports `rag_core` only.

Empty in this version: `rag search` and `rag ask` are the way to the index.
"""
