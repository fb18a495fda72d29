"""The step before the worker of a pod: copy the model from S3, and make sure that it is the manifest's.

`python -m rag_core.embedding.fetch_model --manifest ADDRESS --from s3://BUCKET/FOLDER --to FOLDER`. Exit codes as the
worker's.
"""

import argparse
import logging
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Final

from rag_core.aws import client
from rag_core.config_store import S3Config
from rag_core.embedding.manifest import read_manifest
from rag_core.embedding.model import MODEL_FOLDER_ENV, resolve_model
from rag_core.embedding.worker import EXIT_PERMANENT, EXIT_TRANSIENT, classified
from rag_core.errors import ConfigError, FingerprintMismatchError, PermanentError, RagError, TransientError
from rag_core.sources.aws import errors_about
from rag_core.tables.s3_access import endpoint

_BLOCK: Final = 8 << 20
_LOG: Final = logging.getLogger(__name__)


def fetch_model(source: str, folder: Path, s3: S3Config) -> int:
    """Copy the files below an address in S3 to a folder; each appears when it is complete.

    Returns:
        Bytes copied.

    Raises:
        ConfigError: There is nothing.
        SourceError: S3 fails; SourceRefusedError, for good.
    """
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    copied = files = 0
    with errors_about(f"the model at {source}"):
        s3_client = client(endpoint(s3))
        for page in s3_client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for found in page.get("Contents", []):
                relative = found["Key"].removeprefix(prefix)
                if relative and not relative.endswith("/"):
                    copied += _copy(s3_client, bucket, found["Key"], folder / relative)
                    files += 1
    if not files:
        raise ConfigError(
            f"embedding.kubernetes.model.copy_from: there is nothing at {source}; expected a model folder"
        )
    return copied


def _copy(s3_client: Any, bucket: str, key: str, target: Path) -> int:
    if not target.resolve().is_relative_to(target.parent.resolve()):
        raise ConfigError(f"s3://{bucket}/{key}: not a name of a file")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    answer = s3_client.get_object(Bucket=bucket, Key=key)
    with part.open("wb") as file:
        shutil.copyfileobj(answer["Body"], file, _BLOCK)
    size = part.stat().st_size
    if size != answer["ContentLength"]:
        raise TransientError(
            f"s3://{bucket}/{key} ended after {size:,} of {answer['ContentLength']:,} bytes; run again"
        )
    part.replace(target)
    return size


def main(argv: list[str] | None = None) -> int:
    """Copy and check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m rag_core.embedding.fetch_model", description=__doc__)
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--from", dest="source", required=True)
    parser.add_argument("--to", dest="folder", required=True, type=Path)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    started = time.perf_counter()
    try:
        with classified():
            manifest = read_manifest(arguments.manifest)
            copied = fetch_model(arguments.source, arguments.folder, manifest.store.s3)
            os.environ[MODEL_FOLDER_ENV] = str(arguments.folder)
            found = resolve_model(manifest.embedding).fingerprint
            if found != manifest.model_fingerprint:
                raise FingerprintMismatchError(
                    f"the model at {arguments.source} has fingerprint {found}, the manifest asks for "
                    f"{manifest.model_fingerprint}; put the files there that the pipeline itself uses"
                )
    except RagError as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        return EXIT_PERMANENT if isinstance(error, PermanentError) else EXIT_TRANSIENT
    _LOG.info("copied %d bytes in %.1f s, fingerprint as in the manifest", copied, time.perf_counter() - started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
