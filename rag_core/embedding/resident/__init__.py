"""The resident embedding worker: a process that keeps its model loaded and serves one job after another.

`python -m rag_core.embedding.resident --socket PATH --idle-s N` runs one; clients start it by themselves. Loading a
small model costs seconds, most of them imports; embedding a few changed texts costs tenths of one.
"""

from rag_core.embedding.resident.client import available, embed, prestart, stop
from rag_core.embedding.resident.protocol import Answer

__all__ = ["Answer", "available", "embed", "prestart", "stop"]
