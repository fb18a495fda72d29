"""Retention: rows, work files and pages that are old enough to go, and what of them is still needed."""
