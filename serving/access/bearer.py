"""The refusals of the `Authorization` header. They never say which part of a key or a signature was wrong."""

from typing import Final

from serving.errors import ApiError

_SCHEME: Final = "Bearer"


def missing() -> ApiError:
    """Make the refusal of a request that has no credentials, or none that can be read."""
    message = "an API key or a token is needed: send the header `Authorization: Bearer <key>`"
    return ApiError(401, "no_credentials", message, headers={"WWW-Authenticate": _SCHEME})


def refused(message: str) -> ApiError:
    """Make the refusal of credentials. Source of the header: RFC 6750, section 3."""
    return ApiError(
        401, "refused_credentials", message, headers={"WWW-Authenticate": f'{_SCHEME} error="invalid_token"'}
    )


def bearer_of(authorization: str | None) -> str:
    """Return what follows `Bearer`.

    Raises:
        ApiError: 401, there is none.
    """
    scheme, _, credentials = (authorization or "").partition(" ")
    credentials = credentials.strip()
    if scheme.lower() != _SCHEME.lower() or not credentials or " " in credentials:
        raise missing()
    return credentials
