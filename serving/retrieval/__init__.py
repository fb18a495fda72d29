"""Searching for many callers at once."""
