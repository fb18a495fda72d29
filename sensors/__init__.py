"""When work starts: source changes, freshness objectives, alerts. Decides what to run, never does the work.

Empty in this version: runs are started from the Dagster UI or by `rag run`.
"""
