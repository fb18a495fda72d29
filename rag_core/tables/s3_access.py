"""One way to S3 for what reads and writes the store: delta-rs for tables, boto3 for all other files.

Both take the same settings, and both find credentials as AWS's own tools do: environment, profile, web identity (a
pod's service account), role of the machine. A private authority of certificates is told to both by the environment:
SSL_CERT_FILE for delta-rs, AWS_CA_BUNDLE for boto3.
"""

import os
from functools import lru_cache
from typing import Any

import pyarrow.fs as pafs

from rag_core.aws import Endpoint
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
        # Without it, delta-rs leaves profiles out where an endpoint is named.
        "AWS_FORCE_CREDENTIAL_LOAD": "true",
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
    if config.server_side_encryption is not None:
        options["aws_server_side_encryption"] = config.server_side_encryption
        if config.kms_key_id is not None:
            options["aws_sse_kms_key_id"] = config.kms_key_id
        if config.server_side_encryption == "aws:kms":
            options["aws_sse_bucket_key_enabled"] = str(config.bucket_key).lower()
    return options


def encryption(config: S3Config) -> dict[str, Any]:
    """Return what boto3 is told with each object that it writes."""
    if config.server_side_encryption is None:
        return {}
    asked: dict[str, Any] = {"ServerSideEncryption": config.server_side_encryption}
    if config.kms_key_id is not None:
        asked["SSEKMSKeyId"] = config.kms_key_id
    if config.server_side_encryption == "aws:kms":
        asked["BucketKeyEnabled"] = config.bucket_key
    return asked


def endpoint(config: S3Config) -> Endpoint:
    """Return where boto3 asks."""
    return Endpoint(
        "s3",
        url=config.endpoint_url,
        region=_region(config),
        tries=config.tries,
        connect_timeout_s=config.connect_timeout_s,
        read_timeout_s=config.request_timeout_s,
        virtual_hosts=config.virtual_hosts,
    )


def filesystem(config: S3Config) -> pafs.FileSystem:
    """Return the files of S3 as a file system of Arrow; paths are BUCKET/KEY."""
    return _filesystem(config.model_dump_json(), os.getpid())


def table_files(config: S3Config, address: str) -> pafs.FileSystem:
    """Return the data files of the table at an address, which never change: small ones are kept in memory."""
    whole = _filesystem(config.model_dump_json(), os.getpid(), keeps=True)
    return pafs.SubTreeFileSystem(address.removeprefix("s3://"), whole)


@lru_cache(maxsize=8)
def _filesystem(config_json: str, _pid: int, *, keeps: bool = False) -> pafs.FileSystem:
    from rag_core.tables.s3_files import S3Files

    return pafs.PyFileSystem(S3Files(S3Config.model_validate_json(config_json), keeps=keeps))


def _region(config: S3Config) -> str | None:
    named = config.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return named or (_REGION if config.endpoint_url else None)


def _has_virtual_hosts(config: S3Config) -> bool:
    return config.endpoint_url is None if config.virtual_hosts is None else config.virtual_hosts
