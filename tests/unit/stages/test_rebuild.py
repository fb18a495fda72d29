"""The guard: what a changed setting embeds anew counts, what changed by itself does not."""

from pathlib import Path

import pytest

from rag_core.generation import Generation, configured
from rag_core.stages.embeddings import EmbeddingPlan, plan_embeddings
from rag_core.stages.plan import make_plan
from rag_core.stages.publication import Generations, generations
from rag_core.stages.rebuild import reembedded_share, refusal
from rag_core.tables.delta import TableSlice
from rag_core.tables.store import Store
from tests.unit.stages.generation_rows import KEY, chunks, config_of, documents, ledger, publish_row, put, vectors

NAMES = [f"doc{n}" for n in range(10)]


class Two:
    """A served generation with ten documents, and a target with another model and the same chunks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        base = {"chunking": {"max_tokens": 100}}
        self.config = config_of(folder, **base, embedding={"max_tokens": 128})
        self.store = Store.of(self.config.store)
        self.old, self.new = configured(config_of(folder, **base)), configured(self.config)
        publish_row(self.store, self.old.collection, self.old.settings, number=0)
        self.add(NAMES)
        self.fill(self.old, NAMES)

    @property
    def known(self) -> Generations:
        return generations(self.store, self.config)

    def add(self, names: list[str]) -> None:
        put(self.store, "documents", documents(names))
        put(self.store, "chunks", chunks(names), self.old.chunk_lane)

    def fill(self, generation: Generation, names: list[str], *, indexed: bool = True) -> None:
        put(self.store, "embeddings", vectors(generation, names), generation.embedding_lane)
        if indexed:
            put(self.store, "index_partitions", ledger(generation, names), generation.collection)

    def plan(self) -> EmbeddingPlan:
        tables = [TableSlice.newest(self.store, name, [KEY]) for name in ("chunks", "embeddings")]
        return plan_embeddings(*tables, self.new, run_id="r")


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path)


def test_all_of_it_is_refused_with_what_to_do(two: Two) -> None:
    assert reembedded_share(two.plan(), two.known) == 1.0
    said = refusal(two.plan(), two.known)
    for part in (
        "embedding.max_tokens null -> 128",
        "100%",
        "allows 50%",
        KEY,
        two.old.collection,
        "rag run --rebuild",
    ):
        assert part in said


@pytest.mark.parametrize(("built", "share"), [(0, 1.0), (3, 0.7), (5, 0.5), (10, 0.0)])
def test_share_falls_while_the_rebuilding_goes_on(two: Two, built: int, share: float) -> None:
    if built:
        two.fill(two.new, NAMES[:built])
    assert reembedded_share(two.plan(), two.known) == pytest.approx(share)
    assert bool(refusal(two.plan(), two.known)) is (share > 0.5)


def test_new_documents_are_no_rebuilding(two: Two) -> None:
    two.fill(two.new, NAMES)
    two.add(["newcomer"])
    two.fill(two.old, ["newcomer"], indexed=False)  # the served generation is embedded first in a run
    plan = two.plan()
    assert plan.missing == 1
    assert reembedded_share(plan, two.known) == 0.0


def test_a_changed_document_that_is_built_is_no_rebuilding(two: Two) -> None:
    put(two.store, "embeddings", vectors(two.new, NAMES[:9]), two.new.embedding_lane)
    put(two.store, "embeddings", vectors(two.new, NAMES[9:], edition="0"), two.new.embedding_lane)
    plan = two.plan()
    assert plan.missing == 1
    assert reembedded_share(plan, two.known) == 0.0


def test_first_index_and_shared_vectors_are_never_refused(two: Two) -> None:
    assert reembedded_share(two.plan(), Generations(two.new)) == 0.0
    graph = configured(config_of(two.folder, chunking={"max_tokens": 100}, index={"index_type": "HNSW"}))
    assert graph.embedding_lane == two.old.embedding_lane
    assert refusal(two.plan(), Generations(graph, served=two.old)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("built", [0, 3, 10])
def test_plan_foresees_the_guard_and_counts(two: Two, built: int) -> None:
    put(two.store, "documents", documents(["blank"], text=" "))  # is never cut, and must not look like work
    if built:
        two.fill(two.new, NAMES[:built])
    made = make_plan(two.store, two.config, listing=False)
    old, new = made.indexes
    assert (old.served, new.served) == (True, False)
    assert made.changed_settings == ["embedding.max_tokens null -> 128"]
    assert new.reembed_share == pytest.approx(reembedded_share(two.plan(), two.known))
    assert made.refused is bool(refusal(two.plan(), two.known))
