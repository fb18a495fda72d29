"""Who asks, as the rest of the service knows them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who was let in.

    Attributes:
        id: Stable name, such as `key:ci-bot`, `user:7f3a@https://id.example.com` or `local`; for audit and tables.
        principals: Names that documents may admit; the caller sees a document if it admits any of them.
        sees_all: Whether every document is shown: only the operator of a service on loopback without keys.
    """

    id: str
    principals: frozenset[str] = frozenset()
    sees_all: bool = False


LOCAL = Caller("local", sees_all=True)
"""Whoever asks a service on loopback that has no keys and no identity provider."""
