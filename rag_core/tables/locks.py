"""Exclusion of other processes: by a locked file where the store is a local folder, by a lease where it is in S3.

A lease is an object `work/locks/NAME.json`. Who holds it writes it again every few seconds, under the condition that it
is still as it was left (`If-Match`), so of two that take it one gets it. One that was not written for `LEASE_S`, by the
clock of S3, is anybody's. A process that stood still for longer has lost it, and `Held.check` tells it so.
"""

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from rag_core.aws import client
from rag_core.errors import StoreError, TransientError
from rag_core.index.lite_files import locked
from rag_core.tables.s3_access import encryption, endpoint
from rag_core.tables.store import Store
from rag_core.tables.store_errors import errors_at, is_refused

LEASE_S: Final = 30.0
_RENEW_S: Final = 7.0
_POLL_S: Final = 0.5


class Held:
    """What is held; on local disk it cannot be lost."""

    def check(self) -> None:
        """Make sure that it is still held.

        Raises:
            TransientError: It is not.
        """


@contextmanager
def exclusive(store: Store, name: str, *, timeout_s: float) -> Iterator[Held]:
    """Hold a name of a store alone, on all machines that use the store, for as long as the block runs.

    Args:
        store: Which.
        name: May have slashes in it.
        timeout_s: So long it is waited for.

    Raises:
        TransientError: Another process holds it.
        StoreError: S3 fails; StoreRefusedError if that will not pass.
    """
    if store.is_local:
        path = store.local_path("work", "locks", f"{name}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path, timeout_s=timeout_s):
            yield Held()
        return
    lease = _Lease(store, name)
    lease.take(timeout_s)
    stop = threading.Event()
    keeper = threading.Thread(target=lease.keep, args=(stop,), name=f"lease-{name}", daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        stop.set()
        keeper.join()
        lease.give_back()


@dataclass(frozen=True)
class _Seen:
    """A lease as it is in S3: by whom, whether it is held, its ETag, and for how long it was not written."""

    owner: str
    who: str
    is_held: bool
    etag: str
    age_s: float


class _Lease(Held):
    def __init__(self, store: Store, name: str) -> None:
        bucket, _, prefix = store.root.removeprefix("s3://").strip("/").partition("/")
        key = f"{prefix}/work/locks/{name}.json".lstrip("/")
        self._place = {"Bucket": bucket, "Key": key}
        self._address = f"s3://{bucket}/{key}"
        self._client = client(endpoint(store.s3))
        self._encryption = encryption(store.s3)
        self._owner = uuid.uuid4().hex
        self._etag = ""
        self._written_at = 0.0
        self._is_lost = False

    def check(self) -> None:
        if self._is_lost or time.monotonic() - self._written_at > LEASE_S:
            raise TransientError(f"{self._address}: the lease was lost, as this process stood still; do it again")

    def take(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            seen = self._look()
            if seen is None:
                taken = self._write(held=True, IfNoneMatch="*")
            elif not seen.is_held or seen.age_s > LEASE_S:
                taken = self._write(held=True, IfMatch=seen.etag)
            else:
                taken = False
            if taken:
                return
            if time.monotonic() > deadline:
                who = f" by {seen.who}" if seen else ""
                raise TransientError(f"{self._address}: held{who} for {timeout_s:.0f} s; is a process stuck?")
            time.sleep(_POLL_S)

    def keep(self, stop: threading.Event) -> None:
        while not stop.wait(_RENEW_S):
            try:
                self._is_lost = not self._write(held=True, IfMatch=self._etag)
            except StoreError:
                continue  # `check` counts the time
            if self._is_lost:
                return

    def give_back(self) -> None:
        if not self._is_lost:
            try:
                self._write(held=False, IfMatch=self._etag)
            except StoreError:
                return  # it ends by itself

    def _write(self, *, held: bool, **condition: str) -> bool:
        """Write the lease under a condition; false if it does not hold."""
        content = {"owner": self._owner, "host": platform.node(), "pid": os.getpid(), "held": held}
        began = time.monotonic()
        try:
            answer = self._put(json.dumps({**content, "at": time.time()}).encode(), condition)
        except StoreError as error:
            if not is_refused(error):
                raise
            # An answer that was lost: the second try is refused by what the first one wrote.
            seen = self._look()
            if seen is None or seen.owner != self._owner or seen.is_held != held or seen.etag == self._etag:
                return False
            answer = {"ETag": seen.etag}
        self._etag, self._written_at = answer["ETag"], began
        return True

    def _put(self, body: bytes, condition: dict[str, str]) -> Any:
        with errors_at(self._address):
            return self._client.put_object(**self._place, Body=body, **condition, **self._encryption)

    def _look(self) -> _Seen | None:
        try:
            with errors_at(self._address):
                answer = self._client.get_object(**self._place)
                content = json.loads(answer["Body"].read())
        except FileNotFoundError:
            return None
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        written: datetime = answer["LastModified"]
        now = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(written.tzinfo)
        who = f"process {content['pid']} of {content['host']}"
        return _Seen(content["owner"], who, content["held"], answer["ETag"], (now - written).total_seconds())
