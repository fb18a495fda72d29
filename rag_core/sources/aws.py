"""What errors of S3 and SQS mean for a source. The clients are in `rag_core.aws`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rag_core.aws import GONE, Trouble, trouble_of
from rag_core.errors import ObjectGoneError, PermanentError, SourceError, SourceRefusedError

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
    try:
        yield
    except SourceError:
        raise
    except PermanentError as error:  # the address is none
        raise SourceRefusedError(f"{what}: {error}") from error
    except Exception as error:
        trouble = trouble_of(error)
        if trouble is None:
            raise
        if may_be_gone and trouble.code in GONE:
            raise ObjectGoneError(f"{what} is gone") from error
        raise _error(what, trouble) from error


def _error(what: str, trouble: Trouble) -> SourceError:
    kind = SourceError if trouble.passes else SourceRefusedError
    return kind(trouble.told(what, _REMEDIES.get(trouble.code)))
