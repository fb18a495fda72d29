"""The worker's local copy of the texts still to embed, readable in any order with only their offsets in memory."""

import tempfile
from collections.abc import Callable, Iterator
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from rag_core.embedding.key_index import KEY_BYTES, as_keys
from rag_core.errors import PermanentError, TransientError


class TextSpool:
    """Texts in an unnamed temporary file, with hash, offset and token count of each in memory (52 bytes a text).

    The items file is in the order of its documents; embedding wants the order of length. Reading Parquet rows in that
    order would decode the whole file for every slice of work.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="rag-embedding-")  # noqa: SIM115  # closed in __exit__
        self._hashes: list[np.ndarray] = []
        self._sizes: list[np.ndarray] = []
        self._tokens: list[np.ndarray] = []

    def __enter__(self) -> "TextSpool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, hashes: pa.Array, texts: pa.Array, token_counts: pa.Array) -> None:
        """Append texts; all three have the same length."""
        encoded = [text.encode("utf-8") for text in texts.to_pylist()]
        self._file.writelines(encoded)
        self._hashes.append(as_keys(hashes).copy())
        self._sizes.append(np.array([len(text) for text in encoded], np.int64))
        self._tokens.append(np.maximum(token_counts.to_numpy(zero_copy_only=False), 1).astype(np.int64))

    def slices(self, checkpoint_tokens: int) -> Iterator[tuple[list[str], list[str]]]:
        """Yield (text hashes, texts) of about `checkpoint_tokens` tokens, longest texts first, each text once."""
        if not self._hashes:
            return
        self._file.flush()
        hashes, sizes, tokens = (np.concatenate(parts) for parts in (self._hashes, self._sizes, self._tokens))
        offsets = np.cumsum(sizes) - sizes
        order = np.argsort(-tokens, kind="stable")
        slice_of = (np.cumsum(tokens[order]) - 1) // checkpoint_tokens
        for rows in np.split(order, np.flatnonzero(np.diff(slice_of)) + 1):
            yield [key.decode() for key in hashes[rows].tolist()], [self._read(offsets[i], sizes[i]) for i in rows]

    def _read(self, offset: int, size: int) -> str:
        self._file.seek(int(offset))
        return self._file.read(int(size)).decode("utf-8")


def spool_items(
    spool: TextSpool, filesystem: pafs.FileSystem, path: str, missing: Callable[[pa.Array], list[str]]
) -> tuple[np.ndarray, int, int]:
    """Copy the items that `missing` returns into the spool.

    Returns:
        (n,) keys of all items, sorted; how many texts were spooled; their tokens.

    Raises:
        PermanentError: There is no items file, or it has other columns.
        TransientError: The store cannot be reached.
    """
    keys, texts, tokens = [np.empty(0, f"S{KEY_BYTES}")], 0, 0
    try:
        with filesystem.open_input_file(path) as file:
            for batch in pq.ParquetFile(file).iter_batches(4_096, columns=["text_hash", "text", "token_count"]):
                keys.append(as_keys(batch.column("text_hash")).copy())
                absent = pa.array(missing(batch.column("text_hash")), pa.string())
                wanted = batch.filter(pa.compute.is_in(batch.column("text_hash"), absent))
                if wanted.num_rows:
                    spool.add(*wanted.columns)
                    texts += wanted.num_rows
                    tokens += int(pa.compute.sum(wanted.column("token_count")).as_py())
    except FileNotFoundError as error:
        raise PermanentError(f"no items file at {path}; run the embeddings asset to write it") from error
    except (pa.ArrowInvalid, ValueError) as error:
        raise PermanentError(f"{path} is not an items file: {error}") from error
    except OSError as error:
        raise TransientError(f"cannot read {path}: {error}") from error
    return np.sort(np.concatenate(keys)), texts, tokens
