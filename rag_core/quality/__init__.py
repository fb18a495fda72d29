"""Declared tests of the tables: declarations, measures, suites of Great Expectations, results, and the gate."""
