"""Writing an object of S3: nothing is seen of it before its end, and nothing at all if it is given up."""

import io
import logging
from typing import Any, Final

from rag_core.aws import trouble_of
from rag_core.errors import StoreError
from rag_core.tables.store_errors import errors_at

PART_BYTES: Final = 16 * 1024 * 1024
"""What is smaller is one request; an object has 10,000 parts at most, so 156 GiB."""

_LOG: Final = logging.getLogger(__name__)


class S3Sink(io.RawIOBase):
    """An object that is being written. `close` makes it appear; `abort`, an error, or being forgotten do not."""

    def __init__(self, client: Any, bucket: str, key: str, encryption: dict[str, Any]) -> None:
        self._client = client
        self._place = {"Bucket": bucket, "Key": key}
        self._address = f"s3://{bucket}/{key}"
        self._encryption = encryption
        self._buffer = bytearray()
        self._written = 0
        self._upload = ""
        self._parts: list[dict[str, Any]] = []
        self._failed = False

    def writable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Return how much was written."""
        return self._written

    def write(self, data: Any) -> int:
        """Take bytes; a full part is sent at once.

        Raises:
            StoreError: A part could not be sent; the object is given up then.
        """
        with memoryview(data) as view:
            size = view.nbytes
            if self._failed:  # writers of Parquet end their files whatever happened
                return size
            self._buffer += view
        self._written += size
        while len(self._buffer) >= PART_BYTES:
            self._send(PART_BYTES)
        return size

    def close(self) -> None:
        """Make the object appear.

        Raises:
            StoreError: It could not be; there is no part of it then.
        """
        if self.closed:
            return
        try:
            if self._failed:
                return
            if not self._upload:
                with errors_at(self._address):
                    self._client.put_object(**self._place, Body=bytes(self._buffer), **self._encryption)
            else:
                if self._buffer:
                    self._send(len(self._buffer))
                self._complete()
        finally:
            super().close()

    def abort(self) -> None:
        """Give the object up. What cannot be told to S3 now is left to the bucket's lifecycle rule."""
        self._failed = True
        self._buffer.clear()
        if self._upload:
            upload, self._upload = self._upload, ""
            try:
                with errors_at(self._address):
                    self._client.abort_multipart_upload(**self._place, UploadId=upload)
            except (StoreError, FileNotFoundError) as error:
                if "NoSuchUpload" in str(error):  # it was completed or given up already
                    return
                _LOG.warning("an upload is left behind, for the bucket's lifecycle rule to remove: %s", error)

    def __del__(self) -> None:
        if not self.closed:
            self.abort()

    def _send(self, size: int) -> None:
        try:
            with errors_at(self._address):
                if not self._upload:
                    self._upload = self._client.create_multipart_upload(**self._place, **self._encryption)["UploadId"]
                number = len(self._parts) + 1
                body = bytes(self._buffer[:size])
                answer = self._client.upload_part(**self._place, UploadId=self._upload, PartNumber=number, Body=body)
        except BaseException:
            self.abort()
            raise
        del self._buffer[:size]
        self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})

    def _complete(self) -> None:
        try:
            with errors_at(self._address):
                try:
                    self._client.complete_multipart_upload(
                        **self._place, UploadId=self._upload, MultipartUpload={"Parts": self._parts}
                    )
                except Exception as error:
                    # The answer to the first try was lost: the upload is no more, and the object is there.
                    trouble = trouble_of(error)
                    if trouble is None or trouble.code != "NoSuchUpload" or not self._is_there():
                        raise
        except BaseException:
            self.abort()
            raise

    def _is_there(self) -> bool:
        return bool(self._client.head_object(**self._place)["ContentLength"] == self._written)
