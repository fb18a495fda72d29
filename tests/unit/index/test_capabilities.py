from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from rag_core.config import IndexConfig
from rag_core.config_index import BulkImportConfig
from rag_core.errors import ConfigError
from rag_core.index.capabilities import (
    capabilities,
    check_index_config,
    local_capabilities,
    parse_version,
    server_kind,
)
from rag_core.index.index_params import filled

LITE = capabilities("lite", (3, 2, 2))
OLD = capabilities("standalone", (2, 3, 5))
STANDALONE = capabilities("standalone", (2, 5, 4))
CLUSTER = capabilities("cluster", (2, 6, 6))


@pytest.mark.parametrize(
    ("text", "version"),
    [("milvus_lite-3.2.2", (3, 2, 2)), ("v2.6.6", (2, 6, 6)), ("2.3.5-dev", (2, 3, 5)), ("2.5", (2, 5, 0))],
)
def test_version_is_read(text: str, version: tuple[int, int, int]) -> None:
    assert parse_version(text) == version


def test_unreadable_version_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        parse_version("nonsense")


@pytest.mark.parametrize(
    ("version", "mode", "kind"),
    [
        ("milvus_lite-3.2.2", "embedded", "lite"),
        ("v2.6.6", "STANDALONE", "standalone"),
        ("2.3.5-dev", "", "standalone"),
        ("v2.6.6", "DISTRIBUTED", "cluster"),
        ("v2.6.6", "CLUSTER", "cluster"),
    ],
)
def test_kind_is_told_from_the_answer(version: str, mode: str, kind: str) -> None:
    assert server_kind(version, mode) == kind


def test_default_configuration_suits_the_installed_lite() -> None:
    check_index_config(IndexConfig(), local_capabilities(), partitions=64)
    assert local_capabilities().kind == "lite"


@pytest.mark.parametrize("index_type", ["IVF_PQ", "DISKANN", "GPU_CAGRA", "HNSW_PQ", "MADE_UP", "hnsw"])
def test_index_type_that_lite_lacks_names_what_it_has(index_type: str) -> None:
    with pytest.raises(ConfigError, match=rf"index\.index_type: '{index_type}'.*Milvus Lite 3\.2\.2.*FLAT, HNSW"):
        check_index_config(IndexConfig(index_type=index_type), LITE)


def test_server_offers_grow_with_its_version() -> None:
    for index_type in ("IVF_PQ", "DISKANN", "GPU_CAGRA", "HNSW_PQ", "IVF_RABITQ"):
        check_index_config(IndexConfig(index_type=index_type), CLUSTER)
    with pytest.raises(ConfigError, match=r"IVF_RABITQ.*standalone 2\.5\.4"):
        check_index_config(IndexConfig(index_type="IVF_RABITQ"), STANDALONE)
    assert "FLOAT16_VECTOR" in STANDALONE.vector_types
    assert "FLOAT16_VECTOR" not in LITE.vector_types | OLD.vector_types
    assert "BITMAP" in STANDALONE.scalar_index_types
    assert LITE.scalar_index_types == {"INVERTED"}
    assert (LITE.concurrent_writers, STANDALONE.concurrent_writers) == (False, True)


def test_server_without_sparse_vectors_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"index\.lexical.*2\.3\.5.*sparse vectors.*false.*2\.4"):
        check_index_config(IndexConfig(), OLD)
    check_index_config(IndexConfig(lexical=False), OLD)


def test_users_and_tls_need_a_server() -> None:
    with pytest.raises(ConfigError, match=r"index\.token.*has no users"):
        check_index_config(IndexConfig(token=SecretStr("root:Milvus")), LITE)
    with pytest.raises(ConfigError, match=r"index\.uri.*has no TLS"):
        check_index_config(IndexConfig(uri="https://host:19530"), LITE)
    check_index_config(IndexConfig(uri="https://host:19530", token=SecretStr("root:Milvus")), STANDALONE)


def test_too_many_partitions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"buckets: 1025 partitions.*1024"):
        check_index_config(IndexConfig(), STANDALONE, partitions=1025)


@pytest.mark.parametrize(
    ("index_type", "build", "search", "message"),
    [
        ("HNSW", {"m": 16}, {}, r"build_params\.m: no such parameter of HNSW.*M, efConstruction"),
        ("HNSW", {"M": "16"}, {}, r"build_params\.M: '16'.*integer 2 to 2048"),
        ("HNSW", {"M": True}, {}, r"build_params\.M: True"),
        ("HNSW", {"M": 1}, {}, r"build_params\.M: 1"),
        ("HNSW", {}, {"nprobe": 4}, r"search_params\.nprobe: no such parameter.*takes ef"),
        ("HNSW", {}, {"ef": 0}, r"search_params\.ef: 0"),
        ("IVF_FLAT", {"nlist": 70_000}, {}, r"build_params\.nlist: 70000"),
        ("IVF_FLAT", {"nlist": 16}, {"nprobe": 17}, r"nprobe: 17 is above index\.build_params\.nlist, 16"),
        ("FLAT", {"M": 16}, {}, r"takes none"),
        ("HNSW_SQ", {"sq_type": "BF16"}, {}, r"sq_type: 'BF16'.*one of SQ8"),
    ],
)
def test_parameters_are_checked_by_index_type(
    index_type: str, build: dict[str, object], search: dict[str, object], message: str
) -> None:
    config = IndexConfig(index_type=index_type, build_params=build, search_params=search)
    with pytest.raises(ConfigError, match=message):
        check_index_config(config, LITE)


def test_right_parameters_pass() -> None:
    hnsw = IndexConfig(index_type="HNSW", build_params={"M": 16, "efConstruction": 200}, search_params={"ef": 128})
    check_index_config(hnsw, LITE)
    check_index_config(hnsw, CLUSTER)
    refined = {"M": 16, "sq_type": "BF16", "refine": True}
    config = IndexConfig(index_type="HNSW_SQ", build_params=refined, search_params={"ef": 64, "refine_k": 1.5})
    check_index_config(config, CLUSTER)


@pytest.mark.parametrize(
    ("setting", "value"), [("shards", 2), ("replicas", 2), ("resource_groups", ("searches",)), ("replicas", 1)]
)
def test_placement_needs_a_server(setting: str, value: object) -> None:
    config = IndexConfig(lexical=False, **{setting: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"index\.{setting}: Milvus Lite 3\.2\.2 keeps one copy"):
        check_index_config(config, LITE)
    check_index_config(config, OLD)


@pytest.mark.parametrize("vector_type", ["FLOAT16_VECTOR", "BFLOAT16_VECTOR"])
def test_vectors_of_16_bits_need_milvus_2_4(vector_type: str) -> None:
    config = IndexConfig(lexical=False, vector_type=vector_type)  # type: ignore[arg-type]
    for offered in (LITE, OLD):
        with pytest.raises(ConfigError, match=rf"index\.vector_type: .*{offered.label} has no {vector_type}.*2\.4"):
            check_index_config(config, offered)
    check_index_config(config, STANDALONE)


def test_imports_need_a_server() -> None:
    config = IndexConfig(lexical=False, bulk_import=BulkImportConfig(to="s3://milvus/imports"))
    with pytest.raises(ConfigError, match=r"index\.bulk_import: Milvus Lite .* imports no Parquet files"):
        check_index_config(config, LITE)
    check_index_config(config, OLD)
    with pytest.raises(ValidationError, match="vector_type is FLOAT16_VECTOR"):
        IndexConfig(vector_type="FLOAT16_VECTOR", bulk_import=BulkImportConfig(to="s3://milvus/imports"))


def test_mmap_of_one_collection_needs_milvus_2_4() -> None:
    config = IndexConfig(lexical=False, mmap=True)
    for offered in (LITE, OLD):
        with pytest.raises(ConfigError, match=rf"index\.mmap: {offered.label} .*2\.4"):
            check_index_config(config, offered)
    check_index_config(config, STANDALONE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"uri": "http://host:19530", "tls": {"ca_file": "ca.pem"}}, "uri is http://host:19530; write https"),
        ({"tls": {}}, "uri is empty"),
        ({"uri": "https://host:19530", "tls": {"cert_file": "a", "ca_file": "c"}}, "cert_file and key_file belong"),
        ({"uri": "https://host:19530", "tls": {"cert_file": "a", "key_file": "b"}}, "need ca_file"),
    ],
)
def test_certificates_that_would_not_be_used_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        IndexConfig(**settings)


def test_old_servers_are_given_what_they_have_no_value_for() -> None:
    assert filled(IndexConfig(index_type="HNSW", build_params={"M": 8})) == {"M": 8, "efConstruction": 200}
    assert filled(IndexConfig(index_type="IVF_SQ8")) == {"nlist": 128}
    assert filled(IndexConfig()) == {}
    parts = IndexConfig(index_type="IVF_PQ", lexical=False)
    with pytest.raises(ConfigError, match=r"index\.build_params\.m: IVF_PQ on Milvus standalone 2\.3\.5 needs it"):
        check_index_config(parts, OLD)
    check_index_config(parts, STANDALONE)
    check_index_config(parts.model_copy(update={"build_params": {"m": 4}}), OLD)
