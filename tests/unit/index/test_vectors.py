import numpy as np
import pytest
import torch

from rag_core.index.vectors import BFLOAT16, FLOAT16, FLOAT32, decoded, encoded, tolerance
from tests.index_support import vector

VALUES = np.concatenate([vector(number, dim=384) for number in range(20)])


def test_float32_stays_as_it_is() -> None:
    assert encoded(VALUES, FLOAT32) is VALUES
    assert np.array_equal(decoded(VALUES.tolist(), FLOAT32), VALUES)


def test_bfloat16_is_rounded_as_torch_rounds_it() -> None:
    told = torch.from_numpy(VALUES).to(torch.bfloat16)
    data = encoded(VALUES, BFLOAT16)
    assert data == told.view(torch.uint16).numpy().tobytes()
    assert np.array_equal(decoded(data, BFLOAT16), told.to(torch.float32).numpy())


@pytest.mark.parametrize("vector_type", [FLOAT16, BFLOAT16])
def test_what_is_read_back_is_within_the_tolerance_and_another_vector_is_not(vector_type: str) -> None:
    written, other = encoded(VALUES, vector_type), encoded(np.roll(VALUES, 1), vector_type)
    for data in (written, [written] if isinstance(written, bytes) else [written.tobytes()]):
        assert np.abs(decoded(data, vector_type) - VALUES).max() <= tolerance(vector_type)
    assert np.abs(decoded(other, vector_type) - VALUES).max() > tolerance(vector_type)


def test_tolerances_are_half_a_step_at_one() -> None:
    ones = np.linspace(0.5, 1, 10_001, dtype=np.float32)
    for vector_type in (FLOAT16, BFLOAT16):
        difference = np.abs(decoded(encoded(ones, vector_type), vector_type) - ones).max()
        assert tolerance(vector_type) / 2 < difference <= tolerance(vector_type)


def test_nothing_is_an_empty_vector() -> None:
    assert decoded(None, FLOAT16).shape == (0,)
