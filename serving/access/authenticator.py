"""Who calls: by API key or by token; whoever it is, if the service is on loopback and knows of neither."""

from typing import Final

from rag_core.config_serving import AccessConfig
from rag_core.errors import ConfigError
from serving.access.bearer import bearer_of, refused
from serving.access.keys import ApiKeys
from serving.access.loopback import is_loopback
from serving.access.signing_keys import SigningKeys
from serving.access.tokens import Tokens
from serving.caller import LOCAL, Caller
from serving.errors import ApiError
from serving.observability.metrics import Metrics

_MAX_CHARS: Final = 8 * 1024
"""Longer credentials are refused unread; tokens with many groups are long, and this is what proxies let pass."""


class Authenticator:
    """Turns the `Authorization` header into a caller.

    Attributes:
        is_open: Whether everybody is let in and sees everything. Such a service must answer to its own host name only,
            or any web page that its user opens could ask it, by a name that points at loopback.
    """

    def __init__(self, config: AccessConfig, host: str, metrics: Metrics) -> None:
        """Read the keys; the provider is asked with the first token.

        Args:
            config: Keys and provider.
            host: Address that the service listens on.
            metrics: Counts refusals.

        Raises:
            ConfigError: The keys are broken, or there are none, no provider either, and others could reach the service.
        """
        self._metrics = metrics
        self._keys = ApiKeys(config) if config.keys_file or config.keys else None
        self._signing_keys = SigningKeys(config.oidc) if config.oidc.issuer else None
        self._tokens = Tokens(config.oidc, self._signing_keys) if self._signing_keys else None
        self.is_open = self._keys is None and self._tokens is None
        if self.is_open and not is_loopback(host):
            raise ConfigError(
                f"serving.host = {host}: others can reach it, and nothing says who may ask; set "
                "serving.access.keys_file (`rag keys new` writes one) or serving.access.oidc.issuer, or listen on "
                "127.0.0.1"
            )

    async def authenticate(self, authorization: str | None) -> Caller:
        """Return who calls.

        Args:
            authorization: The header as it was sent; None if it was not.

        Raises:
            ApiError: 401, nobody is known by it. 503, the identity provider cannot be reached.
        """
        if self.is_open:
            return LOCAL
        try:
            credentials = bearer_of(authorization)
            if len(credentials) > _MAX_CHARS:
                raise refused(f"refused: longer than {_MAX_CHARS:,} characters")
            if self._tokens is not None and (credentials.count(".") == 2 or self._keys is None):
                return await self._tokens.authenticate(credentials)
            assert self._keys is not None  # one of the two is there, or the service is open
            return await self._keys.authenticate(credentials)
        except ApiError as error:
            if error.status == 401:
                self._metrics.rejected.labels("auth").inc()
            raise

    async def close(self) -> None:
        """Close the connections to the identity provider."""
        if self._signing_keys is not None:
            await self._signing_keys.close()
