"""Fixtures of the integration tests."""

from collections.abc import Iterator

import pytest

from tests.integration.pipeline_helpers import Platform
from tests.integration.s3_store_helpers import S3World, s3_world
from tests.integration.serving_corpus import make_platform


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The index of `serving_corpus`, for tests that only read it."""
    platform = make_platform(tmp_path_factory.mktemp("indexed"))
    yield platform
    platform.stop()


@pytest.fixture(scope="module")
def s3_started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3World]:
    """An S3 server and the proxy before it, for the tests of a module."""
    with s3_world(tmp_path_factory.mktemp("s3")) as world:
        yield world


@pytest.fixture
def s3(s3_started: S3World) -> Iterator[S3World]:
    """The same, with a proxy that spoils nothing yet."""
    s3_started.proxy.reset()
    yield s3_started
    s3_started.proxy.reset()
