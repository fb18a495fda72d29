from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.config import IndexConfig
from rag_core.index.bm25 import term_id
from rag_core.index.schema import (
    CollectionMeta,
    collection_name,
    collection_properties,
    fit,
    index_fingerprint,
    milvus_rows,
    milvus_schema,
    partition_name,
    quoted,
    vectors_of,
)
from rag_core.index.vectors import decoded, tolerance
from tests.index_support import DIM, chunk_id, rows, vector


@given(st.text(), st.integers(0, 40))
def test_fit_cuts_at_a_character(text: str, limit: int) -> None:
    cut = fit(text, limit)
    assert text.startswith(cut)
    assert len(cut.encode()) <= limit
    assert cut == text or len(text[: len(cut) + 1].encode()) > limit


@pytest.mark.slow
@given(st.text())
def test_quoted_is_read_back_by_the_filter_lexer(text: str) -> None:
    from milvus_lite.search.filter.tokens import TokenKind, tokenize

    tokens = tokenize(f"mime == {quoted(text)}")
    assert [token.kind for token in tokens[2:]] == [TokenKind.STRING, TokenKind.EOF]
    assert tokens[2].value == text


def test_rows_for_milvus() -> None:
    plain, split = milvus_rows(rows([2, 3]))
    assert plain["chunk_id"] == chunk_id(2)
    assert plain["text"] == "Common words and word2v1 here."
    assert set(plain["sparse"]) == set(map(term_id, ["common", "word", "and", "word2v1", "here"]))
    assert split["text"] == "Common words and word3v1 here."
    assert set(split["sparse"]) == set(map(term_id, ["a", "b", "common", "word", "and", "word3v1", "here"]))
    assert plain["heading_path"] == "Part > Chapter 2"
    assert plain["modified_at"] == int(datetime(2026, 1, 3, tzinfo=UTC).timestamp() * 1000)
    assert plain["dense"].dtype == np.float32
    assert np.array_equal(plain["dense"], vector(2))


@pytest.mark.parametrize("vector_type", ["FLOAT16_VECTOR", "BFLOAT16_VECTOR"])
def test_rows_of_16_bits_are_packed_by_the_client(vector_type: str) -> None:
    from pymilvus.client.prepare import Prepare

    schema = milvus_schema(DIM, CollectionMeta("m", DIM, "COSINE", "FLAT", vector_type=vector_type)).to_dict()
    made = list(milvus_rows(rows([2, 3]), vector_type=vector_type))
    request = Prepare.row_insert_param("c", made, "p", schema["fields"])
    dense = next(field for field in request.fields_data if field.field_name == "dense").vectors
    packed = dense.float16_vector or dense.bfloat16_vector
    assert (dense.dim, len(packed)) == (DIM, 2 * 2 * DIM)
    read = decoded(packed, vector_type).reshape(2, DIM)
    assert np.allclose(read, [vector(2), vector(3)], rtol=0, atol=tolerance(vector_type))


def test_unknown_values_are_empty_or_zero() -> None:
    table = rows([1], title=None, modified_at=None, page=None, language=None, external_id=None, heading_path=[])
    row = next(milvus_rows(table))
    assert [row[name] for name in ("title", "language", "external_id", "heading_path")] == [""] * 4
    assert (row["modified_at"], row["page"]) == (0, 0)


def test_terms_follow_the_language() -> None:
    row = next(milvus_rows(rows([1], text="Häuser", context="", language="de")))
    assert set(row["sparse"]) == {term_id("haus"), term_id("hauser")}


def test_chunk_without_terms_has_a_vector_that_no_question_meets() -> None:
    row = next(milvus_rows(rows([1], text="--- !!", context="")))
    assert row["sparse"] == {0: 1.0}


def test_vectors_of_slices_and_variable_lists() -> None:
    table = rows(range(10))
    expected = np.stack([vector(number) for number in range(3, 7)])
    assert np.array_equal(vectors_of(table.slice(3, 4)), expected)
    variable = table.set_column(
        table.schema.get_field_index("vector"), "vector", table["vector"].cast(pa.list_(pa.float32()))
    )
    assert np.array_equal(vectors_of(variable.slice(3, 4)), expected)
    assert vectors_of(table.slice(0, 0)).shape[0] == 0


def test_vectors_of_mixed_dimensions_is_an_error() -> None:
    table = pa.table({"vector": pa.array([[1.0] * DIM, [1.0]], pa.list_(pa.float32()))})
    with pytest.raises(ValueError, match="dimension"):
        vectors_of(table)


def test_fingerprint_changes_with_what_makes_indexes_differ() -> None:
    def made(chunker: str = "c", dim: int = 4, model: str = "m", **config: object) -> str:
        return index_fingerprint(
            IndexConfig(**config),  # type: ignore[arg-type]
            dim=dim,
            model_fingerprint=model,
            chunker_fingerprint=chunker,
        )

    different = [
        made(),
        made(dim=5),
        made(model="n"),
        made(chunker="d"),
        made(index_type="HNSW"),
        made(metric="IP"),
        made(index_type="HNSW", build_params={"M": 8}),
        made(vector_type="FLOAT16_VECTOR"),
        made(vector_type="BFLOAT16_VECTOR"),
        made(shards=2),
    ]
    assert len(set(different)) == len(different)
    assert made(search_params={"ef": 3}) == made(write_batch=5) == made()
    assert made(replicas=2, resource_groups=("searches",), mmap=True) == made()


def test_fingerprint_of_collections_that_are_there_stays() -> None:
    """Another one would have every store build its collection anew. It has no words, whose terms' version moves."""
    made = index_fingerprint(IndexConfig(lexical=False), dim=384, model_fingerprint="m", chunker_fingerprint="c")
    assert made == "3dca34d06e05c497b4be6901c7a7f012"


def test_names_are_legal() -> None:
    assert collection_name("my-rag", "0123456789abcdef") == "my_rag_0123456789ab"
    assert partition_name("handbook__07") == "handbook__07"
    assert partition_name("7 a") == "_7_a"


def test_meta_is_read_from_properties_or_description() -> None:
    meta = CollectionMeta("m", 4, "COSINE", "FLAT")
    assert "vector_type" not in meta.to_json()  # which programs from before there was a choice do not know
    half = CollectionMeta("m", 4, "COSINE", "FLAT", vector_type="FLOAT16_VECTOR")
    assert CollectionMeta.from_description({"description": half.to_json()}) == half
    assert CollectionMeta.from_description({"properties": collection_properties(meta), "description": ""}) == meta
    assert CollectionMeta.from_description({"properties": {}, "description": meta.to_json()}) == meta
    assert CollectionMeta.from_description({"properties": {}, "description": "someone else's"}) is None
