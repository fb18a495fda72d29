"""Declared data tests: one YAML file per table, and what turns them into Dagster asset checks.

How they are written is in docs/quality.md; the tests themselves are run by `rag_core.quality`, which the gate between
stages and `rag test` use as well.
"""
