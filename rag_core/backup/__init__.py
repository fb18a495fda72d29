"""Backups of the tables, taken while runs go on, and their restoration into an empty store."""
