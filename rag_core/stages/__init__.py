"""What each stage does to its partitions: diff against what it consumed last, do only the difference, say what changed.

Each module turns slices of tables into a `TableChange` and counts; who reads the slices and commits the change (an
asset, a test, a benchmark) is not its business.
"""
