"""Types of `rag.yaml` that say where everything is kept."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from rag_core.config_base import HttpAddress, Section


class S3Config(Section):
    """How a store in S3 is reached. Credentials are found as AWS's own tools find them; none are in the file."""

    endpoint_url: HttpAddress | None = Field(default=None, description="Address of an S3-compatible server; else AWS.")
    region: str | None = Field(
        default=None, description="Region of the bucket; else AWS_REGION or AWS_DEFAULT_REGION of the environment."
    )
    virtual_hosts: bool | None = Field(
        default=None,
        description="Whether the bucket is part of the host name; default: on AWS, and not with `endpoint_url`.",
    )
    server_side_encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        default=None, description="Encryption that is asked for with each object; default: the bucket's own."
    )
    kms_key_id: str | None = Field(
        default=None, description="ARN or id of the KMS key, with aws:kms; default: the account's key for S3."
    )
    bucket_key: bool = Field(
        default=True, description="With aws:kms, S3 asks KMS for a key of the bucket, not for one of each object."
    )
    connect_timeout_s: float = Field(default=5.0, gt=0, description="Time limit of a connection.")
    request_timeout_s: float = Field(
        default=60.0,
        gt=0,
        description="Time limit: of a request for a table, whole; of any other, so long may the server say nothing.",
    )
    tries: int = Field(
        default=6, ge=1, description="Tries of a request that fails in a way that passes, with back-off."
    )

    @model_validator(mode="after")
    def _key_with_kms(self) -> "S3Config":
        if self.kms_key_id is not None and not (self.server_side_encryption or "").startswith("aws:kms"):
            raise ValueError("kms_key_id goes with server_side_encryption: aws:kms")
        return self


class StoreConfig(Section):
    """Where tables, vectors, work files and the local index live."""

    root: str = Field(description="Local folder or s3://bucket/prefix. A relative path is relative to the file.")
    s3: S3Config = Field(default_factory=S3Config, description="How S3 is reached.")

    @field_validator("root")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if "://" in value and not value.startswith("s3://"):
            raise ValueError("a local folder or s3://bucket/prefix")
        if value.startswith("s3://") and not value.removeprefix("s3://").strip("/"):
            raise ValueError("s3://bucket/prefix, with a bucket")
        return value
