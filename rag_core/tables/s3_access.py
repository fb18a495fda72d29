"""One way to S3 for the two libraries that read and write the store: delta-rs for tables, Arrow for all other files.

Both find credentials by themselves: environment, shared files, web identity (a pod's service account), role of the
machine. Encryption at rest is the bucket's own setting: Arrow cannot ask for it, and S3 applies the bucket's to each
object.
"""

import os
from functools import lru_cache
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from rag_core.config_store import S3Config

_REGION = "us-east-1"  # what servers other than AWS take


def storage_options(config: S3Config) -> dict[str, str]:
    """Return what delta-rs is told; holds no secret.

    A commit is one PUT that fails if the file exists (`conditional_put`), which S3 has had since 2024: two writers
    never make the same version, and no lock table is needed.
    Source: https://docs.rs/object_store/latest/object_store/aws/enum.AmazonS3ConfigKey.html
    """
    options = {
        "aws_conditional_put": "etag",
        "connect_timeout": f"{config.connect_timeout_s}s",
        "timeout": f"{config.request_timeout_s}s",
        "max_retries": str(config.tries - 1),
        "retry_timeout": f"{config.tries * config.request_timeout_s}s",
    }
    if config.endpoint_url is not None:
        options["aws_endpoint"] = config.endpoint_url
        options["allow_http"] = str(config.endpoint_url.startswith("http://")).lower()
    if (region := _region(config)) is not None:
        options["aws_region"] = region
    if _has_virtual_hosts(config):
        options["aws_virtual_hosted_style_request"] = "true"
    return options


def filesystem(config: S3Config) -> pafs.FileSystem:
    """Return Arrow's file system; made once for each process, as it keeps connections open."""
    return _filesystem(config.model_dump_json(), os.getpid())


@lru_cache(maxsize=4)
def _filesystem(config_json: str, _pid: int) -> pafs.FileSystem:
    config = S3Config.model_validate_json(config_json)
    endpoint = urlsplit(config.endpoint_url) if config.endpoint_url else None
    return pafs.S3FileSystem(
        region=_region(config),
        scheme=endpoint.scheme if endpoint else None,
        endpoint_override=f"{endpoint.netloc}{endpoint.path.rstrip('/')}" if endpoint else None,
        force_virtual_addressing=bool(endpoint) and _has_virtual_hosts(config),
        connect_timeout=config.connect_timeout_s,
        request_timeout=config.request_timeout_s,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=config.tries),
        tls_ca_file_path=config.ca_file,
    )


def _region(config: S3Config) -> str | None:
    named = config.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return named or (_REGION if config.endpoint_url else None)


def _has_virtual_hosts(config: S3Config) -> bool:
    return config.endpoint_url is None if config.virtual_hosts is None else config.virtual_hosts
