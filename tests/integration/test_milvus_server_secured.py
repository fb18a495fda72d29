"""TLS and users of a real server: who is let in, and what the others are told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rag_core.index.client import connect
from rag_core.tables.store import Store
from tests.index_support import DIM, MODEL, PARTITION, rows
from tests.integration.milvus_secured import PASSWORD, Authority, index, refusal, tls_options
from tests.integration.pipeline_helpers import Platform
from tests.production.services import milvus

pytestmark = [pytest.mark.milvus_server, pytest.mark.slow]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    pytest.importorskip("milvus", reason="the package `milvus` with the standalone server is not installed")
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[str]:
    """One whose certificate is for 127.0.0.1, with users."""
    own = authority.signed("127.0.0.1")
    ready = {"server_pem_path": str(authority.ca), "token": f"root:{PASSWORD}"}
    options = [*tls_options(own, authority, mode=1), "--authorization-enabled", "true"]
    with milvus(tmp_path_factory.mktemp("tls"), *options, scheme="https", login=ready) as uri:
        yield uri


def test_rows_are_written_and_found_through_tls(tmp_path: Path, tls_server: str, authority: Authority) -> None:
    with connect(index(tls_server, ca_file=authority.ca), Store(str(tmp_path))) as client:
        assert client.capabilities.label == "Milvus standalone 2.3.5"
        client.ensure_collection("secured", dim=DIM, model_fingerprint=MODEL)
        client.ensure_partition("secured", PARTITION)
        assert client.upsert("secured", PARTITION, rows(range(5))) == 5
        assert client.count("secured", PARTITION) == 5


@pytest.mark.parametrize("token", ["root:wrong", "nobody:Milvus", None])
def test_a_wrong_token_is_refused_by_name(
    tmp_path: Path, tls_server: str, authority: Authority, token: str | None
) -> None:
    said = refusal(index(tls_server, token=token, ca_file=authority.ca), tmp_path)
    assert "RAG_INDEX__TOKEN" in said
    assert "unavailable" not in said  # as pymilvus calls it


def test_a_server_of_another_authority_is_refused(tmp_path: Path, tls_server: str) -> None:
    other = Authority(tmp_path / "other")
    said = refusal(index(tls_server, ca_file=other.ca), tmp_path)
    assert f"index.tls.ca_file: the certificate of {tls_server} is signed by none of {other.ca}" in said


def test_a_server_that_no_public_authority_signed_is_refused(tmp_path: Path, tls_server: str) -> None:
    assert "signed by no public authority" in refusal(index(tls_server), tmp_path)


def test_http_to_a_server_with_tls_is_told(tmp_path: Path, tls_server: str) -> None:
    plain = tls_server.replace("https://", "http://")
    assert f"the server at {plain} speaks TLS; write https://" in refusal(index(plain), tmp_path)


def test_files_that_are_not_what_they_should_be(tmp_path: Path, authority: Authority) -> None:
    ours = authority.signed("rag.example.org")
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    uri = "https://127.0.0.1:9"
    assert "index.tls.ca_file: there is no file" in refusal(index(uri, ca_file=tmp_path / "none.pem"), tmp_path)
    assert "PEM files are expected" in refusal(index(uri, ca_file=empty), tmp_path)
    wrong = index(uri, ca_file=authority.ca, cert_file=ours.cert, key_file=empty)
    assert "index.tls.cert_file" in refusal(wrong, tmp_path)


def test_the_whole_pipeline_through_tls(tmp_path: Path, tls_server: str, authority: Authority) -> None:
    """Certificates from rag.yaml, the login from the environment; both reach every process of a run."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "printers.md").write_text("# Printers\n\nPrinters are repaired by the workshop. Call extension 4417.\n")
    settings = {"uri": tls_server, "lexical": False, "tls": {"ca_file": str(authority.ca)}, "timeout_s": 30}
    source = {"name": "office", "kind": "files", "root": str(corpus)}
    one = Platform(tmp_path / "rag", [source], {"index": {**settings, "alias": "secured_pipeline"}})
    login = {"RAG_INDEX__TOKEN": f"root:{PASSWORD}"}
    made = one.rag("run", **login)
    assert made.returncode == 0, made.stderr
    found = one.rag("search", "who repairs printers", "--mode", "dense", **login)
    assert "4417" in found.stdout
    doctor = one.rag("doctor", **login)
    assert f"Milvus standalone 2.3.5 at {tls_server} lets us in" in doctor.stdout
    refused = one.rag("search", "who repairs printers", "--mode", "dense", RAG_INDEX__TOKEN="root:other")
    assert refused.returncode != 0
    assert "RAG_INDEX__TOKEN" in refused.stderr
    assert "root:other" not in refused.stderr + refused.stdout
    doctor = one.rag("doctor", RAG_INDEX__TOKEN="root:other")
    assert doctor.returncode == 1
    assert "fail Milvus" in doctor.stdout
    assert "RAG_INDEX__TOKEN" in doctor.stdout
