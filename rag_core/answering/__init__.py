"""Answers made from search hits: quoted and cited sentences, no language model."""
