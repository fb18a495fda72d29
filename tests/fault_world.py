"""One good, published store that planted faults are planted into copies of, and all that is looked at to find them."""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from rag_core.config import RagConfig, StoreConfig
from rag_core.generation import Generation, configured
from rag_core.index import lite_server, schema
from rag_core.index.anti_entropy import alias_finding, partitions_of, verify
from rag_core.index.client import IndexClient, connect
from rag_core.index.joined import joined_rows
from rag_core.index.ledger import LedgerTables
from rag_core.partitions import all_partition_keys
from rag_core.quality.gate import Gate, gate
from rag_core.quality.results import Result
from rag_core.quality.running import file_digests, run_tests
from rag_core.stages.publication import STAGE_TABLES, generations, latest_manifest
from rag_core.stages.verdict import Verdict
from rag_core.tables.delta import LANES, TableSlice
from rag_core.tables.store import Store
from tests.conftest import REPO
from tests.unit.quality import tables as raw

HERE = "notes__01"
BESIDE = ("notes__00", "notes__02")
EVERYWHERE = "*"

Findings = dict[tuple[str, str], dict[str, int]]
"""(Table, or `anti_entropy`; partition) -> name of the failed test, check or kind -> failing rows."""


def passages() -> list[str]:
    """Some 250 different passages of English prose from the example corpus, without personal data."""
    found: dict[str, None] = {}
    for path in sorted((REPO / "examples" / "corpus").rglob("*")):
        if path.suffix in {".md", ".txt"}:
            for part in re.split(r"\n\s*\n|\n(?=[*-] )|\n(?=#)", path.read_text(encoding="utf-8")):
                text = " ".join(part.split())
                if 60 <= len(text) <= 900 and not text.startswith("|") and not re.search(r"@|\d{3}.?\d{4}", text):
                    found[text] = None
    return list(found)


def write_records(path: Path, texts: Mapping[str, str], *, append: bool = False) -> None:
    """Write documents as JSON Lines."""
    lines = [orjson.dumps({"_id": name, "text": text}).decode() + "\n" for name, text in texts.items()]
    with path.open("a" if append else "w", encoding="utf-8") as file:
        file.writelines(lines)


@dataclass(frozen=True)
class World:
    """A store with its Milvus; the documents' partition `HERE` is what is damaged, those `BESIDE` are not."""

    config: RagConfig
    generation: Generation

    @classmethod
    def of(cls, config: RagConfig) -> "World":
        return cls(config, configured(config))

    @property
    def store(self) -> Store:
        return Store.of(self.config.store)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(all_partition_keys(self.config))

    def copy(self, root: Path) -> "World":
        """Copy tables and Milvus, whose server must not be running."""
        for name in ("tables", "milvus"):
            shutil.copytree(Path(self.store.root) / name, root / name)
        config = self.config.model_copy(update={"store": StoreConfig(root=str(root))})
        return World(config, self.generation)

    def remove(self) -> None:
        lite_server.stop(lite_server.lite_files(self.store))
        shutil.rmtree(self.store.root, ignore_errors=True)

    @contextmanager
    def client(self) -> Iterator[IndexClient]:
        with connect(self.config.index, self.store) as connected:
            yield connected

    def slice(self, table: str) -> TableSlice:
        generation = self.generation
        lanes = {
            "chunks": generation.chunk_lane,
            "embeddings": generation.embedding_lane,
            "index_partitions": generation.collection,
        }
        return TableSlice.newest(self.store, table, self.keys, lane=lanes.get(table))

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Read the rows of `HERE` sorted by key, damaged ones as they are."""
        one = self.slice(table)
        where = pc.field("partition_key") == HERE
        if one.lane is not None:
            where &= pc.field(LANES[table]) == one.lane
        rows = one.open().to_pyarrow_dataset().to_table(filter=where).to_pylist()
        return sorted(rows, key=lambda row: str(row["doc_id" if table == "documents" else "chunk_id"]))

    def put(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Replace the rows of `HERE`, as a program would that knows nothing of the rules."""
        lane = self.slice(table).lane or ""
        if rows:
            raw.write(self.store, table, rows, lane=lane)
        else:
            raw.clear(self.store, table, HERE, lane=lane)

    def index_rows(self) -> pa.Table:
        """The rows of `HERE` as Milvus takes them, joined from the tables."""
        chunks, embeddings = self.slice("chunks").of(HERE), self.slice("embeddings").of(HERE)
        rows = list(joined_rows(chunks, embeddings, chunks.read(["chunk_id"])["chunk_id"]))
        return pa.Table.from_batches(rows).sort_by("chunk_id")

    def test(self, *, force: bool = False) -> list[Result]:
        """Run the declared tests of all tables and partitions, as the gates and `rag test` do."""
        slices = [self.slice(table) for table in STAGE_TABLES]
        return [found for one in slices for found in run_tests(one, self.config, run_id="test", force=force)]

    def gate(self, table: str) -> Gate:
        """Ask what may go on to the stage behind."""
        return gate(self.slice(table), self.config, run_id="gate")

    def judge(self, client: IndexClient) -> Verdict:
        from rag_core.stages.judging import judge

        return judge(self.store, generations(self.store, self.config), client, run_id="judge")

    def files_beside(self) -> dict[tuple[str, str], str]:
        """Digest the files that hold the rows of the partitions beside."""
        digests = {table: file_digests(self.slice(table)) for table in STAGE_TABLES}
        return {(table, key): digests[table][key] for table in STAGE_TABLES for key in BESIDE}

    def index_beside(self, client: IndexClient) -> dict[str, dict[str, Any]]:
        """Every field of every row that Milvus holds of the partitions beside, vectors included."""
        fields = [*schema.FIELDS, schema.DENSE]
        collection = self.generation.collection
        return {row["chunk_id"]: row for key in BESIDE for row in client.list_rows(collection, key, fields)}


def failed_tests(results: Sequence[Result]) -> Findings:
    """Sum up the declared tests that do not pass."""
    found: Findings = {}
    for result in results:
        if result.outcome != "pass":
            assert not result.could_not_be_tested, result.threshold
            found.setdefault((result.table, result.partition_key), {})[result.test] = result.failing_rows
    return found


def index_findings(world: World, client: IndexClient) -> Findings:
    """Compare every partition of Milvus with its ledger, and the alias with the manifest."""
    tables = LedgerTables.of_generation(world.store, world.generation)
    found: Findings = {}
    for state in verify(client, tables, partitions_of(client, tables, world.keys)):
        if not state.is_clean:
            found["anti_entropy", state.partition_key] = {kind: count for kind, count in state.counts.items() if count}
    manifest = latest_manifest(world.store)
    assert manifest is not None
    if alias_finding(client, manifest) is not None:
        found["published_index", EVERYWHERE] = {"alias_is_right": 1}
    return found
