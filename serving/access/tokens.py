"""Bearer tokens of an OpenID Connect provider: checked here in full, without a question to the provider for each."""

import re
from collections.abc import Mapping
from typing import Any, Final

import jwt
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuerError,
    MissingRequiredClaimError,
    PyJWTError,
)

from rag_core.config_serving import OidcConfig
from serving.access.bearer import refused
from serving.access.signing_keys import KINDS, SigningKey, SigningKeys
from serving.caller import Caller
from serving.errors import ApiError

_REASONS: Final[tuple[tuple[type[PyJWTError], str], ...]] = (
    (ExpiredSignatureError, "expired"),
    (ImmatureSignatureError, "not valid yet"),
    (InvalidAudienceError, "it is for another audience"),
    (InvalidIssuerError, "it is of another issuer"),
    (MissingRequiredClaimError, "a required claim is missing"),
)
_INVALID: Final = "not valid"
_MAX_USER_CHARS: Final = 255
"""Source: OpenID Connect Core 1.0, section 2: `sub` is at most 255 characters."""


class Tokens:
    """Judges tokens of one provider.

    A token says by which algorithm it is signed, so that is never believed: the algorithm must be one of the configured
    ones, all of them with a public key, and fit the key that the provider publishes under the token's key ID.
    """

    def __init__(self, config: OidcConfig, keys: SigningKeys) -> None:
        self._config = config
        self._keys = keys

    async def authenticate(self, token: str) -> Caller:
        """Return who a token speaks of.

        Raises:
            ApiError: 401, the token is refused. 503, the provider cannot be reached to check it.
        """
        try:
            header = jwt.get_unverified_header(token)
        except (PyJWTError, ValueError) as error:
            raise _refusal(error) from None
        key_id, algorithm = header.get("kid"), header.get("alg")
        if not isinstance(key_id, str) or algorithm not in self._config.algorithms:
            raise refused(f"token refused: {_INVALID}")  # before any key is looked for
        key = await self._keys.key(key_id)
        if key is None or not _fits(key, algorithm):
            raise refused(f"token refused: {_INVALID}")
        return self._caller(self._claims(token, key, algorithm))

    def _claims(self, token: str, key: SigningKey, algorithm: str) -> dict[str, Any]:
        config = self._config
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=config.audience,
                issuer=config.issuer,
                leeway=config.leeway_s,
                options={"require": ["exp", "iss", "aud", config.user_claim]},
            )
        except (PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise _refusal(error) from None
        return claims

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        """Make the caller of verified claims."""
        config = self._config
        user = claims[config.user_claim]
        if not isinstance(user, str) or not user.strip() or len(user) > _MAX_USER_CHARS:
            raise refused(f"token refused: claim {config.user_claim} does not name a user")
        groups = _names(claims.get(config.groups_claim))
        if groups is None:
            raise refused(f"token refused: claim {config.groups_claim} is not a list of names")
        of_groups = {config.group_prefix + group for group in groups}
        if config.user_prefix:  # a group that is called user:ann must not pass for ann
            of_groups = {name for name in of_groups if not name.startswith(config.user_prefix)}
        return Caller(f"user:{user}@{config.issuer}", frozenset({config.user_prefix + user, *of_groups}))


def _fits(key: SigningKey, algorithm: str) -> bool:
    """Tell whether a key may be used with an algorithm: its kind, and the algorithm it is published for, if any."""
    return algorithm.startswith(KINDS[key.kind]) and key.algorithm in (None, algorithm)


def _names(claim: Any) -> list[str] | None:
    """Read a claim that is a list, or text with spaces or commas; None if it is neither."""
    if claim is None:
        return []
    if isinstance(claim, str):
        return [name for name in re.split(r"[\s,]+", claim) if name]
    if isinstance(claim, list) and all(isinstance(name, str) for name in claim):
        return [name for name in claim if name.strip()]
    return None


def _refusal(error: Exception) -> ApiError:
    return refused(f"token refused: {next((said for kind, said in _REASONS if isinstance(error, kind)), _INVALID)}")
