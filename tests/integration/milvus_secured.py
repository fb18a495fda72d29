"""Certificates made for one test, and the standalone server with TLS and users switched on."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from rag_core.config import IndexConfig
from rag_core.config_index import IndexTlsConfig
from rag_core.errors import ConfigError
from rag_core.index.client import connect
from rag_core.tables.store import Store

PASSWORD = "Milvus"  # of root, on a server that nobody has configured


@dataclass(frozen=True)
class Signed:
    """A certificate and its key, as files."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates; `ca` is the file by which they are trusted."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"authority {folder.name}")])
        self._cert = self._made(self._name, self._key, [], is_ca=True)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self._cert.public_bytes(serialization.Encoding.PEM))

    def signed(self, name: str, *, days: int = 2) -> Signed:
        """Sign a certificate for a host name or address; with fewer than no days it is out of date."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternative = x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        cert = self._made(subject, key, [alternative], days=days)
        made = Signed(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        made.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        made.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return made

    def _made(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: list[x509.GeneralName],
        *,
        is_ca: bool = False,
        days: int = 2,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=10))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def tls_options(own: Signed, authority: Authority, *, mode: int) -> list[str]:
    """Return options of `milvus-server`: mode 1 shows a certificate, mode 2 asks for the client's as well."""
    files = ["--server-pem-path", str(own.cert), "--server-key-path", str(own.key), "--ca-pem-path", str(authority.ca)]
    return ["--tls-mode", str(mode), *files]


def index(uri: str, *, token: str | None = f"root:{PASSWORD}", **tls: Any) -> IndexConfig:
    """Return an `index` section; the rest are keys of `index.tls`."""
    secret = SecretStr(token) if token else None
    certificates = IndexTlsConfig(**{key: str(value) for key, value in tls.items()}) if tls else None
    return IndexConfig(uri=uri, token=secret, tls=certificates, lexical=False, timeout_s=8)


def refusal(config: IndexConfig, folder: Path) -> str:
    """Return what a connection is refused with."""
    with pytest.raises(ConfigError) as caught, connect(config, Store(str(folder))) as client:
        client.collections()
    return str(caught.value)
