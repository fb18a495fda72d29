"""Which collection queries reach: the alias, and the check that a query's model is the collection's."""

from rag_core.errors import FingerprintMismatchError, PermanentError
from rag_core.index.admin import CollectionAdmin
from rag_core.index.schema import CollectionMeta


def point_alias(client: CollectionAdmin, alias: str, collection: str) -> str | None:
    """Point the alias at a collection, in one step for queries; done again without effect.

    Returns:
        The collection that the alias pointed at before, or None.

    Raises:
        PermanentError: There is no such collection.
    """
    if not client.has_collection(collection):
        raise PermanentError(
            f"alias {alias}: no collection {collection} on {client.address}; run the index stage first"
        )
    before = client.alias_target(alias)
    client.load(collection)
    client.set_alias(alias, collection)
    return before


def published_collection(client: CollectionAdmin, alias: str) -> str | None:
    """Return the collection that queries reach, or None if nothing is published."""
    return client.alias_target(alias)


def resolve(client: CollectionAdmin, target: str) -> str:
    """Return the collection of an alias, or of a collection's own name.

    Queries use the collection's name, so that model check, search and fetch all meet the same one while an alias moves.

    Raises:
        PermanentError: Nothing has that name.
    """
    collection = client.alias_target(target)
    if collection is not None:
        return collection
    if client.has_collection(target):
        return target
    raise PermanentError(f"nothing is published as {target!r} on {client.address}; run the pipeline first")


def check_model(collection: str, meta: CollectionMeta, model_fingerprint: str) -> None:
    """Refuse a query that was embedded by another model than the collection's rows.

    Raises:
        FingerprintMismatchError: Names both.
    """
    if meta.model_fingerprint != model_fingerprint:
        raise FingerprintMismatchError(
            f"the query is embedded by model {model_fingerprint}, collection {collection} holds vectors of "
            f"{meta.model_fingerprint}; publish an index of the configured model, or configure the index's model"
        )
