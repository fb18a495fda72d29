"""The files of S3 as a file system of Arrow, through boto3, whose errors, retries and encryption are the store's.

An object appears when it is complete, and never if its writing failed: Arrow's own file system finishes what an error
cut off, cannot ask for encryption, and takes a small refusal for a broken answer. Folders are what keys have in common;
none is made.
"""

import threading
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.fs as pafs
from cachetools import LRUCache

from rag_core.aws import client
from rag_core.config_store import S3Config
from rag_core.errors import StoreError
from rag_core.tables.s3_access import encryption, endpoint
from rag_core.tables.s3_reading import S3Reader
from rag_core.tables.s3_writing import S3Sink
from rag_core.tables.store_errors import errors_at

KEPT_BYTES: Final = 64 * 1024 * 1024
_DELETED_AT_ONCE: Final = 1_000


class S3Files(pafs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """Paths are BUCKET/KEY.

    Args:
        config: How S3 is reached.
        keeps: Whether small objects that were read are kept in memory, KEPT_BYTES in all: for files that never change.
    """

    def __init__(self, config: S3Config, *, keeps: bool = False) -> None:
        self._config = config
        self._keeps = keeps
        self._kept: LRUCache[str, pa.Buffer] = LRUCache(KEPT_BYTES, getsizeof=lambda buffer: buffer.size + 1)
        self._lock = threading.Lock()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, S3Files) and (self._config, self._keeps) == (other._config, other._keeps)

    __hash__ = None  # type: ignore[assignment]  # handlers are compared only

    @property
    def _client(self) -> Any:
        return client(endpoint(self._config))

    def get_type_name(self) -> str:
        """Return a name."""
        return "s3"

    def normalize_path(self, path: str) -> str:
        """Return the path as it is."""
        return path

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        """Look at paths: a request for each, two for what is no object."""
        return [self._look(path) for path in paths]

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        """List what is below a folder, by pages; a recursive list has no folders in it."""
        bucket, key = _split(selector.base_dir)
        prefix = f"{key.rstrip('/')}/" if key else ""
        found: list[pafs.FileInfo] = []
        for page in self._pages(bucket, prefix, "" if selector.recursive else "/"):
            found += [
                pafs.FileInfo(f"{bucket}/{one['Prefix'].rstrip('/')}", pafs.FileType.Directory)
                for one in page.get("CommonPrefixes", [])
            ]
            found += [_info(bucket, one) for one in page.get("Contents", []) if not one["Key"].endswith("/")]
        if not found and not selector.allow_not_found and self._look(selector.base_dir).type == pafs.FileType.NotFound:
            raise FileNotFoundError(2, "no such folder", f"s3://{selector.base_dir}")
        return found

    def create_dir(self, path: str, recursive: bool) -> None:
        """Do nothing: a folder is there when an object is in it."""

    def delete_dir(self, path: str) -> None:
        """Delete all objects below a folder; none is fine."""
        bucket, key = _split(path)
        if not key:
            raise ValueError(f"s3://{path}: a bucket is not deleted")
        for page in self._pages(bucket, f"{key.rstrip('/')}/", ""):
            self._delete(bucket, [one["Key"] for one in page.get("Contents", [])])

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """Delete all objects below a folder, which is then no more."""
        self.delete_dir(path)

    def delete_root_dir_contents(self) -> None:
        """Refuse."""
        raise ValueError("buckets are not deleted")

    def delete_file(self, path: str) -> None:
        """Delete an object.

        Raises:
            FileNotFoundError: It is not there. A versioned bucket would keep a mark of each deletion of nothing.
        """
        bucket, key = _split(path)
        with errors_at(f"s3://{path}"):
            self._client.head_object(Bucket=bucket, Key=key)
            self._client.delete_object(Bucket=bucket, Key=key)

    def move(self, src: str, dest: str) -> None:
        """Copy an object, then delete the first; no reader finds neither."""
        self.copy_file(src, dest)
        self.delete_file(src)

    def copy_file(self, src: str, dest: str) -> None:
        """Copy an object of up to 5 GB inside S3."""
        (source, source_key), (bucket, key) = _split(src), _split(dest)
        with errors_at(f"s3://{src}"):
            copied = {"Bucket": source, "Key": source_key}
            self._client.copy_object(Bucket=bucket, Key=key, CopySource=copied, **encryption(self._config))

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """Open an object to read it from its beginning."""
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Open an object to read any part of it; a small one is read whole, in one request."""
        with self._lock:
            kept = self._kept.get(path)
        if kept is not None:
            return pa.BufferReader(kept)
        reader = S3Reader(self._client, *_split(path))
        if not reader.is_whole:
            return pa.PythonFile(reader, mode="r")
        content = pa.py_buffer(reader.read())
        if self._keeps:
            with self._lock:
                self._kept[path] = content
        return pa.BufferReader(content)

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        """Open an object to write it; `rag_core.tables.files.writing` also knows how to give it up."""
        return pa.PythonFile(self.sink(path), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        """Refuse."""
        raise NotImplementedError("objects of S3 cannot be appended to")

    def sink(self, path: str) -> S3Sink:
        """Open an object to write it, or to give it up."""
        return S3Sink(self._client, *_split(path), encryption(self._config))

    def _look(self, path: str) -> pafs.FileInfo:
        bucket, key = _split(path)
        if not key:
            return pafs.FileInfo(path, pafs.FileType.Directory)
        try:
            with errors_at(f"s3://{path}"):
                head = self._client.head_object(Bucket=bucket, Key=key)
            return _info(bucket, {**head, "Key": key, "Size": head["ContentLength"]})
        except FileNotFoundError:
            with errors_at(f"s3://{path}"):
                below = self._client.list_objects_v2(Bucket=bucket, Prefix=f"{key.rstrip('/')}/", MaxKeys=1)
            kind = pafs.FileType.Directory if below.get("Contents") else pafs.FileType.NotFound
            return pafs.FileInfo(path, kind)

    def _pages(self, bucket: str, prefix: str, delimiter: str) -> Iterator[dict[str, Any]]:
        with errors_at(f"s3://{bucket}/{prefix}"):
            pages = self._client.get_paginator("list_objects_v2")
            yield from pages.paginate(Bucket=bucket, Prefix=prefix, Delimiter=delimiter)

    def _delete(self, bucket: str, keys: list[str]) -> None:
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            objects = [{"Key": key} for key in keys[start : start + _DELETED_AT_ONCE]]
            with errors_at(f"s3://{bucket}/{objects[0]['Key']}"):
                answer = self._client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
            if errors := answer.get("Errors"):
                first = errors[0]
                raise StoreError(
                    f"s3://{bucket}/{first['Key']}: {first.get('Code')}: {first.get('Message')}; it and "
                    f"{len(errors) - 1} more were not deleted, which the next upkeep tries again"
                )


def _split(path: str) -> tuple[str, str]:
    bucket, _, key = path.strip("/").partition("/")
    return bucket, key


def _info(bucket: str, content: dict[str, Any]) -> pafs.FileInfo:
    return pafs.FileInfo(
        f"{bucket}/{content['Key']}",
        pafs.FileType.File,
        size=int(content["Size"]),
        mtime=content["LastModified"].timestamp(),
    )
