"""Fixtures of the integration tests."""

from collections.abc import Iterator

import pytest

from tests.integration.pipeline_helpers import Platform
from tests.integration.serving_corpus import make_platform


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The index of `serving_corpus`, for tests that only read it."""
    platform = make_platform(tmp_path_factory.mktemp("indexed"))
    yield platform
    platform.stop()
