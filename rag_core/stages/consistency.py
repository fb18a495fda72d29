"""Which ledger a collection is compared with: of the published ones by their manifests, else what rag.yaml asks for.

And which partitions must not be mended from their tables, because the tables are what is wrong.
"""

import json
from collections.abc import Sequence

from rag_core.config import RagConfig
from rag_core.errors import ConfigError
from rag_core.generation import configured, index_of
from rag_core.index.ledger import LedgerTables
from rag_core.quality.gate import gate
from rag_core.quality.lanes import Lanes
from rag_core.stages.publication import latest_manifest, manifests
from rag_core.tables.store import Store


def ledger_tables(store: Store, config: RagConfig, collection: str = "") -> LedgerTables:
    """Open the ledger of a collection and the tables its rows come from.

    Args:
        store: Holds the tables.
        config: rag.yaml.
        collection: Its name; empty for the one that is served, and before anything is for the one to come.

    Returns:
        The newest versions. The model of a published collection need not be there any more.

    Raises:
        ConfigError: No such collection was published or is configured.
    """
    manifest = latest_manifest(store)
    wanted = collection or (manifest.collection if manifest is not None else "")
    published = next((one for one in manifests(store) if one.collection == wanted), None)
    if published is None:
        target = configured(config)
        if wanted in ("", target.collection):
            return LedgerTables.of_generation(store, target)
        known = sorted({target.collection, *(one.collection for one in manifests(store))})
        raise ConfigError(f"collection {wanted!r} was never published and is not configured; known: {', '.join(known)}")
    kept = json.loads(published.settings)
    return LedgerTables.open(
        store,
        published.collection,
        chunk_lane=kept["chunk_lane"],
        embedding_lane=kept["embedding_lane"],
        model_fingerprint=published.model_fingerprint,
        dim=published.dim,
        index=index_of(config.index, kept["index"]),
    )


def held_back(tables: LedgerTables, config: RagConfig, partition_keys: Sequence[str], *, run_id: str) -> dict[str, str]:
    """Return the partitions whose chunks or vectors fail a blocking test, and why: Milvus must not get their rows.

    Lanes that are kept for a rollback only are not tested: they take no changes, so they agree with nothing any more.

    Args:
        tables: Where the rows would be taken from.
        config: rag.yaml; names the user's own tests.
        partition_keys: Which partitions to look at.
        run_id: Kept with the results.
    """
    lanes, held = Lanes(tables.ledger.store, config), dict[str, str]()
    for one in (tables.chunks, tables.embeddings) if partition_keys else ():
        if lanes.generation(one.table, one.lane) is None:
            continue
        for key, reasons in gate(one.of(*partition_keys), config, run_id=run_id).held.items():
            held[key] = "; ".join([*([held[key]] if key in held else []), *reasons])
    return held
