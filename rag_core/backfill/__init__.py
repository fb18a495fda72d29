"""Backfills: what is remembered of one, what became of its partitions, and how long the rest takes."""
