"""Vectors as a Milvus field keeps them: of 32 or of 16 bits. Everywhere else they are float32."""

from typing import Any, Final

import numpy as np

FLOAT32: Final = "FLOAT_VECTOR"
FLOAT16: Final = "FLOAT16_VECTOR"
BFLOAT16: Final = "BFLOAT16_VECTOR"

# Half the distance of neighbouring numbers below 1, where the components of unit vectors are, and float32's own noise.
_TOLERANCE: Final = {FLOAT32: 1e-5, FLOAT16: 2.5e-4, BFLOAT16: 2e-3}


def tolerance(vector_type: str) -> float:
    """Return by how much a component of a unit vector may differ from what was written."""
    return _TOLERANCE[vector_type]


def encoded(vector: np.ndarray, vector_type: str) -> Any:
    """Return a vector as pymilvus takes it, in a row or as a question.

    Args:
        vector: (dim,) float32.
        vector_type: Milvus data type of the field.

    Returns:
        The vector itself, (dim,) float16, or the bytes of bfloat16, little-endian and rounded to the nearest, ties to
        even. numpy has no bfloat16.
    """
    if vector_type == FLOAT16:
        return np.asarray(vector, np.float16)
    if vector_type == BFLOAT16:
        bits = np.ascontiguousarray(vector, "<f4").view("<u4").astype(np.uint64)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return vector


def decoded(stored: Any, vector_type: str) -> np.ndarray:
    """Return what Milvus answers for a vector as (dim,) float32; empty if it answers none.

    Args:
        stored: List of numbers, array, bytes, or a list of one bytes object, as pymilvus gives vectors of 16 bits.
        vector_type: Milvus data type of the field.
    """
    if isinstance(stored, list | tuple) and len(stored) == 1 and isinstance(stored[0], bytes):
        stored = stored[0]
    if not isinstance(stored, bytes):
        return np.asarray(() if stored is None else stored, np.float32)
    if vector_type == BFLOAT16:
        return (np.frombuffer(stored, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(stored, "<f2").astype(np.float32)
