"""The objects below a prefix of an S3 bucket, or of a server that speaks its protocol.

Listings have pages of up to 1,000 keys and are in the order of the keys' bytes, so that one can be continued after any
key, by another process, days later. Told of changes instead of listing: `rag_core.sources.s3_events`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from rag_core.aws import Endpoint, client, with_body
from rag_core.config import S3Source
from rag_core.errors import SourceError, SourceRefusedError
from rag_core.sources.aws import errors_about
from rag_core.sources.base import SourceObject
from rag_core.sources.globs import KeyFilter

Page = tuple[list[SourceObject], str | None]


def s3_fingerprint(etag: str, size_bytes: int) -> str:
    """Return an object's fingerprint, the same from a listing and from an event: only one of them quotes the ETag."""
    bare = etag.removeprefix("W/").strip('"')
    return f"{size_bytes}-{bare}"


@dataclass(frozen=True)
class S3Objects:
    """The objects below a prefix; the key of an object is its S3 key without the prefix.

    Keys that end in `/` stand for folders and are left out.

    Attributes:
        name: Name of the source.
        bucket: Bucket.
        prefix: Ends in `/`, or is empty.
        keys: Which objects are read.
        max_bytes: What `read` reads at most.
        endpoint: Where the service is.
    """

    name: str
    bucket: str
    prefix: str
    keys: KeyFilter
    max_bytes: int
    endpoint: Endpoint

    @classmethod
    def of(cls, config: S3Source) -> "S3Objects":
        """Return the reader of a configured source; nothing is opened."""
        # A prefix is a folder: `docs` must not take in `docs-old/`.
        prefix = config.prefix if config.prefix.endswith("/") or not config.prefix else f"{config.prefix}/"
        keys = KeyFilter(config.include, config.exclude)
        endpoint = Endpoint("s3", config.endpoint_url, config.region)
        return cls(config.name, config.bucket, prefix, keys, config.max_bytes, endpoint)

    def impatient(self) -> "S3Objects":
        """Return a reader that tries once: for who waits at a terminal."""
        return replace(self, endpoint=replace(self.endpoint, tries=1))

    def uri(self, key: str = "") -> str:
        """Return the address of a key, as S3 clients take it: s3://bucket/prefix/key."""
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def key_of(self, s3_key: str) -> str | None:
        """Return the key inside the source of a key of the bucket; None if the source does not read it."""
        key = s3_key.removeprefix(self.prefix)
        is_ours = s3_key.startswith(self.prefix) and not key.endswith("/") and bool(key)
        return key if is_ours and self.keys.admits(key) else None

    def list(self) -> Iterator[SourceObject]:
        """List the objects, in order of keys, a page in memory at a time. Errors: see `list_page`."""
        position: str | None = None
        while True:
            items, position = self.list_page(position)
            yield from items
            if position is None:
                return

    def list_page(self, position: str | None) -> Page:
        """List one page.

        Args:
            position: None for the first page, then what the page before returned.

        Returns:
            The admitted objects of up to 1,000 keys, perhaps none, and where the next page begins; None: it was the
            last.

        Raises:
            SourceRefusedError: The bucket does not exist, or may not be listed.
            SourceError: It cannot be listed now; or the prefix holds nothing at all. S3 knows no folders: a prefix that
                is wrong and one that was emptied look alike, and an empty listing would delete every document.
        """
        about = f"source {self.name!r}: {self.uri()}"
        request = {"Bucket": self.bucket, "Prefix": self.prefix, "MaxKeys": 1000}
        if position is not None:
            request["StartAfter"] = position
        with errors_about(about):
            answer = client(self.endpoint).list_objects_v2(**request)
        contents = answer.get("Contents", [])
        if position is None and not contents and self.prefix:
            raise SourceError(
                f"{about} holds nothing; correct `prefix`, or, if it is meant to be empty, put an empty object with "
                f"the key {self.prefix!r} there"
            )
        more = bool(answer.get("IsTruncated")) and bool(contents)
        last: str | None = contents[-1]["Key"] if more else None
        if last is not None and position is not None and last.encode() <= position.encode():
            raise SourceRefusedError(f"{about}: the server begins at the start again instead of after {position!r}")
        found = (self._object(content) for content in contents)
        return [item for item in found if item is not None], last

    def look(self, key: str) -> SourceObject | None:
        """Return an object as it is listed now; None if there is none. Errors: see `list_page`."""
        with errors_about(f"source {self.name!r}: {self.uri(key)}"):
            answer = client(self.endpoint).list_objects_v2(Bucket=self.bucket, Prefix=self.prefix + key, MaxKeys=1)
        for content in answer.get("Contents", []):  # the key itself comes before all that it begins
            if content["Key"] == self.prefix + key:
                return self._object(content)
        return None

    def read(self, item: SourceObject) -> bytes:
        """Return the object's bytes.

        Raises:
            ObjectGoneError: There is no such object any more.
            SourceRefusedError: It may not be read, or is archived.
            SourceError: It cannot be read now, or holds more than `max_bytes`.
        """
        about = f"source {self.name!r}: {self.uri(item.key)}"
        with errors_about(about, may_be_gone=True):

            def read(body: Any) -> bytes:
                data: bytes = body.read()
                return data

            return with_body(lambda: self._get(item.key, about), read)[1]

    def _get(self, key: str, about: str) -> Any:
        answer = client(self.endpoint).get_object(Bucket=self.bucket, Key=self.prefix + key)
        if answer.get("ContentLength", 0) > self.max_bytes:  # it grew since it was listed
            answer["Body"].close()
            raise SourceError(f"{about} is larger than max_bytes ({self.max_bytes})")
        return answer

    def _object(self, content: Mapping[str, Any]) -> SourceObject | None:
        key = self.key_of(content["Key"])
        if key is None:
            return None
        modified_at: datetime = content["LastModified"].astimezone(UTC)
        size_bytes = int(content["Size"])
        return SourceObject(
            source=self.name,
            key=key,
            uri=self.uri(key),
            # a server without ETags: the time must do
            fingerprint=s3_fingerprint(content.get("ETag", ""), size_bytes)
            or f"{size_bytes}-{modified_at.isoformat()}",
            size_bytes=size_bytes,
            modified_at=modified_at,
        )
