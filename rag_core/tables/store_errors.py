"""What errors of S3 mean for the store, whichever library met them: boto3 by its exceptions, delta-rs by its words."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from rag_core.aws import GONE, REFUSED, Trouble, passes, trouble_of
from rag_core.errors import RagError, StoreError, StoreRefusedError
from rag_core.tables.store import Store

_CREDENTIALS: Final = "give the process valid credentials: environment, profile, web identity, or role of the machine"
_REGION: Final = "set store.s3.region to the bucket's"
_RIGHTS: Final = "allow what docs/s3.md lists on the bucket and below its prefix, and on the KMS key if there is one"
_CONDITIONS: Final = "the server cannot write under a condition (If-None-Match), which commits need: see docs/s3.md"
_REMEDIES: Final = {
    "NoSuchBucket": "correct store.root, or create the bucket",
    "AccessDenied": _RIGHTS,
    "403": _RIGHTS,
    "Forbidden": _RIGHTS,
    "AuthorizationHeaderMalformed": _REGION,
    "PermanentRedirect": _REGION,
    "301": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "NoRegionError": _REGION,
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "InvalidToken": _CREDENTIALS,
    "ExpiredToken": _CREDENTIALS,
    "NoCredentials": _CREDENTIALS,
    "NoCredentialsError": _CREDENTIALS,
    "PartialCredentialsError": _CREDENTIALS,
    "ProfileNotFound": _CREDENTIALS,
    "RequestTimeTooSkewed": "set the clock of this machine",
    "NotImplemented": _CONDITIONS,
}
_KMS: Final = "correct store.s3.kms_key_id, or enable the key"
_AGAIN: Final = "the run can be repeated"

_FROM_S3: Final = re.compile(r"Error performing|S3 error|credentials")
_NOISE: Final = re.compile(r"(?:\x1b\[\d+m|↳|\s)+")
_CODE: Final = re.compile(r"<Code>([\w.]+)</Code>")
_MESSAGE: Final = re.compile(r"<Message>([^<]*)</Message>")
_STATUS: Final = re.compile(r"status code:? (\d{3})\b")
_REQUEST: Final = re.compile(r"Error performing (\w+) \S+?://[^/\s]+(/[^?\s]*)")


@contextmanager
def errors_at(address: str) -> Iterator[None]:
    """Turn errors of boto3 into ours.

    Args:
        address: Of what was asked for, such as s3://bucket/key; the message begins with it.

    Raises:
        FileNotFoundError: There is no such object.
        StoreRefusedError: Another try cannot help: permission, bucket, credentials, region.
        StoreError: It may: network, throttling, a failure of the service.
    """
    try:
        yield
    except RagError:
        raise
    except Exception as error:
        trouble = trouble_of(error)
        if trouble is None:
            raise
        if trouble.code in GONE:
            raise FileNotFoundError(2, "no such object", address) from error
        raise _error(address, trouble) from error


def is_refused(error: StoreError) -> bool:
    """Tell whether an error of `errors_at` is a write whose condition does not hold."""
    trouble = trouble_of(error.__cause__) if isinstance(error.__cause__, Exception) else None
    return trouble is not None and trouble.code in REFUSED


@contextmanager
def errors_about(store: Store, what: str) -> Iterator[None]:
    """Turn errors that delta-rs has with S3 into ours; those of local disk, of conflicts and of absence stay.

    Args:
        store: Where it happens.
        what: Such as a table; the message begins with it.

    Raises:
        StoreRefusedError: As in `errors_at`.
        StoreError: As in `errors_at`.
    """
    try:
        yield
    except (RagError, FileNotFoundError, CommitFailedError, TableNotFoundError):
        raise
    except (OSError, DeltaError) as error:
        if store.is_local or not _FROM_S3.search(str(error)):
            raise
        raise _error(f"{what} in {store.root}", _read(str(error))) from error


def _read(text: str) -> Trouble:
    text = _NOISE.sub(" ", text).strip()
    code, message, status = _CODE.search(text), _MESSAGE.search(text), _STATUS.search(text)
    request = _REQUEST.search(text)
    where = f" ({request[1]} {request[2]})" if request else ""
    if code is not None:
        said = message[1].strip().rstrip(".") if message else ""
        return Trouble(code[1], f"{said}{where}", passes(code[1], int(status[1]) if status else 500))
    if status is not None:
        return Trouble(status[1], f"no reason given{where}", passes("", int(status[1])))
    if "no credentials found" in text or "credential provider was not enabled" in text:
        return Trouble("NoCredentials", "none were found", passes=False)
    # What is left is the network: the last words say how it failed.
    return Trouble("NoAnswer", f"{text[-100:].strip().rpartition(' - ')[2]}{where}", passes=True)


def _error(what: str, trouble: Trouble) -> StoreError:
    remedy = _KMS if trouble.code.startswith("KMS.") else _REMEDIES.get(trouble.code)
    kind = StoreError if trouble.passes else StoreRefusedError
    return kind(trouble.told(what, remedy or (_AGAIN if trouble.passes else None)))
