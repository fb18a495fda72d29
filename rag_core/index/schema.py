"""The Milvus collection's schema, the rows that go into it, and the names made from its fingerprint.

`text` is the chunk as a person reads it. `sparse` holds the BM25 weights of the terms of context and text.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rag_core import ids
from rag_core.chunking.model import embedded_text
from rag_core.config import IndexConfig
from rag_core.index import bm25, lexical
from rag_core.index.index_params import filled
from rag_core.index.vectors import FLOAT32, encoded

if TYPE_CHECKING:
    from pymilvus import CollectionSchema
    from pymilvus.milvus_client import IndexParams

SCHEMA_VERSION: Final = 2
PRIMARY: Final = "chunk_id"
DENSE: Final = "dense"
SPARSE: Final = "sparse"
HEADING_SEPARATOR: Final = " > "

# VARCHAR fields and their limits: bytes of UTF-8 on a server, characters on Lite.
_VARCHAR: Final[Mapping[str, int]] = {
    "chunk_id": 32,
    "doc_id": 32,
    "source": 64,
    "mime": 255,
    "language": 16,
    "access_label": 32,
    "title": 2_048,
    "uri": 4_096,
    "external_id": 1_024,
    "heading_path": 4_096,
    "text": 65_535,
    "text_hash": 32,
    "row_hash": 32,
    "model_fingerprint": 64,
}
_INT64: Final = ("modified_at", "ordinal", "char_start", "char_end", "page")
_FILTERED: Final = ("doc_id", "source", "mime", "access_label")
FIELDS: Final = (*_VARCHAR, *_INT64)

# Milvus takes no empty sparse vector; a chunk without a term gets this dimension, which no term and no question has.
_NO_TERMS: Final = {0: 1.0}
_META: Final = "rag.meta"


@dataclass(frozen=True, slots=True)
class CollectionMeta:
    """What a collection says of itself; kept with it in Milvus.

    Attributes:
        model_fingerprint: Model of its vectors; queries must be embedded by the same.
        dim: Vector dimension.
        metric: COSINE or IP.
        index_type: Of the dense field.
        schema_version: `SCHEMA_VERSION` when it was made.
        lexical: Whether it has the BM25 weights of the chunks' words.
        vector_type: Milvus data type of the dense field.
    """

    model_fingerprint: str
    dim: int
    metric: str
    index_type: str
    schema_version: int = SCHEMA_VERSION
    lexical: bool = True
    vector_type: str = FLOAT32

    def to_json(self) -> str:
        """Write for the collection's description or properties."""
        fields = asdict(self)
        if self.vector_type == FLOAT32:  # as collections say that were made before there was a choice
            del fields["vector_type"]
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> "CollectionMeta | None":
        """Read from `describe_collection`'s answer; None if the collection is not ours."""
        # Lite keeps properties and forgets descriptions; a server keeps descriptions.
        for text in (described.get("properties", {}).get(_META), described.get("description")):
            try:
                return cls(**json.loads(text or ""))
            except (TypeError, ValueError):
                continue
        return None


def index_fingerprint(config: IndexConfig, *, dim: int, model_fingerprint: str, chunker_fingerprint: str = "") -> str:
    """Fingerprint all that makes two collections different: model, chunker, schema, terms, BM25 and dense index."""
    return ids.fingerprint(
        {
            "schema": SCHEMA_VERSION,
            "dim": dim,
            "model": model_fingerprint,
            "chunker": chunker_fingerprint,
            "index_type": config.index_type,
            "metric": config.metric,
            "build_params": config.build_params,
            # Only where they are not the default, so that collections from before there was a choice keep their names.
            **({"vector_type": config.vector_type} if config.vector_type != FLOAT32 else {}),
            **({"shards": config.shards} if config.shards is not None else {}),
            **({"terms": lexical.fingerprint_parts(), "bm25": bm25.fingerprint_parts()} if config.lexical else {}),
        }
    )


def collection_name(base: str, fingerprint: str) -> str:
    """Name a collection by alias and index fingerprint, such as `rag_0f3c9a1b2d4e`."""
    return f"{re.sub(r'[^A-Za-z0-9_]', '_', base)}_{fingerprint[:12]}"


def partition_name(partition_key: str) -> str:
    """Write a Dagster partition key as a Milvus partition name: letters, digits, underscores, no digit first."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", partition_key)
    return name if name[:1].isalpha() or name.startswith("_") else f"_{name}"


def milvus_schema(dim: int, meta: CollectionMeta) -> "CollectionSchema":
    """Build the collection's schema."""
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description=meta.to_json())
    for name, limit in _VARCHAR.items():
        schema.add_field(name, DataType.VARCHAR, max_length=limit, is_primary=name == PRIMARY)
    for name in _INT64:
        schema.add_field(name, DataType.INT64)
    schema.add_field(DENSE, DataType[meta.vector_type], dim=dim)
    if meta.lexical:
        schema.add_field(SPARSE, DataType.SPARSE_FLOAT_VECTOR)
    return schema


def milvus_indexes(
    config: IndexConfig, *, lite: bool, scalar: Collection[str] = (), own_params: bool = True
) -> "dict[str, IndexParams]":
    """Build the index parameters of each indexed field.

    Args:
        config: The `index` section.
        lite: For Milvus Lite: filter fields get no index, which gains nothing there (measured at 8,000 rows: 9.7 ms
            both ways).
        scalar: Index types that the server has for filter fields.
        own_params: Whether the server has values for build parameters that are left out.
    """
    from pymilvus import MilvusClient

    def one(field: str, params: Mapping[str, Any] | None = None, **settings: Any) -> "IndexParams":
        made = MilvusClient.prepare_index_params()
        # pymilvus sends build parameters one by one, Lite reads them from one named `params` only, and without an error
        # takes its defaults.
        made.add_index(field, index_name=field, params={"params": params} if lite and params else params, **settings)
        return made

    build = config.build_params if own_params else filled(config)
    indexes = {DENSE: one(DENSE, build, index_type=config.index_type, metric_type=config.metric)}
    if config.lexical:
        indexes[SPARSE] = one(SPARSE, index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    if not lite:
        texts = "INVERTED" if "INVERTED" in scalar else "Trie"  # which servers before 2.4 have
        indexes |= {field: one(field, index_type=texts) for field in _FILTERED}
        indexes["modified_at"] = one("modified_at", index_type="STL_SORT")
    return indexes


def collection_properties(meta: CollectionMeta) -> dict[str, str]:
    """Return the properties a collection is made with."""
    return {_META: meta.to_json()}


def vectors_of(rows: pa.RecordBatch | pa.Table) -> np.ndarray:
    """Return the `vector` column as (rows, dim) float32.

    Raises:
        ValueError: A vector is missing or vectors differ in length.
    """
    column = rows.column("vector")
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    lengths = pc.list_value_length(column)
    dims = pc.unique(lengths).to_pylist()
    if column.null_count or len(dims) > 1:
        raise ValueError(f"vectors must all be there and of one dimension; found dimensions {dims}")
    values: np.ndarray = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    return values.reshape(len(column), dims[0] if dims else 0)


def milvus_rows(
    rows: pa.RecordBatch | pa.Table, *, with_words: bool = True, vector_type: str = FLOAT32
) -> Iterator[dict[str, Any]]:
    """Turn chunks joined with their vectors into rows for Milvus.

    Args:
        rows: Columns of `rag_core.schemas.CHUNKS` and `vector`, `model_fingerprint`; others are ignored.
        with_words: Whether rows get the BM25 weights of their words.
        vector_type: Milvus data type of the dense field.

    Yields:
        One row for each input row, in order. Unknown text is empty, unknown page and time are 0; title, uri and the
        like are cut to their field's limit at a character boundary.
    """
    vectors = vectors_of(rows)
    wanted = [name for name in rows.schema.names if name in FIELDS or name == "context"]
    columns = {name: rows.column(name).to_pylist() for name in wanted if name != "modified_at"}
    times = _epoch_ms(rows.column("modified_at"))
    for number, vector in enumerate(vectors):
        chunk = {name: values[number] for name, values in columns.items()}
        embedded = embedded_text(chunk.pop("context") or "", chunk["text"])
        terms = lexical.index_terms(embedded, chunk.get("language")).split() if with_words else []
        chunk["heading_path"] = HEADING_SEPARATOR.join(chunk["heading_path"] or ())
        row: dict[str, Any] = {name: fit(chunk.get(name) or "", limit) for name, limit in _VARCHAR.items()}
        row |= {name: chunk.get(name) or 0 for name in _INT64}
        row |= {"modified_at": times[number], DENSE: encoded(vector, vector_type)}
        if with_words:
            row[SPARSE] = bm25.chunk_vector(terms) or _NO_TERMS
        yield row


def fit(text: str, max_bytes: int) -> str:
    """Cut a text to at most max_bytes of UTF-8, at a character boundary."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= max_bytes else data[:max_bytes].decode("utf-8", "ignore")


def quoted(value: str) -> str:
    """Write a string literal of Milvus's filter language; the value cannot end it."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escapes.get(character, character) for character in value) + '"'


def any_of(field: str, values: Sequence[str]) -> str:
    """Write `field in [values]`."""
    return f"{field} in [{', '.join(map(quoted, values))}]"


def _epoch_ms(column: pa.Array | pa.ChunkedArray) -> list[int]:
    milliseconds = pc.cast(column, pa.timestamp("ms", tz="UTC"), safe=False).cast(pa.int64())
    values: list[int] = pc.fill_null(milliseconds, 0).to_pylist()
    return values
