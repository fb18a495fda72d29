"""The public keys of an identity provider, kept and renewed.

PyJWT's own client is not used: it forgets its keys when the provider is gone for longer than they live, and asks a
provider that is gone once for each request.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from rag_core.config_serving import OidcConfig
from serving.errors import ApiError

_LOG: Final = logging.getLogger(__name__)
_FRESH_S: Final = 300.0
"""Keys that are older are renewed beside the requests, which use them meanwhile."""
_OLD_S: Final = 3600.0
"""Keys that are older are renewed first: one that was withdrawn must not open anything after a quiet night."""
_AGAIN_S: Final = 30.0
"""So long after the keys were fetched, an unknown key ID does not fetch them again: guessed IDs must not hammer."""
_AGAIN_AFTER_FAILURE_S: Final = 5.0
_MAX_BYTES: Final = 1024 * 1024

KINDS: Final[Mapping[str, tuple[str, ...]]] = {"RSA": ("RS", "PS"), "EC": ("ES",), "OKP": ("EdDSA",)}
"""Kinds of public keys, and how the names of their algorithms begin. A shared secret (`oct`) is none."""


@dataclass(frozen=True)
class SigningKey:
    """A public key of the provider.

    Attributes:
        key: As `cryptography` has it.
        kind: `RSA`, `EC` or `OKP`.
        algorithm: The only one it is published for; None: any of its kind.
    """

    key: Any
    kind: str
    algorithm: str | None


class SigningKeys:
    """Signing keys by key ID. Keys that were fetched once stay usable while the provider cannot be reached."""

    def __init__(
        self, config: OidcConfig, *, clock: Callable[[], float] = monotonic, client: httpx.AsyncClient | None = None
    ) -> None:
        self._issuer, self._jwks_url, self._timeout_s = config.issuer or "", config.jwks_url, config.timeout_s
        self._clock = clock
        self._client = client or httpx.AsyncClient(timeout=config.timeout_s, headers={"Accept": "application/json"})
        self._keys: Mapping[str, SigningKey] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, key_id: str) -> SigningKey | None:
        """Return a key; None if the provider has none of that ID.

        Raises:
            ApiError: 503, the key is not known, and the provider cannot be reached to ask for it.
        """
        age = self._clock() - self._fetched_at
        if key_id not in self._keys or age > _FRESH_S:
            fetching = self._fetch_if_due()
            if fetching is not None and (key_id not in self._keys or (age > _OLD_S and not self._failed)):
                await asyncio.shield(fetching)
        if key_id not in self._keys and self._failed:
            wait_s = max(1.0, self._tried_at + _AGAIN_AFTER_FAILURE_S - self._clock())
            message = "the identity provider cannot be reached to check the token; try again later"
            raise ApiError(503, "identity_provider_unavailable", message, retry_after_s=wait_s)
        return self._keys.get(key_id)

    async def close(self) -> None:
        """Close the connections."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
        await self._client.aclose()

    def _fetch_if_due(self) -> asyncio.Task[None] | None:
        """Return the fetch that is going on, or begin one unless the last was just now."""
        pause_s = _AGAIN_AFTER_FAILURE_S if self._failed else _AGAIN_S
        if self._fetching is None and self._clock() - self._tried_at >= pause_s:
            self._tried_at = self._clock()
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                url = self._jwks_url or await self._discovered()
                self._keys = _usable(await self._json(url))
            self._fetched_at = self._clock()
            if self._failed:
                _LOG.info("the identity provider's keys were fetched again")
            self._failed = False
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
            if not self._failed:
                _LOG.error("the keys of the identity provider %s cannot be fetched: %s", self._issuer, _said(error))
            self._failed = True
        finally:
            self._tried_at = self._clock()
            self._fetching = None

    async def _discovered(self) -> str:
        """Return the address of the keys. Source: OpenID Connect Discovery 1.0, section 4."""
        document = await self._json(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        if document.get("issuer") != self._issuer:
            raise ValueError("its discovery document is that of another issuer than `serving.access.oidc.issuer`")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https"):
            raise ValueError("its discovery document has no jwks_uri with http or https")
        return url

    async def _json(self, url: str) -> dict[str, Any]:
        async with self._client.stream("GET", url) as answer:
            if answer.status_code != 200:
                raise ValueError(f"{url} answered with status {answer.status_code}, expected 200")
            content = bytearray()
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > _MAX_BYTES:
                    raise ValueError(f"{url} answered with more than {_MAX_BYTES:,} bytes")
        value = httpx.Response(200, content=bytes(content)).json()
        if not isinstance(value, dict):
            raise ValueError(f"{url} did not answer with a JSON object")
        return value


def _usable(document: Mapping[str, Any]) -> dict[str, SigningKey]:
    """Return the keys for signatures that have an ID; keys of kinds that are not known are passed over."""
    listed = document.get("keys")
    found: dict[str, SigningKey] = {}
    for item in listed if isinstance(listed, list) else ():
        if not isinstance(item, dict) or item.get("kty") not in KINDS or item.get("use", "sig") != "sig":
            continue
        key_id = item.get("kid")
        with suppress(PyJWTError):
            if isinstance(key_id, str):
                found[key_id] = SigningKey(PyJWK(item).key, item["kty"], item.get("alg"))
    if not found:
        raise ValueError("there is no key for signatures in the provider's key set")
    return found


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
