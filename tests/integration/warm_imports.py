"""What the process that `warm_rag` forks from has in memory: importing this module loads it. No thread may start."""

import gc

from rag_assets.launcher.preload import preload, warn_of_threads
from tests.integration import quick_sqlite  # noqa: F401 - importing it is what counts

preload("definitions")

import sentence_transformers  # noqa: E402, F401 - for questions, which a command embeds in its own process
import torch  # noqa: E402, F401

gc.freeze()
warn_of_threads()
