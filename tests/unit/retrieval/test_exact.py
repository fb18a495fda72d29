import numpy as np
import pytest

from rag_core.retrieval.exact import exact_top_k


def test_best_first_with_ties_in_row_order() -> None:
    vectors = np.array([[0, 1], [1, 0], [0.6, 0.8], [1, 0]], dtype=np.float32)
    rows, scores = exact_top_k(vectors, np.array([1, 0], dtype=np.float32), 3)
    assert rows.tolist() == [1, 3, 2]
    assert scores.tolist() == pytest.approx([1.0, 1.0, 0.6])
    assert (rows.dtype, scores.dtype) == (np.int64, np.float32)
    assert len(exact_top_k(vectors, vectors[0], 10)[0]) == 4
    assert len(exact_top_k(vectors, vectors[0], 0)[0]) == 0


def test_other_dimension_is_an_error() -> None:
    with pytest.raises(ValueError, match="dimension"):
        exact_top_k(np.zeros((2, 3), np.float32), np.zeros(4, np.float32), 1)
