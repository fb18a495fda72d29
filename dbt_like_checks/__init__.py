"""Declared data tests, compiled to asset checks.

Empty in this version: what is checked is checked inside the stages (read-back and count of the index, complete
partitions before publication).
"""
