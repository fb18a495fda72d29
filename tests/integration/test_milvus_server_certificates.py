"""Servers that ask for a certificate, or have none: each test runs its own, one at a time."""

from pathlib import Path

import pytest

from rag_core.index.client import connect
from rag_core.tables.store import Store
from tests.integration.milvus_secured import Authority, index, refusal, tls_options
from tests.production.services import milvus

pytestmark = [pytest.mark.milvus_server, pytest.mark.slow]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    pytest.importorskip("milvus", reason="the package `milvus` with the standalone server is not installed")
    return Authority(tmp_path / "authority")


def test_https_to_a_server_without_tls_is_told(tmp_path: Path, authority: Authority) -> None:
    with milvus(tmp_path / "server") as uri:
        https = uri.replace("http://", "https://")
        assert f"{https} does not speak TLS" in refusal(index(https, ca_file=authority.ca), tmp_path)


def test_both_sides_show_certificates_for_other_names(tmp_path: Path, authority: Authority) -> None:
    """The server asks for the client's certificate, and its own is for a name by which it is not reached."""
    own, ours = authority.signed("milvus.example.org"), authority.signed("rag.example.org")
    ready = {
        "ca_pem_path": str(authority.ca),
        "client_pem_path": str(ours.cert),
        "client_key_path": str(ours.key),
        "server_name": "milvus.example.org",
    }
    trusted = {"ca_file": authority.ca, "server_name": "milvus.example.org"}
    with milvus(tmp_path / "mutual", *tls_options(own, authority, mode=2), scheme="https", login=ready) as uri:
        both = index(uri, token=None, cert_file=ours.cert, key_file=ours.key, **trusted)
        with connect(both, Store(str(tmp_path))) as client:
            assert client.collections() == []
        nameless = index(uri, token=None, cert_file=ours.cert, key_file=ours.key, ca_file=authority.ca)
        assert "index.tls.server_name" in refusal(nameless, tmp_path)
        assert "index.tls.cert_file" in refusal(index(uri, token=None, **trusted), tmp_path)
        stranger = Authority(tmp_path / "stranger").signed("rag.example.org")
        foreign = index(uri, token=None, cert_file=stranger.cert, key_file=stranger.key, **trusted)
        assert "index.tls.cert_file" in refusal(foreign, tmp_path)
