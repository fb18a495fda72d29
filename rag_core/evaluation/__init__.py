"""Relevance of what is retrieved, measured on labelled queries in BEIR's layout."""
