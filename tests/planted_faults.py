"""Twenty faults, what plants each into the partition `HERE`, and the one test or check that must catch it.

Damage is done the way another program would do it: rows are written past every rule of the tables, and Milvus is
changed without its ledger. A fault is described so that nothing else is wrong; what cannot but fail with it is named.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rag_core import ids
from rag_core.index.client import IndexClient
from rag_core.index.publish import point_alias
from tests.fault_looks import Look, clustered_index, in_tables, in_tables_and_index, in_verdict, recall_at
from tests.fault_world import EVERYWHERE, HERE, Findings, World

Rows = list[dict[str, Any]]
Damage = Callable[[World, IndexClient | None], None]

BANNER = "This page uses cookies. By using it you agree to their use, as the notice about them says in more detail."
GERMAN = (
    "Die Reisekosten des Abschnitts {} werden nach der Rückkehr abgerechnet. Belege sind im Original beizufügen, und "
    "der Antrag ist innerhalb von vierzehn Tagen bei der zuständigen Stelle einzureichen."
)


@dataclass(frozen=True)
class Fault:
    """A planted fault.

    Attributes:
        name: What is wrong.
        place: Where it shows: a table, or `anti_entropy`.
        caught_by: The declared test, kind of difference or check that must catch it.
        damage: Plants it.
        rows: Rows that the test says are at fault; None where it looks at the partition as a whole.
        blocks: Whether the partition is held back from the stage behind.
        consequences: (place, partition) -> tests that fail with it, because what they say is not true any more.
        look: What is run to find it; all that is found must be expected.
        healthy: Looked at in the same damaged world, this must find nothing; None where there is nothing to compare.
    """

    name: str
    place: str
    caught_by: str
    damage: Damage
    rows: int | None = 1
    blocks: bool = True
    consequences: Mapping[tuple[str, str], set[str]] = field(default_factory=dict)
    look: Look = in_tables
    healthy: Look | None = None

    @property
    def partition(self) -> str:
        """Where the catching test says that the fault is."""
        return EVERYWHERE if self.place in ("published_index", "index_verdict") else HERE

    @property
    def expected(self) -> dict[tuple[str, str], set[str]]:
        """All that may be found, and must be."""
        found = {place: set(names) for place, names in self.consequences.items()}
        found.setdefault((self.place, self.partition), set()).add(self.caught_by)
        return found

    def caught_rows(self, found: Findings) -> int:
        """Rows that the catching test says are at fault."""
        return found[self.place, self.partition][self.caught_by]


def change(table: str, make: Callable[[Rows], Rows]) -> Damage:
    """Replace the partition's rows of a table."""
    return lambda world, _: world.put(table, make(world.rows(table)))


def setting(count: int, **values: Any) -> Callable[[Rows], Rows]:
    """Set columns of the first rows, to a value or to what a function of row and number says."""

    def changed(row: dict[str, Any], number: int) -> dict[str, Any]:
        return row | {name: value(row, number) if callable(value) else value for name, value in values.items()}

    return lambda rows: [changed(row, number) if number < count else row for number, row in enumerate(rows)]


def vector(make: Callable[[np.ndarray, int], np.ndarray]) -> Callable[[dict[str, Any], int], list[float]]:
    """Make a row's vector from the one it has, and its number."""
    return lambda row, number: make(np.asarray(row["vector"], np.float32), number).tolist()


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values)


def with_nan(values: np.ndarray, _: int) -> np.ndarray:
    return np.where(np.arange(len(values)) == 7, np.nan, values)


def of_another_model(values: np.ndarray, number: int) -> np.ndarray:
    return unit(np.random.default_rng(number).normal(size=len(values)))


def with_a_known_id(rows: Rows) -> Rows:
    """Add a chunk of its own place and text whose id another one has, as ids from a counter come to be."""
    added = rows[0] | {"ordinal": 1_000, "char_start": 1, "char_end": 2, "text": "Another passage."}
    return [*rows, added]


def add_banner(world: World, _: IndexClient | None) -> None:
    """Give half of the documents a further chunk with one and the same text, embedded and in the ledger."""
    text_hash, chunks = ids.text_hash(BANNER), world.rows("chunks")
    chosen = list({row["doc_id"]: row for row in chunks}.values())[: len(chunks) // 2]

    def named(row: dict[str, Any]) -> dict[str, Any]:
        chunk_id = ids.chunk_id(f"{HERE}/{row['doc_id']}", text_hash, 0)
        return row | {"chunk_id": chunk_id, "text_hash": text_hash, "row_hash": ids.digest("banner", row["doc_id"])}

    added = [named(row) | {"ordinal": 1_000, "text": BANNER, "char_end": row["char_start"] + 1} for row in chosen]
    world.put("chunks", [*chunks, *added])
    for table in ("embeddings", "index_partitions"):
        rows = world.rows(table)
        world.put(table, [*rows, *({**rows[0], **{n: row[n] for n in rows[0] if n in row}} for row in added)])


def shuffle_vectors(world: World, client: IndexClient | None) -> None:
    """Give every chunk the vector of another, in the table and in Milvus alike: ledger, hashes and counts agree."""
    assert client is not None
    rows = world.rows("embeddings")
    cycle = np.random.default_rng(1).permutation(len(rows))
    of = dict(zip(cycle.tolist(), np.roll(cycle, 1).tolist(), strict=True))  # one cycle: no chunk keeps its own
    world.put("embeddings", [row | {"vector": rows[of[number]]["vector"]} for number, row in enumerate(rows)])
    put_into_index(client, world, world.index_rows())


def put_into_index(client: IndexClient, world: World, rows: pa.Table) -> None:
    client.upsert(world.generation.collection, HERE, rows)
    client.flush(world.generation.collection)


def delete_from_index(world: World, client: IndexClient | None) -> None:
    assert client is not None
    client.delete(world.generation.collection, HERE, [row["chunk_id"] for row in world.rows("chunks")[:5]])


def add_to_index(world: World, client: IndexClient | None) -> None:
    assert client is not None
    rows = world.index_rows().slice(0, 3)
    turned = pc.multiply(pc.list_flatten(rows["vector"].combine_chunks()), pa.scalar(-1, pa.float32()))
    rows = replaced(rows, "chunk_id", [ids.digest("added", name) for name in rows["chunk_id"].to_pylist()])
    vectors = pa.FixedSizeListArray.from_arrays(turned, world.generation.spec.dim)
    put_into_index(client, world, replaced(rows, "vector", vectors))


def make_stale(world: World, client: IndexClient | None) -> None:
    """Write a row as it was before its document got another title."""
    assert client is not None
    row = world.index_rows().slice(10, 1)
    put_into_index(client, world, replaced(replaced(row, "title", ["Before"]), "row_hash", [ids.digest("before")]))


def point_elsewhere(world: World, client: IndexClient | None) -> None:
    assert client is not None
    spec = world.generation.spec
    client.ensure_collection("elsewhere", dim=spec.dim, model_fingerprint=spec.fingerprint)
    point_alias(client, world.config.index.alias, "elsewhere")


def replaced(rows: pa.Table, name: str, values: Sequence[Any] | pa.Array) -> pa.Table:
    array = values if isinstance(values, pa.Array) else pa.array(values, rows.schema.field(name).type)
    return rows.set_column(rows.schema.get_field_index(name), name, array)


_REJECTED = {"status": "rejected", "reason": "damaged file", "text": "", "language": None}
_IN_GERMAN = {"language": "de", "text": lambda _, number: GERMAN.format(number)}
_UNCHUNKED = {("embeddings", HERE): {"relationships__chunk_id", "relationships__text_hash"},
              ("index_partitions", HERE): {"relationships__row_hash"},
              ("chunks", HERE): {"documents_have_chunks"}}  # fmt: skip
_UNEMBEDDED = {("embeddings", HERE): {"chunks_have_vectors"},
               ("index_partitions", HERE): {"relationships__chunk_id", "relationships__text_hash"}}  # fmt: skip
_LOSES = {("retrieval_eval", HERE): {"ndcg_at_10"}}
_LOW_UNDER_FILTERS = {("index_verdict", EVERYWHERE): {"ann_recall_filtered"}}

FAULTS: Sequence[Fault] = (
    Fault("null text", "chunks", "not_null__text", change("chunks", setting(1, text=None))),
    Fault("duplicate chunk id", "chunks", "unique__chunk_id", change("chunks", with_a_known_id), rows=2),
    Fault("orphaned chunk", "chunks", "relationships__doc_id", change("documents", lambda rows: rows[1:])),
    Fault("wrong dimension", "embeddings", "vector_dim__vector",
          change("embeddings", setting(3, vector=vector(lambda values, _: unit(values[:-1])))), rows=3),
    Fault("NaN", "embeddings", "no_nan__vector", change("embeddings", setting(2, vector=vector(with_nan))), rows=2),
    Fault("zero vector", "embeddings", "unit_norm__vector",
          change("embeddings", setting(1, vector=vector(lambda values, _: values * 0)))),
    Fault("unnormalised vector", "embeddings", "unit_norm__vector",
          change("embeddings", setting(30, vector=vector(lambda values, _: values * 3))), rows=30),
    Fault("collapsed embeddings", "embeddings", "not_collapsed__vector",
          change("embeddings", lambda rows: setting(30, vector=rows[0]["vector"])(rows)), rows=30),
    Fault("a model mixed in", "embeddings", "constant__model_fingerprint",
          change("embeddings", setting(10, vector=vector(of_another_model), model_fingerprint="other")), rows=10),
    Fault("a truncated table", "chunks", "row_count", change("chunks", lambda rows: []), rows=None,
          consequences=_UNCHUNKED),
    Fault("half the rows gone", "embeddings", "row_count",
          change("embeddings", lambda rows: rows[: (len(rows) + 1) // 2]), rows=None, consequences=_UNEMBEDDED),
    Fault("a reject rate that jumps", "documents", "reject_rate", change("documents", setting(30, **_REJECTED)),
          rows=None),
    Fault("boilerplate", "chunks", "boilerplate__text_hash", add_banner, rows=None, blocks=False),
    Fault("a language change", "documents", "language__language", change("documents", setting(50, **_IN_GERMAN)),
          rows=None, blocks=False),
    Fault("rows deleted in Milvus behind the ledger", "anti_entropy", "missing", delete_from_index, rows=5,
          look=in_tables_and_index),
    Fault("rows added behind it", "anti_entropy", "orphaned", add_to_index, rows=3, look=in_tables_and_index),
    Fault("a stale row", "anti_entropy", "stale", make_stale, look=in_tables_and_index),
    Fault("a wrong alias", "published_index", "alias_is_right", point_elsewhere, look=in_tables_and_index),
    Fault("an index with ef too low", "index_verdict", "ann_recall", clustered_index, rows=None,
          look=recall_at(ef=1), consequences=_LOW_UNDER_FILTERS, healthy=recall_at(ef=1_024)),
    Fault("a shuffled vector-to-text mapping", "index_verdict", "no_relevance_regression", shuffle_vectors,
          rows=None, look=in_verdict, consequences=_LOSES),
)  # fmt: skip
