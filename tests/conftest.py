"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is not what a property is about, and differs with what else the machine does.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def corpora() -> Path:
    """Folder with the test corpora; tests that need it skip where it is absent."""
    path = Path(os.environ.get("RAG_CORPORA", REPO.parent / "shared" / "corpora"))
    if not path.is_dir():
        pytest.skip(f"test corpora not found at {path}; set RAG_CORPORA")
    return path
