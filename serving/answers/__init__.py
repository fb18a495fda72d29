"""Answers with verified citations, and the record of each."""
