"""Clients of S3 and SQS, and of servers that speak their protocols; what their errors mean to us.

Credentials are found by boto3's own chain (environment, shared files, role of machine or pod); none are kept here.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from rag_core.errors import ObjectGoneError, SourceError, SourceRefusedError

_CONNECT_TIMEOUT_S: Final = 5.0
_READ_TIMEOUT_S: Final = 60.0  # above the longest wait of a request for messages

_GONE: Final = frozenset({"NoSuchKey", "404", "NotFound"})
# Refusals with a status of the 400s that another try may get past; all others of those are for good.
_PASSING: Final = frozenset(
    {
        "RequestTimeout", "OperationAborted", "ConditionalRequestConflict", "ExpiredToken", "ExpiredTokenException",
        "TokenRefreshRequired", "SlowDown", "OverLimit", "BandwidthLimitExceeded", "RequestLimitExceeded",
    }
)  # fmt: skip
_PASSING_STATUS: Final = frozenset({408, 409, 425, 429})
# Trouble before an answer that no repetition mends; all other such trouble is the network's.
_MISCONFIGURED: Final = (
    "NoCredentialsError", "PartialCredentialsError", "NoRegionError", "ProfileNotFound", "ConfigNotFound",
    "ConfigParseError", "ParamValidationError", "InvalidRegionError", "UnknownEndpointError", "EndpointProviderError",
    "InvalidConfigError",
)  # fmt: skip

_CREDENTIALS: Final = "give boto3 valid credentials: environment, profile, or the role of the machine or pod"
_REGION: Final = "set `region` of the source to the bucket's"
_REMEDIES: Final = {
    "NoSuchBucket": "correct `bucket`, or create it",
    "AccessDenied": "allow s3:ListBucket on the bucket and s3:GetObject on its objects (and kms:Decrypt, if encrypted)",
    "InvalidObjectState": "it is archived: restore it, or exclude it",
    "AuthorizationHeaderMalformed": _REGION,
    "PermanentRedirect": _REGION,
    "NoRegionError": _REGION,
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "InvalidClientTokenId": _CREDENTIALS,
    "ExpiredToken": _CREDENTIALS,
    "NoCredentialsError": _CREDENTIALS,
    "PartialCredentialsError": _CREDENTIALS,
    "ProfileNotFound": _CREDENTIALS,
    "RequestTimeTooSkewed": "set the clock of this machine",
    "QueueDoesNotExist": "correct `events.queue_url`",
    "AWS.SimpleQueueService.NonExistentQueue": "correct `events.queue_url`",
    "AccessDeniedException": "allow sqs:ReceiveMessage, sqs:DeleteMessage and sqs:GetQueueAttributes on the queue",
}  # fmt: skip


@dataclass(frozen=True)
class Endpoint:
    """Where a service is.

    Attributes:
        service: Which.
        url: Address of a server of its own; None for AWS.
        region: None: as boto3 finds it.
        tries: Of a request that fails in a way that passes.
    """

    service: Literal["s3", "sqs"]
    url: str | None = None
    region: str | None = None
    tries: int = 5


def client(endpoint: Endpoint) -> Any:
    """Return this process's client: made when it is first asked for, and never shared with a forked child.

    Raises:
        SourceRefusedError: The address is not one.
    """
    return _client(endpoint, os.getpid())


@lru_cache(maxsize=16)
def _client(endpoint: Endpoint, _pid: int) -> Any:
    import boto3
    from botocore.config import Config

    settings = Config(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": endpoint.tries},
        # Servers other than AWS have no host name for each bucket.
        s3={"addressing_style": "path" if endpoint.url else "auto"},
    )
    try:
        return boto3.session.Session().client(
            endpoint.service, region_name=endpoint.region, endpoint_url=endpoint.url, config=settings
        )
    except ValueError as error:
        raise SourceRefusedError(f"{endpoint.service} at {endpoint.url}: {error}; expected http(s)://host") from error


@contextmanager
def errors_about(what: str, *, may_be_gone: bool = False) -> Iterator[None]:
    """Turn errors of boto3 into ours.

    Args:
        what: Source and bucket, object or queue; the message begins with it.
        may_be_gone: Whether an object that does not exist is ObjectGoneError.

    Raises:
        ObjectGoneError: The object does not exist.
        SourceRefusedError: Another try cannot help: permission, bucket, credentials, region.
        SourceError: It may: network, throttling, a failure of the service.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if may_be_gone and code in _GONE:
            raise ObjectGoneError(f"{what} is gone") from error
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        message = str(error.response.get("Error", {}).get("Message", "")).strip().rstrip(".")
        raise _error(what, code, message or f"status {status}", passes=_passes(code, status)) from error
    except BotoCoreError as error:
        name = type(error).__name__
        raise _error(what, name, str(error).strip().rstrip("."), passes=name not in _MISCONFIGURED) from error


def _passes(code: str, status: int) -> bool:
    if code in _PASSING or "throttl" in code.lower():
        return True
    return status in _PASSING_STATUS or not 300 <= status < 500


def _error(what: str, code: str, message: str, *, passes: bool) -> SourceError:
    kind = SourceError if passes else SourceRefusedError
    remedy = _REMEDIES.get(code)
    return kind(f"{what}: {code}: {message}" + (f"; {remedy}" if remedy else ""))
