"""The work manifest: what a worker is to embed, as one small JSON file and one Parquet file of texts in the store.

It holds no secret: keys and cloud credentials reach the worker through its environment.
"""

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import pyarrow as pa
import pyarrow.compute
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from rag_core.config import EmbeddingConfig
from rag_core.config_store import S3Config
from rag_core.embedding.model import ModelSpec
from rag_core.errors import PermanentError, StoreError, TransientError
from rag_core.tables.files import remove_folder, write_file, writing
from rag_core.tables.store import Store

ITEMS: Final = pa.schema(
    [
        pa.field("text_hash", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("token_count", pa.int32(), nullable=False),
    ]
)
_ROW_GROUP_ROWS: Final = 4_096


class WorkManifest(BaseModel):
    """One embedding job.

    Attributes:
        run_id: Of the run that wrote it; names its folder.
        store_root: As in `Store`.
        store_s3: As in `Store`; holds no secret.
        embedding: The configuration, without its key.
        model_fingerprint: What the worker's own model must have.
        dim: Vector dimension.
        items: Address of the Parquet file with the columns of `ITEMS`, relative to the store root.
        item_count: Rows in it; text hashes are distinct.
        token_count: Sum of their token counts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: str
    store_root: str
    store_s3: S3Config
    embedding: EmbeddingConfig
    model_fingerprint: str
    dim: int
    items: str
    item_count: int
    token_count: int

    @property
    def store(self) -> Store:
        """The store, with credentials left to the environment."""
        return Store(self.store_root, self.store_s3)


def write_manifest(
    store: Store, config: EmbeddingConfig, spec: ModelSpec, items: Iterable[pa.RecordBatch], run_id: str
) -> str | None:
    """Write the work of one run under `work/embedding/<run_id>/`, replacing what an earlier try left there.

    Memory is bounded by one batch and 100 bytes an item.

    Args:
        store: Where the job's files, and later its vectors, go.
        config: How to embed; its key is not written.
        spec: The resolved model.
        items: Batches with the columns of `ITEMS`; of repeated text hashes the first counts.
        run_id: Names the folder; the same id again replaces it.

    Returns:
        Address of the manifest, for `worker_command`; None when there are no items, and then nothing is left behind.

    Raises:
        TransientError: The store cannot be written.
    """
    relative = f"work/embedding/{run_id}"
    try:
        item_count, token_count = _write_items(store, f"{relative}/items.parquet", items)
        if not item_count:
            remove_folder(store, relative)
            return None
        manifest = WorkManifest(
            run_id=run_id,
            store_root=store.root,
            store_s3=store.s3,
            embedding=config.model_copy(update={"api_key": None}),
            model_fingerprint=spec.fingerprint,
            dim=spec.dim,
            items=f"{relative}/items.parquet",
            item_count=item_count,
            token_count=token_count,
        )
        write_file(store, f"{relative}/manifest.json", manifest.model_dump_json(indent=2).encode())
    except StoreError:
        raise
    except OSError as error:
        raise TransientError(f"cannot write the work manifest under {store.uri(relative)}: {error}") from error
    return _address(store, f"{relative}/manifest.json")


def manifest_address(store: Store, run_id: str) -> str:
    """Return the address that `write_manifest` gives for a run."""
    return _address(store, f"work/embedding/{run_id}/manifest.json")


def read_manifest(address: str) -> WorkManifest:
    """Read a manifest by the address that `write_manifest` returned.

    Raises:
        PermanentError: There is none, or it was written by another version of this program.
        TransientError: The store cannot be reached.
    """
    filesystem, path = _opened(address)
    try:
        with filesystem.open_input_stream(path) as file:
            return WorkManifest.model_validate_json(file.read())
    except FileNotFoundError as error:
        raise PermanentError(f"no work manifest at {address}; run the embeddings asset to write one") from error
    except StoreError:
        raise
    except OSError as error:
        raise TransientError(f"cannot read the work manifest {address}: {error}") from error
    except ValueError as error:
        raise PermanentError(f"{address} is not a work manifest of this version: {error}") from error


def remove_manifest(store: Store, run_id: str) -> None:
    """Delete a run's work folder, once its vectors are in the cache; a missing one is fine."""
    remove_folder(store, f"work/embedding/{run_id}")


def _write_items(store: Store, path: str, items: Iterable[pa.RecordBatch]) -> tuple[int, int]:
    seen: set[str] = set()
    tokens = 0
    with writing(store, path) as file, pq.ParquetWriter(file, ITEMS, compression="zstd") as writer:
        for batch in items:
            fresh = _unseen(batch, seen)
            if fresh.num_rows:
                tokens += int(pa.compute.sum(fresh.column("token_count")).as_py())
                writer.write_table(fresh, row_group_size=_ROW_GROUP_ROWS)
    return len(seen), tokens


def _unseen(batch: pa.RecordBatch, seen: set[str]) -> pa.Table:
    keep = []
    for text_hash in batch.column("text_hash").to_pylist():
        keep.append(text_hash not in seen)
        seen.add(text_hash)
    columns: list[Any] = [batch.column(name) for name in ITEMS.names]
    return pa.table(columns, names=ITEMS.names).filter(pa.array(keep, pa.bool_())).cast(ITEMS)


def _address(store: Store, path: str) -> str:
    """Return an address that says how S3 is reached as well, so that a worker needs nothing else to find its work."""
    settings = store.s3.model_dump(mode="json", exclude_defaults=True)
    return store.uri(path) + (f"?{urlencode(settings)}" if settings else "")


def _opened(address: str) -> tuple[pafs.FileSystem, str]:
    if "://" not in address:
        return pafs.LocalFileSystem(), address
    uri, _, settings = address.partition("?")
    folder, _, name = uri.rpartition("/")
    filesystem, root = Store(folder, S3Config.model_validate(dict(parse_qsl(settings)))).filesystem()
    return filesystem, f"{root}/{name}"
