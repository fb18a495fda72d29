"""The collection on a real Milvus Lite server: rows in, rows out, aliases, search under filters."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest

from rag_core import ids
from rag_core.config import IndexConfig
from rag_core.errors import ConfigError, FingerprintMismatchError, PermanentError, TransientError
from rag_core.index import lite_server
from rag_core.index.bm25 import count_terms
from rag_core.index.client import IndexClient, connect
from rag_core.index.lexical import index_terms
from rag_core.index.publish import point_alias, published_collection
from rag_core.retrieval.exact import exact_top_k
from rag_core.retrieval.filters import SearchFilters
from rag_core.retrieval.ranking import Mode
from rag_core.retrieval.search import Hit, search, search_documents
from rag_core.tables.store import Store
from tests.index_support import CONFIG, DIM, EPOCH, MODEL, PARTITION, chunk_id, doc_id, rows, vector, word

pytestmark = pytest.mark.milvus
OTHER_PARTITION = "handbook__01"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndexClient]:
    store = Store(str(tmp_path_factory.mktemp("store")))
    with connect(CONFIG, store) as connected:
        yield connected
    lite_server.stop(lite_server.lite_files(store))


@pytest.fixture
def collection(client: IndexClient) -> Iterator[str]:
    name = f"c_{uuid4().hex[:8]}"
    client.ensure_collection(name, dim=DIM, model_fingerprint=MODEL)
    client.ensure_partition(name, PARTITION)
    yield name
    client.drop_collection(name)


@pytest.fixture(scope="module")
def filled(client: IndexClient) -> str:
    """Chunks 0 to 199 in one partition, 200 to 299 in another, and two with awkward values."""
    client.ensure_collection("filled", dim=DIM, model_fingerprint=MODEL)
    for key, numbers in ((PARTITION, range(200)), (OTHER_PARTITION, range(200, 300))):
        client.ensure_partition("filled", key)
        client.upsert("filled", key, rows(numbers))
    client.upsert("filled", PARTITION, rows([900], mime='text/"plain\\" or true', modified_at=None))
    client.upsert("filled", PARTITION, rows([901], mime="it's \\ new\nline\t«é»", language=None))
    client.flush("filled")
    return "filled"


def find(client: IndexClient, collection: str, number: int, mode: Mode = "hybrid", **options: object) -> list[Hit]:
    options = {"top_k": 5, "model_fingerprint": MODEL, "vector": vector(number)} | options
    return search(client, collection, text=word(number), mode=mode, **options)  # type: ignore[arg-type]


def test_upsert_of_the_same_rows_leaves_no_duplicates(client: IndexClient, collection: str) -> None:
    for _ in range(2):
        client.upsert(collection, PARTITION, rows(range(120)))
        client.flush(collection)
    client.upsert(collection, PARTITION, rows(range(120), title="New"))
    assert client.count(collection, PARTITION) == client.count(collection) == 120
    assert client.list_ids(collection, PARTITION) == sorted(map(chunk_id, range(120)))
    assert client.fetch(collection, PARTITION, [chunk_id(7)], ["title"])[chunk_id(7)]["title"] == "New"


def test_count_is_of_the_partition(client: IndexClient, filled: str) -> None:
    assert client.count(filled, PARTITION) == 202
    assert client.count(filled, OTHER_PARTITION) == 100
    assert client.count(filled) == 302
    assert client.count(filled, "absent__00") == 0
    assert client.partitions(filled) == [PARTITION, OTHER_PARTITION]


def test_listing_is_not_bounded_by_a_page(client: IndexClient, filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag_core.index.client._PAGE", 7)
    listed = [row["chunk_id"] for row in client.list_rows(filled, OTHER_PARTITION, ["row_hash"])]
    assert listed == sorted(map(chunk_id, range(200, 300)))


def test_deleted_chunk_is_not_found_in_any_way(client: IndexClient, collection: str) -> None:
    client.upsert(collection, PARTITION, rows(range(20)))
    client.flush(collection)
    assert {hit.chunk_id for hit in find(client, collection, 3)} >= {chunk_id(3)}
    client.delete(collection, PARTITION, [chunk_id(3), chunk_id(999)])
    for flushed in (False, True):
        if flushed:
            client.flush(collection)
        assert client.fetch(collection, PARTITION, [chunk_id(3)], ["text"]) == {}
        for mode in ("dense", "bm25", "hybrid"):
            assert chunk_id(3) not in {hit.chunk_id for hit in find(client, collection, 3, mode, top_k=100)}
        assert client.count(collection, PARTITION) == 19


def test_rows_keep_their_values(client: IndexClient, filled: str) -> None:
    hit = find(client, filled, 7)[0]
    row = rows([7]).to_pylist()[0]
    assert hit.to_dict() == {
        "chunk_id": row["chunk_id"],
        "doc_id": row["doc_id"],
        "external_id": "7",
        "uri": row["uri"],
        "title": "Title",
        "heading_path": ["Part", "Chapter 7"],
        "page": 1,
        "span": [row["char_start"], row["char_end"]],
        "ordinal": 0,
        "score": pytest.approx(2 / 61),
        "text": row["text"],
        "source": "handbook",
        "mime": "text/markdown",
        "language": "en",
        "modified_at_ms": int((EPOCH + timedelta(days=7)).timestamp() * 1000),
    }
    unknown = find(client, filled, 901)[0]
    assert (unknown.language, unknown.page, unknown.mime) == (None, 1, "it's \\ new\nline\t«é»")


def test_long_values_are_cut_at_a_character(client: IndexClient, collection: str) -> None:
    client.upsert(collection, PARTITION, rows([1], title="é" * 3000, text="wörd " * 20_000, context="", language="de"))
    row = client.fetch(collection, PARTITION, [chunk_id(1)], ["title", "text"])[chunk_id(1)]
    assert row["title"] == "é" * 1024
    assert len(row["text"].encode()) <= 65_535


@pytest.mark.parametrize("dim", [8, 32])
def test_wrong_dimension_is_refused_before_the_call(client: IndexClient, collection: str, dim: int) -> None:
    wrong = (
        rows([1]).drop_columns("vector").append_column("vector", pa.array([vector(1, dim=dim)], pa.list_(pa.float32())))
    )
    with pytest.raises(FingerprintMismatchError, match=f"dimension {dim}.*{DIM}"):
        client.upsert(collection, PARTITION, wrong)
    with pytest.raises(FingerprintMismatchError, match=str(dim)):
        find(client, collection, 1, vector=vector(1, dim=dim))


def test_other_model_is_refused(client: IndexClient, collection: str) -> None:
    with pytest.raises(FingerprintMismatchError, match=f"other.*{MODEL}"):
        client.upsert(collection, PARTITION, rows([1], model_fingerprint="other"))
    with pytest.raises(FingerprintMismatchError, match=f"other.*{MODEL}"):
        find(client, collection, 1, model_fingerprint="other")
    with pytest.raises(FingerprintMismatchError, match="other"):
        client.ensure_collection(collection, dim=DIM, model_fingerprint="other")
    with pytest.raises(PermanentError, match="vector"):
        find(client, collection, 1, "dense", vector=None)


def test_ensure_collection_completes_what_a_crash_left(client: IndexClient, collection: str) -> None:
    client._connection.call("", lambda milvus: milvus.release_collection(collection))
    client._connection.call("", lambda milvus: milvus.drop_index(collection, "sparse"))
    client.ensure_collection(collection, dim=DIM, model_fingerprint=MODEL)
    client.upsert(collection, PARTITION, rows(range(5)))
    assert find(client, collection, 2, "bm25")[0].chunk_id == chunk_id(2)


def test_build_and_search_parameters_reach_lite(client: IndexClient, tmp_path: Path) -> None:
    config = IndexConfig(uri=client.address, index_type="HNSW", build_params={"M": 2, "efConstruction": 4})
    with connect(config, Store(str(tmp_path))) as other:
        other.ensure_collection("hnsw", dim=DIM, model_fingerprint=MODEL)
        described = other._connection.call("", lambda milvus: milvus.describe_index("hnsw", "dense"))
        assert described["index_type"] == "HNSW"
        assert described["params"] == {"M": 2, "efConstruction": 4}
        other.ensure_partition("hnsw", PARTITION)
        other.upsert("hnsw", PARTITION, rows(range(1000)))
        other.flush("hnsw")
        found = {}
        for ef in (1, 1000):
            hits = [find(other, "hnsw", n, "dense", search_params={"ef": ef}) for n in range(5000, 5020)]
            found[ef] = [hit.chunk_id for some in hits for hit in some]
        assert found[1] != found[1000]
        other.drop_collection("hnsw")


def test_alias_moves_in_one_step(client: IndexClient, filled: str, collection: str) -> None:
    client.upsert(collection, PARTITION, rows([5], "v2"))
    alias = f"a_{collection}"
    assert published_collection(client, alias) is None
    with pytest.raises(PermanentError, match="nothing is published"):
        find(client, alias, 5)
    for _ in range(2):
        point_alias(client, alias, filled)
        assert find(client, alias, 5)[0].chunk_id == chunk_id(5)
    assert point_alias(client, alias, collection) == filled
    assert published_collection(client, alias) == collection
    assert [hit.chunk_id for hit in find(client, alias, 5)] == [chunk_id(5, "v2")]
    with pytest.raises(PermanentError, match="no collection absent"):
        point_alias(client, alias, "absent")
    client.drop_alias(alias)
    client.drop_alias(alias)
    assert published_collection(client, alias) is None


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
def test_search_finds_the_chunk_and_ranks_each_once(client: IndexClient, filled: str, mode: Mode) -> None:
    for number in (0, 150, 299):
        hits = find(client, filled, number, mode)
        assert hits[0].chunk_id == chunk_id(number)
        assert len({hit.chunk_id for hit in hits}) == len(hits)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_bm25_prefers_rare_words_and_short_texts(client: IndexClient, collection: str) -> None:
    texts = ["rare and common", "common", "common common words of a longer text", "rare", "other"]
    for number, text in enumerate(texts):
        client.upsert(collection, PARTITION, rows([number], text=text, context=""))
    statistics = count_terms(index_terms(text, "en").split() for text in texts)
    for _ in range(2):
        hits = search(client, collection, text="rare common", mode="bm25", statistics=statistics)
        assert [hit.text for hit in hits[:2]] == ["rare and common", "rare"]
        assert len(hits) == 4
        assert all(hit.score > 0 for hit in hits)
        client.flush(collection)


@pytest.mark.parametrize(
    ("language", "text", "questions"),
    [
        (
            "en",
            "Employees may resign with a notice of four weeks.",
            ["resigning employee", "notices", "a week's NOTICE"],
        ),
        (None, "To be, or not to be", ["to be or not to be", "be", "not"]),
        ("de", "Die Kündigungsfristen für Häuser", ["Häuser", "hauser", "Kündigungsfristen"]),
        ("zh", "员工可以提前四周辞职。", ["辞职", "如何辞职?", "周"]),
        ("ja", "ﾀﾜｰは東京にあります", ["東京", "タワー"]),
        ("ko", "직원은 4주 전에 사직할 수 있습니다", ["사직", "직원이"]),
        ("hi", "हिन्दी में लिखा", ["हिन्दी"]),
    ],
)
def test_bm25_finds_inflections_and_every_script(
    client: IndexClient, collection: str, language: str | None, text: str, questions: list[str]
) -> None:
    client.upsert(collection, PARTITION, rows([1], text=text, context="", language=language))
    client.upsert(collection, PARTITION, rows(range(2, 30), text="other words 今日", context=""))
    for question in questions:
        hits = search(client, collection, text=question, mode="bm25")
        assert [hit.text for hit in hits] == [text], question


def test_languages_asked_for_are_stemmed(client: IndexClient, collection: str) -> None:
    client.upsert(collection, PARTITION, rows([1], text="Spiele der Kinder", context="", language="de"))
    assert search(client, collection, text="mit Kindern", mode="bm25") == []
    german = SearchFilters(languages=("de",))
    assert len(search(client, collection, text="mit Kindern", mode="bm25", filters=german)) == 1


def test_dense_search_is_exact_on_flat(client: IndexClient, filled: str) -> None:
    vectors = np.stack([vector(number) for number in [*range(300), 900, 901]])
    names = [chunk_id(number) for number in [*range(300), 900, 901]]
    for query in range(1000, 1010):
        wanted, scores = exact_top_k(vectors, vector(query), 10)
        hits = find(client, filled, query, "dense", top_k=10)
        assert [hit.chunk_id for hit in hits] == [names[row] for row in wanted]
        assert np.allclose([hit.score for hit in hits], scores, atol=1e-5)


def test_equal_scores_rank_by_chunk_id(client: IndexClient, collection: str) -> None:
    same = rows(range(30), vector=vector(1).tolist(), text="the same words", context="")
    client.upsert(collection, PARTITION, same)
    for mode in ("dense", "bm25", "hybrid"):
        hits = search(client, collection, text="same", vector=vector(1), model_fingerprint=MODEL, mode=mode, top_k=10)  # type: ignore[arg-type]
        assert [hit.chunk_id for hit in hits] == sorted(map(chunk_id, range(30)))[:10]


@pytest.mark.parametrize("mode", ["dense", "bm25", "hybrid"])
def test_filters_hold_in_every_mode(client: IndexClient, filled: str, mode: Mode) -> None:
    label = ids.access_label(["group-2"])
    cases = {
        SearchFilters(access_labels=(label,)): {n for n in range(300) if n % 4 == 2},
        SearchFilters(doc_ids=(doc_id(3), doc_id(250))): {3, 250},
        SearchFilters(partition_keys=(OTHER_PARTITION,)): set(range(200, 300)),
        SearchFilters(partition_keys=(OTHER_PARTITION, "absent__00"), access_labels=(label,)): {
            n for n in range(200, 300) if n % 4 == 2
        },
        SearchFilters(modified_after=EPOCH + timedelta(days=290)): {*range(290, 300), 901},
        SearchFilters(modified_before=EPOCH + timedelta(days=3)): {0, 1, 2},
        SearchFilters(sources=("handbook",), expression="page == 2 or page == 1", doc_ids=(doc_id(1), doc_id(3))): {1},
        SearchFilters(mimes=('text/"plain\\" or true',)): {900},
        SearchFilters(mimes=("it's \\ new\nline\t«é»",)): {901},
        SearchFilters(mimes=('x"] or chunk_id != "',)): set(),
        SearchFilters(access_labels=()): set(),
        SearchFilters(partition_keys=("absent__00",)): set(),
    }
    for filters, numbers in cases.items():
        hits = search(
            client, filled, text="common words", vector=vector(1), model_fingerprint=MODEL, mode=mode, top_k=400,
            filters=filters,
        )  # fmt: skip
        assert {hit.chunk_id for hit in hits} == set(map(chunk_id, numbers)), filters


@pytest.mark.parametrize("text", ["", "   ", "?!…", "\x00", '"quoted" AND (odd', "x" * 100_000, "日本語 émile", "a\nb"])
def test_odd_questions_are_harmless(client: IndexClient, filled: str, text: str) -> None:
    found = search(client, filled, text=text, vector=vector(4), model_fingerprint=MODEL)
    assert chunk_id(4) in {hit.chunk_id for hit in found}
    search(client, filled, text=text, mode="bm25")


def test_malformed_expression_is_a_permanent_error(client: IndexClient, filled: str) -> None:
    with pytest.raises(PermanentError, match="no_such_field"):
        find(client, filled, 1, filters=SearchFilters(expression="no_such_field == 1"))


def test_documents_are_ranked_by_their_best_chunk(client: IndexClient, collection: str) -> None:
    # 300 chunks of one document crowd out the others until more candidates are asked for.
    crowd = rows(range(300), doc_id=doc_id(0), external_id="0", text="needle", context="", vector=vector(0).tolist())
    client.upsert(collection, PARTITION, pa.concat_tables([crowd, rows(range(300, 305), text="a needle here")]))
    for mode in ("dense", "bm25", "hybrid"):
        found = search_documents(
            client, collection, text="needle", vector=vector(0), model_fingerprint=MODEL, mode=mode, depth=6
        )  # type: ignore[arg-type]
        assert found[0].doc_id == doc_id(0), (mode, found)
        assert {one.external_id for one in found} == {"0", "300", "301", "302", "303", "304"}
    assert len(search_documents(client, collection, text="needle", mode="bm25", depth=2)) == 2


def test_index_build_is_verified(client: IndexClient, filled: str) -> None:
    assert client.wait_until_indexed(filled) == 302


def test_configured_server_is_used_and_none_is_started(client: IndexClient, filled: str, tmp_path: Path) -> None:
    config = IndexConfig(uri=client.address, timeout_s=5.0)
    with connect(config, Store(str(tmp_path))) as other:
        assert other.capabilities.kind == "lite"
        assert filled in other.collections()
    assert list(tmp_path.iterdir()) == []


def test_unreachable_server_is_a_transient_error_with_its_address(tmp_path: Path) -> None:
    config = IndexConfig(uri="http://127.0.0.1:1", timeout_s=1.0)
    with pytest.raises(TransientError, match=r"127\.0\.0\.1:1"), connect(config, Store(str(tmp_path))):
        pass


def test_index_type_that_lite_lacks_is_refused(client: IndexClient, tmp_path: Path) -> None:
    config = IndexConfig(uri=client.address, index_type="DISKANN")
    with pytest.raises(ConfigError, match=r"DISKANN.*Milvus Lite.*FLAT"), connect(config, Store(str(tmp_path))):
        pass
