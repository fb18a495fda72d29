"""Declared tests of the tables: declarations, measures, suites of Great Expectations, results, and the gate."""

import os

# Great Expectations reads it once, when it is imported: nothing may leave the machine.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")
