import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rag_core.config import IndexConfig
from rag_core.config_index import IndexTlsConfig
from rag_core.errors import ConfigError
from rag_core.index.tls import check_handshake, client_options
from tests.integration.milvus_secured import Authority, Signed


@contextmanager
def shakes_hands(own: Signed) -> Iterator[str]:
    """A server that does nothing but the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.cert, own.key)

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    connection.sendall(b"x")
            except OSError:
                plain.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def trusting(uri: str, authority: Authority) -> IndexConfig:
    return IndexConfig(uri=uri, tls=IndexTlsConfig(ca_file=str(authority.ca)))


def test_a_certificate_that_is_out_of_date_is_told(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "a")
    with (
        shakes_hands(authority.signed("127.0.0.1", days=-1)) as uri,
        pytest.raises(ConfigError, match=rf"the certificate of {uri} is out of date"),
    ):
        check_handshake(trusting(uri, authority), uri)


def test_a_good_handshake_says_nothing(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "a")
    with shakes_hands(authority.signed("127.0.0.1")) as uri:
        check_handshake(trusting(uri, authority), uri)


def test_a_server_that_is_not_there_is_no_matter_of_trust(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for scheme in ("http", "https"):
        uri = f"{scheme}://127.0.0.1:{port}"
        check_handshake(IndexConfig(uri=uri), uri)


def test_options_of_the_client(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "a")
    ca, own = str(authority.ca), authority.signed("rag.example.org")
    assert client_options(None) == {}
    assert client_options(IndexTlsConfig(ca_file=ca)) == {"server_pem_path": ca}
    both = IndexTlsConfig(ca_file=ca, cert_file=str(own.cert), key_file=str(own.key), server_name="milvus")
    assert client_options(both) == {
        "server_name": "milvus",
        "ca_pem_path": ca,
        "client_pem_path": str(own.cert),
        "client_key_path": str(own.key),
    }
