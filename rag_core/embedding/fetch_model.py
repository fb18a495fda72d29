"""The step before the worker of a pod: copy the model from S3, and make sure that it is the manifest's.

`python -m rag_core.embedding.fetch_model --manifest ADDRESS --from s3://BUCKET/FOLDER --to FOLDER`. Exit codes as the
worker's.
"""

import argparse
import logging
import os
import sys
import time
from pathlib import Path
from typing import Final

from pyarrow.fs import FileType

from rag_core.backup.copying import copy
from rag_core.config_store import S3Config
from rag_core.embedding.manifest import read_manifest
from rag_core.embedding.model import MODEL_FOLDER_ENV, resolve_model
from rag_core.embedding.worker import EXIT_PERMANENT, EXIT_TRANSIENT, classified
from rag_core.errors import ConfigError, FingerprintMismatchError, PermanentError, RagError
from rag_core.tables.files import list_folder
from rag_core.tables.store import Store

_LOG: Final = logging.getLogger(__name__)


def fetch_model(source: str, folder: Path, s3: S3Config) -> int:
    """Copy the files below an address in S3 to a folder; each appears when it is complete.

    Returns:
        Bytes copied.

    Raises:
        ConfigError: There is nothing, or a key that is no path inside the folder.
        StoreError: S3 fails; StoreRefusedError, for good.
    """
    model, here = Store(source, s3), Store(str(folder))
    _, root = model.filesystem()
    found = [info for info in list_folder(model, "", recursive=True) if info.type == FileType.File]
    if not found:
        raise ConfigError(
            f"embedding.kubernetes.model.copy_from: there is nothing at {source}; expected a model folder"
        )
    for info in found:
        path = info.path.removeprefix(f"{root}/")
        if ".." in path.split("/"):
            raise ConfigError(f"s3://{info.path}: not a path inside of the model's folder")
        copy(model, path, here, path)
    return sum(info.size for info in found)


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
