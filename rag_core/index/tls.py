"""What is wrong between us and a server's TLS, in words: grpc only says that it could not connect.

A handshake of its own, without a request. Source: https://milvus.io/docs/tls.md
"""

import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from rag_core.config import IndexConfig
from rag_core.config_index import IndexTlsConfig
from rag_core.errors import ConfigError

_PROBE_S: Final = 5.0
_HTTP2: Final = "h2"  # what grpc speaks; a server closes on a client that does not offer it
_DEFAULT_PORT: Final = 19_530


def client_options(tls: IndexTlsConfig | None) -> dict[str, str]:
    """Return what pymilvus is given beside an https:// address; `check_handshake` has looked at the files."""
    if tls is None:
        return {}
    options = {"server_name": tls.server_name} if tls.server_name else {}
    if tls.cert_file and tls.key_file and tls.ca_file:
        files = {"ca_pem_path": tls.ca_file, "client_pem_path": tls.cert_file, "client_key_path": tls.key_file}
        return {**options, **files}
    return {**options, "server_pem_path": tls.ca_file} if tls.ca_file else options


def check_handshake(config: IndexConfig, address: str) -> None:
    """Try the handshake that a client makes.

    A server that is not reached is none of this function's business: it may be there again in a moment.

    Args:
        config: The `index` section.
        address: http(s)://host:port.

    Raises:
        ConfigError: A file is not there or is not what its key says; the two sides do not trust each other; one speaks
            TLS and the other does not.
    """
    parts = urlsplit(address)
    where = (parts.hostname or "", parts.port or _DEFAULT_PORT)
    if parts.scheme != "https":
        if _speaks_tls(where):
            raise ConfigError(f"index.uri: the server at {address} speaks TLS; write https:// instead of http://")
        return
    tls = config.tls or IndexTlsConfig()
    try:
        _shake_hands(_context(tls), where, tls.server_name or where[0])
    except ssl.SSLError as error:
        raise ConfigError(_explained(error, tls, address)) from error
    except OSError:
        return


def _shake_hands(context: ssl.SSLContext, where: tuple[str, int], name: str) -> None:
    # In TLS 1.3 a server that misses our certificate says so after the handshake. One that is content begins HTTP/2 by
    # itself, and one that waits for us has nothing to say against us.
    with (
        socket.create_connection(where, timeout=_PROBE_S) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
        suppress(TimeoutError),
    ):
        connection.recv(1)


def _speaks_tls(where: tuple[str, int]) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent to whoever it is
    context.set_alpn_protocols([_HTTP2])
    try:
        _shake_hands(context, where, where[0])
    except ssl.SSLError as error:
        return "CERTIFICATE_REQUIRED" in str(error).upper().replace(" ", "_")
    except OSError:
        return False
    return True


def _context(tls: IndexTlsConfig) -> ssl.SSLContext:
    for key in ("ca_file", "cert_file", "key_file"):
        path = getattr(tls, key)
        if path is not None and not Path(path).is_file():
            raise ConfigError(f"index.tls.{key}: there is no file {path}; it must be readable where the run is")
    key = "ca_file"
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        key = "cert_file"
        if tls.cert_file:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except (ssl.SSLError, OSError) as error:
        pair = f"{tls.cert_file} with the key {tls.key_file}" if key == "cert_file" else tls.ca_file
        raise ConfigError(f"index.tls.{key}: {pair} cannot be used ({error}); PEM files are expected") from error
    context.set_alpn_protocols([_HTTP2])
    return context


def _explained(error: ssl.SSLError, tls: IndexTlsConfig, address: str) -> str:
    said: Any = getattr(error, "verify_message", "") or error.reason or error
    text = str(said).replace("_", " ").lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        if "mismatch" in text or "not valid for" in text:
            return (
                f"index.tls.server_name: {address} shows a certificate for another name ({said}); write the name that "
                "is in it"
            )
        trusted = f"signed by none of {tls.ca_file}" if tls.ca_file else "signed by no public authority"
        trusted = "out of date" if "expired" in text or "not yet" in text else trusted
        return (
            f"index.tls.ca_file: the certificate of {address} is {trusted} ({said}); expected the file of the "
            "authority that signed it"
        )
    if "wrong version" in text or "record layer" in text or "packet length" in text:
        return f"index.uri: {address} does not speak TLS ({said}); write http:// instead, or switch TLS on there"
    if "certificate required" in text or "bad certificate" in text or "unknown ca" in text:
        return (
            f"index.tls.cert_file: {address} does not accept our certificate ({said}); it expects one of an authority "
            "that it trusts, with its key_file and ca_file"
        )
    return f"index.tls: no TLS with {address} ({said})"
