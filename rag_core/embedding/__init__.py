"""Embedding: which model, the vector cache, the encoders, and the worker program that turns texts into cached vectors.

Nothing here imports torch, transformers or openai before a text is embedded.
"""
