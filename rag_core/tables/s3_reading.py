"""Reading an object of S3, whole or in parts."""

import io
from typing import Any, Final

from rag_core.aws import with_body
from rag_core.errors import StoreError
from rag_core.tables.store_errors import errors_at

_AT_FIRST: Final = 1024 * 1024
"""So much is asked for when an object is opened: all of most work files, in one request."""


class S3Reader(io.RawIOBase):
    """An object as a file; each read beyond the first MiB is a request."""

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        """Ask for the beginning of the object.

        Raises:
            FileNotFoundError: There is none.
            StoreError: It cannot be read; StoreRefusedError if that will not pass.
        """
        self._client, self._bucket, self._key = client, bucket, key
        self._at = 0
        self._size = 0
        self._etag = ""
        self._first = self._get(0, _AT_FIRST)

    @property
    def is_whole(self) -> bool:
        """Whether all of it was read already."""
        return len(self._first) == self._size

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Read so many bytes, fewer only at the end."""
        start = min(self._at, self._size)
        end = self._size if size is None or size < 0 else min(self._size, start + size)
        data = self._first[start:end]
        if end > len(self._first):
            data += self._get(start + len(data), end)
        self._at = end
        return data

    def readall(self) -> bytes:
        """Read the rest."""
        return self.read()

    def _get(self, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        request = {"Bucket": self._bucket, "Key": self._key, "Range": f"bytes={start}-{end - 1}"}
        if self._etag:
            request["IfMatch"] = self._etag  # one object, not the beginning of one and the end of another
        address = f"s3://{self._bucket}/{self._key}"
        try:
            with errors_at(address):
                answer, data = with_body(lambda: self._client.get_object(**request), lambda body: bytes(body.read()))
        except StoreError as error:
            if "InvalidRange" in str(error) and start == 0:  # an empty object has no first byte
                return b""
            raise
        self._etag = answer.get("ETag", "")
        self._size = int(answer.get("ContentRange", "").rpartition("/")[2] or len(data))
        return data
