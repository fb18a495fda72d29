"""sentence_transformers is imported without scikit-learn, and works."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from rag_core.embedding.lean_import import sentence_transformer
assert sentence_transformer() is sentence_transformer()
assert sentence_transformer().__name__ == "SentenceTransformer"
assert not [name for name in sys.modules if name.split(".")[0] == "sklearn"], "scikit-learn was imported"
import torch
from sentence_transformers.util import similarity
# The one function that wants it imports it when it is called.
sparse = torch.eye(3).to_sparse()
distances = similarity.manhattan_sim(sparse, sparse)
assert float(distances[0, 1]) == -2 and "sklearn" in sys.modules
from sklearn.metrics import roc_curve
assert roc_curve.__module__.startswith("sklearn"), "the real module is in place"
"""


@pytest.mark.slow
def test_scikit_learn_is_imported_only_when_it_is_called() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
