"""A small identity provider: keys, tokens, and what it answers over HTTP."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

RSA_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
OTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
AUDIENCE = "rag"


def jwk(key_id: str, key: Any, **more: str) -> dict[str, Any]:
    algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {"kid": key_id, "use": "sig", **algorithm.to_jwk(key.public_key(), as_dict=True), **more}


def claims(issuer: str, **changes: Any) -> dict[str, Any]:
    """Return valid claims; a change to None leaves the claim out."""
    now = int(datetime.now(UTC).timestamp())
    valid = {"iss": issuer, "aud": AUDIENCE, "sub": "7f3a", "exp": now + 300, "iat": now, "groups": ["eng", "sales"]}
    return {name: value for name, value in {**valid, **changes}.items() if value is not None}


def token(
    payload: Mapping[str, Any], *, key: Any = RSA_KEY, key_id: str | None = "rsa-1", algorithm: str = "RS256"
) -> str:
    return jwt.encode(dict(payload), key, algorithm, headers={"kid": key_id} if key_id else {})


class Provider:
    """What a provider answers, and how often it was asked."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.keys: list[dict[str, Any]] = [jwk("rsa-1", RSA_KEY), jwk("ec-1", EC_KEY)]
        self.discovery: dict[str, Any] = {"issuer": issuer, "jwks_uri": f"{issuer}/jwks"}
        self.is_up = True
        self.asked: list[str] = []

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        if not self.is_up:
            return 500, b"down"
        if path.endswith("/.well-known/openid-configuration"):
            return 200, json.dumps(self.discovery).encode()
        return (200, json.dumps({"keys": self.keys}).encode()) if path.endswith("/jwks") else (404, b"")


@contextmanager
def running_provider() -> Iterator[Provider]:
    """Run a provider on a port of its own."""
    provider: Provider

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = provider.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = Provider(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
