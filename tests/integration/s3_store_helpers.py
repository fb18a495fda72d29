"""A store in S3: moto's server as a process of its own, and the proxy that spoils what a test picks."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from rag_core.config_store import S3Config
from rag_core.tables.store import Store
from tests.production.services import AWS, s3_server
from tests.s3_proxy import S3Proxy, s3_proxy

BUCKET = "lake"
PAGE = 40
"""Keys in a page of a listing; those of AWS have 1,000."""


@dataclass
class S3World:
    """The server, the proxy before it, and stores that nobody else uses."""

    url: str
    proxy: S3Proxy

    @property
    def client(self) -> Any:
        """A client of the server itself, past the proxy."""
        return boto3.client("s3", endpoint_url=self.url)

    def store(self, **settings: Any) -> Store:
        """Return an empty store behind the proxy, that is quick to give up."""
        quick = {"endpoint_url": self.proxy.url, "connect_timeout_s": 1, "request_timeout_s": 2, "tries": 3}
        return Store(f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}", S3Config.model_validate({**quick, **settings}))

    def keys(self, store: Store, prefix: str = "") -> list[str]:
        """List the keys of a store, relative to it."""
        root = store.root.removeprefix(f"s3://{BUCKET}/") + "/"
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=root + prefix)
        return [one["Key"].removeprefix(root) for page in pages for one in page.get("Contents", [])]

    def uploads(self) -> list[str]:
        """List the uploads that were begun and neither completed nor given up."""
        return [one["Key"] for one in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]


@contextmanager
def s3_world(folder: Path) -> Iterator[S3World]:
    """Start the server and the proxy, with credentials for them in the environment; child processes inherit them."""
    with pytest.MonkeyPatch.context() as patch:
        extra = {"AWS_EC2_METADATA_DISABLED": "true", "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE)}
        for name, value in {**AWS, **extra}.items():
            patch.setenv(name, value)
        with s3_server(folder, [BUCKET]) as url, s3_proxy(url) as proxy:
            yield S3World(url, proxy)
