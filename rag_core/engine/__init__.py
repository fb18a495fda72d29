"""Where parsing and chunking run: in this process for small changes, on Spark for large ones; the same functions."""
