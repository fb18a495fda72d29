"""The store: Delta Lake tables, work files, and how a partition's change is committed."""
