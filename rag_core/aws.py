"""Clients of S3 and SQS, and of servers that speak their protocols; which of their errors pass.

Credentials are found by boto3's own chain (environment, shared files, role of machine or pod); none are kept here.
"""

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from rag_core.errors import PermanentError

_BODY_TRIES: Final = 3  # boto3 repeats a request by itself, but not the reading of an answer that breaks off

GONE: Final = frozenset({"NoSuchKey", "404", "NotFound"})
"""Codes of an object that is not there."""
REFUSED: Final = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})
"""Codes of a write whose condition does not hold."""

# Refusals with a status of the 400s that another try may get past; all others of those are for good.
_PASSING: Final = frozenset(
    {
        "RequestTimeout", "OperationAborted", "ConditionalRequestConflict", "ExpiredToken", "ExpiredTokenException",
        "TokenRefreshRequired", "SlowDown", "OverLimit", "BandwidthLimitExceeded", "RequestLimitExceeded",
    }
)  # fmt: skip
_PASSING_STATUS: Final = frozenset({408, 409, 425, 429})
_FOR_GOOD: Final = frozenset({"NotImplemented", "MethodNotAllowed"})  # whatever the status
# Trouble before an answer that no repetition mends; all other such trouble is the network's.
_MISCONFIGURED: Final = (
    "NoCredentialsError", "PartialCredentialsError", "NoRegionError", "ProfileNotFound", "ConfigNotFound",
    "ConfigParseError", "ParamValidationError", "InvalidRegionError", "UnknownEndpointError", "EndpointProviderError",
    "InvalidConfigError",
)  # fmt: skip


@dataclass(frozen=True)
class Endpoint:
    """Where a service is.

    Attributes:
        service: Which.
        url: Address of a server of its own; None for AWS.
        region: None: as boto3 finds it.
        tries: Of a request that fails in a way that passes.
        connect_timeout_s: Time limit of a connection.
        read_timeout_s: So long may a server be silent; above the longest wait of a request for messages.
        virtual_hosts: Whether a bucket is part of the host name; None: on AWS only, few other servers have such names.
    """

    service: Literal["s3", "sqs"]
    url: str | None = None
    region: str | None = None
    tries: int = 5
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 60.0
    virtual_hosts: bool | None = None


@dataclass(frozen=True)
class Trouble:
    """What boto3 says is wrong.

    Attributes:
        code: AWS's name of it, such as AccessDenied; of trouble before an answer, boto3's.
        message: In words, without a full stop.
        passes: Whether another try may help.
    """

    code: str
    message: str
    passes: bool

    def told(self, what: str, remedy: str | None) -> str:
        """Write it as a sentence about something, with what to do."""
        return f"{what}: {self.code}: {self.message}" + (f"; {remedy}" if remedy else "")


def client(endpoint: Endpoint) -> Any:
    """Return this process's client: made when it is first asked for, and never shared with a forked child.

    Raises:
        PermanentError: The address is not one.
    """
    return _client(endpoint, os.getpid())


@lru_cache(maxsize=16)
def _client(endpoint: Endpoint, _pid: int) -> Any:
    import boto3
    from botocore.config import Config

    virtual = endpoint.url is None if endpoint.virtual_hosts is None else endpoint.virtual_hosts
    settings = Config(
        connect_timeout=endpoint.connect_timeout_s,
        read_timeout=endpoint.read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": endpoint.tries},
        s3={"addressing_style": ("auto" if endpoint.url is None else "virtual") if virtual else "path"},
        max_pool_connections=32,
        # Servers other than AWS do not all take checksums that nothing requires.
        request_checksum_calculation="when_supported" if endpoint.url is None else "when_required",
        response_checksum_validation="when_supported" if endpoint.url is None else "when_required",
    )
    try:
        return boto3.session.Session().client(
            endpoint.service, region_name=endpoint.region, endpoint_url=endpoint.url, config=settings
        )
    except ValueError as error:
        raise PermanentError(f"{endpoint.service} at {endpoint.url}: {error}; expected http(s)://host") from error


def with_body(get: Callable[[], Any], read: Callable[[Any], bytes]) -> tuple[Any, bytes]:
    """Ask for an object and read it, again where the answer breaks off.

    Args:
        get: Makes the request.
        read: Reads from the answer's `Body`; it may refuse by an error of its own.

    Returns:
        The answer, and what was read.
    """
    from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

    for last in (False,) * (_BODY_TRIES - 1) + (True,):
        answer = get()
        try:
            with closing(answer["Body"]) as body:
                return answer, read(body)
        except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
            if last:
                raise
    raise AssertionError("unreachable")


def trouble_of(error: Exception) -> Trouble | None:
    """Read an error of boto3; None if it is another's."""
    from botocore.exceptions import BotoCoreError, ClientError

    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        message = str(error.response.get("Error", {}).get("Message", "")).strip().rstrip(".")
        return Trouble(code, message or f"status {status}", passes(code, status))
    if isinstance(error, BotoCoreError):
        name = type(error).__name__
        return Trouble(name, str(error).strip().rstrip("."), name not in _MISCONFIGURED)
    return None


def passes(code: str, status: int) -> bool:
    """Tell whether another try may help, by AWS's code of an error and its HTTP status."""
    if code in _FOR_GOOD:
        return False
    if code in _PASSING or "throttl" in code.lower():
        return True
    return status in _PASSING_STATUS or not 300 <= status < 500
