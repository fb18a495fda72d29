"""One published collection, with all that a question to it needs."""

import json
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rag_core.config import RagConfig
from rag_core.embedding.model import resolve_model
from rag_core.errors import ConfigError, FingerprintMismatchError
from rag_core.evaluation.sweep import Sweep
from rag_core.generation import restored
from rag_core.index.bm25 import TermStatistics
from rag_core.retrieval.effort import Curve
from rag_core.stages import term_statistics
from rag_core.stages.publication import Manifest
from rag_core.stages.verdict import newest_verdict
from rag_core.tables.store import Store

if TYPE_CHECKING:
    from rag_core.embedding.encoder import Encoder


class ServedIndex:
    """A published collection, its model and its term statistics; it never changes, another takes its place.

    Raises:
        ConfigError: The model that it was built with is not there any more.
        FingerprintMismatchError: It is there, but its files are others now.
    """

    def __init__(self, config: RagConfig, manifest: Manifest, store: Store) -> None:
        self.manifest = manifest
        self.search_params: dict[str, Any] = json.loads(manifest.search_params)
        self._config = _settings_of(config, manifest)
        self._store = store

    @property
    def collection(self) -> str:
        """Its name in Milvus."""
        return self.manifest.collection

    @property
    def model_fingerprint(self) -> str:
        """Of the model that questions to it are embedded by."""
        return self.manifest.model_fingerprint

    @property
    def has_words(self) -> bool:
        """Whether it can be searched by words."""
        return bool(json.loads(self.manifest.settings)["index"].get("lexical", True))

    @cached_property
    def encoder(self) -> "Encoder":
        """The embedding model, loaded when a dense question first needs it."""
        from rag_core.embedding.encoder import make_encoder

        return make_encoder(self._config.embedding)

    def curve(self) -> Curve | None:
        """Read what was measured of the dense index's parameter before the publication; None: there is none."""
        verdict = newest_verdict(self._store, self.collection)
        measured = verdict.measures.get("ann") if verdict is not None else None
        found = Sweep.from_dict(measured) if measured else None
        if found is None or found.parameter is None or not found.points:
            return None
        evaluation = self._config.evaluation
        good = tuple(one.value for one in found.points if one.margin(evaluation) >= 0)
        return Curve(found.parameter, tuple(one.value for one in found.points), good)

    @cached_property
    def statistics(self) -> TermStatistics:
        """How rare terms are, as of the publication."""
        version = json.loads(self.manifest.table_versions)[term_statistics.TABLE]
        return term_statistics.load(self._store, version, self.manifest.chunk_lane)


def _settings_of(config: RagConfig, manifest: Manifest) -> RagConfig:
    """Return the configuration with the model of what is served, while rag.yaml asks for one that is not built yet."""
    with suppress(ConfigError):  # a model that rag.yaml asks for and that is not there is no reason not to search
        if resolve_model(config.embedding).fingerprint == manifest.model_fingerprint:
            return config
    served = restored(config, manifest.collection, manifest.settings)
    if served.spec.fingerprint != manifest.model_fingerprint:
        raise FingerprintMismatchError(
            f"the index {manifest.collection} was built with {manifest.model} ({manifest.model_fingerprint[:12]}), but "
            f"{served.spec.name} is another model now ({served.spec.fingerprint[:12]}); queries must be embedded by "
            f"the same model: restore its files, or build and publish an index for the new one (rag run)"
        )
    return served.config
